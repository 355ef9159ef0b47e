"""Each method at its best batch size against SGD at its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from sgdscope.analysis.methods import BASELINE, REACHED_COLUMNS, Method, reached
from sgdscope.analysis.trial_table import OPTIMIZER_COLUMNS
from sgdscope.frames import Column, Columns, schema, with_interval
from sgdscope.stats.intervals import named, t_interval

BEST_BY_METHOD_COLUMNS: Columns = {
    **OPTIMIZER_COLUMNS,
    "batch_size": Column(pl.Int64, "Best batch size for the score, of those inside the rates tried.", "examples"),
    "baseline": BASELINE,
    "pairs": Column(pl.Int64, "Seeds that the difference from the baseline is of.", "seeds"),
    **with_interval(
        "difference", "Difference from the baseline at its own best batch size; larger is better.", "score"
    ),
    **REACHED_COLUMNS,
}
BEST_BY_METHOD_SCHEMA = schema(BEST_BY_METHOD_COLUMNS)


def best_by_method(methods: Sequence[Method]) -> pl.DataFrame:
    """Return one row for each optimizer: its best batch size, and how much better it is than SGD at its own.

    Args:
        methods: those of :func:`~sgdscope.analysis.methods.methods`.
    """
    rows = []
    for method in methods:
        if method.best is None:
            continue
        size, chosen = method.best
        row = {**method.key, "batch_size": size, "baseline": method.baseline} | reached(method, size, chosen)
        if method.lead_at_best is not None:
            lead = method.lead_at_best[~np.isnan(method.lead_at_best)]
            row |= {"pairs": len(lead)} | named("difference", t_interval(lead))
        rows.append(row)
    return pl.DataFrame(rows, schema=BEST_BY_METHOD_SCHEMA)
