"""Points with intervals against batch size: the base of best score, training loss and optimal temperature."""

from __future__ import annotations

from typing import Any, Literal

import altair as alt
import polars as pl

from sgdscope.report.figures import style

Way = Literal["up", "down"]


def against_batch_size(rows: pl.DataFrame, value: str, y: alt.Y, low: Way, high: Way, **sizes: Any) -> style.LayerChart:
    """Return a column of optima against batch size, one line for each optimizer.

    Args:
        rows: Optima by one criterion.
        value: The column.
        y: Its axis.
        low: Which way an arrow points where the best rate lies at the lower edge of the rates tried.
        high: Which way at the upper edge.
        **sizes: More of the scale of the batch sizes.
    """
    x, colour = style.batch_axis(rows, **sizes), style.by_optimizer(rows, alt.Color, style.COLOURS)
    base = alt.Chart(rows).encode(x=x, color=colour)
    line = base.mark_line(opacity=0.55).encode(y=y, strokeDash=style.by_optimizer(rows, alt.StrokeDash, style.DASHES))
    bars = base.mark_rule().encode(y=alt.Y(f"{value}_low:Q"), y2=f"{value}_high:Q", opacity=style.stands_out(0.7, 0.25))
    points = base.mark_point(filled=True, size=70).encode(
        y=y,
        shape=style.by_optimizer(rows, alt.Shape, style.SHAPES),
        opacity=style.stands_out(1, 0.45),
        tooltip=style.mean_tooltip(value, rows=rows),
    )
    arrows = style.edge_arrows(rows, y, {"low": low, "high": high}, x=x, color=colour)
    return style.layered(style.batch_size_columns(rows, x), bars, line, points, *arrows)
