"""The two regimes of each study beside each other, on one axis of learning rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from sgdscope.analysis.tables import Tables
from sgdscope.comparison.figures.optimal_learning_rate import ENDS
from sgdscope.comparison.figures.panels import common
from sgdscope.comparison.matching import Matched
from sgdscope.report.figures import style
from sgdscope.report.figures.effective_rates import effective_rates, fitted_lines, rate_axis, rate_points
from sgdscope.report.figures.figure import Figure, has_scores, several_batch_sizes
from sgdscope.report.figures.two_regimes import bands_of, shades

if TYPE_CHECKING:
    from sgdscope.comparison.comparison import Comparison


def figure(comparison: Comparison, part: Sequence[Matched]) -> Figure | None:
    """Return the figure; None with one batch size or without scores."""
    parts = []
    for side, key in zip(comparison.sides, part[0].keys, strict=True):
        mine = [
            of
            for of in side.tables.parts
            if (of.record.name, of.trials["budget"][0]) == (key["workload"], key["budget"])
        ]
        parts += [(side.name, of) for of in mine if several_batch_sizes(of) and has_scores(of.optima)]
    if not parts:
        return None
    rates = [(name, effective_rates(of.optima.filter(criterion="score"))) for name, of in parts]
    axis = rate_axis(pl.concat([rows for _, rows in rates]), **common(rates, *ENDS, log=True))
    sizes = [size for _, of in parts for size in (*of.trials["batch_size"].unique(), of.record.examples[0]) if size]
    charts = [
        panel.properties(title=f"{name}: {panel.title}") for name, of in parts for panel in _panels(of, axis, sizes)
    ]
    return Figure(
        "two-regimes",
        "The two regimes",
        "",
        "Optimal effective learning rates up to the full batch. Noise-dominated: below the 95 % interval of SGD's "
        "transition batch size. Curvature-dominated: above that of the optimizer's own. Not shaded: in neither.",
        "transition_difference",
        style.side_by_side(charts),
    )


def _panels(part: Tables, y: alt.Y, more_sizes: Sequence[int]) -> list[style.LayerChart]:
    """Return the panel of each optimizer, up to the full batch, on an axis of rates that all panels share."""
    rows = effective_rates(part.optima.filter(criterion="score"))
    sizes = [*part.trials["batch_size"], *more_sizes]
    smallest, largest = min(sizes), max(*sizes, part.record.examples[0])
    scale = alt.Scale(type="log", base=2, domain=[smallest, largest])
    x = alt.X("batch_size:Q", title="batch size B", scale=scale, axis=alt.Axis(grid=False, labelOverlap=True))
    return [_panel(part, rows, name, (x, y), smallest, largest) for name in style.optimizers(part.optima)]


def _panel(
    part: Tables,
    every: pl.DataFrame,
    optimizer: str,
    axes: tuple[alt.X, alt.Y],
    smallest: int,
    largest: int,
) -> style.LayerChart:
    x, y = axes
    rows = every.filter(optimizer=optimizer)
    colour = style.by_optimizer(every, alt.Color, style.COLOURS)
    colour.legend = None  # the panel's title says it
    layers: list[Any] = [*shades(bands_of(part, [optimizer], smallest, largest), x, style.LEGEND)]
    lines = fitted_lines(rows, part.transitions.filter(optimizer=optimizer), up_to=largest)
    if not lines.is_empty():
        fitted = alt.Chart(lines).mark_line(opacity=0.85).encode(x=x, color=colour)
        layers.append(fitted.encode(y="effective_learning_rate:Q"))
    layers += [style.batch_size_columns(rows, x), *rate_points(rows, x, colour, y)]
    panel: style.LayerChart = style.layered(*layers).properties(title=optimizer)
    return panel
