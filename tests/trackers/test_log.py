"""What a study logs by the trackers' own libraries is there, once, and a tracker that fails does no harm."""

import contextlib
import importlib.util
import json
import sys

import pytest

import sgdscope as sg
from sgdscope.analysis.external_table import read_results
from sgdscope.cli import main
from sgdscope.importing.sources import read_source
from sgdscope.trackers.log import LOGGED, MODULES, WRITERS, log
from sgdscope.trackers.runs import runs_of

pytestmark = pytest.mark.usefixtures("quick")


def needs(tracker):
    lacking = importlib.util.find_spec(MODULES[tracker]) is None
    return pytest.param(tracker, marks=pytest.mark.skipif(lacking, reason=f"needs {tracker}"))


@pytest.fixture
def result(planted_study, tmp_path, monkeypatch):
    """A study of 16 trials in 4 cells, in a folder where all trackers write, without network."""
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(tmp_path),
        "TRACKIO_DIR": str(tmp_path / "trackio"),
    }.items():
        monkeypatch.setenv(name, value)
    return sg.load(planted_study(tmp_path / "study", sizes=(8, 32), rates=(0.1, 0.2), seeds=2))


def test_a_run_is_a_cell_or_a_trial(result):
    cells, trials = (list(runs_of(result, each)) for each in ("cell", "trial"))
    assert (len(cells), len(trials)) == (4, 16)
    best = result.optima.filter(criterion="score", optimizer="sgd", batch_size=32).row(0, named=True)
    (cell,) = [run for run in cells if (run.parameters["optimizer"], run.parameters["batch_size"]) == ("sgd", 32)]
    assert cell.metrics["learning_rate"] == best["learning_rate"]
    assert cell.metrics["test_score"] == best["test_score"]
    assert len(cell.curves["test_score"]) == 2
    mine = {(run.parameters["learning_rate"], run.parameters["seed"], run.parameters["optimizer"]) for run in trials}
    assert len(mine) == 8
    assert {run.metrics["test_score"] for run in trials} == set(result.trials["test_score"])
    assert len({run.id for run in cells + trials}) == 20


def writer(write):
    """A tracker that writes runs so."""
    return lambda result: contextlib.nullcontext(write)


def test_runs_are_grouped(result):
    cells, trials = (list(runs_of(result, each)) for each in ("cell", "trial"))
    assert {run.group for run in cells} == {"optimizer=sgd", "optimizer=momentum:0.9"}
    sizes = [sum(run.group == group for run in trials) for group in {run.group for run in trials}]
    assert sizes == [2] * 8  # the seeds of each learning rate
    assert all(run.name == f"{run.group},seed={run.parameters['seed']}" for run in trials)


def test_a_tracker_that_fails_amid_its_runs_goes_on_where_it_was(result, monkeypatch):
    seen, said = [], []

    def fails_after_three(run, known):
        if len(seen) == 3 and not said:
            raise OSError("disk is full")
        seen.append(run.name)
        return run.name

    monkeypatch.setitem(WRITERS, "trackio", writer(fails_after_three))
    for _ in range(3):
        log(result, ("trackio",), "trial", said.append)
    assert sorted(seen) == sorted(run.name for run in runs_of(result, "trial"))
    assert said[0].endswith("3 of 16 runs are logged; run the same command again for the others.")
    assert said[1:] == ["trackio: 13 runs logged.", "trackio: every run was logged before."]


def test_a_run_whose_numbers_have_changed_is_written_into_the_one_that_is_there(result, monkeypatch, planted_study):
    seen = []
    monkeypatch.setitem(
        WRITERS, "mlflow", writer(lambda run, known: seen.append((run.name, known)) or f"id {run.name}")
    )
    log(result, ("mlflow",), "cell", print)
    assert [known for _, known in seen] == [None] * 4
    more = sg.load(planted_study(result.folder, sizes=(8, 32), rates=(0.1, 0.2), seeds=3))
    log(more, ("mlflow",), "cell", print)
    assert seen[4:] == [(name, f"id {name}") for name, _ in seen[:4]]


