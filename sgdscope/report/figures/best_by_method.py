"""The best score of each method over batch sizes."""

from __future__ import annotations

import altair as alt

from sgdscope.analysis.tables import Tables
from sgdscope.formatting import score
from sgdscope.report.figures import style
from sgdscope.report.figures.figure import Figure, how_chosen, seeds
from sgdscope.report.figures.score_by_cost import costs_tooltip


def figure(part: Tables) -> Figure | None:
    """Return the figure; None without a method beside SGD and its momentum."""
    if part.best_by_method.is_empty():
        return None
    return Figure(
        "best-by-method",
        f"Best test {part.record.score_name} of each method over batch sizes",
        sentence(part),
        f"Each method at the batch size, among those inside the rates tried, that is best for the score. "
        f"{how_chosen(part.record)} Points: means over {seeds(part.best_by_method)}. Bars: 95 % t intervals.",
        "best_by_method",
        chart(part),
    )


def sentence(part: Tables) -> str:
    """Say which score each method reaches, and at which batch size."""
    rows, said = part.best_by_method, []
    for name in style.optimizers(rows):
        row = rows.filter(optimizer=name).row(0, named=True)
        value, low, high = (row[f"test_score{end}"] for end in ("", "_low", "_high"))
        said.append(f"{name} {score(value, low, high, part.record.in_percent)} at batch size {row['batch_size']}")
    return f"Best test {part.record.score_name}: {'; '.join(said)} (95 %, {seeds(rows)})."


def chart(part: Tables) -> style.LayerChart:
    """Return the mean score of each method with its 95 % t interval."""
    rows = style.drawable(part.best_by_method)
    order = style.optimizers(rows)
    base = alt.Chart(rows).encode(
        x=alt.X("optimizer:N", title=None, sort=order, axis=alt.Axis(labelAngle=-20, labelLimit=160)),
        color=style.by_optimizer(rows, alt.Color, style.COLOURS),
    )
    bars = base.mark_rule().encode(y=alt.Y("test_score_low:Q"), y2="test_score_high:Q")
    means = [alt.Tooltip(f"test_score{end}:Q", format=".4~g") for end in ("", "_low", "_high")]
    points = base.mark_point(filled=True, size=90).encode(
        y=style.score_axis(part.record, zero=False), tooltip=[*style.cell_tooltip(), *means, *costs_tooltip()]
    )
    return style.layered(bars, points)
