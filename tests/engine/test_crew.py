"""Packs given out to devices that end, differ or are slow, with devices in this process in place of Ray's."""

import contextlib
import io
import random
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import jax.numpy as jnp
import pytest
from rich.console import Console

import sgdscope as sg
from sgdscope.cli import main
from sgdscope.engine import crew, device, ray_pool, run
from sgdscope.engine.crew import Joined, LostError
from sgdscope.engine.device import Device
from sgdscope.testing.quadratic import NoisyQuadratic
from sgdscope.training import loop
from sgdscope.training.checkpoint import Checkpoints


def ends_after(save):
    def saved(self, checkpoints):
        save(self, checkpoints)
        self.settle()
        raise SystemExit

    return saved


@dataclass(eq=False)
class Call:
    device: Device
    method: str
    arguments: tuple
    pack: int


class InThisProcess:
    """A pool whose calls end in any order, and whose devices end in the midst of the packs of these numbers."""

    def __init__(self, size=2, ends_at=(), seed=0, shared=lambda study: study):
        self.size, self.ends_at, self.shared = size, ends_at, shared
        self.started, self.stopped, self.trained, self.draw = [], [], [], random.Random(seed)

    def start(self):
        self.started.append(Device())
        return self.started[-1]

    def share(self, study):
        return lambda: self.shared(study)

    def ask(self, device, method, *arguments):
        if method == "expect":
            return device.expect(*arguments)
        if method == "train":
            self.trained.append(arguments[0])
        return Call(device, method, arguments, len(self.trained))

    def first(self, asked, seconds):
        return self.draw.choice(asked)

    def answer(self, asked):
        if asked.method == "train" and asked.pack in self.ends_at:
            with pytest.MonkeyPatch.context() as patch, contextlib.suppress(SystemExit):
                patch.setattr(Checkpoints, "save", ends_after(Checkpoints.save))
                asked.device.train(*asked.arguments)
            raise LostError("it was killed")
        return getattr(asked.device, asked.method)(*asked.arguments)

    def stop(self, device):
        self.stopped.append(device)


@pytest.fixture(scope="module")
def backends():
    """Those of all devices, by what they compute, so that each program is compiled once."""
    return {}


@pytest.fixture
def pooled(monkeypatch, backends):
    """Let a pool of this process stand for that of Ray."""

    def backend_of(study, traced, world):
        if traced.fingerprint not in backends:
            backends[traced.fingerprint] = run.backend_of(study, traced, world)
        return backends[traced.fingerprint]

    monkeypatch.setattr(device, "backend_of", backend_of)
    monkeypatch.setattr(run, "PACK_SECONDS", 0.0)
    monkeypatch.setattr(device, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "SEGMENT_SECONDS", 0.0)
    monkeypatch.setattr(ray_pool, "check_installed", lambda: None)

    def begin(pool):
        monkeypatch.setattr(ray_pool, "ray_pool", lambda devices_per_trial: contextlib.nullcontext(pool))
        return pool

    return begin


def quadratic(**changes):
    plain = {
        "name": "quadratic", "workloads": NoisyQuadratic().workload(), "batch_sizes": 32, "budgets": sg.Epochs(1),
        "seeds": 8, "learning_rates": (0.25, 0.5), "optimizers": sg.SGD(),
    }  # fmt: skip
    return sg.Study(**(plain | changes))


@pytest.fixture(scope="module")
def never(tmp_path_factory):
    """The study of a single process."""
    return sg.run(quadratic(), tmp_path_factory.mktemp("never") / "s", Console(quiet=True))


def by_ray(study, folder, **options):
    said = io.StringIO()
    return sg.run(study, folder, Console(file=said, width=1000), engine="ray", **options), said.getvalue()


def same(one, other):
    assert one.numbers().equals(other.numbers())
    assert one.measurements.equals(other.measurements)
    assert one.correctness.equals(other.correctness)


