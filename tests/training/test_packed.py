import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trainers import Trainer, kind_of

from sgdscope.budget import Epochs, Steps
from sgdscope.data.order import example_at
from sgdscope.errors import InputError
from sgdscope.models.convolution import convolution
from sgdscope.optimizers import SGD
from sgdscope.study import Study
from sgdscope.testing.quadratic import NoisyQuadratic
from sgdscope.training import loop, packed
from sgdscope.training.checkpoint import Checkpoints
from sgdscope.training.step import Kind
from sgdscope.training.traced import trace
from sgdscope.workloads.base import Resident, Workload
from sgdscope.workloads.digits import digits


def declared(workload, batch_size, budget):
    return Study(name="s", workloads=workload, batch_sizes=(batch_size,), budgets=budget).declaration()


def numbers(outcome):
    return (outcome.steps, outcome.diverged, outcome.measurements, outcome.correctness)


def rates_of_schedule(updates, rate):
    """The schedule, written down a second time in another way."""
    rates = np.full(updates, rate)
    for k in range(10):
        rates[int(np.ceil(updates / 2 + k * updates / 20)) :] = rate / 2 ** (k + 1)
    return rates


@pytest.fixture(scope="module")
def digits_trainer():
    trainer = Trainer(digits(hidden=16), (0.5, 1.0), slots=16)
    yield trainer
    trainer.close()


# ── Against the exact moments of the noisy quadratic ─────────────────────────────────────────────────────


@pytest.mark.parametrize(("optimizer", "rate"), [(SGD(), 0.25), (SGD(momentum=0.9), 0.0625)])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_mean_loss_follows_the_moment_recursion(optimizer, rate, batch_size):
    quadratic = NoisyQuadratic()
    moments = (0.05, 0.25, 0.5, 0.75, 1.0)
    trainer = Trainer(quadratic.workload(), moments, slots=256)
    declaration = declared(quadratic.workload(), batch_size, Steps(200))
    outcomes = trainer.train([declaration.trial(optimizer, batch_size, rate, seed) for seed in range(512)])
    trainer.close()
    losses = np.array([[m.value for m in o.measurements if (m.split, m.metric) == ("train", "loss")] for o in outcomes])
    expected = quadratic.expected_loss(rates_of_schedule(200, rate), optimizer.momentum, batch_size)
    error = losses.std(axis=0, ddof=1) / np.sqrt(len(losses))
    at = [round(200 * moment) for moment in moments]
    assert (np.abs(losses.mean(axis=0) - expected[at]) < 4 * error).all()
    assert (error < 0.1 * expected[at]).all()  # narrow enough to mean something


@pytest.mark.parametrize(("optimizer", "rate"), [(SGD(), 0.5), (SGD(momentum=0.9), 0.125)])
def test_stationary_variance(optimizer, rate):
    quadratic = NoisyQuadratic(curvatures=(1.0, 0.5))
    trainer = Trainer(quadratic.workload(), (0.5, 1.0), slots=256)
    declaration = declared(quadratic.workload(), 2, Steps(600))
    outcomes = trainer.train([declaration.trial(optimizer, 2, rate, seed) for seed in range(512)])
    trainer.close()
    half = np.array([o.measurements[0].value for o in outcomes])
    variance = quadratic.stationary_variance(rate, optimizer.momentum, 2)
    expected = 0.5 * (np.array([1.0, 0.5]) * variance).sum()
    assert abs(half.mean() - expected) < 4 * half.std(ddof=1) / np.sqrt(len(half))


