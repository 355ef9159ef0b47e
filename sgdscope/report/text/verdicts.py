"""Verdicts of comparisons in words: at which batch sizes each was reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from sgdscope.analysis.edges import spans

# In the order in which they are said, with where they were reached.
VERDICTS = {
    "better": "better{}",
    "better in short runs": "better{}, where runs are too short for momentum's steady state",
    "higher": "higher{}",
    "equivalent": "equivalent{}",
    "lower": "lower{}",
    "worse": "worse{}",
    "undecided": "undecided{}",
    "at the edge": "not compared (the best rate's interval reaches the edge of the rates tried){}",
}

# A range of these up to the largest batch size has no end.
OPEN = ("better", "better in short runs", "worse")


def verdict_of(row: Mapping[str, Any]) -> str:
    """Return a row's verdict, with what limits it."""
    short = row["verdict"] == "better" and row.get("warmed_up") is False
    return "better in short runs" if short else str(row["verdict"])


def in_words(verdict: str, where: str = "") -> str:
    """Return a verdict in words, with where it was reached.

    >>> in_words("better in short runs", " at 256 and larger")
    "better at 256 and larger, where runs are too short for momentum's steady state"
    """
    return VERDICTS[verdict].format(where)


def by_verdict(verdicts: Sequence[tuple[str, int]], tried: Sequence[int]) -> str:
    """Say at which batch sizes each verdict was reached.

    Args:
        verdicts: Verdicts, as :func:`verdict_of` gives them, each with its batch size.
        tried: All batch sizes that were compared, ascending: those that follow each other are a range.

    >>> by_verdict([("equivalent", size) for size in (8, 16, 32)], [8, 16, 32])
    'equivalent at every batch size'
    >>> by_verdict([("undecided", 8), ("worse", 64), ("worse", 128)], [8, 64, 128])
    'worse at 64 and larger; undecided at 8'
    """
    sizes = {verdict: [size for name, size in verdicts if name == verdict] for verdict in VERDICTS}
    if len(verdicts) > 2 and len({name for name, _ in verdicts}) == 1:
        return in_words(verdicts[0][0], " at every batch size")
    return "; ".join(
        in_words(verdict, f" at {spans(mine, tried, open_end=verdict in OPEN)}")
        for verdict, mine in sizes.items()
        if mine
    )


def sizes_by_verdict(rows: pl.DataFrame) -> str:
    """Say of a table's rows, one a batch size, at which batch sizes each verdict was reached."""
    found = [(verdict_of(row), row["batch_size"]) for row in rows.iter_rows(named=True)]
    return by_verdict(found, sorted(size for _, size in found))
