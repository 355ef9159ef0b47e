"""Every learning rate of every cell: means over seeds of its scores and of its training loss."""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from sgdscope.analysis.collapse import collapsed_of
from sgdscope.analysis.derived import cell_warmed_up, l2_of, momentum_of, temperature
from sgdscope.analysis.goodness import log_losses
from sgdscope.analysis.trial_table import CELL_COLUMNS, SCORES, SEEDS, Records, cells
from sgdscope.frames import Column, Columns, schema, with_interval
from sgdscope.records import WorkloadRecord
from sgdscope.stats.intervals import interval_with_failures, named, t_interval
from sgdscope.store import ended

# An interval over seeds that differ wildly may reach beyond what a float can hold.
LARGEST_EXPONENT = 709.0

# What curves and optima say of one learning rate of a cell.
RATE_COLUMNS: Columns = {
    "learning_rate": Column(pl.Float64, "Learning rate ε: its value before the schedule lowers it."),
    "effective_learning_rate": Column(
        pl.Float64, "ε/(1 − m) with momentum m; missing if the optimizer has no effective learning rate."
    ),
    "temperature": Column(pl.Float64, "Temperature ε(N/B − 1)/(N(1 − m)) with N training examples and momentum m."),
    "learning_rate_times_l2": Column(
        pl.Float64, "ε·λ, with λ the coefficient of the workload's L2 penalty; missing without a penalty."
    ),
    "warmed_up": Column(
        pl.Boolean, "Whether training was long enough for momentum's steady state: 20/(1 − m) updates."
    ),
}
OUTCOME_COLUMNS: Columns = {
    "n": SEEDS,
    "diverged": Column(pl.Int64, "Trials at this learning rate that diverged.", "trials"),
    "collapsed": Column(
        pl.Int64,
        "Trials at this learning rate that ended with a finite loss, and gained less than half of what the cell's best "
        "rate gains over the constant baseline.",
        "trials",
    ),
    **with_interval(
        "test_score",
        "Mean test score over seeds; a diverged trial counts as the constant baseline. The interval is of training "
        "runs that train if no trial failed, and else of all runs; `failed` in `failures` is the share that fails.",
        "score",
    ),
    **with_interval(
        "validation_score",
        "Mean validation score over seeds; a diverged trial counts as the constant baseline. The interval is as that "
        "of `test_score`.",
        "score",
    ),
    **with_interval(
        "train_loss", "Geometric mean of the training loss over seeds, on the whole training split at the end.", "loss"
    ),
    "without_score": Column(pl.Int64, "Complete trials whose score is not finite.", "trials"),
    "above_constant": Column(
        pl.Int64, "Trials that diverged or ended with a training loss above the constant baseline's.", "trials"
    ),
}
CURVES_COLUMNS: Columns = {**CELL_COLUMNS, **RATE_COLUMNS, **OUTCOME_COLUMNS}
CURVES_SCHEMA = schema(CURVES_COLUMNS)


def learning_rate_curves(trials: pl.DataFrame, records: Records) -> pl.DataFrame:
    """Return one row for each cell and learning rate: n, diverged, collapsed, and means with 95 % intervals.

    ``test_score`` and ``validation_score`` are means with diverged trials as the constant baseline, whose intervals are
    those of :func:`~sgdscope.stats.intervals.interval_with_failures`;
    ``train_loss`` is the geometric mean, the exponential of the mean logarithm, and null where no trial has one.
    ``temperature`` is ε(N/B − 1)/(N(1 − m)), ``learning_rate_times_l2`` is ε·λ where the workload has an L2 penalty,
    and ``warmed_up`` says whether momentum had 20/(1 − m) updates. ``without_score`` counts complete trials whose score
    is missing, which are in no mean of scores. ``collapsed`` counts those of
    :func:`~sgdscope.analysis.collapse.collapsed_trials`. ``above_constant`` counts trials that diverged or end with a
    training loss above the constant baseline's.

    Args:
        trials: a table of trials.
        records: what their workloads are, by name.
    """
    rows = []
    for key, cell in cells(ended(trials)):
        record, warm = records[key["workload"]], cell_warmed_up(cell)
        momentum, examples, l2 = momentum_of(key["optimizer"]), record.examples[0], l2_of(record)
        cell = cell.with_columns(collapsed=collapsed_of(cell, record))
        by_rate = cell.sort("learning_rate", "seed").group_by(
            "learning_rate", "effective_learning_rate", maintain_order=True
        )
        for (rate, effective), group in by_rate:
            known = momentum is not None and examples > 0
            heat = temperature(rate, momentum or 0.0, key["batch_size"], examples) if known else None
            rows.append(
                key
                | {"learning_rate": rate, "effective_learning_rate": effective, "temperature": heat}
                | {"learning_rate_times_l2": None if l2 is None else rate * l2, "warmed_up": warm}
                | {"n": len(group), "diverged": int((group["status"] == "diverged").sum())}
                | {"collapsed": int(group["collapsed"].sum())}
                | _score("test_score", group, record.constant_score)
                | _score("validation_score", group, record.constant_score)
                | _training_loss(group, record)
                | {"without_score": without_score(group).height, "above_constant": above_constant(group, record)}
            )
    return pl.DataFrame(rows, schema=CURVES_SCHEMA)


def without_score(trials: pl.DataFrame) -> pl.DataFrame:
    """Return the complete trials that lack a score, since the workload's ``score`` was not finite."""
    missing = pl.any_horizontal(pl.col(name).is_null() for name in sorted(SCORES & set(trials.columns)))
    return trials.filter(missing & (pl.col("status") == "complete"))


def above_constant(trials: pl.DataFrame, record: WorkloadRecord) -> int:
    """Return how many trials diverged, or end with a training loss above the constant baseline's."""
    above = (pl.col("status") == "diverged") | (pl.col("train_loss") > record.constant_loss).fill_null(value=False)
    return trials.filter(above).height


def _outcomes(name: str, group: pl.DataFrame, constant: float) -> tuple[np.ndarray, np.ndarray]:
    """Return what complete trials measured, and of diverged ones the constant baseline's; and which of these failed."""
    gone = (group["status"] == "diverged").to_numpy()
    measured = group[name].to_numpy()
    known = gone | ~np.isnan(measured)
    failed = gone | group["collapsed"].to_numpy()
    return np.where(gone & np.isnan(measured), constant, measured)[known], failed[known]


def _score(name: str, group: pl.DataFrame, constant: float) -> dict[str, float | None]:
    values, failed = _outcomes(name, group, constant)
    if not values.size:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    return dict(named(name, interval_with_failures(values, failed)))


def _training_loss(group: pl.DataFrame, record: WorkloadRecord) -> dict[str, float | None]:
    losses, _ = _outcomes("train_loss", group, record.constant_loss)
    if not losses.size or np.isnan(losses).any():
        return dict.fromkeys(("train_loss", "train_loss_low", "train_loss_high"))
    return dict(named("train_loss", geometric_interval(losses, record)))


def geometric_interval(losses: np.ndarray, record: WorkloadRecord) -> tuple[float, float, float]:
    """Return the geometric mean of training losses with its 95 % t interval; see :func:`log_losses`."""
    mean, low, high = t_interval(log_losses(losses, record))
    return math.exp(mean), math.exp(low), math.exp(high) if high < LARGEST_EXPONENT else math.inf
