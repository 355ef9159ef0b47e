"""The gradient noise of a trial against closed forms and against naive loops over examples and ghost batches."""

import functools
import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from trainers import Trainer

from sgdscope.budget import Steps
from sgdscope.models.normalization import ghost_batch_norm, norm_init, running_init
from sgdscope.optimizers import SGD
from sgdscope.study import Study
from sgdscope.testing.quadratic import NoisyQuadratic
from sgdscope.training import loop, noise_scale
from sgdscope.training.checkpoint import Checkpoints
from sgdscope.training.noise_scale import NOISE_METRICS, gradient_noise, gradient_noises, no_sums, small_batches
from sgdscope.training.packed import PackedBackend
from sgdscope.training.sampling import drawn_batch
from sgdscope.training.step import Settings, State, repeated
from sgdscope.workloads.base import Workload
from sgdscope.workloads.digits import digits

SQUARE_NORM, TRACE = NOISE_METRICS


def declared(workload, batch_size=4, updates=40):
    return Study(name="s", workloads=workload, batch_sizes=(batch_size,), budgets=Steps(updates)).declaration()


def estimates(workload, parameters, model=(), seeds=400, step=0):
    """|G|² and tr Σ at the same parameters from many seeds, shape (seeds, 2)."""
    split = {key: jnp.asarray(array) for key, array in workload.train.items()}
    batches, size = small_batches(workload)

    def one(seed):
        settings = Settings(jnp.float32(0), jnp.float32(0), seed, jnp.int32(1))
        state = State(parameters, parameters, model, jnp.zeros(1), jnp.int32(step), jnp.bool_(True))
        sums = jax.tree.map(jnp.asarray, no_sums(parameters))
        add = functools.partial(noise_scale.add_small_batch, workload, split, settings, state)
        return repeated(add, lambda sums: sums.count < batches, sums)

    sums = jax.jit(lambda seeds: jax.lax.map(one, seeds))(jnp.arange(seeds, dtype=jnp.uint32))
    return np.array(gradient_noises(sums, batches, size))


def assert_means(found, expected, sharp=0.1):
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - expected) < 4 * error + 1e-5 * np.abs(expected)).all()
    assert (error < sharp * np.abs(expected)).all()  # narrow enough to mean something


# ── The arithmetic ───────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(2, 9), st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_it_is_the_estimate_from_two_batch_sizes(batches, size, coordinates, seed):
    """As McCandlish et al. write it, from the mean square norms of small batches and of all of them together."""
    g = np.random.default_rng(seed).normal(size=(batches, coordinates))
    small, big = size, batches * size
    of_small, of_big = (g**2).sum(axis=1).mean(), (g.mean(axis=0) ** 2).sum()
    expected = (big * of_big - small * of_small) / (big - small), (of_small - of_big) / (1 / small - 1 / big)
    squares = ((g - g.mean(axis=0)) ** 2).sum()
    np.testing.assert_allclose(gradient_noise(of_big, squares, batches, size), expected, rtol=1e-9, atol=1e-12)


def test_a_large_gradient_does_not_swamp_a_small_noise():
    """Norms differ in the eighth digit here, which float32 has not."""
    quadratic = NoisyQuadratic(noise=1e-3, start=10.0)
    h = np.array(quadratic.curvatures)
    found = estimates(quadratic.workload(), jnp.full(4, 10.0, jnp.float32), seeds=50)
    assert_means(found, [(h**2 * 100).sum(), (h**2).sum() * 1e-6])


# ── Closed forms ─────────────────────────────────────────────────────────────────────────────────────────


def noises(outcomes, metric):
    return np.array([[m.value for m in o.measurements if m.metric == metric] for o in outcomes])


