"""One line for each batch size against learning rate or temperature, one panel for each optimizer."""

from __future__ import annotations

import math

import altair as alt
import polars as pl

from sgdscope.analysis.tables import Tables
from sgdscope.report.figures import style
from sgdscope.report.figures.change import changes, lines_of_optimizers, plainly


def against_learning_rate(curves: pl.DataFrame, value: str, y: alt.Y, x: alt.X | None = None) -> style.HConcatChart:
    """Return a column of the curves against learning rate, or along another axis.

    Args:
        curves: One row for each cell and learning rate.
        value: The column.
        y: Its axis.
        x: The other axis. Default: the learning rate.
    """
    panels = []
    rows = style.drawable(curves.sort("batch_size"))
    for optimizer in style.optimizers(rows):
        mine = rows.filter(optimizer=optimizer)
        rate = alt.Scale(type="log", base=2, nice=False, padding=8)
        along = x or alt.X(
            "learning_rate:Q", title="learning rate ε", scale=rate, axis=style.octaves_axis(mine["learning_rate"])
        )
        base = alt.Chart(mine, title=optimizer).encode(x=along, color=style.by_batch_size(rows))
        line = base.mark_line(clip=True).encode(y=y, opacity=style.stands_out(0.9))
        low = alt.Y(f"{value}_low:Q", scale=y["scale"])
        rules = base.mark_rule(clip=True).encode(y=low, y2=f"{value}_high:Q", opacity=style.stands_out(0.45, 0.04))
        points = base.mark_point(filled=True, size=35, clip=True).encode(
            y=y,
            opacity=style.stands_out(1),
            tooltip=style.mean_tooltip(value),
        )
        panels.append(style.layered(rules, line, points))
    return style.side_by_side(panels)


def near_best(part: Tables) -> alt.Y:
    """Return the axis of scores near the best: twice the span of the batch sizes' best means; the rest is cut off."""
    sign = part.record.score_sign
    best_means = part.curves.group_by("optimizer", "batch_size").agg(best=(sign * pl.col("test_score")).max())["best"]
    known = [best for best in best_means.to_list() if best is not None and math.isfinite(best)]
    best, worst = max(known), min(known)
    reach = max(best - worst, 0.05 * abs(best)) or 1.0
    ends = sorted([sign * (worst - reach), sign * (best + 0.1 * reach)])
    return style.score_axis(part.record, domain=ends, clamp=False)


def best_rate_sentence(part: Tables, criterion: str, what: str) -> str:
    """Say how the best learning rate changes from the smallest batch size to the largest, and how many diverged."""
    lines = lines_of_optimizers(part.optima.filter(criterion=criterion))
    said = changes(
        f"Best learning rate for the {what} against batch size", lines, "learning_rate", "batch_size", plainly
    )
    diverged, trials = int(part.curves["diverged"].sum()), int(part.curves["n"].sum())
    return f"{said} {diverged:,} of {trials:,} trials diverged."
