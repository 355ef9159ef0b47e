"""``run --log-to``: the runs of a study in MLflow, W&B, TensorBoard or Trackio, by their own libraries."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from sgdscope import atomic
from sgdscope.errors import InputError
from sgdscope.result import Result
from sgdscope.trackers.runs import Each, Run, runs_of

Tracker = Literal["mlflow", "wandb", "tensorboard", "trackio"]
# The module that writes for each tracker, which is the extra of the same name.
MODULES = {"mlflow": "mlflow", "wandb": "wandb", "tensorboard": "tensorboardX", "trackio": "trackio"}
# What was logged, by tracker: a study that is run again adds what is new.
LOGGED = "logged.json"


def check_installed(trackers: Sequence[Tracker]) -> None:
    """Refuse trackers whose library is not installed, before anything is trained."""
    for tracker in trackers:
        if find_spec(MODULES[tracker]) is None:
            raise InputError(f"log_to: {tracker} is not installed. Install it: pip install 'sgdscope[{tracker}]'.")


def log(result: Result, trackers: Sequence[Tracker], each: Each, say: Callable[[str], None]) -> None:
    """Log what trackers do not have yet of a study, and its report. A tracker that fails is named once.

    Args:
        result: The study.
        trackers: Where to log.
        each: Whether a run is a cell or a trial.
        say: Called with each sentence.
    """
    path = result.folder / LOGGED
    known: dict[str, list[str]] = json.loads(path.read_text()) if path.is_file() else {}
    every = list(runs_of(result, each))
    report = result.folder / "report.html"
    for tracker in trackers:
        new = [run for run in every if run.id not in known.get(tracker, [])]
        try:
            if new:
                with contextlib.redirect_stdout(io.StringIO()):  # they print of each run
                    WRITERS[tracker](result, new, report)
        except Exception as error:  # a tracker is another's program: it must not take a study's results with it
            said = (str(error).strip() or "no message").splitlines()[0]
            say(f"{tracker} failed ({type(error).__name__}: {said}). The study is complete in {result.folder}.")
            continue
        known[tracker] = [*known.get(tracker, []), *(run.id for run in new)]
        atomic.write(path, (json.dumps(known, indent=1) + "\n").encode())
        say(f"{tracker}: {len(new)} runs logged.")


def _mlflow(result: Result, runs: Sequence[Run], report: Path) -> None:
    import mlflow
    from mlflow.entities import Metric, Param

    experiment = mlflow.set_experiment(result.declaration.name).experiment_id
    client = mlflow.MlflowClient()
    for run in runs:
        logged = client.create_run(experiment, run_name=run.name)
        now = logged.info.start_time
        points = [Metric(name, value, now, 0) for name, value in run.metrics.items()]
        points += [Metric(name, value, now, step) for name, curve in run.curves.items() for step, value in curve]
        client.log_batch(logged.info.run_id, params=[Param(name, str(of)) for name, of in run.parameters.items()])
        for place in range(0, len(points), 1000):  # as many as the interface takes at once
            client.log_batch(logged.info.run_id, points[place : place + 1000])
        client.set_terminated(logged.info.run_id)
    if report.is_file():
        logged = client.create_run(experiment, run_name="report")
        client.log_artifact(logged.info.run_id, str(report))
        client.set_terminated(logged.info.run_id)


def _wandb(result: Result, runs: Sequence[Run], report: Path) -> None:
    import wandb

    project = re.sub(r"[/\\#?%:]", "-", result.declaration.name)
    quiet = wandb.Settings(silent=True)
    for run in runs:
        with wandb.init(project=project, name=run.name, config=run.parameters, settings=quiet) as logged:
            by_step: dict[int, dict[str, float]] = {}
            for name, curve in run.curves.items():
                for step, value in curve:
                    by_step.setdefault(step, {})[name] = value
            for step, values in sorted(by_step.items()):
                logged.log(values, step=step)
            logged.summary.update(run.metrics)
    if report.is_file():
        with wandb.init(project=project, name="report", settings=quiet) as logged:
            artifact = wandb.Artifact("report", "report")
            artifact.add_file(str(report))
            logged.log_artifact(artifact)


def _tensorboard(result: Result, runs: Sequence[Run], report: Path) -> None:
    from tensorboardX import SummaryWriter

    for run in runs:
        with SummaryWriter(str(result.folder / "tensorboard" / run.name.replace("/", "-"))) as writer:
            for name, curve in run.curves.items():
                for step, value in curve:
                    writer.add_scalar(name, value, step)
            writer.add_hparams(run.parameters, run.metrics, name="hparams")


def _trackio(result: Result, runs: Sequence[Run], report: Path) -> None:
    import trackio

    for run in runs:
        trackio.init(project=result.declaration.name, name=run.name, config=run.parameters)
        for name, curve in run.curves.items():
            for step, value in curve:
                trackio.log({name: value}, step=step)
        trackio.log(run.metrics)
        trackio.finish()


WRITERS: dict[str, Callable[[Result, Sequence[Run], Path], None]] = {
    "mlflow": _mlflow,
    "wandb": _wandb,
    "tensorboard": _tensorboard,
    "trackio": _trackio,
}