@pytest.mark.parametrize(("optimizer", "rate"), [(SGD(), 0.25), (SGD(momentum=0.9), 0.0625)])
def test_along_training_the_quadratic_has_what_its_moments_give(optimizer, rate):
    """E |G|² = Σ h² E θ², of which the expected loss of each coordinate alone tells E θ²; tr Σ = Σ h² s² throughout."""
    quadratic, updates, moments = NoisyQuadratic(), 40, (0.0, 0.1, 0.5, 1.0)
    trainer = Trainer(quadratic.workload(), slots=128, noise_scale_at=moments)
    trials = [declared(trainer.workload).trial(optimizer, 4, rate, seed) for seed in range(256)]
    outcomes = trainer.train(trials)
    trainer.close()
    rates = np.array([rate * 0.5 ** max(0, 20 * step // updates - 9) for step in range(updates)])
    steps = [round(moment * updates) for moment in moments]
    expected = np.zeros(len(steps))
    for h in quadratic.curvatures:
        alone = NoisyQuadratic(curvatures=(h,))
        expected += 2 * h * alone.expected_loss(rates, optimizer.momentum, 4)[steps]
    assert_means(noises(outcomes, SQUARE_NORM), expected)
    assert_means(noises(outcomes, TRACE), np.full(len(steps), sum(h**2 for h in quadratic.curvatures)))
    taken = [[m.step for m in o.measurements if m.metric == TRACE] for o in outcomes]
    assert taken == [steps] * 256


def test_the_penalty_is_part_of_the_gradient_and_no_noise():
    quadratic = NoisyQuadratic()
    workload = replace(quadratic.workload(), penalty=lambda theta: (theta**2).sum())
    h, theta = np.array(quadratic.curvatures), np.array([1.0, -2.0, 0.5, 3.0])
    found = estimates(workload, jnp.asarray(theta, jnp.float32), seeds=100)
    assert_means(found, [((h * theta + 2 * theta) ** 2).sum(), (h**2).sum()])


# ── Naive loops in float64 ───────────────────────────────────────────────────────────────────────────────


def naive(gradients, size):
    """|G|² and tr Σ of all gradients that a small batch of ``size`` examples may have, each as likely."""
    flat = np.array([np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(g)]) for g in gradients], np.float64)
    return (flat.mean(axis=0) ** 2).sum(), size * ((flat - flat.mean(axis=0)) ** 2).sum() / len(flat)


def test_of_a_network_it_is_what_the_gradients_of_all_examples_give():
    workload = digits(hidden=8)
    parameters = workload.init(jax.random.key(3))
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), parameters)
        pictures = jnp.asarray(workload.train["picture"], jnp.float64)
        train = {"picture": pictures, "label": jnp.asarray(workload.train["label"])}
        one = jax.jit(
            lambda i: jax.grad(lambda p: workload.loss(p, (), {k: v[i][None] for k, v in train.items()})[0])(exact)
        )
        gradients = [one(i) for i in range(1024)]
    assert_means(estimates(workload, parameters), naive(gradients, 1))


def normalized_regression():
    """A layer under ghost batch normalization with four examples a ghost batch, of ten in all."""
    rng = np.random.default_rng(0)
    split = {"x": rng.normal(size=(10, 3)).astype(np.float32), "y": rng.normal(size=10).astype(np.float32)}

    def output(parameters, state, x, norm):
        hidden, state = norm(parameters["norm"], state, (x @ parameters["w"])[:, None, None, :])
        return jnp.tanh(hidden[:, 0, 0]).sum(axis=1), state

    def training_loss(parameters, state, batch, keys):
        ghosts = lambda norm, running, x: ghost_batch_norm(norm, running, x, 4)
        value, state = output(parameters, state, batch["x"], ghosts)
        return (value - batch["y"]) ** 2, state

    plain = lambda p, state, batch: batch["y"] ** 2 + 0 * p["w"].sum()
    return Workload(
        name="w", version="1", train=split, validation=split, test=split, loss=plain, score=plain,
        init=lambda key: {"w": jax.random.normal(key, (3, 2)), "norm": norm_init(2)},
        init_state=lambda: running_init(2), training_loss=training_loss, ghost_batch_size=4,
        constant_loss=1.0, constant_score=1.0,
    )  # fmt: skip


