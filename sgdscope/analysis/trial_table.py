"""The columns of the table of trials, and its cells: the trials that differ in learning rate and seed alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import polars as pl

from sgdscope.records import WorkloadRecord

CELL = ("workload", "budget", "optimizer", "batch_size")


# The columns that tables share: whose a row is, and the intervals of an estimate.
OPTIMIZER_SCHEMA: dict[str, type[pl.DataType]] = dict.fromkeys(CELL[:-1], pl.String)


INTERVALS_SCHEMA: dict[str, type[pl.DataType]] = dict.fromkeys(("low90", "high90", "low95", "high95"), pl.Float64)


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
