"""The columns of the table of trials, and its cells: the trials that differ in learning rate and seed alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import polars as pl

from sgdscope.frames import Column, Columns, schema
from sgdscope.records import WorkloadRecord

CELL = ("workload", "budget", "optimizer", "batch_size")


# The columns that tables share: whose a row is, and the intervals of an estimate.
OPTIMIZER_COLUMNS: Columns = {
    "workload": Column(pl.String, "Name of the workload."),
    "budget": Column(pl.String, "Compute budget of each trial, such as epochs:30 or steps:480."),
    "optimizer": Column(pl.String, "Optimizer with its coefficients, such as momentum:0.9."),
}
OPTIMIZER_SCHEMA = schema(OPTIMIZER_COLUMNS)


BATCH_SIZE = Column(pl.Int64, "Batch size B: examples per parameter update.", "examples")
CRITERION = Column(
    pl.String, "What the learning rate is best for: `score` (the validation score) or `train_loss` (the training loss)."
)
COEFFICIENT = Column(pl.Float64, "Chosen value of the optimizer's searched coefficient; missing if it has none.")
CELL_COLUMNS: Columns = {**OPTIMIZER_COLUMNS, "batch_size": BATCH_SIZE}
SEEDS = Column(pl.Int64, "Number of seeds.", "seeds")
MARGIN = Column(pl.Float64, "Margin δ: differences of the score up to δ do not matter.", "score")
LEFT_OUT = Column(
    pl.String,
    "Batch sizes whose best rate's interval reaches the edge of those tried; no verdict uses them.",
)


INTERVALS_COLUMNS: Columns = {
    f"{end}{level}": Column(pl.Float64, f"{which} end of the {level} % interval of `value`.", "see `unit`")
    for level in (90, 95)
    for end, which in (("low", "Lower"), ("high", "Upper"))
}


Criterion = Literal["score", "train_loss"]


CRITERIA: tuple[Criterion, ...] = ("score", "train_loss")


# What each criterion chooses by.
COLUMN: dict[Criterion, str] = {"score": "validation_score", "train_loss": "train_loss"}


SCORES = {"validation_score", "test_score"}


# What a table's workloads are, by name.
Records = Mapping[str, WorkloadRecord]


def measured_criteria(trials: pl.DataFrame) -> list[Criterion]:
    """Return the criteria by which at least one of the trials was measured, or all where every trial diverged."""
    measured: list[Criterion] = [name for name in CRITERIA if trials[COLUMN[name]].null_count() < len(trials)]
    return measured or list(CRITERIA)


def cells(trials: pl.DataFrame) -> Iterator[tuple[dict[str, Any], pl.DataFrame]]:
    """Yield each cell's key and trials, in the order of the keys."""
    for key, cell in trials.sort(CELL).group_by(CELL, maintain_order=True):
        yield dict(zip(CELL, key, strict=True)), cell


def by_optimizer(trials: pl.DataFrame) -> Iterator[tuple[dict[str, Any], dict[int, pl.DataFrame]]]:
    """Yield workload, budget and optimizer, each with its cells by batch size, ascending."""
    groups: dict[tuple[str, ...], dict[int, pl.DataFrame]] = {}
    for key, cell in cells(trials):
        groups.setdefault(tuple(key[name] for name in CELL[:-1]), {})[key["batch_size"]] = cell
    for names, members in groups.items():
        yield dict(zip(CELL[:-1], names, strict=True)), members
