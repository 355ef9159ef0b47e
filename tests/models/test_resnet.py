import functools

import jax
import numpy as np
import pytest

from sgdscope.errors import InputError
from sgdscope.models.normalization import ghost_batch_norm, running_norm
from sgdscope.models.resnet import RESNET_50, channels_of_blocks, resnet, resnet_init, resnet_state

KEY = jax.random.key(0)
BLOCKS, WIDTH, CLASSES = (1, 2), 2, 5
STRIDES = [stride for *_, stride in channels_of_blocks(BLOCKS, WIDTH)]
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def random_like(tree, seed=0):
    """Values that hide nothing: no scale is 0 or 1, no shift 0, and variances are positive."""
    rng = np.random.default_rng(seed)

    def value(path, leaf):
        if path[-1].key in ("scale", "variance"):
            return rng.uniform(0.5, 1.5, leaf.shape)
        return rng.normal(size=leaf.shape) * (0.5 if leaf.ndim < 2 else np.sqrt(2 / np.prod(leaf.shape[:-1])))

    return jax.tree_util.tree_map_with_path(value, tree)


# ── A second implementation: numpy in float64, one sum over a window a pixel ──────────────────────────────


def windows(x, size, stride, fill):
    """(n, rows, columns, size, size, c) of x with ``size // 2`` of ``fill`` around it."""
    pad = size // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=fill)
    seen = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))[:, ::stride, ::stride]
    return np.moveaxis(seen, 3, -1)


def np_convolution(x, kernel, stride=1):
    return np.einsum("nijabc,abco->nijo", windows(x, len(kernel), stride, 0.0), kernel)


def np_norm(norm, running, x):
    return (x - running["mean"]) / np.sqrt(running["variance"] + 1e-5) * norm["scale"] + norm["shift"]


def np_resnet(parameters, state, x):
    relu = lambda x: np.maximum(x, 0)
    x = relu(np_norm(parameters["norm"], state["norm"], np_convolution(x, parameters["stem"], 2)))
    x = windows(x, 3, 2, -np.inf).max(axis=(3, 4))
    for name, stride in (("first", 1), ("second", 2), ("third", 1)):
        place = ("first", "second", "third").index(name)
        p, s = parameters["blocks"][place], state["blocks"][place]
        y = relu(np_norm(p["norm1"], s["norm1"], np_convolution(x, p["conv1"])))
        y = relu(np_norm(p["norm2"], s["norm2"], np_convolution(y, p["conv2"], stride)))
        y = np_norm(p["norm3"], s["norm3"], np_convolution(y, p["conv3"]))
        if name != "third":
            x = np_norm(p["shortcut_norm"], s["shortcut_norm"], np_convolution(x, p["shortcut"], stride))
        x = relu(x + y)
    return x.mean(axis=(1, 2)) @ parameters["head"]["weight"] + parameters["head"]["bias"]


@functools.cache
def drawn():
    shapes = jax.eval_shape(lambda key: resnet_init(key, BLOCKS, WIDTH, CLASSES), KEY)
    x = np.random.default_rng(1).normal(size=(4, 20, 20, 3))
    return random_like(shapes), random_like(resnet_state(BLOCKS, WIDTH), seed=2), x


def test_it_is_the_network_of_the_papers():
    parameters, state, x = drawn()
    with jax.enable_x64(True):
        outputs, left = quick_jit(lambda *of: resnet(*of, STRIDES, running_norm))(parameters, state, x)
    np.testing.assert_allclose(outputs, np_resnet(parameters, state, x), rtol=1e-9, atol=1e-9)
    jax.tree.map(np.testing.assert_array_equal, left, state)


def test_its_gradient_is_that_of_differences():
    parameters, state, x = drawn()
    direction = np.random.default_rng(3).normal(size=(4, CLASSES))
    way = random_like(jax.tree.map(np.zeros_like, parameters), seed=4)
    normalize = functools.partial(ghost_batch_norm, ghost_batch_size=2)

    with jax.enable_x64(True):

        @quick_jit
        def value_and_slope(parameters):
            of = lambda p: (resnet(p, state, x, STRIDES, normalize)[0] * direction).sum()
            value, gradient = jax.value_and_grad(of)(parameters)
            return value, sum(jax.tree.leaves(jax.tree.map(lambda g, w: (g * w).sum(), gradient, way)))

        h = 1e-6
        up, down = (
            float(value_and_slope(jax.tree.map(lambda p, w, step=step: p + step * w, parameters, way))[0])
            for step in (h, -h)
        )
        slope = float(value_and_slope(parameters)[1])
    np.testing.assert_allclose((up - down) / (2 * h), slope, rtol=1e-5)


def test_running_statistics_take_up_every_normalization():
    parameters, state, x = drawn()
    normalize = functools.partial(ghost_batch_norm, ghost_batch_size=2)
    with jax.enable_x64(True):
        _, left = quick_jit(lambda *of: resnet(*of, STRIDES, normalize))(parameters, state, x)
    assert jax.tree.structure(left) == jax.tree.structure(state)
    moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != b).all()), left, state)
    assert all(jax.tree.leaves(moved))


# ── The initialization, and the shapes of ResNet-50 ──────────────────────────────────────────────────────


def test_at_first_a_block_is_its_shortcut_and_kernels_have_hes_variance():
    parameters = quick_jit(lambda key: resnet_init(key, (1, 1), 16, 500))(KEY)
    for block in parameters["blocks"]:
        assert not block["norm3"]["scale"].any()
        for name in ("norm1", "norm2", "shortcut_norm"):
            assert (block[name]["scale"] == 1).all()
        for name in ("conv1", "conv2", "conv3", "shortcut"):
            kernel = np.asarray(block[name])
            spread = kernel.std() / np.sqrt(2 / np.prod(kernel.shape[:3]))
            assert abs(spread - 1) < 4 / np.sqrt(2 * kernel.size)
    head = np.asarray(parameters["head"]["weight"])
    assert abs(head.std() / 0.01 - 1) < 4 / np.sqrt(2 * head.size)
    assert not parameters["head"]["bias"].any()


def test_resnet_50_has_the_published_shapes():
    shapes = jax.eval_shape(lambda key: resnet_init(key, RESNET_50, 64, 1000), KEY)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 25_557_032
    state = jax.eval_shape(lambda: resnet_state(RESNET_50, 64))
    # torchvision's has as many running means and variances, beside a count of batches for each of 53 layers.
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 53_120
    strides = [stride for *_, stride in channels_of_blocks(RESNET_50, 64)]
    x = jax.ShapeDtypeStruct((2, 224, 224, 3), np.float32)
    outputs, _ = jax.eval_shape(lambda *of: resnet(*of, strides, running_norm), shapes, state, x)
    assert outputs.shape == (2, 1000)
    assert [place for place, stride in enumerate(strides) if stride == 2] == [3, 7, 13]


@pytest.mark.parametrize(("blocks", "width", "said"), [((), 64, "blocks"), ((1, 0), 64, "blocks"), ((1,), 0, "width")])
def test_what_no_network_has_is_refused_in_a_sentence(blocks, width, said):
    with pytest.raises(InputError, match=rf"{said} must be .*\.$"):
        channels_of_blocks(blocks, width)
