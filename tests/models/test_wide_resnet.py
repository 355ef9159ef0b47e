import functools

import jax
import numpy as np
import pytest

from sgdscope.errors import InputError
from sgdscope.models.normalization import ghost_batch_norm, running_norm
from sgdscope.models.wide_resnet import (
    channels_of_blocks,
    kernel_init,
    skipinit,
    skipinit_init,
    wide_resnet,
    wide_resnet_init,
    wide_resnet_state,
)

KEY = jax.random.key(0)
GHOST = 2
# Compiling is nearly all that these tests do.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def sizes(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def random_like(tree, seed=0):
    """Values that hide nothing: no scale is 1, no shift and no scalar 0, and variances are positive."""
    rng = np.random.default_rng(seed)

    def value(path, leaf):
        if path[-1].key in ("scale", "variance"):
            return rng.uniform(0.5, 1.5, leaf.shape)
        return rng.normal(size=leaf.shape) * (0.5 if leaf.ndim < 2 else np.sqrt(2 / np.prod(leaf.shape[:-1])))

    return jax.tree_util.tree_map_with_path(value, tree)


@functools.cache
def small():
    """WRN-10-1 in float64: its first block has no shortcut, the others have one."""
    rng = np.random.default_rng(1)
    shapes = lambda init: jax.eval_shape(functools.partial(init, depth=10, width=1, classes=10), KEY)
    return {
        "x": rng.normal(size=(4, 8, 8, 3)),  # the networks take any side that 4 divides
        "direction": rng.normal(size=(4, 10)),
        "normal": random_like(shapes(wide_resnet_init)),
        "state": random_like(wide_resnet_state(10, 1), seed=2),
        "skipinit": random_like(shapes(skipinit_init)),
    }


# ── A second implementation, plain numpy in float64, one stage after the other by name ────────────────────


def np_convolution(x, kernel, stride=1):
    pad = len(kernel) // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows, columns = ((side - 1) // stride + 1 for side in x.shape[1:3])
    y = np.zeros((len(x), rows, columns, kernel.shape[3]))
    for a in range(len(kernel)):
        for b in range(len(kernel)):
            y += (
                padded[:, a : a + stride * rows : stride, b : b + stride * columns : stride][:, :rows, :columns]
                @ kernel[a, b]
            )
    return y


def np_relu(x):
    return np.where(x > 0, x, 0)


def np_batch_norm(norm, x):
    out = np.empty_like(x)
    for start in range(0, len(x), GHOST):
        ghost = x[start : start + GHOST]
        deviation = np.sqrt(ghost.var(axis=(0, 1, 2)) + 1e-5)
        out[start : start + GHOST] = (ghost - ghost.mean(axis=(0, 1, 2))) / deviation * norm["scale"] + norm["shift"]
    return out


def np_running_norm(norm, running, x):
    return (x - running["mean"]) / np.sqrt(running["variance"] + 1e-5) * norm["scale"] + norm["shift"]


def np_wide_resnet(p, x, state=None):
    """Depth 10: one block in each of three stages. Without a state as in training."""
    norm = (lambda norm, running, x: np_batch_norm(norm, x)) if state is None else np_running_norm
    s = state or {"blocks": [{"norm1": None, "norm2": None}] * 3, "norm": None}
    x = np_convolution(x, p["stem"])
    for block, running, stride in zip(p["blocks"], s["blocks"], (1, 2, 2), strict=True):
        o = np_relu(norm(block["norm1"], running["norm1"], x))
        z = np_relu(norm(block["norm2"], running["norm2"], np_convolution(o, block["conv1"], stride)))
        z = np_convolution(z, block["conv2"])
        same = x.shape == z.shape
        assert same == ("shortcut" not in block)
        x = z + (x if same else np_convolution(o, block["shortcut"], stride))
    x = np_relu(norm(p["norm"], s["norm"], x)).mean(axis=(1, 2))
    return x @ p["head"]["weight"] + p["head"]["bias"]


def np_skipinit(p, x):
    conv = lambda layer, x, stride=1: np_convolution(x, layer["weight"], stride) + layer["bias"]
    x = conv(p["stem"], x)
    for block, stride in zip(p["blocks"], (1, 2, 2), strict=True):
        o = np_relu(x)
        z = conv(block["conv2"], np_relu(conv(block["conv1"], o, stride))) * block["scalar"]
        x = z + (x if x.shape == z.shape else conv(block["shortcut"], o, stride))
    return np_relu(x).mean(axis=(1, 2)) @ p["head"]["weight"] + p["head"]["bias"]


train_norm = functools.partial(ghost_batch_norm, ghost_batch_size=GHOST)


