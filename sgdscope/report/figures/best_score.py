"""Best test score against batch size."""

from __future__ import annotations

import altair as alt
import polars as pl

from sgdscope.analysis.score_limits import WIDE_MARGIN
from sgdscope.analysis.tables import Tables
from sgdscope.budget import Steps, known_budget
from sgdscope.formatting import points, score
from sgdscope.report.figures import style
from sgdscope.report.figures.against_batch_size import Way, against_batch_size
from sgdscope.report.figures.change import changes, lines_of_optimizers
from sgdscope.report.figures.figure import (
    EDGE,
    Figure,
    has_scores,
    how_chosen,
    means,
    several_batch_sizes,
)


def figure(part: Tables) -> Figure | None:
    """Return the figure; None with one batch size or without scores."""
    if not several_batch_sizes(part) or not has_scores(part.optima):
        return None
    return Figure(
        "best-score",
        f"Best test {part.record.score_name} against batch size",
        sentence(part),
        f"{how_chosen(part.record)} {means(part.curves)} Broad line: the plateau, up to the largest equivalent batch "
        f"size. Thin line: undecided, up to the first worse batch size. {EDGE}",
        "optima",
        chart(part),
    )


def sentence(part: Tables) -> str:
    """Say how the best score changes from the smallest batch size to the largest."""
    record, rows = part.record, part.optima.filter(criterion="score")
    return changes(
        f"Test {record.score_name} against batch size",
        lines_of_optimizers(rows),
        "test_score",
        "batch_size",
        lambda value, low, high: score(value, low, high, record.in_percent),
    )


def wide_margin_sentences(part: Tables) -> list[str]:
    """Say where the margin is so wide that equivalent scores may differ much in their errors."""
    wide = part.score_limits.filter(pl.col("margin_of_best_errors") > WIDE_MARGIN)
    if wide.is_empty():
        return []
    return [
        f"The margin of {points(wide['margin'][0], part.record.in_percent)} exceeds half of the errors of the best "
        f"batch size. Equivalence says little: declare a smaller margin, or test on more examples."
    ]


def batch_sizes_inside(part: Tables, optimizer: str) -> list[int]:
    """Return the batch sizes of an optimizer whose best rate for the score lies inside the rates tried, ascending."""
    mine = part.optima.filter(optimizer=optimizer, criterion="score", censored="")
    return mine["batch_size"].sort().to_list() or [0]


def chart(part: Tables) -> style.LayerChart:
    """Return the mean test score at the optimal learning rate, with its 95 % t interval over seeds and the plateau.

    An arrow marks a best rate at an edge of the rates tried, beyond which the score may be better.
    """
    rows = style.drawable(part.optima.filter(criterion="score"))
    better: Way = "up" if part.record.score_sign > 0 else "down"
    drawn = against_batch_size(rows, "test_score", style.score_axis(part.record, zero=False), better, better)
    plateaus = _plateaus(rows, part.score_limits)
    if not plateaus.is_empty():
        width = alt.StrokeWidth("part:O", legend=None, scale=alt.Scale(domain=["known", "undecided"], range=[6, 1.5]))
        lines = alt.Chart(plateaus).mark_rule(opacity=0.4)
        drawn.layer[1:1] = [
            lines.encode(
                x=style.batch_axis(rows),
                x2="to:Q",
                y=alt.Y("plateau:Q"),
                color=style.by_optimizer(rows, alt.Color, style.COLOURS),
                strokeWidth=width,
            )
        ]
    return drawn


def _plateaus(rows: pl.DataFrame, score_limits: pl.DataFrame) -> pl.DataFrame:
    """Return each optimizer's plateau up to its largest equivalent batch size, and on to the first worse one.

    A plateau of one batch size is none. At a constant number of steps the smallest batch sizes learn least, so there is
    no plateau that begins with them.
    """
    found = []
    for row in score_limits.filter(quantity="B_score").iter_rows(named=True):
        if row["low"] is None or isinstance(known_budget(row["budget"]), Steps):
            continue
        # A best score at an edge of the rates tried is a bound, and no part of the plateau.
        mine = rows.filter(optimizer=row["optimizer"], censored="").sort("batch_size")
        members = mine.filter(pl.col("batch_size") <= row["low"])
        if len(members) < 2:
            continue
        place = {"optimizer": row["optimizer"], "plateau": members["test_score"].mean()}
        ends = (mine["batch_size"].min(), row["low"], row["high"] or mine["batch_size"].max())
        parts = [("known", *ends[:2]), ("undecided", *ends[1:])]
        found += [place | {"part": part, "batch_size": low, "to": high} for part, low, high in parts if low < high]
    return pl.DataFrame(found)