@pytest.mark.parametrize(("size", "ends_at", "seed"), [(1, (), 0), (1, (1, 2), 0), (3, (1, 4, 5), 1), (2, (2, 6), 2)])
def test_a_study_whose_devices_end_is_that_of_one_process(size, ends_at, seed, pooled, never, tmp_path):
    pool = pooled(InThisProcess(size, ends_at, seed))
    result, said = by_ray(quadratic(), tmp_path / "s")
    same(result, never)
    assert result.ran.trained == len(result.trials) == 16
    tries = Counter(trial.id for pack in pool.trained for trial in pack)
    again = Counter(trial.id for number in ends_at for trial in pool.trained[number - 1])
    assert tries == Counter(dict.fromkeys(tries, 1)) + again
    assert said.count("was lost. What it trained is trained again") == len(ends_at)
    assert len(pool.started) == size + len(ends_at)
    assert set(pool.stopped) == set(pool.started)
    assert not [*(tmp_path / "s" / "leases").iterdir(), *(tmp_path / "s" / "workers").iterdir()]
    assert not list((tmp_path / "s" / "checkpoints").iterdir())


def test_a_pack_is_resumed_on_another_device_where_the_folder_is_seen_and_begun_anew_where_not(
    pooled, never, tmp_path, monkeypatch
):
    resumed, plain = [], loop.Record.of
    monkeypatch.setattr(loop.Record, "of", lambda saved: resumed.append(saved.step) or plain(saved))
    pooled(InThisProcess(1, {1}))
    result, _ = by_ray(quadratic(), tmp_path / "seen")
    same(result, never)
    assert min(resumed) > 0
    resumed.clear()
    monkeypatch.setattr(device, "Path", lambda folder: Path("elsewhere"))
    pooled(InThisProcess(1, {1}))
    result, said = by_ray(quadratic(), tmp_path / "unseen")
    same(result, never)
    assert not resumed
    assert (
        said.count("does not see the study's folder, so no checkpoints are kept there") == 1
    )  # of both, since they are on one machine


def test_a_pack_that_ends_every_device_fails_and_the_next_run_trains_it(pooled, never, tmp_path):
    pool = pooled(InThisProcess(1, {1, 2, 3}))
    result, said = by_ray(quadratic(), tmp_path / "s")
    lost = len(pool.trained[0])
    assert len(result.trials.filter(status="failed")) == result.ran.failed == lost
    assert "3 devices ended while they trained it, the last with: it was killed" in said
    pooled(InThisProcess(1))
    result, _ = by_ray(quadratic(), tmp_path / "s")
    assert result.ran.trained == lost
    same(result, never)


def test_devices_that_end_as_soon_as_they_are_started_are_not_started_for_ever(pooled, tmp_path, monkeypatch):
    def no(self, *arguments):
        raise LostError("no memory")

    monkeypatch.setattr(InThisProcess, "answer", no)
    pool = pooled(InThisProcess(2))
    with pytest.raises(sg.InputError, match=r"^engine: the devices end as soon as they are started: no memory"):
        by_ray(quadratic(), tmp_path / "s")
    assert len(pool.started) == 2 + 5  # all but the sixth that ends is started again
    assert set(pool.stopped) == set(pool.started)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (NoisyQuadratic(examples=512).workload(), r"has another study, in workload quadratic's data_sha256 \(there"),
        (
            replace(NoisyQuadratic().workload(), init=lambda key: jnp.zeros(4)),
            "functions of workload quadratic compute something else on",
        ),
    ],
)
def test_a_device_with_other_data_or_functions_is_refused_before_anything_is_trained(other, message, pooled, tmp_path):
    pool = pooled(InThisProcess(2, shared=lambda study: study.changed({"workloads": other})))
    with pytest.raises(sg.InputError, match=message) as raised:
        by_ray(quadratic(), tmp_path / "s")
    assert str(raised.value).startswith("engine: ")
    assert not pool.trained
    assert set(pool.stopped) == set(pool.started)


def test_a_device_with_other_versions_is_refused_before_it_reads_the_study(pooled, tmp_path, monkeypatch):
    monkeypatch.setattr(device, "circumstances", lambda: ("cpu", "sgdscope 9 and JAX 8"))
    pooled(InThisProcess(shared=lambda study: pytest.fail("it was read")))
    message = "has sgdscope 9 and JAX 8, and this process has sgdscope .* and JAX .* Install the same versions"
    with pytest.raises(sg.InputError, match=message):
        by_ray(quadratic(), tmp_path / "s")


