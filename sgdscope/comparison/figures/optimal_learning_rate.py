"""Optimal learning rate of each study against batch size, with the fitted transitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from sgdscope.comparison.figures.panels import Panel, beside, common, has_several_batch_sizes, optima_of, sizes_of
from sgdscope.comparison.matching import Matched
from sgdscope.report.figures import style
from sgdscope.report.figures.effective_rates import effective_rates, fitted_lines, rate_axis, rate_points
from sgdscope.report.figures.figure import Figure

if TYPE_CHECKING:
    from sgdscope.comparison.comparison import Comparison

ENDS = ("effective_learning_rate", "effective_low", "effective_high")


def figure(comparison: Comparison, part: Sequence[Matched]) -> Figure | None:
    """Return the figure; None with one batch size or without scores."""
    panels = [(name, effective_rates(rows)) for name, rows in optima_of(comparison, part, "score")]
    if not has_several_batch_sizes(panels):
        return None
    transitions = dict(transitions_of(comparison, part))
    axis, sizes = common(panels, *ENDS, log=True), sizes_of(panels)
    every = pl.concat([rows for _, rows in panels])
    y, x = rate_axis(every, **axis), style.batch_axis(every, **sizes)
    return Figure(
        "optimal-learning-rate",
        "Optimal learning rate against batch size",
        "",
        "The learning rate with the best score; with momentum m, the effective rate. Bars: 95 % intervals over seeds. "
        "Lines: a fitted slope up to the transition batch size, constant above. Arrow: the interval reaches the edge "
        "of the rates tried.",
        "rate_difference",
        beside(panels, lambda name, rows: chart(rows, transitions[name], y, x)),
    )


def transitions_of(comparison: Comparison, part: Sequence[Matched]) -> list[Panel]:
    """Return the transitions of each optimizer by the score, with the studies in place of the optimizers."""
    found = []
    for of in part:
        rows = [
            side.tables.transitions.filter(**key, criterion="score").with_columns(optimizer=pl.lit(side.name))
            for side, key in zip(comparison.sides, of.keys, strict=True)
        ]
        found.append((of.value("optimizer"), pl.concat(rows)))
    return found


def chart(rows: pl.DataFrame, transitions: pl.DataFrame, y: alt.Y, x: alt.X) -> style.LayerChart:
    """Return the rates of one optimizer, with the fitted line of each study."""
    colour = style.by_optimizer(rows, alt.Color, style.COLOURS)
    layers: list[Any] = [style.batch_size_columns(rows, x)]
    lines = fitted_lines(rows, transitions)
    if not lines.is_empty():
        dash = style.by_optimizer(rows, alt.StrokeDash, style.DASHES)
        fitted = alt.Chart(lines).mark_line(opacity=0.85).encode(x=x, color=colour, strokeDash=dash)
        layers.append(fitted.encode(y=alt.Y("effective_learning_rate:Q")))
    shape = style.by_optimizer(rows, alt.Shape, style.SHAPES)
    return style.layered(*layers, *rate_points(rows, x, colour, y, shape=shape))