# ── Against a plain loop ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("optimizer", [SGD(), SGD(momentum=0.9)])
@pytest.mark.parametrize("batch_size", [48, 1000])
def test_a_trial_is_a_plain_loop_with_optax(optimizer, batch_size, digits_trainer):
    """Batches that straddle epochs, whole-split evaluation and the schedule, one step at a time."""
    workload = digits_trainer.workload
    trial = declared(workload, batch_size, Steps(30)).trial(optimizer, batch_size, 0.125, seed=5)
    (outcome,) = digits_trainer.train([trial])
    parameters = workload.init(jax.random.split(jax.random.key(5))[0])
    rates = rates_of_schedule(30, 0.125)
    rule = optax.sgd(lambda step: jnp.asarray(rates, jnp.float32)[step], momentum=optimizer.momentum)
    state = rule.init(parameters)
    gradient = jax.jit(jax.grad(lambda p, batch: workload.loss(p, (), batch).mean()))
    for step in range(30):
        position = jnp.arange(step * batch_size, (step + 1) * batch_size, dtype=jnp.uint32)
        index = np.asarray(example_at(jnp.uint32(5), position, 1024))
        updates, state = rule.update(gradient(parameters, {k: v[index] for k, v in workload.train.items()}), state)
        parameters = optax.apply_updates(parameters, updates)
    last = {(m.split, m.metric): m.value for m in outcome.measurements if m.step == 30}
    for split in ("train", "validation", "test"):
        data = workload.split(split)
        np.testing.assert_allclose(last[split, "loss"], workload.loss(parameters, (), data).mean(), rtol=1e-4)
        np.testing.assert_allclose(
            last[split, "score"], workload.score(parameters, (), data).mean(), atol=2.1 / len(data["label"])
        )


# ── A trial's numbers are its own ────────────────────────────────────────────────────────────────────────


def test_a_trial_alone_is_bit_for_bit_the_trial_in_a_pack_with_diverging_neighbours(digits_trainer):
    declaration = declared(digits_trainer.workload, 32, Epochs(3))
    mine = declaration.trial(SGD(momentum=0.9), 32, 0.0625, seed=1)
    others = [declaration.trial(SGD(), 32, 10.0**k, seed) for k in range(-2, 30, 2) for seed in range(2)][:31]
    (alone,) = digits_trainer.train([mine])
    packed = digits_trainer.train([*others[:17], mine, *others[17:]])
    assert numbers(packed[17]) == numbers(alone)
    diverged = [outcome for outcome in packed if outcome.diverged]
    assert len(diverged) > 5
    assert all(outcome.steps < mine.updates for outcome in diverged)


def test_the_number_of_devices_and_slots_changes_no_bit(digits_trainer):
    declaration = declared(digits_trainer.workload, 32, Epochs(2))
    trials = [declaration.trial(SGD(), 32, 2.0**k, seed) for k in (-4, -2, 0, 40) for seed in range(2)]
    two = digits_trainer.train(trials)
    one_device = Trainer(digits_trainer.workload, (0.5, 1.0), devices=jax.devices()[:1], slots=8)
    one = one_device.train(trials)
    one_device.close()
    assert list(map(numbers, one)) == list(map(numbers, two))


def test_vmap_agrees_to_float_tolerance_away_from_divergence(digits_trainer):
    declaration = declared(digits_trainer.workload, 32, Steps(40))
    trials = [declaration.trial(SGD(), 32, 2.0**k, seed) for k in (-4, -2) for seed in range(2)]
    trials.append(declaration.trial(SGD(), 32, 1e25, 0))
    at_once = Trainer(digits_trainer.workload, (0.5, 1.0), method="vmap", slots=3)
    outcomes = at_once.train(trials)
    at_once.close()
    for ours, theirs in zip(outcomes[:-1], digits_trainer.train(trials)[:-1], strict=True):
        for a, b in zip(ours.measurements, theirs.measurements, strict=True):
            assert a.value == pytest.approx(b.value, rel=1e-3, abs=2 / 256)
    assert outcomes[-1].diverged


def test_the_users_configuration_changes_no_bit(digits_trainer):
    trial = declared(digits_trainer.workload, 64, Epochs(1)).trial(SGD(), 64, 0.25, seed=0)
    (before,) = digits_trainer.train([trial])
    with jax.enable_x64(True), jax.default_prng_impl("rbg"), jax.default_matmul_precision("bfloat16"):
        other = Trainer(digits_trainer.workload, (0.5, 1.0), slots=16)
        (after,) = other.train([trial])
        other.close()
    assert numbers(before) == numbers(after)


# ── One update a call ────────────────────────────────────────────────────────────────────────────────────


def small_convolutional(convolved):
    rng = np.random.default_rng(0)
    split = {"x": rng.normal(size=(40, 6, 6, 2)).astype(np.float32), "y": rng.normal(size=40).astype(np.float32)}

    def loss(p, state, batch):
        hidden = jax.nn.relu(convolved(batch["x"], p["first"]))
        return (convolved(hidden, p["second"]).mean(axis=(1, 2, 3)) - batch["y"]) ** 2

    def init(key):
        first, second = jax.random.split(key)
        return {"first": jax.random.normal(first, (3, 3, 2, 4)), "second": jax.random.normal(second, (3, 3, 4, 1))}

    return Workload(
        name="w", version="1", train=split, validation=split, test=split, loss=loss, score=loss, init=init,
        constant_loss=1.0, constant_score=1.0, score_goal="minimize",
    )  # fmt: skip


