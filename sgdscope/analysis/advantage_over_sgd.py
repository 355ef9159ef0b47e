"""How much better than SGD each method is at each batch size, and what it costs."""

from __future__ import annotations

import polars as pl

from sgdscope.analysis.methods import METHOD_COLUMNS, method_row, methods, of_methods
from sgdscope.analysis.trial_table import CELL_COLUMNS, Records
from sgdscope.frames import Columns, schema

ADVANTAGE_COLUMNS: Columns = {**CELL_COLUMNS, **METHOD_COLUMNS}
ADVANTAGE_SCHEMA = schema(ADVANTAGE_COLUMNS)


def advantage_over_sgd(trials: pl.DataFrame, records: Records) -> pl.DataFrame:
    """Return one row for each cell: its score, its advantage over SGD, and what it costs; none without other methods.

    Examples, updates, gradients and seconds stand beside each other, since what is held equal is one of them alone.

    Args:
        trials: a table of trials.
        records: what their workloads are, by name.
    """
    rows = [
        {**method.key, "batch_size": size} | method_row(method, size, method.leads.get(size))
        for method in (methods(trials, records) if of_methods(trials) else [])
        for size in method.scores
    ]
    return pl.DataFrame(rows, schema=ADVANTAGE_SCHEMA)
