"""The tables that a user is given: polars tables whose ``to_pandas`` needs nothing but pandas."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, wraps
from typing import Any

import polars as pl

from sgdscope.errors import InputError


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
