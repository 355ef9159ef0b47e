"""Differences in score against batch size with the intervals that decide: the base of the figures that compare."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from sgdscope.records import WorkloadRecord
from sgdscope.report.figures import style

HOW_TO_READ = (
    "Bars: the intervals that decide, with Holm's correction over batch sizes. Band: the margin. A bar beyond the band "
    "is better or worse, a bar within it is equivalent. Open points: undecided, or the interval of a best learning "
    "rate reaches the edge of the rates tried."
)
OPEN = ("undecided", "at the edge")


def differences(
    rows: pl.DataFrame,
    record: WorkloadRecord,
    title: str,
    axis: dict[str, Any] | None = None,
    sizes: dict[str, Any] | None = None,
) -> style.LayerChart:
    """Return differences in score against batch size, one colour for each optimizer.

    Args:
        rows: A table with the columns of :data:`~sgdscope.analysis.comparisons.SCORES_COLUMNS`.
        record: The workload whose scores they are.
        title: What the axis says.
        axis: More of the scale of the differences. Default: none.
        sizes: More of the scale of the batch sizes. Default: none.
    """
    scale = 100.0 if record.in_percent else 1.0
    numbers = ("difference", "decides_low", "decides_high", "margin")
    rows = style.drawable(rows).with_columns(pl.col(name) * scale for name in numbers)
    x, colour = style.batch_axis(rows, **(sizes or {})), style.by_optimizer(rows, alt.Color, style.COLOURS)
    unit = " (points)" * record.in_percent
    y = alt.Y("difference:Q", title=f"{title}{unit}", scale=alt.Scale(nice=False, padding=8, **(axis or {})))
    margin = float(rows["margin"].max())  # type: ignore[arg-type]
    band = alt.Chart(pl.DataFrame({"low": [-margin], "high": [margin]})).mark_rect(opacity=0.13, color=style.NEUTRAL)
    zero = alt.Chart(pl.DataFrame({"zero": [0.0]})).mark_rule(color=style.NEUTRAL).encode(y=alt.Y("zero:Q"))
    base = alt.Chart(rows).encode(x=x, color=colour)
    bars = base.mark_rule().encode(y=alt.Y("decides_low:Q"), y2="decides_high:Q", opacity=style.stands_out(0.7, 0.25))
    tooltip = [
        *style.cell_tooltip(rows),
        alt.Tooltip("verdict:N"),
        alt.Tooltip("difference:Q", title=f"difference{unit}", format="+.3~g"),
        alt.Tooltip("decides_low:Q", title="low", format="+.3~g"),
        alt.Tooltip("decides_high:Q", title="high", format="+.3~g"),
        alt.Tooltip("level:Q", title="level (%)", format=".3~g"),
    ]
    is_open = pl.col("verdict").is_in(OPEN)
    points = [
        alt.Chart(mine)
        .mark_point(filled=filled, size=70)
        .encode(
            x=x,
            y=y,
            color=colour,
            shape=style.by_optimizer(rows, alt.Shape, style.SHAPES),
            opacity=style.stands_out(1, 0.45),
            tooltip=tooltip,
        )
        for mine, filled in ((rows.filter(~is_open), True), (rows.filter(is_open), False))
        if not mine.is_empty()
    ]
    shaded = band.encode(y=alt.Y("low:Q"), y2="high:Q")
    return style.layered(shaded, zero, style.batch_size_columns(rows, x), bars, *points)
