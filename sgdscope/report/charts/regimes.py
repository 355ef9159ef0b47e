"""The optimal learning rate against batch size, and the regimes that it tells apart."""

from __future__ import annotations

import math
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from sgdscope.analysis.regimes import regime_limits
from sgdscope.analysis.tables import Tables
from sgdscope.analysis.transitions import IDENTIFIED, NOWHERE, THROUGHOUT
from sgdscope.report.charts.style import (
    COLOURS,
    DASHES,
    LEGEND,
    NEUTRAL,
    SHAPES,
    batch_axis,
    batch_size_columns,
    cell_tooltip,
    drawable,
    extent,
    octaves_axis,
    of_optimizer,
    optimizers,
    rate_tooltip,
    side_by_side,
    sized,
    stands_out,
)

# What a study says of its transition where the regimes are told apart, or it lies in one of them.
KNOWN = (IDENTIFIED, NOWHERE, THROUGHOUT)
# Of the two regimes: the bands are pale, and stand beside each other, never on one another.
BANDS = ["#56b4e9", "#e6b800"]


def optimal_learning_rate(optima: pl.DataFrame, transitions: pl.DataFrame) -> alt.LayerChart:
    """Return ε*/(1 − m) against B on logarithmic axes, with interval bands, the fitted hinges and a guide of slope 1.

    Where an interval reaches the edge of what was tried, its end is a bound, and has an arrow.
    """
    rows = effective_intervals(optima)
    x, colour = batch_axis(rows), of_optimizer(rows, alt.Color, COLOURS)
    base = alt.Chart(rows).encode(x=x, color=colour)
    low, high = alt.Y("effective_low:Q"), "effective_high:Q"
    bands = base.mark_area(opacity=0.1).encode(y=low, y2=high)
    bars = base.mark_rule().encode(y=low, y2=high, opacity=stands_out(0.7, 0.25))
    shape = of_optimizer(rows, alt.Shape, SHAPES)
    points = base.mark_point(filled=True, size=70).encode(
        y=_rate_axis(rows),
        shape=shape,
        opacity=stands_out(1, 0.45),
        tooltip=[*cell_tooltip(), *_rate_interval_tooltip()],
    )
    layers: list[Any] = [batch_size_columns(rows, x), bands, *_slope_1(rows, x)]
    lines = hinge_lines(rows, transitions)
    if not lines.is_empty():
        dash = of_optimizer(rows, alt.StrokeDash, DASHES)
        fitted = alt.Chart(lines).mark_line(opacity=0.85).encode(x=x, color=colour, strokeDash=dash)
        layers.append(fitted.encode(y=alt.Y("effective_learning_rate:Q")))
    return sized(*layers, bars, points, *_arrows(rows, x, colour))


def two_regimes(tables: Tables) -> alt.HConcatChart:
    """Return log ε*/(1 − m) against log B up to N, both regimes shaded, one panel for each optimizer.

    Noise-dominated are the batch sizes below the lower limit of SGD's bend, curvature-dominated those above the upper
    limit of the optimizer's own, as far as these bends are identified; what is between them is not shaded. The fitted
    hinge is drawn from the smallest batch size to N, the full batch.
    """
    panels = []
    everyone = effective_intervals(tables.optima)
    sizes = tables.trials["batch_size"].to_list()
    smallest, largest = min(sizes), max(*sizes, tables.record.examples[0])
    workload, budget = tables.record.name, tables.trials["budget"][0]
    x = alt.X(
        "batch_size:Q",
        title="batch size B",
        scale=alt.Scale(type="log", base=2, domain=[smallest, largest]),
        axis=alt.Axis(grid=False, labelOverlap=True),
    )
    for optimizer in optimizers(tables.optima):
        rows, fits = everyone.filter(optimizer=optimizer), tables.transitions.filter(optimizer=optimizer)
        low, high = regime_limits(tables.transitions.filter(pl.col("status").is_in(KNOWN)), workload, budget, optimizer)
        bands = pl.DataFrame(
            [("noise-dominated", smallest, min(low or smallest, largest)), ("curvature-dominated", high, largest)],
            schema={"regime": pl.String, "batch_size": pl.Float64, "to": pl.Float64},
            orient="row",
        ).filter(pl.col("batch_size") < pl.col("to"))
        scale = alt.Scale(domain=["noise-dominated", "curvature-dominated"], range=BANDS)
        fill = alt.Fill("regime:N", title=None, scale=scale, legend=LEGEND)
        shaded = alt.Chart(bands).mark_rect(opacity=0.22).encode(x=x, x2="to:Q", fill=fill)
        colour = of_optimizer(everyone, alt.Color, COLOURS)
        colour.legend = None  # the panel's title says it
        base = alt.Chart(rows).encode(x=x, color=colour)
        bars = base.mark_rule().encode(y=alt.Y("effective_low:Q"), y2="effective_high:Q", opacity=stands_out(0.8, 0.25))
        points = base.mark_point(filled=True, size=70).encode(
            y=_rate_axis(rows), opacity=stands_out(1, 0.45), tooltip=[*cell_tooltip(), *_rate_interval_tooltip()]
        )
        layers: list[Any] = [] if bands.is_empty() else [shaded]
        lines = hinge_lines(rows, fits, up_to=largest)
        if not lines.is_empty():
            hinge = alt.Chart(lines).mark_line(opacity=0.85).encode(x=x, color=colour)
            layers.append(hinge.encode(y="effective_learning_rate:Q"))
        layers += [batch_size_columns(rows, x), bars, points, *_arrows(rows, x, colour)]
        panels.append(sized(*layers).properties(title=optimizer))
    return side_by_side(panels)


