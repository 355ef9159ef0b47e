"""The sharpness of a trial against closed forms and against dense Hessians of tiny networks."""

import functools
import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainers import Trainer

from sgdscope.budget import Steps
from sgdscope.models.convnet import convnet, convnet_init
from sgdscope.models.losses import cross_entropy
from sgdscope.models.mlp import mlp, mlp_init
from sgdscope.models.normalization import ghost_batch_norm, norm_init, running_init
from sgdscope.optimizers import SGD
from sgdscope.study import Study
from sgdscope.testing.quadratic import NoisyQuadratic
from sgdscope.training import loop, sharpness
from sgdscope.training.checkpoint import Checkpoints
from sgdscope.training.sampling import microbatch_at
from sgdscope.training.sharpness import SHARPNESS_METRICS, largest_eigenvalue, no_products, parts_of_split, products_of
from sgdscope.training.step import Settings, State, once, repeated
from sgdscope.workloads.base import Workload
from sgdscope.workloads.digits import digits

AT = (0.0, 0.3, 1.0)
# Compiling is nearly all that these tests do.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def declared(workload, batch_size=4, updates=40, **fields):
    return Study(
        name="s", workloads=workload, batch_sizes=(batch_size,), budgets=Steps(updates), **fields
    ).declaration()


def estimate(workload, parameters, model=(), seed=1, repeat=repeated):
    """λ_max and its residual at these parameters, and the examples that they are of."""
    split = {key: jnp.asarray(array) for key, array in workload.train.items()}
    settings = Settings(jnp.float32(0), jnp.float32(0), jnp.uint32(seed), jnp.int32(1))
    state = State(parameters, parameters, model, jnp.zeros(1), jnp.int32(3), jnp.bool_(True))
    krylov = jax.tree.map(jnp.asarray, no_products(parameters))
    add = functools.partial(sharpness.add_product, workload, split, settings, state)
    run = quick_jit(lambda krylov: repeat(add, lambda krylov: krylov.count < products_of(workload), krylov))
    for _ in range(1 if repeat is repeated else products_of(workload)):
        krylov = run(krylov)
    parts, size = parts_of_split(workload)
    batches = [
        microbatch_at(workload, split, settings.seed, jnp.int32(0), jnp.int32(part), (parts * size, size))[0]
        for part in range(parts)
    ]
    return largest_eigenvalue(np.asarray(krylov.diagonal), np.asarray(krylov.beside)), batches


def dense(loss, parameters):
    """The largest eigenvalue of the whole Hessian, as JAX differentiates the whole loss twice."""
    flat, back = jax.flatten_util.ravel_pytree(parameters)
    hessian = np.asarray(quick_jit(jax.jacfwd(jax.jacrev(lambda flat: loss(back(flat)))))(flat), np.float64)
    return float(np.linalg.eigvalsh((hessian + hessian.T) / 2)[-1])


# ── The arithmetic ───────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(1, 12), st.integers(0, 2**32 - 1), st.booleans())
def test_of_any_symmetric_matrix_it_is_the_largest_eigenvalue_or_below_it_by_no_more_than_it_says(n, seed, negative):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(n, n))
    matrix = (matrix + matrix.T) * 10.0 ** rng.integers(-3, 4)
    matrix -= negative * 2 * abs(np.linalg.eigvalsh(matrix)).max() * np.eye(n)  # no eigenvalue above 0
    vector, previous, beta, diagonal, beside = rng.normal(size=n), np.zeros(n), 0.0, [], []
    vector /= np.linalg.norm(vector)
    for _ in range(16):
        w = matrix @ vector - beta * previous
        diagonal.append(w @ vector)
        w -= diagonal[-1] * vector
        beta = np.linalg.norm(w)
        beside.append(beta)
        previous, vector = vector, w / max(beta, 1e-300)
    eigenvalues = np.linalg.eigvalsh(matrix)
    found, residual = largest_eigenvalue(np.array(diagonal), np.array(beside))
    scale = abs(eigenvalues).max()
    assert abs(eigenvalues - found).min() <= residual + 1e-6 * scale
    assert found <= eigenvalues[-1] + 1e-6 * scale
    assert found == pytest.approx(eigenvalues[-1], abs=1e-3 * scale)  # 16 products are more than the matrix has rows


