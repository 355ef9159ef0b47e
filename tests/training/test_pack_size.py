import itertools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgdscope.budget import Steps
from sgdscope.optimizers import SGD
from sgdscope.study import Study
from sgdscope.training import pack
from sgdscope.training.checkpoint import Checkpoints
from sgdscope.training.pack import Trainer
from sgdscope.training.pack_size import Remembered, fastest, powers_of_two
from sgdscope.workloads.digits import digits
from sgdscope.workloads.quadratic import NoisyQuadratic


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SGDSCOPE_CACHE_DIR", str(tmp_path / "cache"))


def declared(workload, updates):
    return Study(name="s", workloads=workload, batch_sizes=(32,), budgets=Steps(updates)).declaration()


# ── Which size ───────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_the_smallest_size_that_holds_a_pack_is_less_than_twice_as_large(most, trials):
    sizes = powers_of_two(most)
    assert sizes == sorted(set(sizes))
    assert sizes[0] == 1
    assert sizes[-1] == most
    if trials <= most:
        assert next(size for size in sizes if size >= trials) < 2 * trials


def test_more_trials_are_taken_while_each_takes_a_tenth_less_and_they_fit():
    def model(overhead, work):
        return lambda size: overhead / size + work

    sizes = [1, 4, 16, 64, 256]
    # a + b/size: from size s to 4 s each trial gains 3a/(4s) of (a/s + b), which is under a tenth above 6.5 a/b.
    assert fastest(model(1.0, 1.0), sizes) == 16
    assert fastest(model(100.0, 1.0), sizes) == 256
    assert fastest(model(0.0, 1.0), sizes) == 1
    assert fastest(lambda size: 1 / size if size <= 16 else None, sizes) == 16
    assert fastest(lambda size: None, sizes) == 1


def test_what_was_chosen_is_remembered_under_its_own_key_and_damage_forgotten(tmp_path):
    Remembered("a").put(32, 16)
    Remembered("a").put(64, 4)
    assert [Remembered(key).get(size) for key, size in itertools.product("ab", (32, 64, 128))] == [
        16, 4, None, None, None, None,
    ]  # fmt: skip
    for damaged in ("", "[1]", '{"32": "x"}', '{"32": -1}'):
        for path in (tmp_path / "cache" / "pack-sizes").iterdir():
            path.write_text(damaged)
        assert Remembered("a").get(32) is None
    Remembered("a").put(32, 8)
    assert Remembered("a").get(32) == 8


def test_a_room_is_timed_once_on_a_machine(monkeypatch):
    timed = []

    def seconds(self, batch_size, failed, size):
        timed.append((batch_size, size))
        return {1: 1.0, 4: 0.5, 16: 0.49}[size]

    monkeypatch.setattr(Trainer, "_seconds_each", seconds)
    for _ in range(2):
        trainer = Trainer(digits(hidden=8), method="vmap", devices=jax.devices()[:1])
        assert [trainer.room(32), trainer.room(32), trainer.room(64)] == [4, 4, 4]
        trainer.close()
    assert timed == [(32, 1), (32, 4), (32, 16), (64, 1), (64, 4), (64, 16)]
    # Another network, and another number of devices, are other choices; by map there is none.
    for workload, devices, method, room in (
        (digits(hidden=9), 1, "vmap", 4),
        (digits(hidden=8), 2, "vmap", 8),
        (digits(hidden=8), 1, "map", 32),
    ):
        trainer = Trainer(workload, method=method, devices=jax.devices()[:devices])
        assert trainer.room(32) == room
        trainer.close()
    assert len(timed) == 12


def test_a_pack_that_failed_to_compile_ends_the_growth_and_is_not_remembered(monkeypatch):
    real, asked = Trainer.prepare, []

    def prepare(self, program, slots=None):
        if program == 16 and slots == 4:
            asked.append(slots)
            raise RuntimeError("INTERNAL: Autotuning failed: NOT_FOUND: No valid config found!")
        return real(self, program, slots)

    monkeypatch.setattr(Trainer, "prepare", prepare)
    for _ in range(2):
        trainer = Trainer(digits(hidden=8), method="vmap", devices=jax.devices()[:1])
        assert trainer.room(16) == trainer.room(16) == 1
        trainer.close()
    assert asked == [4, 4]


def test_a_room_is_really_timed():
    trainer = Trainer(digits(hidden=8), method="vmap", devices=jax.devices()[:1])
    trainer.expect([16])
    room = trainer.room(16)
    assert trainer.time_updates(16) > 0
    sizes = {int(time.program.split(" slots")[0].split()[-1]) for time in trainer.compile_times}
    trainer.close()
    assert room in pack.TIMED_SIZES
    assert sizes <= set(pack.TIMED_SIZES)
    assert 1 in sizes


# ── A pack whose trials diverge ──────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def moved():
    """A trainer whose programs are ready, so that a pack is moved as soon as it can be."""
    quadratic = NoisyQuadratic(curvatures=(1.0, 0.5))
    trainer = Trainer(quadratic.workload(), (0.05, 0.5, 1.0), slots=4, method="vmap", devices=jax.devices()[:1])
    for program, slots in itertools.product((32, "start", "measure"), (2, 4)):
        trainer.prepare(program, slots).result()
    yield trainer
    trainer.close()