def with_effective_rates(optima: pl.DataFrame) -> pl.DataFrame:
    """Return optima with the learning rate itself where the optimizer has no effective one."""
    return optima.with_columns(effective_learning_rate=pl.coalesce("effective_learning_rate", "learning_rate"))


def effective_intervals(optima: pl.DataFrame) -> pl.DataFrame:
    """Return the score's optima with the intervals of their effective rates."""
    sure = pl.when(pl.col("learning_rate_high").is_not_null())  # with one seed there is no interval
    optima = with_effective_rates(optima)
    factor = pl.col("effective_learning_rate") / pl.col("learning_rate")
    return drawable(optima.filter(pl.col("criterion") == "score")).with_columns(
        sure.then("learning_rate_low").alias("learning_rate_low"),
        sure.then("learning_rate_high").alias("learning_rate_high"),
        effective_low=sure.then(pl.col("learning_rate_low") * factor),
        effective_high=sure.then(pl.col("learning_rate_high") * factor),
    )


def hinge_lines(rows: pl.DataFrame, transitions: pl.DataFrame, up_to: int = 0) -> pl.DataFrame:
    """Return the fitted line of each optimizer as points at the batch sizes, at the bend and at ``up_to``.

    Of a study in one regime it is a line without a bend; if it grows throughout it ends at the largest batch size.
    """
    found = []
    for row in transitions.filter((pl.col("criterion") == "score") & pl.col("level").is_not_null()).iter_rows(
        named=True
    ):
        mine = rows.filter(pl.col("optimizer") == row["optimizer"])
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


def _rate_axis(rows: pl.DataFrame) -> alt.Y:
    return alt.Y(
        "effective_learning_rate:Q",
        title="optimal effective learning rate ε*/(1 − m)",
        scale=alt.Scale(type="log", base=2, nice=False, padding=10),
        axis=octaves_axis(rows["effective_learning_rate"], rows["effective_low"], rows["effective_high"]),
    )


def _rate_interval_tooltip() -> list[alt.Tooltip]:
    return [
        *rate_tooltip(),
        alt.Tooltip("learning_rate_low:Q", title="95 % low", format=".3~g"),
        alt.Tooltip("learning_rate_high:Q", title="95 % high", format=".3~g"),
        alt.Tooltip("censored:N", title="at the edge of what was tried"),
    ]


def _arrows(rows: pl.DataFrame, x: alt.X, colour: alt.Color) -> list[alt.Chart]:
    """Return arrows at the ends of intervals that reach the edge of what was tried, and may go on beyond it."""
    arrows = []
    for end, shape in (("low", "triangle-down"), ("high", "triangle-up")):
        open_ = rows.filter(pl.col("censored").str.contains(end), pl.col(f"effective_{end}").is_not_null())
        if not open_.is_empty():
            base = alt.Chart(open_).mark_point(shape=shape, filled=True, size=45)
            arrows.append(base.encode(x=x, y=f"effective_{end}:Q", color=colour, opacity=stands_out(0.9, 0.25)))
    return arrows


def _slope_1(rows: pl.DataFrame, x: alt.X) -> list[Any]:
    """Return the guide: the rate growing in proportion from the first optimizer's smallest batch size on."""
    first = rows.filter(optimizer=optimizers(rows)[0]).sort("batch_size")
    size, rate = first["batch_size"][0], first["effective_learning_rate"][0]
    highest = max(*extent(rows["effective_learning_rate"]), *(rows["effective_high"].drop_nulls()))
    end = min(extent(rows["batch_size"])[1], size * highest / rate)
    if math.log2(end / size) < 1:
        return []
    grown = [1.0, math.sqrt(end / size), end / size]
    guide = {
        "batch_size": [size * by for by in grown],
        "rate": [rate * by for by in grown],
        "text": ["", "slope 1", ""],
    }
    base = alt.Chart(pl.DataFrame(guide)).encode(x=x, y=alt.Y("rate:Q"))
    text = base.mark_text(align="right", dx=-6, dy=-7, color=NEUTRAL).encode(text="text:N")
    return [base.mark_line(strokeDash=[2, 3], strokeWidth=1.5, color=NEUTRAL), text]
