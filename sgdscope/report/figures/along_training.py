"""Lines along training at each batch size's optimal learning rate: the base of the figures along training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import altair as alt
import polars as pl

from sgdscope.analysis.tables import Tables
from sgdscope.analysis.trial_table import CELL
from sgdscope.report.figures import style
from sgdscope.report.figures.change import Written, changes, lines_of_optimizers
from sgdscope.report.figures.figure import seeds

# Fewer points along training make no curve.
FEWEST_POINTS = 3


def measured_along(part: Tables, metric: str) -> bool:
    """Return whether a cell has enough points of a metric along training."""
    points = part.training_curves.filter(metric=metric).group_by(*CELL).len()
    return bool((points["len"] >= FEWEST_POINTS).any())


def caption_along(part: Tables, bands: str) -> str:
    """Say what the lines and bands are."""
    return f"At each batch size's optimal learning rate. Lines: means over {seeds(part.curves)}. Bands: {bands}."


def sentence_along(part: Tables, metric: str, what: str, written: Written) -> str:
    """Say how the last value changes with the batch size."""
    curves = part.training_curves.filter(metric=metric)
    last = curves.filter(pl.col("step") == pl.col("step").max().over("optimizer", "batch_size"))
    edges = part.optima.filter(criterion="score").select(*CELL, "censored")
    last = last.join(edges, on=CELL, how="left", maintain_order="left").with_columns(pl.col("censored").fill_null(""))
    what = f"{what} after the last update, against batch size"
    return changes(what, lines_of_optimizers(last), "value", "batch_size", written)


def rows_along(part: Tables, metric: str) -> pl.DataFrame:
    """Return the rows of a metric that are drawn."""
    rows = part.training_curves.filter(metric=metric).drop("workload", "budget", "metric")
    return style.drawable(rows.sort("batch_size"))


def along_training(rows: pl.DataFrame, title: str, axis: alt.Axis, **scale: Any) -> style.HConcatChart:
    """Return lines along training, one panel for each optimizer and one line for each batch size."""
    along, unit = ("epochs", "epochs") if rows["epochs"].null_count() == 0 else ("step", "updates")
    x = alt.X(f"{along}:Q", title=unit, axis=alt.Axis(grid=False, tickCount=6))
    shared = alt.Scale(domain=style.extent(rows["value"]), nice=False, padding=8, **scale)
    y, low = alt.Y("value:Q", title=title, scale=shared, axis=axis), alt.Y("value_low:Q", scale=shared)
    panels = []
    for optimizer in style.optimizers(rows):
        base = alt.Chart(rows.filter(optimizer=optimizer), title=optimizer).encode(x=x, color=style.by_batch_size(rows))
        band = base.mark_area(clip=True).encode(y=low, y2="value_high:Q", opacity=style.stands_out(0.08, 0))
        line = base.mark_line(clip=True, strokeWidth=1.5).encode(y=y, opacity=style.stands_out(0.9))
        points = base.mark_point(filled=True, size=60, clip=True).encode(  # to be hovered, not seen
            y=y,
            opacity=alt.value(0),
            tooltip=style.mean_tooltip("value", f"{along}:Q"),
        )
        panels.append(style.layered(band, line, points))
    return style.side_by_side(panels)


def along_the_budget(
    rows: pl.DataFrame,
    value: str,
    title: str,
    ends: pl.Series,
    tooltip: Sequence[str],
    behind: Callable[[str], Sequence[alt.Chart]],
) -> style.HConcatChart:
    """Return estimates along the budget on a logarithmic axis, one panel for each optimizer.

    Args:
        rows: What is drawn, by the share of the budget.
        value: The column of the estimates, whose intervals stand beside it.
        title: What the axis says.
        ends: Numbers between whose least and largest the axis reaches.
        tooltip: What else a tooltip says.
        behind: The layers that lie behind an optimizer's points.
    """
    scale = alt.Scale(type="log", domain=style.extent(ends), nice=False, padding=14)
    y, low = alt.Y(f"{value}:Q", title=title, scale=scale, axis=style.decades_axis(ends)), f"{value}_low:Q"
    x = alt.X("fraction:Q", title="share of the budget", axis=alt.Axis(format="%", grid=False))
    shown = style.mean_tooltip(value, *tooltip)[:-1]  # without the trials that diverged
    panels = []
    for optimizer in style.optimizers(rows):
        base = alt.Chart(rows.filter(optimizer=optimizer), title=optimizer).encode(x=x, color=style.by_batch_size(rows))
        bars = base.mark_rule(clip=True).encode(
            y=alt.Y(low, scale=scale), y2=f"{value}_high:Q", opacity=style.stands_out(0.45, 0.04)
        )
        line = base.mark_line(clip=True).encode(y=y, opacity=style.stands_out(0.9))
        points = base.mark_point(filled=True, size=35, clip=True).encode(
            y=y, opacity=style.stands_out(1), tooltip=shown
        )
        panels.append(style.layered(*behind(optimizer), bars, line, points))
    return style.side_by_side(panels)
