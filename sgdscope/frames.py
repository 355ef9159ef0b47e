"""The tables that a user is given: polars tables whose ``to_pandas`` needs nothing but pandas."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property, wraps
from typing import Any, NamedTuple

import polars as pl

from sgdscope.errors import InputError

Dtype = pl.DataType | type[pl.DataType]


class Column(NamedTuple):
    """Describe one column of a table.

    Args:
        dtype: Its polars type.
        description: What its values are, in a sentence.
        unit: What they are counted in. Default: none.
    """

    dtype: Dtype
    description: str
    unit: str = ""


# The columns of a table by name, in their order.
Columns = Mapping[str, Column]


def schema(columns: Columns) -> dict[str, Dtype]:
    """Return the polars schema of described columns."""
    return {name: column.dtype for name, column in columns.items()}


def with_interval(name: str, description: str, unit: str = "") -> dict[str, Column]:
    """Return the columns of a number and of both ends of its 95 % interval.

    >>> list(with_interval("slope", "Slope."))
    ['slope', 'slope_low', 'slope_high']
    """
    ends = {
        f"{name}_{end}": Column(pl.Float64, f"{which} end of the 95 % interval of `{name}`.", unit)
        for end, which in (("low", "Lower"), ("high", "Upper"))
    }
    return {name: Column(pl.Float64, description, unit), **ends}


def described(columns: Columns) -> Frame:
    """Return a table of columns: column, description and unit, one row each."""
    rows = [(name, column.description, column.unit) for name, column in columns.items()]
    return Frame(rows, schema=["column", "description", "unit"], orient="row")


def finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row for JSON, which has no word for what is infinite or no number: null stands there.

    >>> finite({"low": float("-inf"), "n": 5, "of": {"p": float("nan")}})
    {'low': None, 'n': 5, 'of': {'p': None}}
    """
    return {name: _or_none(value) for name, value in row.items()}


def _or_none(value: Any) -> Any:
    if isinstance(value, dict):
        return finite(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Frame(pl.DataFrame):
    """A polars table that becomes a pandas table without pyarrow too."""

    def to_pandas(self, **how: Any) -> Any:
        """Return the table as a ``pandas.DataFrame``.

        Missing numbers are NaN, missing text and truth values None: the same with and without pyarrow.

        Args:
            how: options of :meth:`polars.DataFrame.to_pandas`; with any, it is polars that converts, by pyarrow.

        Raises:
            InputError: If pandas is not installed, or pyarrow where options are given.
        """
        try:
            if how:
                return super().to_pandas(**how)
            import pandas as pd
        except ModuleNotFoundError as error:
            missing = error.name or "pyarrow"
            raise InputError(
                f"to_pandas: {missing} is not installed; run `pip install {missing}`, or use the polars table."
            ) from error
        return pd.DataFrame({column.name: pd.Series(column.to_numpy()) for column in self.iter_columns()})


def table(function: Callable[[Any], pl.DataFrame]) -> cached_property[pl.DataFrame]:
    """Make a property of a method that returns a table: computed once, and given as a :class:`Frame`."""

    @wraps(function)
    def framed(self: Any) -> pl.DataFrame:
        return Frame(function(self))

    return cached_property(framed)
