import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgdscope.errors import InputError
from sgdscope.models.losses import accuracy, cross_entropy
from sgdscope.models.wide_resnet import skipinit, wide_resnet_state
from sgdscope.workloads.wide_resnet import CHANNEL_DEVIATIONS, CHANNEL_MEANS, standardised, wide_resnet
from sgdscope.workloads.wide_resnet_skipinit import wide_resnet_skipinit

# Compiling is nearly all that these tests do.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def pictures(n, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "picture": rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8),
        "label": rng.integers(0, 10, n, dtype=np.uint8),
    }


@functools.cache
def splits():
    return {name: pictures(12, seed) for seed, name in enumerate(("train", "validation", "test"))}


def parameters_of(workload):
    """Values that hide nothing, drawn without compiling the initialization."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(workload.init, jax.random.key(0))
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape) * 0.3, jnp.float32), shapes)


def np_cross_entropy(outputs, label):
    outputs = np.asarray(outputs, np.float64)
    return np.log(np.exp(outputs).sum(axis=1)) - outputs[np.arange(len(label)), label]


# ── The whole workload ───────────────────────────────────────────────────────────────────────────────────


def test_training_uses_ghost_batches_and_evaluation_the_running_statistics():
    workload = wide_resnet(splits(), depth=10, width=1, ghost_batch_size=4)
    parameters, state, batch = parameters_of(workload), workload.init_state(), workload.split("train")
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), state, wide_resnet_state(10, 1)))

    @quick_jit
    def run(parameters, state, batch):
        keys = jax.random.split(jax.random.key(0), 12)
        losses, left = workload.training_loss(parameters, state, batch, keys)
        first = {key: array[:4] for key, array in batch.items()}
        alone, _ = workload.training_loss(parameters, state, first, keys[:4])
        model = (parameters, left)
        one = {key: array[3:4] for key, array in batch.items()}
        evaluated = workload.loss(*model, batch), workload.loss(*model, one), workload.score(*model, batch)
        return losses, alone, left, *evaluated

    losses, alone, left, loss, loss_of_one, score = run(parameters, state, batch)
    assert losses.shape == loss.shape == score.shape == (12,)
    np.testing.assert_allclose(losses[:4], alone, rtol=1e-4)
    np.testing.assert_allclose(loss[3:4], loss_of_one, rtol=1e-4)
    assert jax.tree.structure(left) == jax.tree.structure(state)
    assert not np.allclose(losses, loss, rtol=1e-2)
    assert set(np.asarray(score)) <= {0.0, 1.0}


def test_microbatches_of_whole_ghost_batches_leave_the_batch_as_it_is():
    workload = wide_resnet(splits(), depth=10, width=1, ghost_batch_size=2)
    parameters, batch = parameters_of(workload), workload.split("train")

    @functools.partial(quick_jit, static_argnums=2)
    def run(parameters, batch, pieces):
        parts = {key: array.reshape(pieces, -1, *array.shape[1:]) for key, array in batch.items()}

        def piece(state, part):
            losses, state = workload.training_loss(parameters, state, part, None)
            return state, losses

        state, losses = jax.lax.scan(piece, workload.init_state(), parts)
        return state, losses.ravel()

    whole, in_three = (run(parameters, batch, pieces) for pieces in (1, 3))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), in_three, whole)


def test_the_loss_is_the_cross_entropy_of_the_network_on_standardised_pictures():
    workload = wide_resnet_skipinit(splits(), depth=10, width=1)
    parameters, batch = parameters_of(workload), pictures(3, seed=9)
    x = (batch["picture"] - np.array([125.3, 123.0, 113.9])) / np.array([63.0, 62.1, 66.7])

    @quick_jit
    def run(parameters, batch, x):
        return workload.loss(parameters, (), batch), workload.score(parameters, (), batch), skipinit(parameters, x)

    loss, score, outputs = run(parameters, batch, x.astype(np.float32))
    np.testing.assert_allclose(loss, np_cross_entropy(outputs, batch["label"]), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(score, np.asarray(outputs).argmax(axis=1) == batch["label"])


def test_cross_entropy_and_accuracy():
    outputs, label = jnp.array([[0.0, 1.0, 3.0], [5.0, 0.0, 1.0]]), np.array([2, 1], np.uint8)
    np.testing.assert_allclose(cross_entropy(outputs, label), np_cross_entropy(outputs, label), rtol=1e-6)
    assert accuracy(outputs, label).tolist() == [1.0, 0.0]


def test_what_identifies_the_workloads():
    record = wide_resnet(splits(), depth=10, width=2, ghost_batch_size=4, l2=1e-3).record()
    assert (record.fields, record.ghost_batch_size) == ((("depth", 10), ("l2", 1e-3), ("width", 2)), 4)
    plain = wide_resnet(splits()).record()
    assert (plain.fields, plain.ghost_batch_size) == ((("depth", 16), ("l2", 5e-4), ("width", 4)), 64)
    without = wide_resnet_skipinit(splits()).record()
    assert (without.fields, without.ghost_batch_size) == ((("depth", 16), ("l2", 5e-4), ("width", 4)), 1)


@pytest.mark.parametrize("make", [wide_resnet, wide_resnet_skipinit])
@pytest.mark.parametrize("fields", [{"depth": 12}, {"width": 0}, {"l2": -1.0}, {"l2": float("nan")}])
def test_fields_of_no_network_are_refused_in_a_sentence(make, fields):
    ((name, value),) = fields.items()
    with pytest.raises(InputError, match=rf"{name} must be .* not {value}\.$"):
        make(splits(), **fields)


# ── The penalty ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("make", [wide_resnet, wide_resnet_skipinit])
def test_the_penalty_is_on_kernels_and_the_last_matrix_alone(make):
    workload = make(splits(), depth=10, width=2, l2=0.25)
    parameters = parameters_of(workload)
    value, gradient = jax.tree.map(np.asarray, quick_jit(jax.value_and_grad(workload.penalty))(parameters))
    decayed, squares = set(), 0.0
    slopes = jax.tree_util.tree_leaves_with_path(gradient)
    for (path, slope), leaf in zip(slopes, jax.tree.leaves(parameters), strict=True):
        if path[-1].key in ("scale", "shift", "bias", "scalar"):
            assert not slope.any()
        else:
            np.testing.assert_allclose(slope, 0.25 * np.asarray(leaf), rtol=1e-6)
            decayed.add(leaf.shape)
            squares += (np.asarray(leaf, np.float64) ** 2).sum()
    threes = {(3, 16), (16, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)}
    ones = {(16, 32), (32, 64), (64, 128)}
    assert decayed == {(3, 3, *c) for c in threes} | {(1, 1, *c) for c in ones} | {(128, 10)}
    np.testing.assert_allclose(value, 0.5 * 0.25 * squares, rtol=1e-5)


# ── Pictures ─────────────────────────────────────────────────────────────────────────────────────────────


def test_standardised_is_mean_0_and_variance_1_where_the_pictures_have_the_training_sets_moments():
    means, deviations = np.array(CHANNEL_MEANS), np.array(CHANNEL_DEVIATIONS)
    ends = np.stack([means - deviations, means + deviations]).round().astype(np.uint8)
    np.testing.assert_allclose(standardised(ends[:, None, None])[:, 0, 0], [[-1] * 3, [1] * 3], atol=1e-2)
    assert standardised(ends[:, None, None]).dtype == jnp.float32


def test_the_model_takes_any_number_of_pictures_in_evaluation():
    workload = wide_resnet(splits(), depth=10, width=1, ghost_batch_size=64)
    shapes = jax.eval_shape(workload.init, jax.random.key(0))
    state = jax.eval_shape(workload.init_state)
    batch = {key: jax.ShapeDtypeStruct((7, *a.shape[1:]), a.dtype) for key, a in pictures(1).items()}
    assert jax.eval_shape(workload.loss, shapes, state, batch).shape == (7,)
