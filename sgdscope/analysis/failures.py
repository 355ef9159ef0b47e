"""Where training fails: trials that diverged or collapsed, by optimizer, batch size and learning rate."""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy import special

from sgdscope.analysis.curve import MOST_FAILED
from sgdscope.analysis.curves import OUTCOME_COLUMNS, RATE_COLUMNS
from sgdscope.analysis.edges import spans
from sgdscope.analysis.trial_table import CELL, CELL_COLUMNS
from sgdscope.formatting import exact
from sgdscope.frames import Columns, schema, with_interval
from sgdscope.stats.intervals import LEVEL

FAILURES_COLUMNS: Columns = {
    **CELL_COLUMNS,
    **{name: RATE_COLUMNS[name] for name in ("learning_rate", "effective_learning_rate")},
    **{name: OUTCOME_COLUMNS[name] for name in ("n", "diverged", "collapsed")},
    **with_interval("failed", "Share of the trials that failed to train: they diverged or collapsed."),
}
FAILURES_SCHEMA = schema(FAILURES_COLUMNS)


def failures(curves: pl.DataFrame) -> pl.DataFrame:
    """Return one row for each cell and learning rate: n, diverged, collapsed, and the share that failed to train.

    The share has the 95 % interval of Clopper and Pearson (1934), which holds for any number of trials.

    Args:
        curves: the table of :func:`~sgdscope.analysis.curves.learning_rate_curves`.
    """
    if curves.is_empty():
        return pl.DataFrame(schema=FAILURES_SCHEMA)
    failed, n = (curves["diverged"] + curves["collapsed"]).to_numpy(), curves["n"].to_numpy()
    tail = (1 - LEVEL) / 2
    with np.errstate(invalid="ignore"):
        low = np.where(failed > 0, special.betaincinv(np.maximum(failed, 1), n - failed + 1, tail), 0.0)
        high = np.where(failed < n, special.betaincinv(failed + 1, np.maximum(n - failed, 1), 1 - tail), 1.0)
    shares = {"failed": failed / n, "failed_low": low, "failed_high": high}
    table = curves.with_columns(pl.Series(name, values) for name, values in shares.items())
    return table.select(FAILURES_SCHEMA.keys()).sort(*CELL, "learning_rate")


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