def test_it_is_the_numpy_network_in_training_evaluation_and_gradient():
    case = small()
    parameters, state, x = case["normal"], case["state"], case["x"]
    with jax.enable_x64(True):

        @quick_jit
        def everything(parameters, state, x):
            outputs, back, left = jax.vjp(lambda p: wide_resnet(p, state, x, train_norm), parameters, has_aux=True)
            return outputs, wide_resnet(parameters, state, x, running_norm)[0], back(case["direction"])[0], left

        trained, evaluated, gradient, left = everything(parameters, state, x)
    np.testing.assert_allclose(trained, np_wide_resnet(parameters, x), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(evaluated, np_wide_resnet(parameters, x, state), rtol=1e-9, atol=1e-9)
    assert jax.tree.structure(left) == jax.tree.structure(state)
    assert_slope(lambda p: (np_wide_resnet(p, x) * case["direction"]).sum(), parameters, gradient)


def test_skipinit_is_the_numpy_network_and_gradient():
    case = small()
    parameters, x = case["skipinit"], case["x"]
    with jax.enable_x64(True):

        @quick_jit
        def everything(parameters, x):
            outputs, back = jax.vjp(lambda p: skipinit(p, x), parameters)
            return outputs, back(case["direction"])[0]

        outputs, gradient = everything(parameters, x)
    np.testing.assert_allclose(outputs, np_skipinit(parameters, x), rtol=1e-9, atol=1e-9)
    assert_slope(lambda p: (np_skipinit(p, x) * case["direction"]).sum(), parameters, gradient)


def assert_slope(loss, parameters, gradient):
    """The gradient along a random direction in every array, against a difference quotient small enough for kinks."""
    leaves, tree = jax.tree.flatten(parameters)
    rng = np.random.default_rng(3)
    for _ in range(3):
        direction = [rng.normal(size=leaf.shape) * np.sqrt(np.mean(leaf**2)) for leaf in leaves]
        moved = lambda h, d=direction: tree.unflatten([leaf + h * v for leaf, v in zip(leaves, d, strict=True)])
        slope = sum((np.asarray(g) * d).sum() for g, d in zip(jax.tree.leaves(gradient), direction, strict=True))
        np.testing.assert_allclose(slope, (loss(moved(1e-7)) - loss(moved(-1e-7))) / 2e-7, rtol=1e-5)


# ── Against PyTorch, where it is installed ───────────────────────────────────────────────────────────────


def test_it_is_the_network_in_pytorch():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    case = small()
    parameters, x = case["normal"], case["x"][:GHOST]  # one ghost batch: PyTorch's own batch normalization
    theirs = jax.tree.map(lambda a: torch.tensor(a.tolist(), dtype=torch.float64, requires_grad=True), parameters)
    running = jax.tree.map(lambda a: torch.tensor(np.asarray(a).tolist(), dtype=torch.float64), case["state"])

    def conv(x, kernel, stride=1):
        return functional.conv2d(x, kernel.permute(3, 2, 0, 1), stride=stride, padding=kernel.shape[0] // 2)

    def norm_relu(norm, state, x):
        y = functional.batch_norm(x, state["mean"], state["variance"], norm["scale"], norm["shift"], True)
        return functional.relu(y)

    y = conv(torch.tensor(x.tolist(), dtype=torch.float64).permute(0, 3, 1, 2), theirs["stem"])
    for block, state, stride in zip(theirs["blocks"], running["blocks"], (1, 2, 2), strict=True):
        o = norm_relu(block["norm1"], state["norm1"], y)
        z = norm_relu(block["norm2"], state["norm2"], conv(o, block["conv1"], stride))
        y = conv(z, block["conv2"]) + (conv(o, block["shortcut"], stride) if "shortcut" in block else y)
    outputs = (
        norm_relu(theirs["norm"], running["norm"], y).mean((2, 3)) @ theirs["head"]["weight"] + theirs["head"]["bias"]
    )
    (outputs * torch.tensor(case["direction"][:GHOST].tolist(), dtype=torch.float64)).sum().backward()

    with jax.enable_x64(True):

        @quick_jit
        def everything(parameters, state, x):
            outputs, back, left = jax.vjp(lambda p: wide_resnet(p, state, x, train_norm), parameters, has_aux=True)
            return outputs, back(case["direction"][:GHOST])[0], left

        ours, gradient, left = jax.tree.map(np.asarray, everything(parameters, case["state"], x))
    as_array = lambda tensor: np.array(tensor.tolist())
    np.testing.assert_allclose(ours, as_array(outputs), rtol=1e-9)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, as_array(b.grad), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(left["norm"]["mean"], as_array(running["norm"]["mean"]), rtol=1e-9)
    # PyTorch's running variance has Bessel's correction: 2 × 2 × 2 values here.
    before, after = np.asarray(case["state"]["norm"]["variance"]), as_array(running["norm"]["variance"])
    np.testing.assert_allclose((left["norm"]["variance"] - 0.9 * before) * 8 / 7, after - 0.9 * before, rtol=1e-9)


# ── Sizes, initial values ────────────────────────────────────────────────────────────────────────────────


def parameter_count(depth, width, normalized):
    """Kernel by kernel, from the paper's table 1."""
    n, k = (depth - 4) // 6, width
    kernels = 3 * 3 * 3 * 16 + 64 * k * 10
    biases, norms, scalars, c_in = 16, 0, 0, 16
    for c_out in (16 * k, 32 * k, 64 * k):
        for block in range(n):
            kernels += 9 * c_in * c_out + 9 * c_out * c_out
            norms, biases, scalars = norms + 2 * c_in + 2 * c_out, biases + 2 * c_out, scalars + 1
            if block == 0 and c_in != c_out:
                kernels, biases = kernels + c_in * c_out, biases + c_out
            c_in = c_out
    return kernels + 10 + (norms + 2 * 64 * k if normalized else biases + scalars)


@pytest.mark.parametrize(("depth", "width"), [(10, 1), (10, 2), (16, 1), (16, 4), (28, 10), (40, 4)])
def test_the_number_of_parameters(depth, width):
    for init, normalized in ((wide_resnet_init, True), (skipinit_init, False)):
        shapes = jax.eval_shape(functools.partial(init, depth=depth, width=width, classes=10), KEY)
        assert sizes(shapes) == parameter_count(depth, width, normalized)


@pytest.mark.parametrize(("depth", "width", "millions"), [(16, 4, 2.7), (28, 10, 36.5), (40, 4, 8.9), (22, 8, 17.2)])
def test_the_number_of_parameters_that_the_paper_prints(depth, width, millions):
    assert abs(parameter_count(depth, width, True) / 1e6 - millions) < 0.06


def test_strange_depths_and_widths_are_refused():
    for depth, width, said in ((12, 4, "depth must be 6n"), (4, 1, "depth must be 6n"), (16, 0, "width must be")):
        with pytest.raises(InputError, match=said):
            channels_of_blocks(depth, width)


def test_kernels_are_normal_with_variance_2_over_fan_in():
    kernel = np.asarray(kernel_init(KEY, 3, 32, 64), np.float64) / np.sqrt(2 / (9 * 32))
    assert abs(kernel.mean()) < 4 / np.sqrt(kernel.size)
    assert abs(kernel.var() - 1) < 4 * np.sqrt(2 / kernel.size)
    assert abs((kernel**4).mean() - 3) < 4 * np.sqrt(96 / kernel.size)


@pytest.mark.parametrize("init", [wide_resnet_init, skipinit_init])
def test_scales_are_1_and_shifts_biases_and_scalars_0_at_first(init):
    @quick_jit
    def others(key):
        leaves = jax.tree_util.tree_leaves_with_path(init(key, depth=10, width=1, classes=10))
        return [
            [leaf for path, leaf in leaves if leaf.ndim < 2 and (path[-1].key == "scale") == scale] for scale in (0, 1)
        ]

    zeros, ones = others(KEY)
    assert all((leaf == 0).all() for leaf in zeros)
    assert all((leaf == 1).all() for leaf in ones)
    assert (len(zeros), len(ones)) == ((8, 7) if init is wide_resnet_init else (13, 0))


def test_at_first_a_skipinit_block_is_its_shortcut():
    """Whatever the branches hold, with scalars 0 they say nothing, and the scalars alone learn of them."""
    case = small()
    parameters, x = case["skipinit"], case["x"]
    fresh = parameters | {"blocks": [block | {"scalar": np.zeros(())} for block in parameters["blocks"]]}
    branch = lambda block: {name: block[name] for name in ("conv1", "conv2")}
    changed = [block | jax.tree.map(lambda a: a + 1.0, branch(block)) for block in fresh["blocks"]]
    other = fresh | {"blocks": changed}
    with jax.enable_x64(True):
        program = quick_jit(lambda p: (skipinit(p, x), jax.grad(lambda p: skipinit(p, x).sum())(p)))
        (outputs, gradient), (same, _) = program(fresh), program(other)
    np.testing.assert_array_equal(outputs, same)
    for block in gradient["blocks"]:
        assert not any(leaf.any() for leaf in jax.tree.leaves((block["conv1"], block["conv2"])))
        assert np.asarray(block["scalar"]) != 0
