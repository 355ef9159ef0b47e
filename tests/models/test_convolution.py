import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from sgdscope.models.convolution import convolution

# (size of the kernel, stride, height and width): all that the networks use, and sides that a stride does not divide.
CASES = [(3, 1, (6, 6)), (3, 2, (6, 6)), (1, 1, (6, 6)), (1, 2, (6, 6)), (3, 2, (7, 6)), (1, 2, (5, 7))]


quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def by_hand(x, kernel, stride):
    """The sum in the docstring, pixel by pixel in float64."""
    k, pad = len(kernel), len(kernel) // 2
    padded = np.pad(x.astype(np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows, columns = ((side + 2 * pad - k) // stride + 1 for side in x.shape[1:3])
    y = np.zeros((len(x), rows, columns, kernel.shape[3]))
    for i in range(rows):
        for j in range(columns):
            seen = padded[:, stride * i : stride * i + k, stride * j : stride * j + k]
            y[:, i, j] = np.tensordot(seen, kernel.astype(np.float64), 3)
    return y


def of_jax(x, kernel, stride):
    pad = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def arrays(size, stride, sides, dtype=np.float32, n=2):
    rng = np.random.default_rng(size + 10 * stride)
    x, kernel = rng.normal(size=(n, *sides, 3)), rng.normal(size=(size, size, 3, 4))
    dy = rng.normal(size=by_hand(x, kernel, stride).shape)
    return tuple(jnp.asarray(a, dtype) for a in (x, kernel, dy))


def pullback(function, x, kernel, dy, stride):
    return jax.vjp(lambda x, kernel: function(x, kernel, stride), x, kernel)[1](dy)


@pytest.mark.parametrize(("size", "stride", "sides"), CASES)
def test_it_is_the_sum_it_says(size, stride, sides):
    x, kernel, _ = arrays(size, stride, sides)
    expected = by_hand(np.asarray(x), np.asarray(kernel), stride)
    np.testing.assert_allclose(convolution(x, kernel, stride), expected, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("size", "stride", "sides"), CASES)
def test_its_gradient_is_jaxs(size, stride, sides, dtype):
    with jax.enable_x64(dtype is np.float64):
        x, kernel, dy = arrays(size, stride, sides, dtype)
        ours, theirs = (
            quick_jit(pullback, static_argnums=(0, 4))(f, x, kernel, dy, stride) for f in (convolution, of_jax)
        )
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == dtype
            np.testing.assert_allclose(a, b, atol=1e-4 if dtype is np.float32 else 1e-12)


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (1, 2)])
def test_its_gradient_is_the_difference_quotient_of_the_sum(size, stride):
    """The sum is bilinear, so a central difference is exact but for rounding."""
    with jax.enable_x64(True):
        x, kernel, dy = arrays(size, stride, (5, 6), np.float64)
        gradient = quick_jit(pullback, static_argnums=(0, 4))(convolution, x, kernel, dy, stride)
        rng = np.random.default_rng(0)
        for which, value in enumerate((x, kernel)):
            direction = rng.normal(size=value.shape)
            ends = []
            for sign in (1, -1):
                moved = [np.asarray(x), np.asarray(kernel)]
                moved[which] = moved[which] + sign * direction
                ends.append((by_hand(*moved, stride) * np.asarray(dy)).sum())
            np.testing.assert_allclose((gradient[which] * direction).sum(), (ends[0] - ends[1]) / 2, rtol=1e-10)


@pytest.mark.parametrize("over", ["vmap", "map", "while_loop", "shard_map"])
def test_it_is_the_same_under_every_transformation(over):
    """Each of four pairs of pictures with a kernel of its own, against one after the other."""
    x, kernel, dy = (jnp.stack([leaf * (i + 1) for i in range(4)]) for leaf in arrays(3, 2, (6, 6)))
    one = functools.partial(pullback, convolution, stride=2)
    expected = [quick_jit(one)(*arguments) for arguments in zip(x, kernel, dy, strict=True)]

    def looped(x, kernel, dy):
        def body(carry):
            i, dx, dkernel = carry
            a, b = one(x[i], kernel[i], dy[i])
            return i + 1, dx.at[i].set(a), dkernel.at[i].set(b)

        return lax.while_loop(lambda c: c[0] < 4, body, (0, jnp.zeros_like(x), jnp.zeros_like(kernel)))[1:]

    mapped = lambda x, kernel, dy: lax.map(lambda a: one(*a), (x, kernel, dy))
    trial = PartitionSpec("trial")
    mesh = jax.make_mesh((2,), ("trial",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    functions = {
        "vmap": jax.vmap(one),
        "map": mapped,
        "while_loop": looped,
        "shard_map": jax.shard_map(mapped, mesh=mesh, in_specs=trial, out_specs=trial),
    }
    for which, value in enumerate(quick_jit(functions[over])(x, kernel, dy)):
        np.testing.assert_allclose(value, jnp.stack([pair[which] for pair in expected]), rtol=1e-4, atol=1e-3)


def test_the_cpu_gets_no_transposed_convolution():
    """What makes JAX's own gradient slow in loops is a convolution in another layout than the forward pass."""
    x, kernel, dy = arrays(3, 1, (6, 6))

    def layouts(function):
        text = jax.jit(pullback, static_argnums=(0, 4)).lower(function, x, kernel, dy, 1).as_text()
        return {
            line.split("dim_numbers = ")[1].split(", window")[0] for line in text.splitlines() if "dim_numbers" in line
        }

    forward = "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"
    assert layouts(convolution) == {forward}
    assert layouts(of_jax) != {forward}
