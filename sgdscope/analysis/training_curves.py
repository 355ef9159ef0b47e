"""Training along its budget: means over seeds of the minibatch loss and of the test score, at the best rate."""

from __future__ import annotations

import numpy as np
import polars as pl

from sgdscope.analysis.curves import geometric_interval
from sgdscope.analysis.trial_table import CELL, CELL_COLUMNS, SEEDS, Records
from sgdscope.budget import Steps, known_budget
from sgdscope.frames import Column, Columns, schema, with_interval
from sgdscope.stats.intervals import named, t_interval
from sgdscope.store import ended

TRAINING_CURVES_COLUMNS: Columns = {
    **CELL_COLUMNS,
    "learning_rate": Column(pl.Float64, "Optimal learning rate ε* for the score."),
    "metric": Column(pl.String, "`minibatch_loss` or `test_score`."),
    "step": Column(pl.Int64, "Updates made before the measurement.", "updates"),
    "epochs": Column(pl.Float64, "Epochs before the measurement; missing at a budget of steps.", "epochs"),
    "n": SEEDS,
    "diverged": Column(pl.Int64, "Trials that diverged at any time; they count as the constant baseline.", "trials"),
    **with_interval("value", "Geometric mean of the minibatch loss, or mean of the test score.", "loss or score"),
}
TRAINING_CURVES_SCHEMA = schema(TRAINING_CURVES_COLUMNS)


def training_curves(
    trials: pl.DataFrame, measurements: pl.DataFrame, optima: pl.DataFrame, records: Records
) -> pl.DataFrame:
    """Return the curves of each cell at the rate that is best for its score, one row for each step measured.

    ``value`` is the geometric mean of ``minibatch_loss``, or the mean of ``test_score``, with its 95 % t interval over
    n seeds; of these ``diverged`` had diverged by then or do so later, and count as the constant baseline where they
    have no value. ``epochs`` is null where the budget is of steps, or the size of the training split is not known.

    Args:
        trials: a table of trials.
        measurements: what was measured along their training.
        optima: their optimal learning rates.
        records: what their workloads are, by name.
    """
    best = optima.filter(criterion="score").select(*CELL, "learning_rate")
    mine = ended(trials).join(best, on=[*CELL, "learning_rate"]).select("trial_id", "status", *CELL, "learning_rate")
    of_losses = pl.when(metric="minibatch_loss").then(pl.lit("minibatch_loss"))
    metric = of_losses.when(split="test", metric="score").then(pl.lit("test_score"))
    measured = (
        measurements.with_columns(metric=metric)
        .drop_nulls("metric")
        .join(mine, on="trial_id")
        .group_by(*CELL, "learning_rate", "metric", "step", "examples")
        .agg(
            pl.col("value").filter(pl.col("value").is_finite()),
            told=((pl.col("status") == "diverged") & pl.col("value").is_finite()).sum(),
        )
        .join(
            mine.group_by(CELL).agg(n=pl.len(), diverged=(pl.col("status") == "diverged").sum().cast(pl.Int64)), on=CELL
        )
        .sort(*CELL, "metric", "step")
    )
    rows = []
    for row in measured.iter_rows(named=True):
        record = records[row["workload"]]
        loss = row["metric"] == "minibatch_loss"
        found, examples = row.pop("value"), row.pop("examples")
        diverged = [record.constant_loss if loss else record.constant_score] * (row["diverged"] - row.pop("told"))
        values = np.array([*found, *diverged])
        if not values.size:  # no trial has a score
            continue
        row["n"] = len(values)
        in_epochs = record.examples[0] and not isinstance(known_budget(row["budget"]), Steps)
        row["epochs"] = examples / record.examples[0] if in_epochs else None
        rows.append(row | named("value", geometric_interval(values, record) if loss else t_interval(values)))
    return pl.DataFrame(rows, schema=TRAINING_CURVES_SCHEMA)
