"""What was measured of trials along their training, by cell, learning rate and step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from sgdscope.analysis.trial_table import OPTIMIZER_SCHEMA

KEYS = [*OPTIMIZER_SCHEMA, "batch_size", "learning_rate"]


def by_trial(trials: pl.DataFrame, measurements: pl.DataFrame, metrics: Mapping[str, str]) -> pl.DataFrame:
    """Return what was measured of each trial at each step at which all of some metrics were.

    Args:
        trials: a table of trials.
        measurements: what was measured of them, a row a number.
        metrics: the metrics, and the column of each.
    """
    of, *others = (
        measurements.filter(pl.col("metric") == metric).select("trial_id", "step", pl.col("value").alias(column))
        for metric, column in metrics.items()
    )
    for other in others:
        of = of.join(other, on=["trial_id", "step"])
    return of.join(trials.select("trial_id", "seed", *KEYS), on="trial_id")


def along_training(
    trials: pl.DataFrame, measurements: pl.DataFrame, metrics: Mapping[str, str]
) -> Iterator[tuple[dict[str, Any], pl.DataFrame]]:
    """Yield each cell, learning rate and step at which metrics were measured, with what :func:`by_trial` has of them.

    With these come ``n``, the seeds that came so far, and ``fraction``, of the updates that a complete trial of the
    cell made.
    """
    complete = trials.filter(pl.col("status") == "complete")
    of_cells = complete.group_by(KEYS[:-1]).agg(pl.col("steps").max()).iter_rows()
    updates = {tuple(key): steps for *key, steps in of_cells}
    measured = by_trial(trials, measurements, metrics).sort(*KEYS, "step", "seed")
    for key, group in measured.group_by(*KEYS, "step", maintain_order=True):
        row: dict[str, Any] = dict(zip((*KEYS, "step"), key, strict=True))
        made = updates.get(key[: len(KEYS) - 1])
        yield row | {"n": len(group), "fraction": row["step"] / made if made else None}, group
