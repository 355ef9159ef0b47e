"""What each method reached at each batch size, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from sgdscope.analysis.methods import REACHED_COLUMNS, Method, reached
from sgdscope.analysis.trial_table import CELL_COLUMNS
from sgdscope.frames import Columns, schema

SCORE_BY_COST_COLUMNS: Columns = {**CELL_COLUMNS, **REACHED_COLUMNS}
SCORE_BY_COST_SCHEMA = schema(SCORE_BY_COST_COLUMNS)


def score_by_cost(methods: Sequence[Method]) -> pl.DataFrame:
    """Return one row for each cell: its test score and training loss, and what it cost.

    Examples, updates, gradients and seconds stand beside each other, since what is held equal is one of them alone.

    Args:
        methods: those of :func:`~sgdscope.analysis.methods.methods`.
    """
    rows = [
        {**method.key, "batch_size": size} | reached(method, size, chosen)
        for method in methods
        for size, chosen in method.scores.items()
    ]
    return pl.DataFrame(rows, schema=SCORE_BY_COST_SCHEMA)