def test_a_device_for_which_another_microbatch_suits_is_refused_with_what_to_set():
    of = lambda size: replace(NoisyQuadratic().workload(), cpu_microbatch_size=size)
    here, there = (Joined("vm", "1", quadratic(workloads=of(size)).declaration().to_json(), {}) for size in (None, 4))
    with pytest.raises(
        sg.InputError, match=r"batch size 32 \(there 4, here 32\).*\. Set microbatch_size, whose default"
    ):
        crew.check(here, there)


def test_a_study_that_cannot_be_read_elsewhere_is_refused(pooled, tmp_path):
    def shared(study):
        raise ModuleNotFoundError("No module named 'helper'")

    pooled(InThisProcess(shared=shared))
    with pytest.raises(
        sg.InputError, match=r"cannot be read there \(No module named 'helper'\)\. Install what it needs"
    ):
        by_ray(quadratic(), tmp_path / "s")


def test_an_interrupted_run_is_resumed_by_the_next(pooled, never, tmp_path, monkeypatch):
    class Interrupted(InThisProcess):
        def first(self, asked, seconds):
            if len(self.trained) > 3:
                raise KeyboardInterrupt
            return super().first(asked, seconds)

    pool = pooled(Interrupted(2))
    with pytest.raises(KeyboardInterrupt):
        by_ray(quadratic(), tmp_path / "s")
    assert set(pool.stopped) == set(pool.started)
    committed = len(sg.load(tmp_path / "s").trials)
    assert 0 < committed < 16
    pooled(InThisProcess(2))
    result, _ = by_ray(quadratic(), tmp_path / "s")
    assert result.ran.trained == 16 - committed
    same(result, never)
    pooled(None)  # nothing is left, so no device is started
    assert by_ray(quadratic(), tmp_path / "s")[0].ran.trained == 0


def test_a_run_stops_at_its_time_and_the_next_goes_on(pooled, never, tmp_path, monkeypatch):
    monkeypatch.setattr(crew.Crew, "begin", lambda self, pack, seconds, plain=crew.Crew.begin: plain(self, pack, 0.0))
    pool = pooled(InThisProcess(2))
    result, _ = by_ray(quadratic(), tmp_path / "s", seconds=1000.0)
    assert result.ran.out_of_time
    assert result.ran.trained == 0
    assert len(pool.trained) == 2  # one for each device
    monkeypatch.undo()
    assert sg.run(quadratic(), tmp_path / "s", Console(quiet=True)).finished


def test_trials_that_fail_on_a_device_keep_its_traceback(pooled, tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(device, "train", fails)
    pooled(InThisProcess(2))
    result, _ = by_ray(quadratic(), tmp_path / "s")
    (error,) = set(result.trials["error"])
    assert error.startswith("RESOURCE_EXHAUSTED: out of memory; a smaller microbatch_size takes a large batch in parts")
    (kept,) = (tmp_path / "s" / "errors").iterdir()
    assert "in fails" in kept.read_text()
    with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
        by_ray(quadratic(), tmp_path / "s", debug=True)


def test_the_devices_are_shown_with_what_they_train(pooled, tmp_path, monkeypatch):
    monkeypatch.setattr("sgdscope.engine.progress.LINE_EVERY_SECONDS", 0.0)
    pooled(InThisProcess(2))
    _, said = by_ray(quadratic(), tmp_path / "s")
    lines = [line.split(", ", 1)[1] for line in said.splitlines() if line.startswith("  ")]
    assert any("trials/s, trains 2 at batch size" in line for line in lines)


def test_without_ray_one_sentence_says_what_to_install(study_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ray_pool, "find_spec", lambda name: None)
    assert main(["run", str(study_file), "--out", str(tmp_path / "s"), "--engine", "ray"]) == 2
    assert "--engine: ray is not installed. Install it: pip install 'sgdscope[ray]'." in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_an_engine_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(sg.InputError, match=r"^engine: 'spark' is neither local nor ray"):
        sg.run(quadratic(), tmp_path / "s", engine="spark")