def test_under_batch_normalization_it_is_what_all_ghost_batches_give():
    workload = normalized_regression()
    parameters, state = workload.init(jax.random.key(1)), workload.init_state()
    assert small_batches(workload) == (256, 4)
    gradient = jax.jit(jax.grad(lambda p, batch: workload.training_loss(p, state, batch, None)[0].mean()))
    every = [
        gradient(parameters, {key: array[list(ghost)] for key, array in workload.train.items()})
        for ghost in itertools.combinations(range(10), 4)
    ]
    assert_means(estimates(workload, parameters, state), naive(every, 4))


# ── What is drawn ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ghost_batch_size", [1, 4])
def test_draws_are_uniform_and_pairs_of_them_independent_but_for_ghosts_which_are_distinct(ghost_batch_size):
    split = {"x": np.arange(7, dtype=np.float32)}
    plain = lambda p, state, batch: batch["x"] ** 2 + 0 * p
    workload = Workload(
        name="w", version="1", train=split, validation=split, test=split, loss=plain, score=plain,
        init=lambda key: jnp.zeros(()), constant_loss=1.0, constant_score=1.0,
    )  # fmt: skip
    workload = replace(workload, ghost_batch_size=ghost_batch_size)
    drawn = lambda seed, number: drawn_batch(workload, {"x": jnp.arange(7)}, seed, jnp.int32(3), number, 4)[0]["x"]
    of_seed = lambda seed: jax.vmap(lambda number: drawn(seed, number))(jnp.arange(64))
    found = np.asarray(jax.jit(jax.vmap(of_seed))(jnp.arange(300, dtype=jnp.uint32)))  # (300, 64, 4)
    pairs = [
        (found[:, :-1, 0], found[:, 1:, 0]),
        (found[:-1, :, 1], found[1:, :, 1]),
        (found[:, :-1, 3], found[:, 1:, 2]),
    ]
    if ghost_batch_size == 1:
        pairs.append((found[:, :, 0], found[:, :, 1]))
    for first, second in pairs:
        counts = np.bincount((first * 7 + second).ravel(), minlength=49)
        assert stats.chisquare(counts).pvalue > 1e-3
    distinct = np.array([len(set(batch)) == 4 for batch in found.reshape(-1, 4)])
    assert distinct.all() if ghost_batch_size == 4 else distinct.mean() == pytest.approx(7 * 6 * 5 * 4 / 7**4, abs=0.02)


def test_augmentation_and_keys_are_new_with_each_draw_step_and_seed():
    workload = NoisyQuadratic().workload()
    split = {"point": jnp.zeros((256, 4))}
    drawn = lambda *which: np.asarray(drawn_batch(workload, split, *which, 16)[0]["point"])
    found = [
        drawn(jnp.uint32(seed), jnp.int32(step), jnp.int32(number))
        for seed, step, number in itertools.product((0, 1), (0, 7), (0, 1, 2))
    ]
    assert len(np.unique(np.concatenate(found))) == 12 * 16 * 4


# ── Beside training ──────────────────────────────────────────────────────────────────────────────────────


def numbers(outcome, noise_too=True):
    kept = [m for m in outcome.measurements if noise_too or m.metric not in NOISE_METRICS]
    return (outcome.steps, outcome.diverged, kept, outcome.correctness)


@pytest.fixture(scope="module")
def trainer():
    trainer = Trainer(digits(hidden=16), (0.5, 1.0), slots=4, noise_scale_at=AT)
    yield trainer
    trainer.close()


def mixed(trainer):
    study = declared(trainer.workload, 32, 40)
    rates = (0.0625, 0.5, 1e30, 0.25)
    return [study.trial(optimizer, 32, rate, 1) for optimizer in (SGD(), SGD(momentum=0.9)) for rate in rates]


