"""How a number changes along an axis, in words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import polars as pl

from sgdscope.analysis.edges import listed
from sgdscope.formatting import estimate
from sgdscope.report.figures.figure import seeds
from sgdscope.report.figures.style import optimizers

# The rule behind the verbs; it stands with the page's rules.
CHANGES = (
    "In the sentence of a figure, a number rises or falls if its 95 % intervals at the two ends do not overlap; "
    "otherwise it does not change significantly."
)
# Of more lines than this it is said how many change.
MOST_LINES = 3
UNCHANGED = "does not change significantly"
Written = Callable[[float, float, float], str]


class Change(NamedTuple):
    """How one line changes: ``rises``, ``falls`` or neither, and in words."""

    kind: str
    text: str


def changes(what: str, lines: Sequence[tuple[str, pl.DataFrame]], value: str, along: str, written: Written) -> str:
    """Say how a number changes along an axis, line by line, or how many of many lines rise and fall.

    Args:
        what: Name of the number.
        lines: Rows of each line, with its name.
        value: Column of the number, which has columns of its interval beside it.
        along: Column of the axis.
        written: Writes a number with the ends of its interval.
    """
    found = [_change(name, rows, value, along, written) for name, rows in lines]
    if not found:
        return ""
    text = "; ".join(change.text for change in found)
    if len(found) > MOST_LINES:
        counts = Counter(change.kind for change in found)
        text = f"{counts['rises']} of {len(found)} lines rise, {counts['falls']} fall, {counts['']} do not change"
        text += " significantly"
    return f"{what}: {text} (95 %, {seeds(pl.concat([rows for _, rows in lines]))})."


def lines_of_optimizers(rows: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """Return the rows of each optimizer, SGD first."""
    return [(name, rows.filter(optimizer=name)) for name in optimizers(rows)]


def plainly(value: float, low: float, high: float) -> str:
    """Write a loss, a rate or a temperature with two digits.

    >>> plainly(0.0123, 0.0117, 0.0130)
    '0.012 [0.012, 0.013]'
    """
    return estimate(value, low, high, form=".2g")


def _change(name: str, rows: pl.DataFrame, value: str, along: str, written: Written) -> Change:
    # If a best rate lies at an edge of the rates tried, the best value is not known.
    inside = rows.filter(pl.col("censored") == "").sort(along)
    edges = [f"{at:g}" for at in rows.filter(pl.col("censored") != "")[along].sort()]
    without = (
        f" (without {listed(edges)}, where the best rate's interval reaches the edge of the rates tried)"
        if edges
        else ""
    )
    if inside.is_empty():
        return Change("", f"{name} unknown{without}")
    first, last = inside.row(0, named=True), inside.row(-1, named=True)
    start, end = (f"{_written(row, value, written)} at {row[along]:g}" for row in (first, last))
    if len(inside) == 1:
        return Change("", f"{name} {start}{without}")
    kind = ""
    if all(_has_interval(row, value) for row in (first, last)):
        kind = "rises" if first[f"{value}_high"] < last[f"{value}_low"] else kind
        kind = "falls" if first[f"{value}_low"] > last[f"{value}_high"] else kind
    change = f"{kind} from {start} to {end}" if kind else f"{UNCHANGED}, from {start} to {end}"
    return Change(kind, f"{name} {change}{without}")


def _written(row: dict[str, Any], value: str, written: Written) -> str:
    """Write a number; with one seed it has no interval."""
    if _has_interval(row, value):
        return written(row[value], row[f"{value}_low"], row[f"{value}_high"])
    return written(row[value], row[value], row[value]).split(" [")[0]


def _has_interval(row: dict[str, Any], value: str) -> bool:
    high = row[f"{value}_high"]
    return high is not None and math.isfinite(high)
