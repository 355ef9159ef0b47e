"""A study on images in files, from the command line to its page."""

import re
import shutil
import signal

import polars as pl
import pytest

import sgdscope as sg
from sgdscope import studies
from sgdscope.cli import main
from sgdscope.engine import run as local
from sgdscope.engine.plan import Costs
from sgdscope.imagenet.index import read_imagenet
from sgdscope.imagenet.workload import imagenet_resnet50
from sgdscope.training import loop
from sgdscope.training.jax_setup import COMPILER_OPTIONS

STUDY = """
import sgdscope as sg
from sgdscope.imagenet.index import read_imagenet
from sgdscope.imagenet.workload import imagenet_resnet50
from pathlib import Path

study = sg.Study(
    name="pictures",
    workloads=imagenet_resnet50(read_imagenet(Path({folder!r})), blocks=(1,), width=4, side=16, ghost_batch_size=3),
    batch_sizes=(6, 24), microbatch_size=6, budgets=sg.Epochs(4), optimizers=sg.SGD(momentum=0.9), seeds=2,
    learning_rates=(0.01, 1e9),
)
"""


@pytest.fixture(scope="module", autouse=True)
def _quickly_compiled():
    """Compiling is nearly all that these tests do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(COMPILER_OPTIONS, "cpu", COMPILER_OPTIONS["cpu"] | {"xla_backend_optimization_level": 0})
        yield


@pytest.fixture(scope="module")
def study_of_pictures(pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "pictures.py"
    path.write_text(STUDY.format(folder=str(pictures)))
    return path


@pytest.fixture(scope="module")
def finished(study_of_pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "study"
    return sg.run(studies.get(str(study_of_pictures)), folder), folder


def numbers(result):
    own = result.trials.drop("seconds")
    return own.sort("trial_id"), result.measurements, result.correctness


def test_it_is_run_reported_and_not_run_again(finished, study_of_pictures, capsys):
    result, folder = finished
    trials = result.trials
    assert (result.ran.trained, result.ran.failed) == (8, 0)
    assert set(trials["method"]) == {"streamed"}
    by_rate = dict(trials.group_by("learning_rate").agg(pl.col("status").unique()).iter_rows())
    assert by_rate == {0.01: ["complete"], 1e9: ["diverged"]}
    complete = trials.filter(status="complete")
    assert (complete["steps"] == 4 * 27 // complete["batch_size"]).all()
    for column in ("train_loss", "validation_score", "test_score"):
        assert complete[column].is_not_null().all()
    curves = result.measurements.filter(metric="minibatch_loss").group_by("trial_id").len()
    assert len(curves) >= 4
    assert len(result.correctness) == 2 * len(complete)
    capsys.readouterr()
    assert main(["run", str(study_of_pictures), "--out", str(folder)]) == 0
    assert "nothing was left to train" in capsys.readouterr().out
    assert main(["show", str(folder)]) == 0
    assert "4 complete, 4 diverged; 0 pending" in capsys.readouterr().out
    assert main(["report", str(folder)]) == 0
    assert (folder / "report.html").exists()


def test_a_plan_tells_hours_and_how_much_is_read(study_of_pictures, pictures, capsys):
    assert main(["plan", str(study_of_pictures)]) == 0
    said = capsys.readouterr().out
    data = read_imagenet(pictures)
    # Of 18 updates of 6 and 4 of 24, and two evaluations, for each of two rates and two seeds.
    read = 4 * ((18 * 6 + 4 * 24) * data.bytes["train"] / 27 + 2 * 2 * sum(data.bytes.values()))
    (told,) = re.findall(r"data       about ([\d.e+-]+) GB read", said)
    assert float(told) == pytest.approx(read / 1e9, rel=0.01)
    assert re.search(r"device     about [\d.e-]+ hours of this machine", said)
    assert "blocks 1, l2 0.0001, side 16, width 4, ghost batch size 3" in said


def test_what_is_on_the_devices_is_not_read():
    from sgdscope.training.traced import trace
    from sgdscope.workloads.digits import digits

    assert Costs(trace(digits(hidden=16)), 2).bytes(10, 32) == 0


def test_a_process_that_was_killed_fails_the_trial_and_the_same_command_goes_on(
    finished, study_of_pictures, tmp_path, monkeypatch
):
    """The processes are killed when the third trial has been kept half way; its pack fails, and others are trained."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(loop, "SEGMENT_SECONDS", 0.0)
    killed = []
    plain = loop.train

    def train(backend, trials, milestones, checkpoints, on_progress):
        def kill(updates):
            on_progress(updates)
            if not killed and len(checkpoints.trials()) == 1 and trials[0].batch_size == 24:
                killed.append(trials[0].id)
                for process in list(backend._workers._processes):
                    process.kill()
                    process.join()

        return plain(backend, trials, milestones, checkpoints, kill)

    monkeypatch.setattr(loop, "train", train)
    monkeypatch.setattr(local, "PACK_SECONDS", 1e-9)
    study = studies.get(str(study_of_pictures))
    result = sg.run(study, tmp_path / "s")
    failed = result.trials.filter(status="failed")
    assert failed["trial_id"].to_list() == killed
    assert signal.SIGKILL.name in failed["error"][0]
    assert "Run the same command to resume." in failed["error"][0]
    again = sg.run(study, tmp_path / "s")
    assert again.ran.trained == 1
    for mine, theirs in zip(numbers(again), numbers(finished[0]), strict=True):
        assert mine.equals(theirs)


def test_a_picture_that_is_damaged_meanwhile_stops_the_run_in_a_sentence(pictures, tmp_path):
    own = shutil.copytree(pictures, tmp_path / "own")
    workload = imagenet_resnet50(read_imagenet(own), blocks=(1,), width=4, side=16, ghost_batch_size=3)
    study = sg.Study(
        name="p", workloads=workload, batch_sizes=6, microbatch_size=6, budgets=sg.Epochs(1), learning_rates=(0.01,),
        seeds=1, optimizers=sg.SGD(),
    )  # fmt: skip
    victim = own / workload.feed.locate("train", 4)[0]
    content = victim.read_bytes()
    victim.write_bytes(content[: len(content) // 2])
    with pytest.raises(sg.InputError, match=rf"{victim.name} cannot be read \(damaged\)\.$"):
        sg.run(study, tmp_path / "s")


def test_the_noise_scale_is_refused_in_a_sentence(study_of_pictures):
    with pytest.raises(sg.InputError, match="noise_scale_at: the examples of workload 'imagenet_resnet50' are read by"):
        studies.get(str(study_of_pictures)).changed({"noise_scale_at": (0.0,)})
    with pytest.raises(sg.InputError, match="sharpness_at: workload 'imagenet_resnet50' reads examples from the host"):
        studies.get(str(study_of_pictures)).changed({"sharpness_at": (0.0,)})
