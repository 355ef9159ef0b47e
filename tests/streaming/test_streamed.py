import contextlib
import dataclasses
import functools

import digits_feed
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trainers import Trainer, kind_of

from sgdscope.budget import Steps
from sgdscope.data.order import examples_at
from sgdscope.engine.plan import Costs
from sgdscope.engine.run import plan_study
from sgdscope.errors import InputError
from sgdscope.optimizers import SGD
from sgdscope.records import SPLITS
from sgdscope.streaming.streamed import AddMicrobatch, StreamedBackend
from sgdscope.streaming.workers import WorkerDiedError, Workers
from sgdscope.study import Study
from sgdscope.training import loop
from sgdscope.training.checkpoint import Checkpoint, Checkpoints
from sgdscope.training.jax_setup import COMPILER_OPTIONS
from sgdscope.training.loop import Milestones
from sgdscope.training.traced import trace
from sgdscope.workloads.base import Feed, examples_in
from sgdscope.workloads.digits import digits

AT = (0.3, 1.0)


class StreamedTrainer(Trainer):
    """Train the trials of a workload with a feed."""

    def __init__(self, workload, evaluate_at=(1.0,), **how):
        self.workload, self.milestones = workload, Milestones(evaluate_at)
        self.backend = StreamedBackend(trace(workload), **how)


class KilledError(Exception):
    pass


def plain_digits(**changes):
    """Digits with all that training may differ in: a key for each example and visit, a state, and a penalty."""

    def training_loss(parameters, state, batch, keys):
        noise = jax.vmap(jax.random.uniform)(keys)
        losses = plain.loss(parameters, (), {**batch, "picture": batch["picture"] * noise[:, None]})
        return losses, state * 0.5 + noise.mean()

    plain = digits(hidden=16)
    usual = {
        "training_loss": training_loss,
        "init_state": lambda: jnp.float32(1),
        "loss": lambda p, state, batch: plain.loss(p, (), batch) + state,
        "score": lambda p, state, batch: plain.score(p, (), batch),
        "penalty": lambda parameters: 0.01 * sum((leaf**2).sum() for leaf in jax.tree.leaves(parameters)),
    }
    return dataclasses.replace(plain, **usual | changes)


def fed_digits(read=digits_feed.read, **changes):
    feed = Feed(
        digits_feed.LAYOUT, lambda split, index: (split, index), read, {"train": 10, "validation": 2, "test": 3}
    )
    return plain_digits(reader=feed, **changes)


def trial_of(workload, batch_size=64, budget=Steps(20), optimizer=SGD(momentum=0.9), rate=0.0625, seed=1, **fields):  # noqa: B008
    study = Study(name="s", workloads=workload, batch_sizes=(batch_size,), budgets=budget, **fields)
    declared = study.declaration()
    return declared.trial(optimizer, batch_size, rate, seed), declared.microbatch_sizes(declared.workloads[0])


def numbers(outcome):
    return (outcome.steps, outcome.diverged, outcome.measurements, outcome.correctness)


def assert_close(one, other, rtol=1e-5):
    assert (one.steps, one.diverged) == (other.steps, other.diverged)
    key = lambda m: (m.step, m.split, m.metric)
    mine, theirs = ({key(m): m.value for m in outcome.measurements} for outcome in (one, other))
    assert mine.keys() == theirs.keys()
    np.testing.assert_allclose([mine[k] for k in theirs], list(theirs.values()), rtol=rtol)
    assert one.correctness == other.correctness


