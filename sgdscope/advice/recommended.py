"""One batch size and learning rate for each optimizer: the fastest that is equivalent, or else a best guess."""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from sgdscope.analysis.trial_table import (
    BATCH_SIZE,
    COEFFICIENT,
    MARGIN,
    OPTIMIZER_COLUMNS,
    OPTIMIZER_SCHEMA,
    SEEDS,
    Records,
)
from sgdscope.frames import Column, Columns, schema, with_interval

# Why a batch size is recommended.
EQUIVALENT, BEST, GUESS, ALONE = "equivalent", "best", "best guess", "the only one"
RECOMMENDED_COLUMNS: Columns = {
    **OPTIMIZER_COLUMNS,
    "batch_size": BATCH_SIZE,
    "basis": Column(
        pl.String,
        "`equivalent` (the fastest of several that are confirmed equivalent), `best` (all others are worse), `best "
        "guess` (not confirmed) or `the only one` that was run.",
    ),
    "place": Column(pl.String, "`smallest` or `largest` if no smaller or larger batch size was run, else empty."),
    **with_interval("learning_rate", "Learning rate with the best score.", "rate"),
    "coefficient": COEFFICIENT,
    **with_interval("test_score", "Mean test score over seeds at this learning rate.", "score"),
    "seconds": Column(pl.Float64, "Time of a trial; missing where nothing was timed.", "s"),
    "margin": MARGIN,
    "n": SEEDS,
}
RECOMMENDED_SCHEMA = schema(RECOMMENDED_COLUMNS)


def recommended(costs: pl.DataFrame, optima: pl.DataFrame, records: Records) -> pl.DataFrame:
    """Return the batch size and the learning rate to use, one row for each workload, budget and optimizer.

    The batch size is the one that takes the fewest seconds of those that are confirmed equivalent, or the one than
    which all others are confirmed worse. One that is equivalent only because others are compared with it is not
    confirmed: then the fastest is guessed of those that are not worse and whose estimated difference lies within the
    margin. Where the best rates of all lie at an edge of the rates tried, the one with the best mean score is guessed.

    Args:
        costs: What batch sizes cost in time and in score.
        optima: The optimal learning rates.
        records: What their workloads are, by name.
    """
    rows: list[dict[str, Any]] = []
    best = {
        tuple(row[name] for name in (*OPTIMIZER_SCHEMA, "batch_size")): row
        for row in optima.filter(criterion="score").iter_rows(named=True)
    }
    for names, mine in costs.group_by(*OPTIMIZER_SCHEMA, maintain_order=True):
        ascending = mine.sort("batch_size").rows(named=True)
        known = [row for row in ascending if (*names, row["batch_size"]) in best]
        if not known:
            continue
        basis, row = _chosen(known, best, names, records[names[0]].score_sign)
        sizes = [each["batch_size"] for each in ascending]
        place = {sizes[0]: "smallest", sizes[-1]: "largest"}.get(row["batch_size"], "") if len(sizes) > 1 else ""
        optimum = best[*names, row["batch_size"]]
        of_rate = ("learning_rate", "test_score", "coefficient")
        taken = {name: optimum[name] for name in RECOMMENDED_SCHEMA if name.startswith(of_rate)}
        about = {name: row[name] for name in (*OPTIMIZER_SCHEMA, "batch_size", "seconds", "margin")}
        rows.append(about | taken | {"basis": basis, "place": place, "n": optimum["n"]})
    return pl.DataFrame(rows, schema=RECOMMENDED_SCHEMA)


def _chosen(
    rows: list[dict[str, Any]], best: dict[tuple[Any, ...], dict[str, Any]], names: tuple[Any, ...], sign: int
) -> tuple[str, dict[str, Any]]:
    """Return why, and the row of the batch size to use."""
    if len(rows) == 1:
        return ALONE, rows[0]
    equivalent = [row for row in rows if row["verdict"] == "equivalent"]
    if len(equivalent) > 1:
        return EQUIVALENT, min(equivalent, key=_slowness)
    if equivalent and all(row["verdict"] == "worse" for row in rows if row not in equivalent):
        return BEST, equivalent[0]
    possible = [
        row
        for row in rows
        if row["verdict"] in ("equivalent", "undecided")
        and row["difference"] is not None
        and row["difference"] > -row["margin"]
    ]
    if possible:
        return GUESS, min(possible, key=_slowness)
    return GUESS, max(rows, key=lambda row: sign * best[*names, row["batch_size"]]["test_score"])


def _slowness(row: dict[str, Any]) -> tuple[float, int]:
    """Order batch sizes by their seconds, and where these are unknown by how many updates they save."""
    return (math.inf if row["seconds"] is None else row["seconds"], -row["batch_size"])