def test_a_pack_moves_to_fewer_slots_as_its_trials_diverge(monkeypatch, moved):
    """Its trials are what they are without that, and what diverged keeps what it had measured."""
    monkeypatch.setattr(pack, "SEGMENT_SECONDS", 0.0)  # one update a segment
    declaration = declared(moved.workload, 60)
    # A rate of 10^k overflows after some 19/k updates; those that converge are dealt among them.
    rates = [1e9, 0.5, 101.0, 0.25]
    trials = [declaration.trial(SGD(), 32, rate, seed) for seed, rate in enumerate(rates)]
    alone = Trainer(moved.workload, moved.evaluate_at, slots=2)
    sizes, told = [], []
    run = Trainer._run

    def watched(self, program, pack, *rest):
        sizes.append((pack.size, len(pack.live)))
        return run(self, program, pack, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_run", watched)
        theirs = moved.train(trials, told.append)
    assert sum(told) == 4 * 60
    assert [size for size, _ in sizes] == sorted((size for size, _ in sizes), reverse=True)
    assert {size for size, _ in sizes} == {4, 2}
    assert all(live > 2 for size, live in sizes if size == 4)
    for mine, other in zip(alone.train(trials), theirs, strict=True):
        assert mine.trial == other.trial
        assert (mine.steps, mine.diverged) == (other.steps, other.diverged)
        assert [(m.step, m.split, m.metric) for m in mine.measurements] == [
            (m.step, m.split, m.metric) for m in other.measurements
        ]
        np.testing.assert_allclose(
            [m.value for m in mine.measurements], [m.value for m in other.measurements], rtol=1e-4
        )
    assert [outcome.diverged for outcome in theirs] == [rate > 1 for rate in rates]
    assert {outcome.pack_size for outcome in theirs} == {4}
    alone.close()


@pytest.mark.parametrize("failed", [False, True])
def test_a_pack_goes_on_as_it_is_while_the_smaller_program_is_not_ready_or_where_there_is_none(monkeypatch, failed):
    monkeypatch.setattr(pack, "SEGMENT_SECONDS", 0.0)
    quadratic = NoisyQuadratic(curvatures=(1.0,), noise=0.0)
    declaration = declared(quadratic.workload(), 30)
    trainer = Trainer(quadratic.workload(), slots=2, method="vmap", devices=jax.devices()[:1])
    real, asked = Trainer.prepare, []

    class Unready:
        def done(self):
            asked.append(True)
            return failed

        def exception(self):
            return RuntimeError("RESOURCE_EXHAUSTED")

    monkeypatch.setattr(
        Trainer, "prepare", lambda self, program, slots=None: real(self, program, slots) if slots != 1 else Unready()
    )
    outcomes = trainer.train([declaration.trial(SGD(), 32, rate, 0) for rate in (0.5, 1e9)])
    trainer.close()
    assert len(asked) > 20
    assert [(outcome.diverged, outcome.pack_size) for outcome in outcomes] == [(False, 2), (True, 2)]


def test_a_pack_that_was_moved_is_kept_and_goes_on(tmp_path, monkeypatch, moved):
    monkeypatch.setattr(pack, "SEGMENT_SECONDS", 0.0)
    monkeypatch.setattr(pack, "CHECKPOINT_SECONDS", -1.0)
    declaration = declared(moved.workload, 40)
    trials = [declaration.trial(SGD(), 32, rate, 0) for rate in (0.5, 1e9, 1e8, 0.25)]
    never = moved.train(trials)
    kept, made = Checkpoints(tmp_path, moved.circumstances), []

    class KilledError(Exception):
        pass

    def killed(updates):
        made.append(updates)
        if len(made) == 25:
            raise KilledError

    with pytest.raises(KilledError):
        moved.train(trials, killed, kept)
    assert kept.load(trials[3].id).step == 23
    again = moved.train(trials, checkpoints=kept)
    for mine, other in zip(never, again, strict=True):
        assert (mine.steps, mine.diverged) == (other.steps, other.diverged)
        np.testing.assert_allclose(
            [m.value for m in mine.measurements], [m.value for m in other.measurements], rtol=1e-5
        )


def test_a_pack_that_would_not_fit_in_memory_is_not_timed():
    trainer = Trainer(digits(hidden=8), method="vmap", devices=jax.devices()[:1])

    class Device:
        device_kind, platform = "small", "cpu"

        def __init__(self, limit):
            self.limit = limit

        def memory_stats(self):
            return {"bytes_limit": self.limit}

    needed = [trainer.prepare(program, 1).result().memory_analysis() for program in (16, "start", "measure")]
    used = max(one.argument_size_in_bytes + one.temp_size_in_bytes for one in needed)
    assert used > 8 * 1024  # the digits alone are as many
    for limit, fits in ((used, False), (2 * used, True)):
        trainer.devices = (Device(limit),)
        assert (trainer._seconds_each(16, [], 1) is not None) == fits
    trainer.devices = (Device(1),)
    assert trainer.room(16) == 1
    trainer.close()
