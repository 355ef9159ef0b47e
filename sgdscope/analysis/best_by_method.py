"""Each method at its best batch size against SGD at its own."""

from __future__ import annotations

import polars as pl

from sgdscope.analysis.methods import METHOD_COLUMNS, lead_at_best, method_row, methods, of_methods
from sgdscope.analysis.trial_table import OPTIMIZER_COLUMNS, Records
from sgdscope.frames import Column, Columns, schema

BEST_BY_METHOD_COLUMNS: Columns = {
    **OPTIMIZER_COLUMNS,
    "batch_size": Column(pl.Int64, "Batch size with the best validation score.", "examples"),
    **METHOD_COLUMNS,
}
BEST_BY_METHOD_SCHEMA = schema(BEST_BY_METHOD_COLUMNS)


def best_by_method(trials: pl.DataFrame, records: Records) -> pl.DataFrame:
    """Return one row for each optimizer: the batch size with its best score, and its advantage over SGD's best.

    Args:
        trials: a table of trials.
        records: what their workloads are, by name.
    """
    rows = [
        {**method.key, "batch_size": size} | method_row(method, size, lead_at_best(method))
        for method in (methods(trials, records) if of_methods(trials) else [])
        if (size := method.best_batch_size) is not None
    ]
    return pl.DataFrame(rows, schema=BEST_BY_METHOD_SCHEMA)