def test_it_changes_no_bit_of_a_trial(trainer):
    without = Trainer(trainer.workload, (0.5, 1.0), slots=4)
    trials = mixed(trainer)
    plain = without.train(trials)
    without.close()
    found = trainer.train(trials)
    assert [numbers(outcome, noise_too=False) for outcome in found] == list(map(numbers, plain))
    assert noises(found[:1], TRACE).shape == (1, 4)
    assert [outcome.diverged for outcome in found] == [False, False, True, False] * 2
    # A trial that diverges has what was estimated before.
    assert {m.step for m in found[2].measurements if m.metric == TRACE} == {0}


def test_it_depends_neither_on_the_pack_nor_on_devices_and_slots(trainer):
    trials = mixed(trainer)
    together = trainer.train(trials)
    assert [numbers(trainer.train([trial])[0]) for trial in trials[:2]] == list(map(numbers, together[:2]))
    one = Trainer(
        trainer.workload,
        (0.5, 1.0),
        slots=8,
        devices=jax.devices()[:1],
        noise_scale_at=trainer.milestones.noise_scale_at,
    )
    assert list(map(numbers, one.train(trials[::-1])))[::-1] == list(map(numbers, together))
    one.close()


@pytest.mark.parametrize("method", ["vmap", "step"])
def test_other_methods_agree_to_float_tolerance(trainer, method):
    trials = mixed(trainer)[:2]
    ours = trainer.train(trials)
    other = Trainer(
        trainer.workload, (0.5, 1.0), method=method, slots=1, noise_scale_at=trainer.milestones.noise_scale_at
    )
    theirs = other.train(trials)
    other.close()
    for metric in NOISE_METRICS:
        np.testing.assert_allclose(noises(theirs, metric), noises(ours, metric), rtol=2e-3)


def test_the_start_is_the_same_at_every_batch_size_and_rate(trainer):
    first = [
        noises(trainer.train([declared(trainer.workload, size, 40).trial(SGD(), size, rate, 1)]), TRACE)[0, 0]
        for size, rate in ((32, 0.25), (64, 0.5))
    ]
    assert first[0] == first[1]


AT = (0.0, 0.3, 0.5, 1.0)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 11, 12, 30])
def test_killed_after_an_update_and_resumed_it_has_the_rows_of_one_that_never_was(trainer, tmp_path, monkeypatch, stop):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(loop, "SEGMENT_SECONDS", 0.0)  # one update a segment
    trials = mixed(trainer)
    never = trainer.train(trials)
    kept, segments = Checkpoints(tmp_path, trainer.circumstances), 0

    def on_updates(updates):
        nonlocal segments
        segments += 1
        if segments > stop + 1:
            raise KilledError

    with pytest.raises(KilledError):
        trainer.train(trials, on_updates, kept)
    assert kept.load([trials[0].id])[trials[0].id].step == stop
    again = trainer.train(trials[::-1], checkpoints=kept)[::-1]
    assert list(map(numbers, again)) == list(map(numbers, never))


@pytest.mark.parametrize("stop", [0, 12, 20, 40])  # the start, alone, and where splits are evaluated too
@pytest.mark.parametrize("taker", ["gradient_noise", "evaluate"])
def test_killed_in_an_estimate_it_is_made_again_and_once(trainer, tmp_path, monkeypatch, stop, taker):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    trials = mixed(trainer)
    never = trainer.train(trials)
    kept = Checkpoints(tmp_path, trainer.circumstances)
    with monkeypatch.context() as patch:
        real = getattr(PackedBackend, taker)

        def take(self, pack, due):
            if pack.steps[due[0]] >= stop:
                raise KilledError
            return real(self, pack, due)

        patch.setattr(PackedBackend, taker, take)
        with pytest.raises(KilledError):
            trainer.train(trials, checkpoints=kept)
    again = trainer.train(trials, checkpoints=kept)
    assert list(map(numbers, again)) == list(map(numbers, never))