def test_what_is_not_finite_has_no_eigenvalue():
    assert np.isnan(largest_eigenvalue(np.array([1.0, np.inf]), np.array([1.0, 1.0]))).all()


# ── Closed forms and dense Hessians ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("penalty", "more"), [(None, 0.0), (lambda theta: (theta**2).sum(), 2.0)])
def test_of_the_quadratic_it_is_the_largest_curvature_with_the_penaltys(penalty, more):
    workload = replace(NoisyQuadratic().workload(), penalty=penalty)
    (found, residual), _ = estimate(workload, jnp.array([1.0, -2.0, 0.5, 3.0]))
    assert found == pytest.approx(1.0 + more, rel=1e-5)
    assert residual <= 1e-4


def classifier(outputs, init, pictures, n=40, **fields):
    split = {"x": pictures(n), "y": (np.arange(n) % 3).astype(np.uint8)}
    plain = lambda p, state, batch: cross_entropy(outputs(p, batch["x"]), batch["y"])
    return Workload(
        name="w", version="1", train=split, validation=split, test=split, loss=plain, score=plain, init=init,
        constant_loss=1.0, constant_score=1.0, score_name="loss", score_goal="minimize", **fields,
    )  # fmt: skip


def normal(*shape):
    return lambda n: np.random.default_rng(0).normal(size=(n, *shape)).astype(np.float32)


NETWORKS = {
    "mlp": (mlp, lambda key: mlp_init(key, (5, 4, 3)), normal(5)),
    # Its convolution has a gradient of its own, through which the product goes too.
    "convnet": (convnet, lambda key: convnet_init(key, 4, (2,), 3), normal(4, 4)),
}


@pytest.mark.parametrize(
    ("network", "part", "repeat"),
    [
        ("mlp", 1024, repeated),
        ("mlp", 16, once),
        ("convnet", 16, repeated),
    ],
)
def test_of_a_network_it_is_the_dense_hessians(network, part, repeat, monkeypatch):
    monkeypatch.setattr(sharpness, "PRODUCTS", 40)
    outputs, init, pictures = NETWORKS[network]
    workload = classifier(outputs, init, pictures, evaluation_batch_size=part)
    parameters = workload.init(jax.random.key(3))
    (found, residual), batches = estimate(workload, parameters, repeat=repeat)
    assert len(batches) == (2 if part == 16 else 1)
    loss = lambda p: sum(workload.loss(p, (), batch).mean() for batch in batches) / len(batches)
    assert found == pytest.approx(dense(loss, parameters), rel=1e-3)
    assert residual < 0.05 * found


def test_under_batch_normalization_it_is_that_of_the_loss_over_ghost_batches(monkeypatch):
    monkeypatch.setattr(sharpness, "PRODUCTS", 20)
    rng = np.random.default_rng(0)
    split = {"x": rng.normal(size=(10, 3)).astype(np.float32), "y": rng.normal(size=10).astype(np.float32)}

    def training_loss(parameters, state, batch, keys):
        hidden = (batch["x"] @ parameters["w"])[:, None, None, :]
        value, state = ghost_batch_norm(parameters["norm"], state, hidden, 4)
        return (jnp.tanh(value[:, 0, 0]).sum(axis=1) - batch["y"]) ** 2, state

    plain = lambda p, state, batch: batch["y"] ** 2 + 0 * p["w"].sum()
    workload = Workload(
        name="w", version="1", train=split, validation=split, test=split, loss=plain, score=plain,
        init=lambda key: {"w": jax.random.normal(key, (3, 2)), "norm": norm_init(2)},
        init_state=lambda: running_init(2), training_loss=training_loss, ghost_batch_size=4,
        constant_loss=1.0, constant_score=1.0,
    )  # fmt: skip
    assert parts_of_split(workload) == (1, 8)  # two ghost batches; two examples are left out
    parameters, state = workload.init(jax.random.key(1)), workload.init_state()
    (found, _), (batch,) = estimate(workload, parameters, state)
    assert len(set(map(tuple, np.asarray(batch["x"]).tolist()))) == 8
    loss = lambda p: training_loss(p, state, batch, None)[0].mean()
    assert found == pytest.approx(dense(loss, parameters), rel=1e-3)


