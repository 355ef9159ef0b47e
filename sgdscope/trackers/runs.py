"""The runs that a tracker gets of a study: one for each cell, or one for each trial."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from sgdscope.result import Result
from sgdscope.store import ended

Each = Literal["cell", "trial"]
REPORT = "report.html"
PARAMETERS = ("workload", "budget", "optimizer", "batch_size")
OF_TRIAL = ("train_loss", "validation_score", "test_score", "steps", "seconds")
OF_CELL = ("n", "learning_rate", "test_score", "test_score_low", "test_score_high", "train_loss")


@dataclass(frozen=True)
class Run:
    """What a tracker logs as one run.

    Args:
        name: What it is called, the same for the same parameters.
        kind: ``cell``, ``trial`` or ``report``.
        group: What it belongs to: a trial to those that differ in the seed alone, a cell to its optimizer.
        parameters: Its parameters by name.
        metrics: Its final numbers by name.
        curves: What was measured along training: step and value, by name.
        file: A file that belongs to it. Default: none.
    """

    name: str
    kind: str
    group: str
    parameters: dict[str, Any]
    metrics: dict[str, float]
    curves: dict[str, list[tuple[int, float]]]
    file: Path | None = None

    @property
    def id(self) -> str:
        """A hash of all of it: what was logged is not logged again."""
        return hashlib.sha256(repr((self.parameters, self.metrics)).encode()).hexdigest()[:16]


def report_of(result: Result) -> Run:
    """Return the run that holds the report of a study."""
    return Run("report", "report", "report", {}, {}, {}, result.folder / REPORT)


def runs_of(result: Result, each: Each) -> Iterator[Run]:
    """Yield the runs of a study, for each cell at its best learning rate for the score, or for each trial."""
    if each == "trial":
        measured = dict(result.measurements.partition_by("trial_id", as_dict=True, include_key=False))
        for row in ended(result.trials).iter_rows(named=True):
            parameters = {name: row[name] for name in (*PARAMETERS, "learning_rate", "seed", "status")}
            along = measured.get((row["trial_id"],), pl.DataFrame(schema=result.measurements.schema))
            curves: dict[str, list[tuple[int, float]]] = {}
            for step, split, metric, value in along.select("step", "split", "metric", "value").rows():
                curves.setdefault(f"{split}/{metric}", []).append((step, value))
            yield _run("trial", parameters, {name: row[name] for name in OF_TRIAL}, curves)
        return
    for row in result.optima.filter(criterion="score").iter_rows(named=True):
        parameters = {name: row[name] for name in PARAMETERS}
        curves = {}
        along = result.tables.training_curves.filter(**parameters).sort("step")
        for step, metric, value in along.select("step", "metric", "value").rows():
            curves.setdefault(metric, []).append((step, value))
        yield _run("cell", parameters, {name: row[name] for name in OF_CELL}, curves)


def _run(
    kind: Each, parameters: dict[str, Any], metrics: dict[str, Any], curves: dict[str, list[tuple[int, float]]]
) -> Run:
    """Return a run without numbers that are missing or not finite, which trackers refuse."""
    pairs = [f"{name}={format(of, '.6g') if isinstance(of, float) else of}" for name, of in parameters.items()]
    return Run(
        ",".join(pair for pair in pairs if not pair.startswith("status=")),
        kind,
        f"optimizer={parameters['optimizer']}"
        if kind == "cell"
        else ",".join(pair for pair in pairs if not pair.startswith(("status=", "seed="))),
        parameters,
        {name: float(value) for name, value in metrics.items() if value is not None and math.isfinite(value)},
        {
            name: known
            for name, points in curves.items()
            if (known := [(step, value) for step, value in points if value is not None and math.isfinite(value)])
        },
    )
