"""What a trial takes: the seconds that were measured, by batch size."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
from scipy import special

from sgdscope.analysis.trial_table import CELL_COLUMNS, OPTIMIZER_SCHEMA, by_optimizer
from sgdscope.frames import Column, Columns, schema, with_interval
from sgdscope.stats.intervals import LEVEL

# How a trial was run; seconds compare only where all of these are the same.
HOW = ("method", "device", "devices")
# Trials of a pack share its time by their updates: seconds per update that agree to this are of one pack.
AGREEMENT = 9

SECONDS_COLUMNS: Columns = {
    **CELL_COLUMNS,
    "method": Column(pl.String, "How the trials of a pack were trained together."),
    "device": Column(pl.String, "Kind of device."),
    "devices": Column(pl.Int64, "Number of devices.", "devices"),
    "updates": Column(pl.Int64, "Updates of a complete trial.", "updates"),
    "trials": Column(pl.Int64, "Trials that were timed.", "trials"),
    "packs": Column(pl.Int64, "Packs that were timed.", "packs"),
    **with_interval("seconds", "A trial's share of the time of a full pack: median over packs.", "s"),
    "relative": Column(pl.Float64, "Seconds divided by those of the optimizer's fastest batch size."),
}
SECONDS_SCHEMA = schema(SECONDS_COLUMNS)


def seconds_by_batch_size(trials: pl.DataFrame) -> pl.DataFrame:
    """Return the seconds of a trial at each batch size of an optimizer, and how many times the cheapest.

    A trial's ``seconds`` are its share of its pack's: the pack's elapsed time by the updates that each of its trials
    made, evaluations included and compiling not. So they are what a trial takes on average while the devices are kept
    full, which is what a study costs; a trial by itself takes longer. The trials of a pack have one time between them,
    and so the number of packs is what there is: ``seconds`` is the median over packs, with the interval of
    :func:`median_interval`. Optimizers that differ in their coefficients alone, as SGD and momentum, share packs.

    Only trials that made all their updates count, and of those the ones run as most were (by method, device and number
    of devices), since others do not compare.

    Args:
        trials: a table of trials; those without ``seconds`` give no rows.
    """
    rows: list[dict[str, Any]] = []
    if not {"seconds", "steps", *HOW} <= set(trials.columns):
        return pl.DataFrame(rows, schema=SECONDS_SCHEMA)
    timed = trials.filter((pl.col("status") == "complete") & (pl.col("seconds") > 0) & (pl.col("steps") > 0))
    for _, part in timed.sort("workload", "budget").group_by("workload", "budget", maintain_order=True):
        most = part.group_by(HOW).len().sort(pl.col("len"), *HOW, descending=True, nulls_last=True).row(0, named=True)
        how = {name: most[name] for name in HOW}
        like = part.filter(pl.all_horizontal(pl.col(name).eq_missing(value) for name, value in how.items()))
        for key, by_size in by_optimizer(like):
            for size, members in by_size.items():
                updates = int(members["steps"].max())  # type: ignore[arg-type]
                paces = (members["seconds"] / members["steps"]).round_sig_figs(AGREEMENT).unique().sort()
                median, low, high = median_interval(paces.to_numpy() * updates)
                row = key | {"batch_size": size, **how, "updates": updates, "trials": len(members)}
                rows.append(row | {"packs": len(paces), "seconds": median, "seconds_low": low, "seconds_high": high})
    found = pl.DataFrame(rows, schema=SECONDS_SCHEMA)
    return found.with_columns(relative=pl.col("seconds") / pl.col("seconds").min().over(*OPTIMIZER_SCHEMA))


def median_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return a median, and between which of the values it lies in 95 % whatever their distribution.

    The interval is of the order statistics k and n + 1 − k, with k the largest such that 2·P(X < k) is at most 5 %
    where X ~ Bin(n, ½). Fewer than 6 values cannot give it: then it is their range, which holds the median in
    1 − 2^(1−n) of cases, and for a single value infinitely wide.

    >>> median_interval(np.array([3.0, 1.0, 2.0, 9.0, 4.0, 5.0]))
    (3.5, 1.0, 9.0)
    """
    ordered, n = np.sort(values), len(values)
    if n == 1:
        return float(ordered[0]), 0.0, math.inf
    place = int(np.searchsorted(2 * special.bdtr(np.arange(n), n, 0.5), 1 - LEVEL, side="right"))
    first = max(0, place - 1)
    return float(np.median(ordered)), float(ordered[first]), float(ordered[n - 1 - first])


def seconds_at(timed: pl.DataFrame, batch_size: int) -> float | None:
    """Return the seconds of a trial at any batch size, log–log between those that were timed and along beyond them.

    Args:
        timed: a part of the table of :func:`seconds_by_batch_size`, of one optimizer.
        batch_size: B.

    >>> timed = pl.DataFrame({"batch_size": [4, 16], "seconds": [8.0, 2.0]})
    >>> [round(seconds_at(timed, size), 6) for size in (4, 8, 64)]
    [8.0, 4.0, 0.5]
    """
    if timed.is_empty():
        return None
    x, y = np.log2(timed["batch_size"].to_numpy()), np.log2(timed["seconds"].to_numpy())
    if len(x) == 1:
        return float(2.0 ** y[0])
    at = math.log2(batch_size)
    right = min(max(1, int(np.searchsorted(x, at))), len(x) - 1)
    slope = (y[right] - y[right - 1]) / (x[right] - x[right - 1])
    return float(2.0 ** (y[right] + slope * (at - x[right])))
