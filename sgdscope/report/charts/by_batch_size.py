"""What is best at each batch size: score, training loss and temperature."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from sgdscope.budget import Steps, known_budget
from sgdscope.report.charts.style import (
    COLOURS,
    DASHES,
    SHAPES,
    batch_axis,
    batch_size_columns,
    cell_tooltip,
    decades_axis,
    drawable,
    edge_arrows,
    interval_tooltip,
    of_optimizer,
    rate_tooltip,
    sized,
    stands_out,
)


def best_score(
    optima: pl.DataFrame, score_limits: pl.DataFrame, score_name: str, score_sign: int = 1
) -> alt.LayerChart:
    """Return the mean test score at the rate that is best on validation, with its 95 % t interval over seeds.

    The thick line is the plateau: the mean of the batch sizes that are shown to hold. The thin one beside it goes on
    to the batch size that is shown to lose, or to the largest where none is. An arrow says that the best rate lies at
    an edge of the rates tried, so that the best score may be better: larger, or smaller where ``score_sign`` is −1.
    """
    rows = drawable(optima.filter(pl.col("criterion") == "score"))
    plateaus = _plateaus(rows, score_limits)
    better = dict.fromkeys(("low", "high"), "up" if score_sign > 0 else "down")
    chart = _points_with_intervals(
        rows, "test_score", f"test {score_name}", alt.Scale(zero=False, nice=False), arrows=better
    )
    if plateaus.is_empty():
        return chart
    width = alt.StrokeWidth("part:O", legend=None, scale=alt.Scale(domain=["held", "undecided"], range=[6, 1.5]))
    drawn = alt.Chart(plateaus).mark_rule(opacity=0.4)
    chart.layer[1:1] = [
        drawn.encode(
            x=batch_axis(rows),
            x2="to:Q",
            y=alt.Y("plateau:Q"),
            color=of_optimizer(rows, alt.Color, COLOURS),
            strokeWidth=width,
        )
    ]
    return chart


def training_loss(optima: pl.DataFrame) -> alt.LayerChart:
    """Return the geometric mean of the training loss at the rate that is best for it, with its 95 % t interval."""
    rows = drawable(optima.filter(pl.col("criterion") == "train_loss"))
    scale = alt.Scale(type="log", nice=False, padding=12)
    lower = dict.fromkeys(("low", "high"), "down")
    return _points_with_intervals(rows, "train_loss", "training loss", scale, decades_axis(rows["train_loss"]), lower)


def optimal_temperature(optima: pl.DataFrame) -> alt.LayerChart:
    """Return the temperature at the rate that is best for the score, with the interval that its rate's gives."""
    rows = optimal_temperatures(optima)
    scale = alt.Scale(type="log", nice=False, padding=12)
    title = "temperature ε*(N/B − 1)/(N(1 − m))"
    axis = decades_axis(rows["temperature"], log_format="~e")
    return _points_with_intervals(rows, "temperature", title, scale, axis, {"low": "down", "high": "up"})


def optimal_temperatures(optima: pl.DataFrame) -> pl.DataFrame:
    """Return the score's optima at which the temperature is known and not 0, with its interval."""
    factor = pl.col("temperature") / pl.col("learning_rate")
    rows = optima.filter(pl.col("criterion") == "score", pl.col("temperature") > 0)
    return drawable(
        rows.with_columns(
            temperature_low=factor * pl.col("learning_rate_low"), temperature_high=factor * pl.col("learning_rate_high")
        )
    ).with_columns(pl.when(pl.col("temperature_high").is_not_null()).then("temperature_low").alias("temperature_low"))


def _plateaus(rows: pl.DataFrame, score_limits: pl.DataFrame) -> pl.DataFrame:
    """Return each optimizer's plateau up to where its score is shown to hold, and on to where it is shown to be lost.

    Where it is shown of a batch size besides the smallest; a plateau of one is none. At a constant number of steps the
    smallest batch sizes learn least: there is no plateau that begins with them.
    """
    found = []
    for row in score_limits.filter(quantity="B_score").iter_rows(named=True):
        if isinstance(known_budget(row["budget"]), Steps):
            continue
        mine = rows.filter(optimizer=row["optimizer"]).sort("batch_size")
        if row["low"] is None:
            continue
        # A best score at an edge of the rates tried is a bound, and no part of the plateau.
        mine = mine.filter(censored="")
        held = mine.filter(pl.col("batch_size") <= row["low"])
        end = row["high"] or mine["batch_size"].max()
        place = {"optimizer": row["optimizer"], "plateau": held["test_score"].mean()}
        parts = [("held", mine["batch_size"].min(), row["low"]), ("undecided", row["low"], end)]
        if len(held) > 1:
            found += [place | {"part": part, "batch_size": low, "to": high} for part, low, high in parts if low < high]
    return pl.DataFrame(found)


def _points_with_intervals(
    rows: pl.DataFrame,
    value: str,
    title: str,
    scale: alt.Scale,
    axis: alt.Axis | None = None,
    arrows: dict[str, str] | None = None,
) -> alt.LayerChart:
    x, colour = batch_axis(rows), of_optimizer(rows, alt.Color, COLOURS)
    y: dict[str, Any] = {"y": alt.Y(f"{value}:Q", title=title, scale=scale, axis=axis or alt.Axis())}
    base = alt.Chart(rows).encode(x=x, color=colour)
    dash = of_optimizer(rows, alt.StrokeDash, DASHES)
    line = base.mark_line(opacity=0.55).encode(**y, strokeDash=dash)
    bars = base.mark_rule().encode(y=alt.Y(f"{value}_low:Q"), y2=f"{value}_high:Q", opacity=stands_out(0.7, 0.25))
    points = base.mark_point(filled=True, size=70).encode(
        **y,
        shape=of_optimizer(rows, alt.Shape, SHAPES),
        opacity=stands_out(1, 0.45),
        tooltip=[*cell_tooltip(), *interval_tooltip(value), *rate_tooltip()],
    )
    bounds = edge_arrows(rows, y["y"], arrows or {}, x=x, color=colour)
    return sized(batch_size_columns(rows, x), bars, line, points, *bounds)