@pytest.fixture(scope="module", autouse=True)
def _quickly_compiled():
    """Compiling is nearly all that these tests do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(COMPILER_OPTIONS, "cpu", COMPILER_OPTIONS["cpu"] | {"xla_backend_optimization_level": 0})
        yield


@pytest.fixture(scope="module")
def trainer():
    trainer = StreamedTrainer(fed_digits(), AT, workers=2)
    yield trainer
    trainer.close()


@contextlib.contextmanager
def reading(trainer, read, count):
    """Other processes for the same programs."""
    backend = trainer.backend
    own, backend._workers = backend._workers, Workers(read, digits_feed.LAYOUT, count)
    try:
        yield trainer
    finally:
        backend._workers.close()
        backend._workers = own


@pytest.fixture(scope="module")
def resident():
    trainer = Trainer(plain_digits(), AT, slots=1)
    yield trainer
    trainer.close()


# ── Against the same trial in a pack ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("batch_size", "fields"),
    [(64, {"optimizer": SGD(), "rate": 0.25}), (64, {}), (48, {"microbatch_size": 16})],
)
def test_a_trial_is_the_one_whose_data_lie_on_the_device(trainer, resident, batch_size, fields):
    trial, _ = trial_of(fed_digits(), batch_size, **fields)
    assert trial.id == trial_of(plain_digits(), batch_size, **fields)[0].id
    (mine,), (theirs,) = trainer.train([trial]), resident.train([trial])
    assert_close(mine, theirs)
    assert mine.correctness.keys() == {"validation", "test"}


def test_divergence_is_found_at_its_step(trainer, resident):
    trial, _ = trial_of(fed_digits(), rate=1e30)
    told = []
    (mine,), (theirs,) = trainer.train([trial], told.append), resident.train([trial])
    assert mine.diverged
    assert (mine.steps, mine.correctness) == (theirs.steps, theirs.correctness)
    assert mine.steps < 20
    assert sum(told) == 20


def test_one_program_serves_every_batch_size_with_the_same_microbatch(trainer):
    trial, _ = trial_of(fed_digits(), 128, microbatch_size=64)
    (outcome,) = trainer.train([trial])
    microbatches = [time.program for time in trainer.compiler.compile_times if time.program.startswith("microbatch")]
    assert sorted(set(microbatches)) == sorted(microbatches)
    assert "microbatch size 128" not in microbatches
    assert not outcome.diverged


# ── The same bits ────────────────────────────────────────────────────────────────────────────────────────


def test_the_number_of_processes_changes_no_bit(trainer):
    trial, _ = trial_of(fed_digits())
    (outcome,) = trainer.train([trial])
    for count in (1, 3):
        with reading(trainer, digits_feed.read, count) as other:
            assert numbers(other.train([trial])[0]) == numbers(outcome)


@pytest.mark.parametrize("most", [1, 6, 13, 19])
def test_a_killed_trial_goes_on_bit_for_bit(trainer, tmp_path, monkeypatch, most):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(loop, "SEGMENT_SECONDS", 0.0)  # one update a segment
    trial, _ = trial_of(fed_digits(), 48, microbatch_size=16)
    (never,) = trainer.train([trial])
    made = 0

    def on_updates(updates):
        nonlocal made
        made += updates
        if made >= most:
            raise KilledError

    kept = Checkpoints(tmp_path, trainer.circumstances)
    with pytest.raises(KilledError):
        trainer.train([trial], on_updates, kept)
    told = []
    (again,) = trainer.train([trial], told.append, kept)
    assert numbers(again) == numbers(never)
    assert told[0] == most - 1  # the last update's checkpoint comes after it is told
    assert sum(told) == 20


def test_what_an_evaluation_found_is_kept_before_training_goes_on(trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(loop, "SEGMENT_SECONDS", 0.0)  # one update a segment
    trial, _ = trial_of(fed_digits())
    made, kept = 0, Checkpoints(tmp_path, trainer.circumstances)

    def on_updates(updates):
        nonlocal made
        made += updates
        if made == 7:  # of 20; 6 are 0.3
            raise KilledError

    with pytest.raises(KilledError):
        trainer.train([trial], on_updates, kept)
    checkpoint = kept.load([trial.id])[trial.id]
    assert checkpoint.step == 6
    assert {(m.step, m.split, m.metric) for m in checkpoint.measurements} == {
        (6, split, metric) for split in ("train", "validation", "test") for metric in ("loss", "score")
    }


def test_a_checkpoint_of_other_libraries_is_passed_over(trainer):
    feed = dataclasses.replace(trainer.workload.feed, circumstances="decoder 2.0")
    other = dataclasses.replace(trainer.workload, reader=feed)
    changed = StreamedTrainer(other, workers=1)
    changed.close()
    assert changed.circumstances == trainer.circumstances + "decoder 2.0"


def test_a_checkpoint_of_other_shapes_is_passed_over(trainer, tmp_path):
    trial, _ = trial_of(fed_digits())
    (outcome,) = trainer.train([trial])
    kept = Checkpoints(tmp_path, trainer.circumstances)
    kept.save({trial.id: Checkpoint([np.zeros(3)], 7, [], 1.0)})
    assert numbers(trainer.train([trial], checkpoints=kept)[0]) == numbers(outcome)


def test_training_sees_each_example_once_an_epoch_in_the_order_of_the_seed():
    """What is read for an update, seen through a loss that says it; 1,024 examples in batches of 96 straddle epochs."""
    seen = []

    def training_loss(parameters, state, batch, keys):
        jax.debug.callback(lambda *of: seen.append(of), batch["picture"][:, 0], batch["label"])
        return parameters["w"] - 0.0 * batch["picture"][:, 0], state

    one_each = lambda parameters, state, batch: parameters["w"] + 0.0 * batch["picture"][:, 0]
    workload = fed_digits(
        digits_feed.read_marked, init=lambda key: {"w": jnp.ones(())}, loss=one_each, score=one_each,
        training_loss=training_loss, init_state=None, penalty=None,
    )  # fmt: skip
    trial, _ = trial_of(workload, 96, budget=Steps(22), rate=1e-9, seed=3, microbatch_size=48)
    trainer = StreamedTrainer(workload, (1.0,), workers=2)
    trainer.train([trial])
    jax.effects_barrier()
    trainer.close()
    index, label = (np.concatenate([np.asarray(of[part]) for of in seen]).astype(int) for part in (0, 1))
    assert index.tolist() == examples_at(3, np.arange(22 * 96), 1024).tolist()
    assert sorted(index[:1024]) == list(range(1024))
    assert label.tolist() == (3 * 16 + np.arange(22 * 96) // 1024).tolist()


# ── What can go wrong ────────────────────────────────────────────────────────────────────────────────────


def test_an_example_that_cannot_be_read_is_named(trainer):
    with reading(trainer, digits_feed.read_or_fail, 1), pytest.raises(InputError, match="image 100 cannot be read"):
        trainer.train([trial_of(fed_digits())[0]])


def test_what_cannot_be_sent_to_processes_is_refused_before_anything_is_trained():
    with pytest.raises(
        InputError, match=r"workload 'digits': the feed's read cannot be sent .*lambda.*\. Define it at"
    ):
        StreamedTrainer(fed_digits(lambda *place: digits_feed.read(*place)))


@pytest.mark.parametrize("of_whom", ["training", "evaluation"])
def test_examples_that_are_not_the_layouts_are_refused_before_anything_is_trained(of_whom):
    read = functools.partial(digits_feed.read_doubles, of_whom)
    with pytest.raises(InputError, match="the feed's read gave 'picture' as float64 of shape"):
        StreamedTrainer(fed_digits(read))


def test_a_process_that_dies_stops_the_trial_which_then_goes_on_bit_for_bit(trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(loop, "SEGMENT_SECONDS", 0.0)  # one update a segment
    flag = tmp_path / "flag"
    flag.touch()
    trial, _ = trial_of(fed_digits())
    (never,) = trainer.train([trial])
    kept = Checkpoints(tmp_path, trainer.circumstances)
    with reading(trainer, functools.partial(digits_feed.read_or_die, str(flag)), 2) as dying:
        with pytest.raises(WorkerDiedError, match="SIGKILL"):
            dying.train([trial], checkpoints=kept)
        assert not flag.exists()
        (again,) = dying.train([trial], checkpoints=kept)
    assert numbers(again) == numbers(never)


# ── Devices ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_trial_shared_by_two_devices_is_the_trial_of_one_to_float_tolerance(trainer):
    trial, _ = trial_of(fed_digits(), devices_per_trial=2)
    (one,) = trainer.train([trial])
    shared = StreamedTrainer(fed_digits(), AT, devices_per_trial=2, workers=1)
    (two,) = shared.train([trial])
    assert_close(two, one)
    # Each device has a part of the batch, or there were nothing to add up.
    assert "all-reduce" in shared.prepare(AddMicrobatch(64)).result().as_text()
    assert "all-reduce" not in trainer.prepare(AddMicrobatch(64)).result().as_text()
    shared.close()


def test_a_plan_counts_at_least_what_reading_takes(trainer):
    """Evaluation has few operations, but every example must be read for it."""
    costs = Costs(trace(trainer.workload), evaluations=2)
    costs.probe(trainer, [kind_of(trainer.workload, 64, SGD(), budgets=Steps(2))])
    read = 2 * sum(examples_in(trainer.workload.split(name)) for name in SPLITS) * trainer.seconds_to_read
    assert trainer.seconds_to_read > 0
    assert costs.per_trial(0, 64) >= read


def test_a_plan_whose_processes_die_says_so_in_a_sentence():
    workload = fed_digits(digits_feed.die_in_a_process)
    study = Study(name="s", workloads=workload, batch_sizes=64, budgets=Steps(2), optimizers=SGD(), seeds=1)
    with pytest.raises(InputError, match=r"workload 'digits': Data-loading worker .*SIGKILL"):
        plan_study(study)


def test_a_plan_is_made_by_one_process(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match="a plan is made by one process"):
        plan_study(Study(name="s", workloads=fed_digits(), batch_sizes=64, budgets=Steps(2)))


def test_an_update_is_timed(trainer):
    kind = kind_of(trainer.workload, 64, SGD(), budgets=Steps(2))
    assert (
        0
        < trainer.seconds_per_update(kind)
        < trainer.seconds_per_update(dataclasses.replace(kind, batch_size=64 * 10**4))
    )
