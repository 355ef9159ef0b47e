import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sgdscope.models import normalization
from sgdscope.models.normalization import norm_init, running_init, running_norm

GHOST = 4
CHANNELS = 3


quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
ghost_batch_norm = quick_jit(normalization.ghost_batch_norm, static_argnums=3)
inside = normalization.ghost_batch_norm  # options of compiling are for the outermost function


def arrays(n, seed=0):
    rng = np.random.default_rng(seed)
    of_channels = lambda: jnp.asarray(rng.uniform(0.5, 2, CHANNELS), jnp.float32)
    norm = {"scale": of_channels(), "shift": of_channels()}
    running = {"mean": of_channels(), "variance": of_channels()}
    return norm, running, jnp.asarray(3 * rng.normal(size=(n, 5, 2, CHANNELS)) + 1, jnp.float32)


def by_hand(norm, running, x, ghost_batch_size):
    """One ghost batch and one channel after the other, in float64, with the running averages moved as one goes."""
    x = np.asarray(x, np.float64)
    y, mean, variance = np.empty_like(x), *(np.asarray(running[k], np.float64).copy() for k in ("mean", "variance"))
    for start in range(0, len(x), ghost_batch_size):
        for c in range(x.shape[3]):
            values = x[start : start + ghost_batch_size, ..., c]
            m = values.sum() / values.size
            v = ((values - m) ** 2).sum() / values.size
            y[start : start + ghost_batch_size, ..., c] = (values - m) / np.sqrt(v + 1e-5) * norm["scale"][c]
            y[start : start + ghost_batch_size, ..., c] += norm["shift"][c]
            mean[c] = 0.9 * mean[c] + 0.1 * m
            variance[c] = 0.9 * variance[c] + 0.1 * v
    return y, {"mean": mean, "variance": variance}


def assert_close(ours, theirs, **tolerance):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, **(tolerance or {"rtol": 1e-4, "atol": 1e-5})), ours, theirs
    )


@pytest.mark.parametrize("ghost_batches", [1, 2, 5])
def test_it_is_batch_norm_by_hand_on_each_ghost_batch(ghost_batches):
    norm, running, x = arrays(ghost_batches * GHOST)
    assert_close(ghost_batch_norm(norm, running, x, GHOST), by_hand(norm, running, x, GHOST))


def test_a_new_layer_gives_mean_0_and_variance_1():
    _, _, x = arrays(16)
    y, _ = ghost_batch_norm(norm_init(CHANNELS), running_init(CHANNELS), x, 16)
    assert_close(y.mean(axis=(0, 1, 2)), np.zeros(CHANNELS), atol=1e-5)
    assert_close(y.var(axis=(0, 1, 2)), np.ones(CHANNELS), rtol=1e-4)


@pytest.mark.parametrize("pieces", [2, 3, 6])
def test_a_batch_in_pieces_is_the_whole_batch(pieces):
    norm, running, x = arrays(6 * GHOST)
    whole, left = ghost_batch_norm(norm, running, x, GHOST)
    outputs = []
    for piece in jnp.split(x, pieces):
        y, running = ghost_batch_norm(norm, running, piece, GHOST)
        outputs.append(y)
    np.testing.assert_array_equal(jnp.concatenate(outputs), whole)
    assert_close(running, left, rtol=1e-5)


def test_an_example_is_felt_by_its_ghost_batch_alone():
    norm, running, x = arrays(3 * GHOST)
    changed, _ = ghost_batch_norm(norm, running, x.at[GHOST].add(100.0), GHOST)
    same = np.isclose(changed, ghost_batch_norm(norm, running, x, GHOST)[0]).all(axis=(1, 2, 3))
    assert same.tolist() == [True] * GHOST + [False] * GHOST + [True] * GHOST


def test_the_window_of_the_running_statistics_is_counted_in_examples():
    """After the same examples, batches of one and of eight ghost batches have forgotten equally much."""
    norm, _, x = arrays(16 * GHOST)
    left = {}
    for batch in (GHOST, 8 * GHOST):
        running = {"mean": jnp.full(CHANNELS, 1e6), "variance": jnp.ones(CHANNELS)}
        for piece in jnp.split(x, len(x) // batch):
            _, running = ghost_batch_norm(norm, running, piece, GHOST)
        left[batch] = running
    assert_close(left[GHOST], left[8 * GHOST], rtol=1e-5)
    np.testing.assert_allclose(left[GHOST]["mean"], 1e6 * 0.9**16, rtol=1e-4)


def test_the_gradient_is_a_difference_quotient_and_none_reaches_the_running_statistics():
    with jax.enable_x64(True):
        norm, running, x = jax.tree.map(lambda a: a.astype(jnp.float64), arrays(2 * GHOST))
        rng = np.random.default_rng(1)
        weight = rng.normal(size=x.shape)
        loss = lambda norm, x: (inside(norm, running, x, GHOST)[0] * weight).sum()
        gradient = quick_jit(jax.grad(loss, argnums=(0, 1)))(norm, x)
        direction = jax.tree.map(lambda a: rng.normal(size=a.shape), (norm, x))
        ends = [loss(*jax.tree.map(lambda a, d, h=h: a + h * d, (norm, x), direction)) for h in (1e-5, -1e-5)]
        slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)))
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-5, rtol=1e-7)
        left = quick_jit(jax.grad(lambda x: inside(norm, running, x, GHOST)[1]["mean"].sum()))(x)
        assert not left.any()


def test_evaluation_uses_the_running_statistics_and_leaves_them():
    norm, running, x = arrays(5)
    n, r = jax.tree.map(np.asarray, (norm, running))
    y, left = running_norm(norm, running, x)
    expected = (np.asarray(x) - r["mean"]) / np.sqrt(r["variance"] + 1e-5) * n["scale"] + n["shift"]
    assert_close(y, expected)
    assert left is running


def test_with_the_running_statistics_of_a_ghost_batch_evaluation_is_training():
    norm, _, x = arrays(GHOST)
    running = {"mean": x.mean(axis=(0, 1, 2)), "variance": x.var(axis=(0, 1, 2))}
    assert_close(running_norm(norm, running, x)[0], ghost_batch_norm(norm, running, x, GHOST)[0])


def test_a_batch_that_is_spread_over_devices_is_the_same_and_stays_spread():
    norm, running, x = arrays(4 * GHOST)
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    by_batch = NamedSharding(mesh, PartitionSpec("batch"))
    y, left = ghost_batch_norm(norm, running, jax.device_put(x, by_batch), GHOST)
    assert_close((y, left), ghost_batch_norm(norm, running, x, GHOST))
    assert y.sharding.is_equivalent_to(by_batch, y.ndim)
    text = ghost_batch_norm.lower(norm, running, jax.device_put(x, by_batch), GHOST).compile().as_text()
    assert "all-gather" not in text  # no device needs another's pictures
