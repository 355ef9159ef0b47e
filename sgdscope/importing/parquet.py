"""Parquet files, with their nested columns."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from sgdscope.importing.table import TextTable, of_rows


def read_parquet(path: Path) -> TextTable:
    """Read a ``.parquet`` file."""
    rows = pl.read_parquet(path).to_dicts()
    return of_rows(path, rows, range(1, len(rows) + 1), "row")
