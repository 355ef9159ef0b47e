"""Where training fails: trials that diverged or collapsed, by optimizer, batch size and learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl

from sgdscope.analysis.curve import MOST_FAILED
from sgdscope.analysis.curves import OUTCOME_COLUMNS, RATE_COLUMNS
from sgdscope.analysis.edges import spans
from sgdscope.analysis.slopes import grid_error
from sgdscope.analysis.sweep import Cells
from sgdscope.analysis.trial_table import CELL, CELL_COLUMNS
from sgdscope.formatting import exact
from sgdscope.frames import Columns, schema, with_interval
from sgdscope.stats.intervals import BOOTSTRAP_SEED, Estimate, bootstrapped, resampled_seeds, share_interval
from sgdscope.stats.laws import fit_line

FAILURES_COLUMNS: Columns = {
    **CELL_COLUMNS,
    **{name: RATE_COLUMNS[name] for name in ("learning_rate", "effective_learning_rate")},
    **{name: OUTCOME_COLUMNS[name] for name in ("n", "diverged", "collapsed")},
    **with_interval("failed", "Share of the trials that failed to train: they diverged or collapsed."),
}
FAILURES_SCHEMA = schema(FAILURES_COLUMNS)


def failures(curves: pl.DataFrame) -> pl.DataFrame:
    """Return one row for each cell and learning rate: n, diverged, collapsed, and the share that failed to train.

    The share has the exact interval of :func:`~sgdscope.stats.intervals.share_interval`.

    Args:
        curves: the table of :func:`~sgdscope.analysis.curves.learning_rate_curves`.
    """
    if curves.is_empty():
        return pl.DataFrame(schema=FAILURES_SCHEMA)
    failed, n = (curves["diverged"] + curves["collapsed"]).to_numpy(), curves["n"].to_numpy()
    low, high = share_interval(failed, n)
    shares = {"failed": failed / n, "failed_low": low, "failed_high": high}
    table = curves.with_columns(pl.Series(name, values) for name, values in shares.items())
    return table.select(FAILURES_SCHEMA.keys()).sort(*CELL, "learning_rate")


def distance_to_failure(found: Cells) -> tuple[Estimate, float]:
    """Return how the octaves from the optimal rate to where training fails change with log₂ B.

    Training fails from between the smallest rate at which, and at each larger one, more than 20 % of trials fail, and
    the next smaller rate. Seeds are drawn jointly over all batch sizes, and everything is found anew in each draw.

    Args:
        found: Batch sizes at whose largest rate training fails.

    Returns:
        The slope, and the standard error of it that the grid leaves: seeds do not make that smaller. For 90 % it has
        the interval of 95 %: limits jump from rate to rate, and a verdict at 90 % would be false too often.
    """
    limits, halves = _failing_from(found, lambda n: np.arange(n)[None])
    drawn, halves_drawn = _failing_from(found, resampled_seeds)
    # A limit lies anywhere between the largest rate that trains and the next.
    drawn = drawn + np.random.default_rng(BOOTSTRAP_SEED).uniform(-1, 1, drawn.shape) * halves_drawn
    slope = bootstrapped(
        float(fit_line(found.x, limits - found.vertices)[0]),
        fit_line(found.x, drawn - found.drawn_vertices()[0]),
        found.n,
    )
    slope = replace(slope, low90=slope.low95, high90=slope.high95)
    weights = (found.x - found.x.mean()) / ((found.x - found.x.mean()) ** 2).sum()
    return slope, math.hypot(grid_error(found), math.sqrt((weights**2 * halves[0] ** 2 / 3).sum()))


def _failing_from(found: Cells, draw: Callable[[int], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return log₂ of where training begins to fail in each draw of seeds, and by how much it may lie off.

    It is the middle between the smallest rate at which, and at each larger one, more than 20 % of trials fail, and the
    next smaller rate. Both are of shape (draws, batch sizes).
    """
    places = []
    for of in found.curves:
        seeds, (first, last), steps = draw(len(of.seeds)), of.octaves[[0, -1]], np.diff(of.octaves)
        ran, failed = (there[:, seeds].sum(axis=2) for there in (of.there | of.failed, of.failed))
        fails = np.logical_and.accumulate((failed > MOST_FAILED * ran)[::-1])
        ends = np.concatenate([[first - steps[0]], of.octaves, [last + steps[-1]]])
        number = len(fails) - fails.sum(axis=0)
        places.append([(ends[number + 1] + ends[number]) / 2, (ends[number + 1] - ends[number]) / 2])
    middles, halves = np.transpose(places, (1, 2, 0))
    return middles, halves


def failure_sentences(failures: pl.DataFrame) -> list[str]:
    """Return a sentence for each workload, budget and optimizer: from which learning rates on training fails.

    Training fails from the smallest rate above which each rate tried fails to train in more than 20 % of its trials.

    Args:
        failures: the table of :func:`failures`.
    """
    said = []
    for (_, _, optimizer), rows in failures.sort(pl.col("optimizer") != "sgd", maintain_order=True).group_by(
        CELL[:-1], maintain_order=True
    ):
        trials, failed = int(rows["n"].sum()), int((rows["diverged"] + rows["collapsed"]).sum())
        if not failed:
            said.append(f"{optimizer}: all {trials} trials trained.")
            continue
        limits = {int(str(size)): _limit(of) for (size,), of in rows.group_by("batch_size", maintain_order=True)}
        groups = {limit: [size for size, other in limits.items() if other == limit] for limit in limits.values()}
        parts = [
            f"{exact(limit)} (batch size{'s' if len(sizes) > 1 else ''} {spans(sizes, [*limits])})"
            for limit, sizes in groups.items()
            if limit is not None
        ]
        failing = f"{optimizer}: {failed} of {trials} trials failed to train."
        if parts:
            said.append(f"{failing} More than 20 % fail from this learning rate on: {', '.join(parts)}.")
        else:
            said.append(f"{failing} At the largest learning rate of each batch size at most 20 % fail.")
    return said


def _limit(rows: pl.DataFrame) -> float | None:
    """Return the smallest rate from which on training fails; None where it does not at the largest."""
    failing = [failed > MOST_FAILED for failed in rows["failed"]]
    trained = [number for number, fails in enumerate(failing) if not fails]
    first = trained[-1] + 1 if trained else 0
    return float(f"{rows['learning_rate'][first]:.3g}") if first < len(failing) else None
