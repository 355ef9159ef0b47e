"""Verdicts of comparisons in words: at which batch sizes each was reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sgdscope.analysis.edges import listed

# In the order in which they are said.
VERDICTS = {
    "better": "better",
    "better in short runs": "better, in runs too short for momentum's steady state,",
    "higher": "higher",
    "equivalent": "equivalent",
    "lower": "lower",
    "worse": "worse",
    "undecided": "undecided",
    "at the edge": "not compared (best rate at the edge of the rates tried)",
}


def verdict_of(row: Mapping[str, Any]) -> str:
    """Return a row's verdict, with what limits it."""
    short = row["verdict"] == "better" and row.get("warmed_up") is False
    return "better in short runs" if short else str(row["verdict"])


def by_verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say at which batch sizes each verdict was reached.

    >>> by_verdict([{"batch_size": size, "verdict": "equivalent"} for size in (8, 16, 32)])
    'equivalent at every batch size'
    >>> by_verdict([{"batch_size": 8, "verdict": "undecided"}, {"batch_size": 64, "verdict": "better"}])
    'better at 64; undecided at 8'
    """
    sizes = {verdict: [row["batch_size"] for row in rows if verdict_of(row) == verdict] for verdict in VERDICTS}
    if len(rows) > 2 and max(map(len, sizes.values())) == len(rows):
        return f"{VERDICTS[verdict_of(rows[0])]} at every batch size"
    return "; ".join(f"{VERDICTS[verdict]} at {listed(mine)}" for verdict, mine in sizes.items() if mine)
