import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from trainers import Trainer

from sgdscope.budget import Epochs
from sgdscope.errors import InputError
from sgdscope.optimizers import SGD
from sgdscope.study import Study
from sgdscope.training import loop
from sgdscope.training.checkpoint import Checkpoint, Checkpoints, Measurement
from sgdscope.training.packed import PackedBackend
from sgdscope.workloads.digits import digits

EXAMPLE = Checkpoint(
    [np.arange(6, dtype=np.float32).reshape(2, 3), np.float32(np.nan), np.array(True)],
    step=7,
    measurements=[Measurement(3, "train", "loss", 0.1), Measurement(3, "test", "score", float("inf"))],
    seconds=1.25,
)


def same(a, b):
    assert (a.step, a.measurements, a.seconds) == (b.step, b.measurements, b.seconds)
    for mine, theirs in zip(a.leaves, b.leaves, strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert np.asarray(mine).dtype == theirs.dtype
    return True


# ── Files ────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_saved_is_loaded(tmp_path):
    kept = Checkpoints(tmp_path, "here")
    kept.save({"a": EXAMPLE})
    assert same(kept.load("a")["a"], EXAMPLE)
    assert kept.load("b") == {}
    assert kept.trials() == {"a"}
    kept.save({"a": dataclasses.replace(EXAMPLE, step=8)})
    assert kept.load("a")["a"].step == 8
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    kept.drop(["a", "b"])
    assert kept.trials() == set()


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:40] + b"x" + b[41:], lambda b: b""])
def test_a_damaged_one_is_of_no_use_but_the_one_before_it_is(tmp_path, damage):
    kept = Checkpoints(tmp_path, "here")
    kept.save({"a": EXAMPLE})
    kept.settle()
    (old,) = (tmp_path / "checkpoints").iterdir()
    content = old.read_bytes()
    kept.save({"a": dataclasses.replace(EXAMPLE, step=8)})
    kept.settle()
    (new,) = (tmp_path / "checkpoints").iterdir()
    new.write_bytes(damage(new.read_bytes()))
    assert kept.load("a") == {}
    old.write_bytes(content)  # as after a kill between the new one's rename and the old one's deletion
    assert same(kept.load("a")["a"], EXAMPLE)


def test_a_file_goes_when_all_of_its_trials_are_committed_and_a_trial_is_taken_from_where_it_is_furthest(tmp_path):
    kept = Checkpoints(tmp_path, "here")
    kept.save({"a": EXAMPLE, "b": dataclasses.replace(EXAMPLE, step=8)})
    kept.save({"b": dataclasses.replace(EXAMPLE, step=3), "c": EXAMPLE})
    assert {name: found.step for name, found in kept.load("abc").items()} == {"a": 7, "b": 8, "c": 7}
    kept.drop(["a"])
    assert kept.trials() == {"a", "b", "c"}
    kept.drop(["b"])
    assert kept.trials() == {"b", "c"}
    kept.drop(["c"])
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_write_that_fails_is_told_and_what_is_written_stays(tmp_path):
    kept = Checkpoints(tmp_path, "here")
    kept.save({"a": EXAMPLE})
    kept.settle()
    (tmp_path / "checkpoints").rename(tmp_path / "elsewhere")
    (tmp_path / "checkpoints").touch()
    kept.save({"a": dataclasses.replace(EXAMPLE, step=8)})
    with pytest.raises(InputError, match="cannot be written"):
        kept.settle()


def test_another_version_or_method_passes_it_over(tmp_path):
    one, two = Checkpoints(tmp_path, "jax 1, cpu, map"), Checkpoints(tmp_path, "jax 2, cpu, map")
    one.save({"a": EXAMPLE})
    assert two.load("a") == {}
    two.save({"a": dataclasses.replace(EXAMPLE, step=1)})
    two.settle()
    assert same(one.load("a")["a"], EXAMPLE)  # and leaves it where it is
    one.drop(["a"])
    assert two.load("a") == {}


def test_nothing_is_unpickled(tmp_path):
    kept = Checkpoints(tmp_path, "here")
    kept.save({"a": dataclasses.replace(EXAMPLE, leaves=[np.array([Explosive()], dtype=object)])})
    assert kept.load("a") == {}


class Explosive:
    def __reduce__(self):
        return (pytest.fail, ("it was unpickled",))


# ── Trials that go on from one ───────────────────────────────────────────────────────────────────────────


class KilledError(Exception):
    pass


def numbers(outcome):
    return (outcome.steps, outcome.diverged, outcome.measurements, outcome.correctness)


@pytest.fixture(scope="module")
def trainer():
    trainer = Trainer(digits(hidden=16), (0.25, 0.5, 1.0), slots=4)
    yield trainer
    trainer.close()


@pytest.mark.parametrize("updates_made", [1, 50, 130, 191])
def test_trials_go_on_bit_for_bit_in_whatever_pack_they_come_to_lie(trainer, tmp_path, monkeypatch, updates_made):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(loop, "SEGMENT_SECONDS", 0.0)  # one update a segment
    study = Study(name="s", workloads=trainer.workload, batch_sizes=(32,), budgets=Epochs(3))
    declared = study.declaration()
    trials = [declared.trial(SGD(momentum=0.9), 32, 0.0625, seed) for seed in range(3)]
    trials += [declared.trial(SGD(), 32, 1e30, 0)]
    never = trainer.train(trials)
    assert [outcome.diverged for outcome in never] == [False] * 3 + [True]

    def killed_after(most):
        made = 0

        def on_updates(updates):
            nonlocal made
            made += updates
            if made >= most:
                raise KilledError

        return on_updates

    kept = Checkpoints(tmp_path, trainer.circumstances)
    with pytest.raises(KilledError):
        trainer.train(trials, killed_after(updates_made), kept)
    assert kept.trials() == ({trial.id for trial in trials} if updates_made > 8 else set())
    # Two go on in a pack of their own, and are killed again; then all of them in another order.
    with pytest.raises(KilledError):
        trainer.train(trials[1:3], killed_after(updates_made), kept)
    told = []
    again = trainer.train([trials[i] for i in (3, 1, 0, 2)], told.append, kept)
    assert [numbers(again[i]) for i in (2, 1, 3, 0)] == [numbers(outcome) for outcome in never]
    assert sum(told) == 4 * 96  # what was made before is told as well
    assert all(outcome.seconds > 0 for outcome in again)


