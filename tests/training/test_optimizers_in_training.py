"""What a rule is given and may ask for in training, and that its trials keep their own numbers."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_methods import drawing
from test_own_numbers import network
from trainers import Trainer, kind_of

from sgdscope.budget import Steps
from sgdscope.errors import InputError
from sgdscope.optimizers import KFAC, SGD, SVRG, Adam, AdamW, GradientPenalty, Optax, Optimizer
from sgdscope.schedules import Constant, Cosine, Halving, WarmupStableDecay
from sgdscope.study import Study
from sgdscope.training import loop
from sgdscope.training.checkpoint import Checkpoints
from sgdscope.training.jax_setup import PINNED
from sgdscope.training.packed import PackedBackend
from sgdscope.training.step import Kind, Recipe, Settings, full_gradient, start
from sgdscope.training.traced import trace
from sgdscope.workloads.digits import digits


@dataclass(frozen=True)
class Asking(Optimizer):
    """SGD that asks for its gradient again, after it asked for another one elsewhere."""

    asks = frozenset({"gradient"})
    family = "asking"

    def init(self, parameters):
        return ()

    def update(self, gradient, state, parameters, learning_rate, numbers, ask):
        elsewhere = ask.gradient(jax.tree.map(lambda p: p + 1, parameters))
        again = ask.gradient(parameters)
        nothing = jax.tree.map(lambda a, b: a * 0 + b, elsewhere, again)
        return jax.tree.map(lambda p, g: p - learning_rate * g, parameters, nothing), state


@dataclass(frozen=True)
class Full(Optimizer):
    """Descent by the full gradient."""

    asks = frozenset({"full_gradient"})
    family = "full"

    def init(self, parameters):
        return ()

    def update(self, gradient, state, parameters, learning_rate, numbers, ask):
        return jax.tree.map(lambda p, g: p - learning_rate * g, parameters, ask.full_gradient(parameters)), state


def numbers(outcome):
    return outcome.steps, outcome.diverged, outcome.measurements, outcome.correctness


def values(outcome):
    return {(m.step, m.split, m.metric): m.value for m in outcome.measurements}


def trial_of(workload, optimizer, batch_size=32, rate=0.02, seed=3, **fields):
    study = Study(
        name="s", workloads=workload, batch_sizes=(batch_size,), budgets=Steps(24), optimizers=optimizer, **fields
    )
    return study.declaration().trial(optimizer, batch_size, rate, seed)


# ── The oracle ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("microbatch_size", [None, 8])
def test_a_gradient_that_is_asked_for_again_is_of_the_same_examples_and_random_numbers(microbatch_size):
    """With dropout and a penalty; what is recorded does not depend on what the rule asks."""
    workload = network()
    trainer = Trainer(workload, (0.5, 1.0), slots=1)
    found = [
        values(trainer.train([trial_of(workload, optimizer, microbatch_size=microbatch_size)])[0])
        for optimizer in (Asking(), SGD())
    ]
    trainer.close()
    assert found[0].keys() == found[1].keys()
    np.testing.assert_allclose(list(found[0].values()), list(found[1].values()), rtol=1e-5)


@pytest.mark.parametrize(("chunk", "ghost"), [(7, 1), (96, 1), (40, 6)])
def test_the_full_gradient_is_that_of_the_mean_over_the_split(chunk, ghost):
    workload = replace(network(), training_loss=None, evaluation_batch_size=chunk, ghost_batch_size=ghost)
    split = {key: jnp.asarray(array) for key, array in workload.train.items()}
    state = start(workload, SGD(), Settings(0.0, {}, jnp.uint32(3), jnp.int32(1)))
    parameters, recipe = state.parameters, Recipe(workload, kind_of(workload, 12, SGD(), budgets=Steps(1)))
    ours = full_gradient(recipe, split, jnp.uint32(3), state, parameters)
    mean = lambda p: workload.loss(p, (), workload.train).mean() + workload.penalty(p)
    for mine, theirs in zip(jax.tree.leaves(ours), jax.tree.leaves(jax.grad(mean)(parameters)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)


def test_descent_by_the_full_gradient_is_a_full_batch():
    workload = digits(hidden=8)
    trainer = Trainer(workload, slots=1)
    full, batch = (
        values(trainer.train([trial_of(workload, optimizer, size, rate=0.5)])[0])
        for optimizer, size in ((Full(), 32), (SGD(), 1024))
    )
    trainer.close()
    assert full[24, "test", "loss"] == pytest.approx(batch[24, "test", "loss"], rel=1e-3)


def test_what_examples_elsewhere_cannot_answer_is_refused_before_anything_is_trained(echo):
    study = partial(Study, name="s", workloads=echo, batch_sizes=(8,), budgets=Steps(2))
    study(optimizers=Asking())
    with pytest.raises(InputError, match=r"^optimizers: full needs more than the gradient of each batch, .*'echo'"):
        study(optimizers=Full())


# ── Promise 1 for every rule ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [
        (Adam(), Cosine()),
        (AdamW(half_life=500), WarmupStableDecay()),
        (Optax("lion", optax.lion), Constant()),
        (Asking(), Halving()),
        (SVRG(), Halving()),
        (GradientPenalty(block=8), Halving()),
        (KFAC(), Halving()),
    ],
)
@pytest.mark.parametrize("method", ["map", "step"])
def test_a_trial_is_its_own_in_any_pack_and_after_a_kill(optimizer, schedule, method, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(loop, "SEGMENT_SECONDS", 0.0)
    workload = drawing(network())
    trainer = Trainer(workload, (0.5, 1.0), method=method, slots=2)
    mine = trial_of(workload, optimizer, schedule=schedule)
    others = [trial_of(workload, optimizer, rate=rate, schedule=schedule) for rate in (1e30, 0.1, 1e25)]
    (alone,) = trainer.train([mine])
    packed = trainer.train([*others, mine][-trainer.capacity :])
    assert numbers(packed[-1]) == numbers(alone)
    assert not alone.diverged

    def killed(updates, made=[0]):  # noqa: B006 - it counts
        made[0] += updates
        if made[0] > 13:
            raise KeyboardInterrupt

    kept = Checkpoints(tmp_path, trainer.circumstances)
    with pytest.raises(KeyboardInterrupt):
        trainer.train([mine], killed, kept)
    assert 12 <= kept.load([mine.id])[mine.id].step < 24
    (again,) = trainer.train([mine], checkpoints=kept)
    trainer.close()
    assert numbers(again) == numbers(alone)


@pytest.mark.parametrize("optimizer", [SGD(), Adam(), AdamW(), Optax("lion", optax.lion)])
def test_what_is_timed_are_updates_that_are_made(optimizer, monkeypatch):
    workload = network()
    trainer = Trainer(workload, slots=1)
    run, made = PackedBackend._run, []

    def noted(self, pack, ends, steps):
        run(self, pack, ends, steps)
        made.append(np.asarray(pack.state.step).min() == np.asarray(ends).max())

    monkeypatch.setattr(PackedBackend, "_run", noted)
    assert trainer.seconds_per_update(Kind.of(trial_of(workload, optimizer))) > 0
    trainer.close()
    assert made
    assert all(made)


def test_one_program_serves_all_numbers_of_a_rule():
    workload = network()
    trainer = Trainer(workload, slots=1)
    for optimizer in (Adam(), Adam(beta1=0.5), Adam(weight_decay=0.1), Adam(half_life=100)):
        trainer.train([trial_of(workload, optimizer)])
    trainer.close()
    assert [t.program for t in trainer.compiler.compile_times if t.program.startswith("batch size")] == [
        "batch size 32, pack size 2"
    ]


def test_a_trial_of_adam_is_a_plain_loop_with_optax():
    workload = digits(hidden=8)
    trainer = Trainer(workload, slots=1)
    found = values(trainer.train([trial_of(workload, AdamW(), 1024, 0.01, schedule=Cosine())])[0])
    trainer.close()
    with jax.numpy_dtype_promotion("standard"):
        rule = optax.adamw(optax.cosine_decay_schedule(0.01, 24))
        parameters = workload.init(jax.random.split(jax.random.key(3))[0])
        state, gradient = (
            rule.init(parameters),
            jax.jit(jax.grad(lambda p: workload.loss(p, (), workload.train).mean())),
        )
        for _ in range(24):
            updates, state = rule.update(gradient(parameters), state, parameters)
            parameters = optax.apply_updates(parameters, updates)
    for split in ("train", "validation", "test"):
        expected = float(workload.loss(parameters, (), workload.split(split)).mean())
        assert found[24, split, "loss"] == pytest.approx(expected, rel=1e-3)


# ── Identity ─────────────────────────────────────────────────────────────────────────────────────────────


def test_optimizers_and_schedules_are_part_of_a_trials_id_and_the_usual_ones_leave_it_as_it_was():
    workload = digits(hidden=16)
    trials = [
        trial_of(workload, optimizer, schedule=schedule)
        for optimizer in (SGD(), SGD(momentum=0.9), Adam(), AdamW(), Adam(beta2=0.99), Optax("a", optax.lion))
        for schedule in (Halving(), Constant(), Cosine(), WarmupStableDecay(), WarmupStableDecay(0.1, 0.3))
    ]
    assert len({trial.id for trial in trials}) == len(trials)
    assert [trials[0].id, trials[5].id] == GOLDEN


GOLDEN = ["943777292f27180c", "7866c637e3b1a17b"]  # from when SGD and momentum were all that there was


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (None, r"^optimizers: optax:mine can be read but not trained here; declare it with its build function\.$"),
        (lambda rate: rate, r"^optimizers: optax:mine cannot be traced by JAX: AttributeError: "),
        (lambda: optax.lion(1.0), r"^optimizers: optax:mine cannot be traced by JAX: TypeError: "),
    ],
)
def test_an_optimizer_that_cannot_be_trained_is_refused_in_a_sentence(build, said):
    with pytest.raises(InputError, match=said):
        trace(network()).optimizer_fingerprint(Optax("mine", build))


def test_what_an_optimizer_of_the_users_computes_can_be_told_apart(monkeypatch):
    monkeypatch.setitem(PINNED, "numpy_dtype_promotion", "standard")  # which optax relies on
    traced = trace(network())
    prints = [
        traced.optimizer_fingerprint(Optax("mine", build))
        for build in (optax.lion, optax.lion, optax.adam, lambda rate: optax.lion(rate, b1=0.5))
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
