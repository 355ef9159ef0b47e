"""``run --log-to``: the runs of a study in MLflow, W&B, TensorBoard or Trackio, by their own libraries."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from sgdscope import atomic
from sgdscope.errors import InputError
from sgdscope.result import Result
from sgdscope.trackers.runs import REPORT, Each, Run, report_of, runs_of

Tracker = Literal["mlflow", "wandb", "tensorboard", "trackio"]
# The module that writes for each tracker, which is the extra of the same name.
MODULES = {"mlflow": "mlflow", "wandb": "wandb", "tensorboard": "tensorboardX", "trackio": "trackio"}
# Those that take files.
WITH_FILES = ("mlflow", "wandb")
# What was logged, by tracker and run: the tracker's name of the run, and a hash of what it holds.
LOGGED = "logged.json"
# How often that is written while runs are logged.
KEEP_SECONDS = 1.0
# The tracker's name of each run that it has, and the hash of it.
Known = dict[str, list[str]]
# Writes a run, into the one that the tracker has of it already if it has one, and returns the tracker's name of it.
Write = Callable[[Run, str | None], str]


def check_installed(trackers: Sequence[Tracker]) -> None:
    """Refuse trackers whose library is not installed, before anything is trained."""
    for tracker in trackers:
        if find_spec(MODULES[tracker]) is None:
            raise InputError(f"log_to: {tracker} is not installed. Install it: pip install 'sgdscope[{tracker}]'.")


def log(result: Result, trackers: Sequence[Tracker], each: Each, say: Callable[[str], None]) -> None:
    """Log what trackers do not have yet of a study, and its report. A tracker that fails is named once.

    A run whose numbers have changed, as of a cell that got more seeds, is written into the run that is there.

    Args:
        result: The study.
        trackers: Where to log.
        each: Whether a run is a cell or a trial.
        say: Called with each sentence.
    """
    path = result.folder / LOGGED
    known: dict[str, Known] = json.loads(path.read_text()) if path.is_file() else {}
    every = list(runs_of(result, each))
    for tracker in trackers:
        mine = known.get(tracker, {})
        new = [run for run in every if run.name not in mine or mine[run.name][1] != run.id]
        said = ""
        try:
            with _quiet():
                _write(result, tracker, new, mine, partial(_keep, path, known, tracker, mine))
        except Exception as error:  # a tracker is another's program: it must not take a study's results with it
            why = (str(error).strip() or "no message").splitlines()[0]
            said = f"{tracker} failed ({type(error).__name__}: {why}). The study is complete in {result.folder}."
        done = sum(mine.get(run.name, ["", ""])[1] == run.id for run in new)
        if said and done:
            said += f" {done} of {len(new)} runs are logged; run the same command again for the others."
        say(said or (f"{tracker}: {done} runs logged." if new else f"{tracker}: every run was logged before."))


def _write(result: Result, tracker: Tracker, runs: Sequence[Run], known: Known, keep: Callable[[], None]) -> None:
    """Write runs one by one, and keep which were written, also where a later one fails."""
    if not runs:
        return
    kept = time.monotonic()
    files = [report_of(result)] if tracker in WITH_FILES and (result.folder / REPORT).is_file() else []
    try:
        with WRITERS[tracker](result) as write:
            for run in (*runs, *files):
                known[run.name] = [write(run, known[run.name][0] if run.name in known else None), run.id]
                if time.monotonic() - kept > KEEP_SECONDS:
                    keep()
                    kept = time.monotonic()
    finally:
        if known:
            keep()


def _keep(path: Path, known: dict[str, Known], tracker: Tracker, mine: Known) -> None:
    known[tracker] = mine
    atomic.write(path, (json.dumps(known, indent=1) + "\n").encode())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Take what trackers print of each run, and let none of them wait for an answer at a prompt."""
    stdin, sys.stdin = sys.stdin, io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        sys.stdin = stdin


@contextlib.contextmanager
def _mlflow(result: Result) -> Iterator[Write]:
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # its own 7 take four minutes without a server
    import mlflow
    from mlflow.entities import Metric, Param

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    experiment = mlflow.set_experiment(result.declaration.name).experiment_id
    client = mlflow.MlflowClient()

    def write(run: Run, known: str | None) -> str:
        tags = {"sgdscope.group": run.group, "sgdscope.kind": run.kind}
        if known is None or not client.search_runs([experiment], f"attributes.run_id = '{known}'"):
            known = client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
        now = round(time.time() * 1000)
        points = [Metric(name, value, now, 0) for name, value in run.metrics.items()]
        points += [Metric(name, value, now, step) for name, curve in run.curves.items() for step, value in curve]
        client.log_batch(known, params=[Param(name, str(of)) for name, of in run.parameters.items()])
        for place in range(0, len(points), 1000):  # as many as the interface takes at once
            client.log_batch(known, points[place : place + 1000])
        if run.file is not None:
            client.log_artifact(known, str(run.file))
        client.set_terminated(known)
        return str(known)

    yield write


@contextlib.contextmanager
def _wandb(result: Result) -> Iterator[Write]:
    import wandb

    project = re.sub(r"[/\\#?%:]", "-", result.declaration.name)
    quiet = wandb.Settings(silent=True)

    def write(run: Run, known: str | None) -> str:
        with wandb.init(
            project=project, name=run.name, group=run.group, job_type=run.kind, config=run.parameters, settings=quiet,
            id=known, resume=None if known is None else "allow", allow_val_change=True,
        ) as logged:  # fmt: skip
            by_step: dict[int, dict[str, float]] = {}
            for name, curve in run.curves.items():
                for step, value in curve:
                    by_step.setdefault(step, {})[name] = value
            for step, values in sorted(by_step.items()):
                logged.log(values, step=step)
            logged.summary.update(run.metrics)
            if run.file is not None:
                artifact = wandb.Artifact("report", "report")
                artifact.add_file(str(run.file))
                logged.log_artifact(artifact)
            return str(logged.id)

    yield write


@contextlib.contextmanager
def _tensorboard(result: Result) -> Iterator[Write]:
    from tensorboardX import SummaryWriter

    def write(run: Run, known: str | None) -> str:
        place = known or run.name.replace("/", "-")
        with SummaryWriter(str(result.folder / "tensorboard" / place)) as writer:
            for name, curve in run.curves.items():
                for step, value in curve:
                    writer.add_scalar(name, value, step)
            writer.add_hparams(run.parameters, run.metrics, name="hparams")
        return place

    yield write


@contextlib.contextmanager
def _trackio(result: Result) -> Iterator[Write]:
    import trackio

    def write(run: Run, known: str | None) -> str:
        trackio.init(
            project=result.declaration.name, name=run.name, group=run.group, config=run.parameters, embed=False,
            resume="never" if known is None else "allow",
        )  # fmt: skip
        for name, curve in run.curves.items():
            for step, value in curve:
                trackio.log({name: value}, step=step)
        trackio.log(run.metrics)
        trackio.finish()
        return run.name

    yield write


WRITERS: dict[str, Callable[[Result], contextlib.AbstractContextManager[Write]]] = {
    "mlflow": _mlflow,
    "wandb": _wandb,
    "tensorboard": _tensorboard,
    "trackio": _trackio,
}