def test_a_neighbour_that_diverged_long_ago_does_not_lengthen_the_segments(trainer, tmp_path, monkeypatch):
    """Segments grow with what was made: one in which no trial has anything to do would say that updates are free."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    declared = Study(name="s", workloads=trainer.workload, batch_sizes=(32,), budgets=Epochs(30)).declaration()
    trials = [declared.trial(SGD(), 32, rate, 0) for rate in (0.125, 1e30)]
    kept, told = Checkpoints(tmp_path, trainer.circumstances), []

    def killed(updates):
        told.append(updates)
        if sum(told) > 300:
            raise KilledError

    monkeypatch.setattr(loop, "SEGMENT_SECONDS", 1e-3)
    with pytest.raises(KilledError):
        trainer.train(trials, killed, kept)
    steps = {trial.learning_rate: kept.load([trial.id])[trial.id].step for trial in trials}
    assert steps[1e30] < 10 < steps[0.125]
    lengths = []
    trainer.train(trials, lengths.append, kept)
    assert lengths[0] == sum(steps.values())  # what was made before
    assert lengths[1] == 1
    assert all(b <= 16 * a for a, b in pairwise(lengths[1:-1]))


def test_killed_in_an_evaluation_it_is_made_again_and_no_update_is(trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    declared = Study(name="s", workloads=trainer.workload, batch_sizes=(32,), budgets=Epochs(3)).declaration()
    trials = [declared.trial(SGD(), 32, 0.125, seed) for seed in range(2)]
    never = trainer.train(trials)
    for stop in (24, 48, 96):
        (tmp_path / str(stop)).mkdir()
        kept = Checkpoints(tmp_path / str(stop), trainer.circumstances)
        with monkeypatch.context() as patch:
            real = PackedBackend.evaluate

            def evaluate(self, pack, due, stop=stop, real=real):
                if pack.steps[due[0]] == stop:
                    raise KilledError
                return real(self, pack, due)

            patch.setattr(PackedBackend, "evaluate", evaluate)
            with pytest.raises(KilledError):
                trainer.train(trials, checkpoints=kept)
        assert kept.load([trials[0].id])[trials[0].id].step == stop
        again = trainer.train(trials, checkpoints=kept)
        assert all(set(outcome.correctness) == {"validation", "test"} for outcome in again)
        assert list(map(numbers, again)) == list(map(numbers, never))


def test_a_checkpoint_of_other_shapes_is_passed_over(trainer, tmp_path):
    declared = Study(name="s", workloads=trainer.workload, batch_sizes=(32,), budgets=Epochs(1)).declaration()
    trial = declared.trial(SGD(), 32, 0.125, 0)
    kept = Checkpoints(tmp_path, trainer.circumstances)
    kept.save({trial.id: EXAMPLE})
    assert numbers(trainer.train([trial], checkpoints=kept)[0]) == numbers(trainer.train([trial])[0])


def test_checkpoints_are_written_as_often_as_declared_and_no_more(trainer, tmp_path, monkeypatch):
    study = Study(name="s", workloads=trainer.workload, batch_sizes=(32,), budgets=Epochs(1))
    trial = study.declaration().trial(SGD(), 32, 0.125, 0)
    saved = []
    monkeypatch.setattr(Checkpoints, "save", lambda self, of: saved.extend(c.step for c in of.values()))
    monkeypatch.setattr(loop, "SEGMENT_SECONDS", 0.0)
    trainer.train([trial], checkpoints=Checkpoints(tmp_path, ""))
    assert saved == []  # it took far less than half a minute
    clock = iter(range(0, 10_000, 7))  # each look at the clock comes 7 s after the last
    monkeypatch.setattr(loop.time, "perf_counter", lambda: float(next(clock)))
    trainer.train([trial], checkpoints=Checkpoints(tmp_path, ""))
    assert 0 < len(saved) < 31
    assert saved == sorted(saved)


def test_the_state_of_streams_goes_on_too(tmp_path, monkeypatch, echo):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(loop, "SEGMENT_SECONDS", 0.0)

    declared = Study(name="s", workloads=echo, batch_sizes=(8,), budgets=Epochs(2)).declaration()
    trial = declared.trial(SGD(), 8, 0.01, 0)
    trainer = Trainer(echo, slots=1)
    (never,) = trainer.train([trial])
    kept, made = Checkpoints(tmp_path, trainer.circumstances), []

    def killed(updates):
        made.append(updates)
        if sum(made) == 7:  # within an epoch
            raise KilledError

    with pytest.raises(KilledError):
        trainer.train([trial], killed, kept)
    assert kept.load([trial.id])[trial.id].step == 6
    (again,) = trainer.train([trial], checkpoints=kept)
    trainer.close()
    assert numbers(again) == numbers(never)