# ── Beside training ──────────────────────────────────────────────────────────────────────────────────────


def numbers(outcome, beside=True):
    kept = [m for m in outcome.measurements if beside or m.metric not in SHARPNESS_METRICS]
    return outcome.steps, outcome.diverged, kept, outcome.correctness


def values(outcome, metric):
    return [m.value for m in outcome.measurements if m.metric == metric]


@pytest.fixture(scope="module")
def trainer():
    trainer = Trainer(digits(hidden=8), (0.5, 1.0), slots=4, sharpness_at=AT)
    yield trainer
    trainer.close()


def mixed(trainer):
    study = declared(trainer.workload, 32)
    rates = (0.0625, 1e30, 0.25)
    return [study.trial(optimizer, 32, rate, 1) for optimizer in (SGD(), SGD(momentum=0.9)) for rate in rates]


def test_it_changes_no_bit_of_a_trial_and_says_the_rate_at_that_time(trainer):
    without = Trainer(trainer.workload, (0.5, 1.0), slots=4)
    trials = mixed(trainer)
    plain = without.train(trials)
    without.close()
    found = trainer.train(trials)
    assert [numbers(outcome, beside=False) for outcome in found] == list(map(numbers, plain))
    assert values(found[0], "learning_rate") == [0.0625, 0.0625, 0.0625 / 1024]
    assert [m.step for m in found[0].measurements if m.metric == "sharpness"] == [0, 12, 40]
    # A trial that diverges has what was estimated before.
    assert [m.step for m in found[1].measurements if m.metric == "sharpness"] == [0]


def test_it_depends_neither_on_the_pack_nor_on_slots(trainer):
    trials = mixed(trainer)
    together = trainer.train(trials)
    assert numbers(trainer.train([trials[2]])[0]) == numbers(together[2])
    wider = Trainer(trainer.workload, (0.5, 1.0), slots=8, sharpness_at=AT)
    assert list(map(numbers, wider.train(trials[::-1])))[::-1] == list(map(numbers, together))
    wider.close()


def test_vmap_agrees_to_float_tolerance(trainer):
    trials = mixed(trainer)[:1]
    ours = trainer.train(trials)
    other = Trainer(trainer.workload, (0.5, 1.0), method="vmap", slots=1, sharpness_at=AT)
    theirs = other.train(trials)
    other.close()
    np.testing.assert_allclose(values(theirs[0], "sharpness"), values(ours[0], "sharpness"), rtol=2e-3)


class KilledError(Exception):
    pass


def test_killed_and_resumed_it_has_the_rows_of_one_that_never_was(trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(loop, "SEGMENT_SECONDS", 0.0)  # one update a segment
    trials = mixed(trainer)
    never, kept, segments = trainer.train(trials), Checkpoints(tmp_path, trainer.circumstances), itertools.count()

    def on_updates(updates):
        if next(segments) > 12:
            raise KilledError

    with pytest.raises(KilledError):
        trainer.train(trials, on_updates, kept)
    again = trainer.train(trials[::-1], checkpoints=kept)[::-1]
    assert list(map(numbers, again)) == list(map(numbers, never))