def jax_convolution(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def test_a_workload_whose_convolutions_are_slow_in_a_loop_is_trained_one_update_a_call():
    stepped = Trainer(small_convolutional(jax_convolution), (0.5, 1.0))
    looped = Trainer(small_convolutional(convolution), (0.5, 1.0))
    assert (stepped.method, looped.method) == ("step", "map")
    assert stepped.capacity == stepped.concurrency == 2
    declaration = declared(looped.workload, 16, Steps(30))
    trials = [declaration.trial(SGD(momentum=0.9), 16, 0.02, seed) for seed in range(2)]
    told = []
    ours, theirs = looped.train(trials), stepped.train(trials, told.append)
    assert sum(told) == 60
    for a, b in zip(ours, theirs, strict=True):
        assert [(m.step, m.split, m.metric) for m in a.measurements] == [
            (m.step, m.split, m.metric) for m in b.measurements
        ]
        np.testing.assert_allclose(
            [m.value for m in b.measurements], [m.value for m in a.measurements], rtol=1e-4, atol=1e-6
        )
    # Alone, or beside one that diverges, it is bit for bit what it is with the other seed.
    (alone,) = stepped.train(trials[:1])
    beside, diverging = stepped.train([trials[0], declaration.trial(SGD(), 16, 1e30, 0)])
    assert numbers(alone) == numbers(beside) == numbers(theirs[0])
    assert diverging.diverged
    assert diverging.steps < 5
    assert stepped.seconds_per_update(Kind.of(trials[0])) > 0
    for trainer in (stepped, looped):
        trainer.close()


@pytest.mark.parametrize(("width", "slots"), [(16, 64), (2_000, 8), (100_000, 2)])
def test_a_pack_is_no_larger_than_its_checkpoints_can_be(width, slots):
    """Parameters, velocity and curve of all trials together stay below 64 MiB, or there is one trial a device."""
    split = {"x": np.ones((8, 1), np.float32)}
    loss = lambda p, state, batch: (batch["x"] @ p[:1, :1])[:, 0] ** 2
    workload = Workload(
        name="w", version="1", train=split, validation=split, test=split, loss=loss, score=loss,
        init=lambda key: jnp.zeros((500, width)), constant_loss=1.0, constant_score=1.0,
    )  # fmt: skip
    trainer = Trainer(workload)
    trainer.close()
    assert trainer.capacity == slots
    assert slots == 2 or slots * 2 * 500 * width * 4 <= 2**26


# ── Divergence ───────────────────────────────────────────────────────────────────────────────────────────


def test_divergence_is_found_at_its_step():
    """Without noise θ grows by the factor |1 − ε| a step; the loss of float32 overflows at a step one can count."""
    quadratic = NoisyQuadratic(curvatures=(1.0,), noise=0.0)
    trial = declared(quadratic.workload(), 1, Steps(100)).trial(SGD(), 1, 101.0, seed=0)
    trainer = Trainer(quadratic.workload(), (0.05, 1.0), slots=1)
    (outcome,) = trainer.train([trial])
    trainer.close()
    theta, steps = np.float32(1), 0
    with np.errstate(over="ignore"):
        while np.isfinite(np.float32(0.5) * theta**2):
            theta, steps = theta * np.float32(-100), steps + 1
    assert (outcome.diverged, outcome.steps) == (True, steps)
    # What was measured before is kept: both metrics of three splits, and the curve as far as it came.
    assert [m.step for m in outcome.measurements if m.metric != "minibatch_loss"] == [5] * 6
    assert [m.step for m in outcome.measurements if m.metric == "minibatch_loss"] == list(range(2, steps + 1, 2))


def test_a_loss_that_overflows_in_the_last_update_is_divergence():
    quadratic = NoisyQuadratic(curvatures=(1.0,), noise=0.0)
    trial = declared(quadratic.workload(), 1, Steps(1)).trial(SGD(), 1, 1e30, seed=0)
    trainer = Trainer(quadratic.workload(), (1.0,), slots=1)
    (outcome,) = trainer.train([trial])
    trainer.close()
    assert (outcome.diverged, outcome.steps) == (True, 1)
    # Its one update was made on a finite loss, that of the start.
    assert [(m.metric, m.value) for m in outcome.measurements] == [("minibatch_loss", 0.5)]


# ── Which examples were right at the end ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "devices_per_trial", "chunk"), [("map", 1, 100), ("vmap", 1, 1024), ("step", 2, 96)]
)
def test_the_bits_are_those_of_a_plain_evaluation_with_the_trained_parameters(
    method, devices_per_trial, chunk, tmp_path, monkeypatch
):
    """The parameters are those of the checkpoint before the last evaluation."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    workload = dataclasses.replace(digits(hidden=16), evaluation_batch_size=chunk)
    trainer = Trainer(workload, (0.5, 1.0), slots=3, method=method, devices_per_trial=devices_per_trial)
    declaration = declared(workload, 32, Steps(40))
    trials = [declaration.trial(SGD(), 32, rate, 0) for rate in (0.25, 1e30)][: trainer.capacity]
    kept = Checkpoints(tmp_path, trainer.circumstances)
    outcomes = trainer.train(trials, checkpoints=kept)
    trainer.close()
    checkpoint = kept.load([trials[0].id])[trials[0].id]
    assert checkpoint.step == 40
    tree = jax.tree.structure(workload.init(jax.random.key(0)))
    parameters = jax.tree.unflatten(tree, checkpoint.leaves[: tree.num_leaves])
    last = {(m.split, m.metric): m.value for m in outcomes[0].measurements if m.step == 40}
    assert set(outcomes[0].correctness) == {"validation", "test"}
    for split, bits in outcomes[0].correctness.items():
        scores = np.asarray(workload.score(parameters, (), workload.split(split)))
        assert 0.1 < scores.mean() < 1
        assert bits == np.packbits(scores == 1).tobytes()
        assert last[split, "score"] == pytest.approx(scores.mean(), rel=1e-6)
    assert all(outcome.diverged and outcome.correctness == {} for outcome in outcomes[1:])


def test_a_score_of_other_numbers_leaves_no_bits():
    plain = digits(hidden=16)
    probability = dataclasses.replace(plain, score=lambda p, state, batch: jnp.exp(-plain.loss(p, state, batch)))
    trainer = Trainer(probability, slots=1)
    (outcome,) = trainer.train([declared(probability, 64, Steps(5)).trial(SGD(), 64, 0.25, 0)])
    trainer.close()
    assert not outcome.diverged
    assert outcome.correctness == {}


# ── What batch size may not change ───────────────────────────────────────────────────────────────────────


def test_evaluation_comes_at_the_same_fractions_and_covers_the_same_examples(digits_trainer):
    at = {}
    for batch_size in (32, 1000):
        trial = declared(digits_trainer.workload, batch_size, Epochs(2)).trial(SGD(), batch_size, 2.0**-20, seed=0)
        (outcome,) = digits_trainer.train([trial])
        at[batch_size] = [m for m in outcome.measurements if m.metric != "minibatch_loss"]
    # At a vanishing rate both are the initial network: the same numbers from the same whole splits.
    for a, b in zip(at[32], at[1000], strict=True):
        assert (a.split, a.metric) == (b.split, b.metric)
        assert a.value == pytest.approx(b.value, rel=1e-4)
    assert sorted({m.step for m in at[32]}) == [32, 64]
    assert sorted({m.step for m in at[1000]}) == [1, 2]


def test_seeds_are_paired_across_batch_sizes_and_optimizers(digits_trainer):
    """The same seed is the same initialization everywhere."""

    def initial_loss(batch_size, optimizer, seed):
        trial = declared(digits_trainer.workload, batch_size, Steps(1)).trial(optimizer, batch_size, 1e-30, seed)
        return digits_trainer.train([trial])[0].measurements[0].value

    assert initial_loss(32, SGD(), 3) == initial_loss(1000, SGD(momentum=0.9), 3)
    assert initial_loss(32, SGD(), 3) != initial_loss(32, SGD(), 4)


# ── A user's functions ───────────────────────────────────────────────────────────────────────────────────


def with_functions(**functions):
    split = {"x": np.ones((8, 2), np.float32)}
    plain = {
        "init": lambda key: jnp.zeros(2),
        "loss": lambda p, state, batch: ((batch["x"] - p[None]) ** 2).sum(axis=1),
        "score": lambda p, state, batch: batch["x"][:, 0],
    }
    return Workload(
        name="mine", version="1", train=split, validation=split, test=split, constant_loss=1.0, constant_score=0.0,
        **(plain | functions),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("functions", "said"),
    [
        (
            {"loss": lambda p, state, batch: ((batch["x"] - p[None]) ** 2).mean()},
            r"loss must return one number for each",
        ),
        ({"score": lambda p, state, batch: batch["x"]}, r"score must return one number for each"),
        ({"init": lambda key: jnp.zeros(2, jnp.int32)}, r"init must return a tree of float32 arrays"),
        ({"init": lambda key: jnp.zeros(2, jnp.bfloat16)}, r"init must return a tree of float32 arrays"),
        ({"init": lambda key: {}}, r"init must return a tree of float32 arrays"),
        ({"loss": lambda p, state, batch: jnp.zeros(2) + p}, r"loss must return one number for each"),
        ({"loss": lambda p, state, batch: batch["y"]}, r"loss cannot be traced by JAX: KeyError: 'y'"),
        ({"loss": lambda batch: batch["x"][:, 0]}, r"loss must take \(parameters, state, batch\)"),
        ({"reader": Resident(lambda key, e: {"x": e["x"][:1]})}, r"augment must return an example of the same shapes"),
    ],
)
def test_functions_that_break_the_contract_are_refused_in_a_sentence(functions, said):
    with pytest.raises(InputError, match=said):
        Trainer(with_functions(**functions))


def test_the_fingerprint_tells_functions_apart_and_finds_the_same_ones_equal():
    fingerprint = lambda **functions: trace(with_functions(**functions)).fingerprint
    same = [fingerprint() for _ in range(2)]
    changed = fingerprint(score=lambda p, state, batch: 2 * batch["x"][:, 0])
    constant = [
        fingerprint(score=lambda p, state, batch, c=c: batch["x"] @ c) for c in (jnp.ones(2), jnp.array([1.0, 2.0]))
    ]
    inside = [
        trace(
            with_functions(
                loss=jax.jit(lambda p, state, batch, c=c: ((batch["x"] * c[None] - p[None]) ** 2).sum(axis=1))
            )
        ).fingerprint
        for c in (jnp.ones(2), jnp.array([1.0, 2.0]))
    ]
    for_many = trace(
        with_functions(score=lambda p, state, batch: batch["x"][:, 0] * (1 if len(batch["x"]) < 5 else 2))
    ).fingerprint
    assert same[0] == same[1] != changed
    assert constant[0] != constant[1]
    assert inside[0] != inside[1]
    assert for_many != same[0]
    key = [fingerprint(init=lambda _, key=key: jax.random.normal(key, 2)) for key in map(jax.random.key, (1, 1, 2))]
    assert key[0] == key[1] != key[2]


def test_a_loss_that_is_never_finite_can_be_timed_and_diverges_at_once(monkeypatch):
    trainer = Trainer(with_functions(loss=lambda p, state, batch: batch["x"][:, 0] + jnp.log(p[0])), slots=1)
    monkeypatch.setattr(packed, "PROBE_SECONDS", 1e9)
    assert trainer.seconds_per_update(kind_of(trainer.workload, 4, SGD(), budgets=Steps(5))) > 0
    trial = declared(trainer.workload, 4, Steps(5)).trial(SGD(), 4, 0.5, seed=0)
    (outcome,) = trainer.train([trial])
    trainer.close()
    assert (outcome.diverged, outcome.steps, outcome.measurements) == (True, 0, [])


def test_nothing_is_compiled_while_updates_are_timed(monkeypatch):
    trainer = Trainer(NoisyQuadratic().workload())
    kinds = [kind_of(trainer.workload, size, SGD(), budgets=Steps(5)) for size in (4, 8, 16)]
    trainer.expect(kinds)
    run, compiling = trainer.backend._run, []

    def seen(*arguments):
        compiling.extend(future for future in trainer.compiler._made.values() if not future.done())
        return run(*arguments)

    monkeypatch.setattr(trainer.backend, "_run", seen)
    monkeypatch.setattr(packed, "PROBE_SECONDS", 0)
    assert trainer.seconds_per_update(kinds[0]) > 0
    trainer.close()
    assert compiling == []
