"""Optimal effective learning rates ε*/(1 − m) and their fitted lines: the base of the figures of learning rates."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import polars as pl

from sgdscope.analysis.transitions import NOWHERE, THROUGHOUT
from sgdscope.report.figures import style

TITLE = "optimal effective learning rate ε*/(1 − m)"


def effective_rates(optima: pl.DataFrame) -> pl.DataFrame:
    """Return optima with effective rates and their intervals; the rate itself where an optimizer has no effective one.

    With one seed there is no interval.
    """
    rows = optima.with_columns(effective_learning_rate=pl.coalesce("effective_learning_rate", "learning_rate"))
    factor, known = (
        pl.col("effective_learning_rate") / pl.col("learning_rate"),
        pl.col("learning_rate_high").is_finite(),
    )
    return style.drawable(
        rows.with_columns(
            learning_rate_low=pl.when(known).then("learning_rate_low"),
            effective_low=pl.when(known).then(pl.col("learning_rate_low") * factor),
            effective_high=pl.when(known).then(pl.col("learning_rate_high") * factor),
        )
    )


def rate_axis(rows: pl.DataFrame, **scale: Any) -> alt.Y:
    """Return the axis of effective learning rates."""
    return alt.Y(
        "effective_learning_rate:Q",
        title=TITLE,
        scale=alt.Scale(type="log", base=2, nice=False, padding=10, **scale),
        axis=style.octaves_axis(*(rows[f"effective_{end}"] for end in ("learning_rate", "low", "high"))),
    )


def rate_points(
    rows: pl.DataFrame, x: alt.X, colour: alt.Color, y: alt.Y | None = None, **channels: Any
) -> list[alt.Chart]:
    """Return bars, points, and arrows at the ends of intervals that reach an edge of the rates tried."""
    base = alt.Chart(rows).encode(x=x, color=colour)
    bars = base.mark_rule().encode(
        y=alt.Y("effective_low:Q"), y2="effective_high:Q", opacity=style.stands_out(0.7, 0.25)
    )
    tooltip = [
        *style.cell_tooltip(rows),
        *style.rate_tooltip(),
        alt.Tooltip("learning_rate_low:Q", title="95 % low", format=".3~g"),
        alt.Tooltip("learning_rate_high:Q", title="95 % high", format=".3~g"),
        alt.Tooltip("censored:N", title="interval reaches the edge of the rates tried"),
    ]
    points = base.mark_point(filled=True, size=70).encode(
        y=rate_axis(rows) if y is None else y, opacity=style.stands_out(1, 0.45), tooltip=tooltip, **channels
    )
    arrows = []
    for end, shape in (("low", "triangle-down"), ("high", "triangle-up")):
        beyond = rows.filter(pl.col("censored").str.contains(end), pl.col(f"effective_{end}").is_not_null())
        if not beyond.is_empty():
            mark = alt.Chart(beyond).mark_point(shape=shape, filled=True, size=45)
            arrows.append(mark.encode(x=x, y=f"effective_{end}:Q", color=colour, opacity=style.stands_out(0.9, 0.25)))
    return [bars, points, *arrows]


def fitted_lines(rows: pl.DataFrame, transitions: pl.DataFrame, up_to: int = 0) -> pl.DataFrame:
    """Return the fitted line of each optimizer as points at the batch sizes, at its transition and at ``up_to``.

    In one regime the line is straight; if the rate grows throughout, the line ends at the largest batch size.
    """
    found = []
    fitted = transitions.filter((pl.col("criterion") == "score") & pl.col("level").is_not_null())
    for row in fitted.iter_rows(named=True):
        mine = rows.filter(optimizer=row["optimizer"])
        factor = mine["effective_learning_rate"][0] / mine["learning_rate"][0]
        transition = row["transition"] or row["transition_low"] or row["transition_high"]
        sizes = [*mine["batch_size"], transition, max(up_to, mine["batch_size"][0])]
        if row["status"] == THROUGHOUT:
            sizes = [size for size in sizes if size <= transition]
        x = np.sort(np.log2(sizes))
        slope = 0.0 if row["status"] == NOWHERE else row["slope"]
        y = np.log2(row["level"]) - slope * np.maximum(0, np.log2(transition) - x)
        found += [
            {"optimizer": row["optimizer"], "batch_size": 2.0**a, "effective_learning_rate": factor * 2.0**b}
            for a, b in zip(x, y, strict=True)
        ]
    return pl.DataFrame(found)