def test_a_tracker_can_ask_no_question_and_prints_nothing(result, monkeypatch, capsys):
    said = []

    def asks(run, known):
        print("Enter your API key:")
        return input() if sys.stdin.isatty() else sys.stdin.readline() or run.name

    monkeypatch.setitem(WRITERS, "wandb", writer(asks))
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())
    log(result, ("wandb",), "cell", said.append)
    assert said == ["wandb: 4 runs logged."]
    assert capsys.readouterr().out == ""
    assert sys.stdin.isatty()


@pytest.mark.parametrize("each", ["cell", "trial"])
def test_what_was_logged_is_not_logged_again_and_a_tracker_that_fails_is_named_once(result, monkeypatch, each):
    seen, said = [], []
    monkeypatch.setitem(WRITERS, "mlflow", writer(lambda run, known: seen.append(run.name) or run.name))

    def fails(run, known):
        raise ConnectionError("no route\nto host")

    monkeypatch.setitem(WRITERS, "wandb", writer(fails))
    for _ in range(2):
        log(result, ("wandb", "mlflow"), each, said.append)
    assert len(seen) == len(set(seen)) == (4 if each == "cell" else 16)
    assert said[0] == f"wandb failed (ConnectionError: no route). The study is complete in {result.folder}."
    assert said[3] == "mlflow: every run was logged before."
    assert set(json.loads((result.folder / LOGGED).read_text())) == {"mlflow"}


@pytest.mark.filterwarnings("ignore")  # of the trackers' own code
@pytest.mark.parametrize("tracker", [needs("mlflow"), needs("tensorboard")])
def test_what_is_logged_is_read_again_as_it_was(result, tracker):
    result.save_report(result.folder / "report.html")
    log(result, (tracker,), "trial", print)
    path = {"mlflow": "mlflow.db", "tensorboard": "study/tensorboard"}[tracker]
    score = {"mlflow": "metrics.test_score", "tensorboard": "metrics.test/score"}[tracker]
    read = read_results(path, {"score": score}).trials
    key = ("optimizer", "batch_size", "learning_rate", "seed")
    mine, theirs = ({row[:4]: row[4] for row in of.select(*key, "test_score").rows()} for of in (result.trials, read))
    assert theirs == pytest.approx(mine)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tracker", [needs("mlflow")])
def test_a_cell_that_got_more_seeds_is_one_run_with_its_new_numbers(result, tracker, planted_study, tmp_path):
    log(result, (tracker,), "cell", print)
    more = sg.load(planted_study(result.folder, sizes=(8, 32), rates=(0.1, 0.2), seeds=3))
    log(more, (tracker,), "cell", print)
    read = read_source(tmp_path / "mlflow.db")
    assert len(read.lines) == 4
    assert read.columns["metrics.n"] == ["3.0"] * 4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tracker", [needs("wandb"), needs("trackio")])
def test_runs_are_written_without_network(result, tracker, tmp_path):
    said = []
    log(result, (tracker,), "cell", said.append)
    assert said == [f"{tracker}: 4 runs logged."]
    written = {
        "wandb": lambda: [*tmp_path.rglob("offline-run-*/*.wandb")],
        "trackio": lambda: [*tmp_path.rglob("*.db")],
    }
    assert len(written[tracker]()) == (4 if tracker == "wandb" else 1)


def test_a_tracker_that_is_not_installed_is_said_before_training(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(MODULES, "trackio", "no_module_of_this_name")
    assert main(["run", "digits", "--out", str(tmp_path / "s"), "--log-to", "trackio"]) == 2
    assert "--log-to: trackio is not installed. Install it: pip install 'sgdscope[trackio]'." in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
    assert "no_module_of_this_name" not in sys.modules
