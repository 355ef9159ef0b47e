"""Optimal learning rate against batch size, with the fitted transition."""

from __future__ import annotations

import math
from typing import Any

import altair as alt
import polars as pl

from sgdscope.analysis.tables import Tables
from sgdscope.analysis.transitions import AT_EDGE, FEWEST_BATCH_SIZES, IDENTIFIED, NOWHERE, THROUGHOUT, TOO_FEW
from sgdscope.analysis.trial_table import CRITERIA, Criterion
from sgdscope.formatting import batch_size, estimate
from sgdscope.report.figures import style
from sgdscope.report.figures.effective_rates import effective_rates, fitted_lines, rate_points
from sgdscope.report.figures.figure import Figure, counted, has_scores, plain_first, seeds, several_batch_sizes

# What is said of a study in one regime, and what to add to find the transition.
ONE_REGIME = {
    NOWHERE: ("does not grow", "curvature-dominated", "smaller batch sizes or more epochs"),
    THROUGHOUT: ("grows", "noise-dominated", "larger batch sizes"),
}


def figure(part: Tables) -> Figure | None:
    """Return the figure; None with one batch size or without scores."""
    if not several_batch_sizes(part) or not has_scores(part.optima):
        return None
    return Figure(
        "optimal-learning-rate",
        "Optimal learning rate against batch size",
        " ".join(transition_sentences(part, "score")),
        f"The learning rate with the best {part.record.chosen_on} {part.record.score_name}; with momentum m, the "
        f"effective rate. Bars and bands: 95 % intervals over {seeds(part.curves)}. Lines: a fitted slope up to the "
        f"transition batch size, constant above. Dotted: in proportion to the batch size. Arrow: the interval reaches "
        f"the edge of the rates tried.",
        "transitions",
        chart(part),
    )


def transition_sentences(part: Tables, *criteria: Criterion) -> list[str]:
    """Say for each optimizer and criterion what the transition batch size is, or why it is not known."""
    wanted = part.transitions.filter(pl.col("criterion").is_in(criteria or CRITERIA))
    return [_transition(row, part) for row in plain_first(wanted, "criterion").iter_rows(named=True)]


def _transition(row: dict[str, Any], part: Tables) -> str:
    mine = part.optima.filter(optimizer=row["optimizer"], criterion=row["criterion"])
    who = f"{row['optimizer']}, {'test score' if row['criterion'] == 'score' else 'training loss'}:"
    if row["status"] == TOO_FEW:
        tried = part.trials.filter(optimizer=row["optimizer"])["batch_size"].n_unique()
        return (
            f"{who} {row['batch_sizes']} of {tried} batch sizes can be compared. The transition batch size takes at "
            f"least {FEWEST_BATCH_SIZES}."
        )
    without = (
        f" Left out: {row['left_out']}, where the interval reaches the edge of the rates tried."
        if row["left_out"]
        else ""
    )
    if row["status"] == AT_EDGE:
        return (
            f"{who} the transition batch size is unknown. The optimal learning rate lies inside the rates tried at "
            f"fewer than {FEWEST_BATCH_SIZES} batch sizes.{without}"
        )
    slope = f"slope {estimate(row['slope'], row['slope_low'], row['slope_high'], '.2f')}"
    known = f"95 %, {counted(row['n'])}"
    if row["status"] in (NOWHERE, THROUGHOUT):
        sizes = mine.filter(censored="")["batch_size"].sort().to_list()
        grows, regime, add = ONE_REGIME[row["status"]]
        throughout = f": {regime} throughout" if row["criterion"] == "score" else ""
        return (
            f"{who} the optimal learning rate {grows} between batch sizes {sizes[0]} and {sizes[-1]}{throughout} "
            f"({slope}; {known}). Add {add} to find the transition batch size.{without}"
        )
    largest = part.trials["batch_size"].to_numpy().max()
    if row["transition"] >= largest:
        return f"{who} no transition batch size was found up to {largest} ({slope}; {known}).{without}"
    at, low, high = (batch_size(row[f"transition{end}"]) for end in ("", "_low", "_high"))
    unknown, more = ("", "") if row["status"] == IDENTIFIED else ("not identified: ", " Add seeds or batch sizes.")
    found = f"{unknown}{at} [{low}, {high}] (fitted {slope} below; {known})."
    return f"{who} the transition batch size is {found}{more}{without}"


def chart(part: Tables) -> style.LayerChart:
    """Return ε*/(1 − m) against B on logarithmic axes, with interval bands, the fitted lines and a guide of slope 1."""
    rows = effective_rates(part.optima.filter(criterion="score"))
    x, colour = style.batch_axis(rows), style.by_optimizer(rows, alt.Color, style.COLOURS)
    bands = alt.Chart(rows).mark_area(opacity=0.1)
    bands = bands.encode(x=x, color=colour, y=alt.Y("effective_low:Q"), y2="effective_high:Q")
    layers: list[Any] = [style.batch_size_columns(rows, x), bands, *_slope_1(rows, x)]
    lines = fitted_lines(rows, part.transitions)
    if not lines.is_empty():
        dash = style.by_optimizer(rows, alt.StrokeDash, style.DASHES)
        fitted = alt.Chart(lines).mark_line(opacity=0.85).encode(x=x, color=colour, strokeDash=dash)
        layers.append(fitted.encode(y=alt.Y("effective_learning_rate:Q")))
    return style.layered(
        *layers, *rate_points(rows, x, colour, shape=style.by_optimizer(rows, alt.Shape, style.SHAPES))
    )


def _slope_1(rows: pl.DataFrame, x: alt.X) -> list[Any]:
    """Return the guide: growth in proportion from the first optimizer's smallest batch size on."""
    first = rows.filter(optimizer=style.optimizers(rows)[0]).sort("batch_size")
    size, rate = first["batch_size"][0], first["effective_learning_rate"][0]
    highest = max(*style.extent(rows["effective_learning_rate"]), *(rows["effective_high"].drop_nulls()))
    end = min(style.extent(rows["batch_size"])[1], size * highest / rate)
    if math.log2(end / size) < 1:
        return []
    grown = [1.0, math.sqrt(end / size), end / size]
    guide = {
        "batch_size": [size * by for by in grown],
        "rate": [rate * by for by in grown],
        "text": ["", "slope 1", ""],
    }
    base = alt.Chart(pl.DataFrame(guide)).encode(x=x, y=alt.Y("rate:Q"))
    text = base.mark_text(align="right", dx=-6, dy=-7, color=style.NEUTRAL).encode(text="text:N")
    return [base.mark_line(strokeDash=[2, 3], strokeWidth=1.5, color=style.NEUTRAL), text]
