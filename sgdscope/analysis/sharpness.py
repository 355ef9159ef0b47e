"""The sharpness along training, and the learning rate times it: how near training is to the limit of stability."""

from __future__ import annotations

import numpy as np
import polars as pl

from sgdscope.analysis.along_training import along_training
from sgdscope.analysis.derived import momentum_of
from sgdscope.analysis.trial_table import CELL_COLUMNS, SEEDS
from sgdscope.frames import Column, Columns, schema, with_interval
from sgdscope.stats.intervals import named, t_interval

# The metrics of the table of measurements that it is made of.
SHARPNESS, RESIDUAL, RATE = "sharpness", "sharpness_residual", "learning_rate"
METRICS = {SHARPNESS: SHARPNESS, RESIDUAL: RESIDUAL, RATE: "rate_then"}

SHARPNESS_COLUMNS: Columns = {
    **CELL_COLUMNS,
    "learning_rate": Column(pl.Float64, "Initial learning rate."),
    "step": Column(pl.Int64, "Updates made before the measurement.", "updates"),
    "fraction": Column(pl.Float64, "Share of the budget's updates made before the measurement."),
    "n": SEEDS,
    "rate_then": Column(pl.Float64, "Learning rate ε of the next update, by the schedule; at the end of the last one."),
    **with_interval("sharpness", "Largest eigenvalue λ_max of the Hessian of the training loss.", "1/learning rate"),
    "residual": Column(
        pl.Float64, "The largest distance from a seed's estimate within which its Hessian has an eigenvalue."
    ),
    **with_interval("product", "ε·λ_max, with the learning rate ε at that time."),
    "limit": Column(pl.Float64, "Limit of stability 2(1 + m), above which a quadratic diverges; missing unless SGD."),
}
SHARPNESS_SCHEMA = schema(SHARPNESS_COLUMNS)


def sharpness(trials: pl.DataFrame, measurements: pl.DataFrame) -> pl.DataFrame:
    """Return λ_max and ε·λ_max of each cell, learning rate and step at which they were measured, one row each.

    Both are means over the n seeds that came so far, with 95 % t intervals. On a quadratic of curvature λ, gradient
    descent with heavy-ball momentum m converges where 0 < ελ < 2(1 + m).

    Args:
        trials: a table of trials.
        measurements: what was measured of them, a row a number.

    Source: Cohen et al. (2021), arXiv 2103.00065, of full batches without momentum.
    """
    rows = []
    for row, group in along_training(trials, measurements, METRICS):
        values, rate = group[SHARPNESS].to_numpy(), float(group["rate_then"][0])
        row |= {"rate_then": rate, "residual": group[RESIDUAL].max(), "limit": stability_limit(row["optimizer"])}
        row |= named("sharpness", t_interval(values)) | named("product", t_interval(rate * values))
        rows.append(row)
    return pl.DataFrame(rows, schema=SHARPNESS_SCHEMA)


def stability_limit(optimizer: str) -> float | None:
    """Return 2(1 + m) of SGD with momentum m, as tables name it; None of another optimizer.

    >>> stability_limit("sgd"), stability_limit("momentum:0.9"), stability_limit("adam")
    (2.0, 3.8, None)
    """
    momentum = momentum_of(optimizer)
    return None if momentum is None else 2 * (1 + momentum)


def octaves_to_limit(cell: pl.DataFrame, measured: pl.DataFrame, limit: float) -> np.ndarray:
    """Return by how many octaves the largest ε·λ_max after the start lies above the limit, seed by seed.

    Args:
        cell: the trials of one cell at one learning rate, by seed.
        measured: as of :func:`~.along_training.by_trial`, of :data:`METRICS`.
        limit: see :func:`stability_limit`.

    Returns:
        Shape (n,), in the order of the trials; NaN where nothing positive was measured.
    """
    product = pl.col(SHARPNESS) * pl.col("rate_then")
    largest = measured.filter(pl.col("step") > 0).group_by("trial_id").agg(largest=product.max())
    values = cell.select("trial_id").join(largest, on="trial_id", how="left", maintain_order="left")["largest"]
    with np.errstate(invalid="ignore", divide="ignore"):
        octaves = np.log2(values.to_numpy().astype(np.float64) / limit)
    return np.where(np.isfinite(octaves), octaves, np.nan)
