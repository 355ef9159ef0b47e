"""What more epochs give: the score, and both optimal learning rates."""

from __future__ import annotations

import altair as alt
import polars as pl

from sgdscope.report.charts.regimes import with_effective_rates
from sgdscope.report.charts.style import (
    COLOURS,
    DASHES,
    LEGEND,
    SHAPES,
    cell_tooltip,
    drawable,
    edge_arrows,
    interval_tooltip,
    octaves_axis,
    of_optimizer,
    rate_tooltip,
    sized,
    stands_out,
)


def best_score_by_epochs(optima: pl.DataFrame, score_name: str, score_sign: int = 1) -> alt.LayerChart:
    """Return the mean test score at the best rate against the epoch budget, one line for each optimizer and batch."""
    rows = _by_epochs(optima.filter(pl.col("criterion") == "score"))
    return _against_epochs(
        rows, "test_score", f"test {score_name}", alt.Scale(zero=False), "case", score_sign=score_sign
    )


def optimal_rates_by_epochs(optima: pl.DataFrame) -> alt.LayerChart:
    """Return both optimal learning rates against the epoch budget: best for the test score, and for the training loss.

    The rates are effective ones, ε*/(1 − m), each with its 95 % interval.
    """
    factor = pl.col("effective_learning_rate") / pl.col("learning_rate")
    sure = pl.when(pl.col("learning_rate_high").is_not_null())  # with one seed there is no interval
    rows = _by_epochs(with_effective_rates(optima)).with_columns(
        effective_learning_rate_low=sure.then(pl.col("learning_rate_low") * factor),
        effective_learning_rate_high=sure.then(pl.col("learning_rate_high") * factor),
        criterion=pl.col("criterion").replace({"score": "test score", "train_loss": "training loss"}),
    )
    ends = [rows[f"effective_learning_rate{end}"] for end in ("", "_low", "_high")]
    title = "optimal effective learning rate ε*/(1 − m)"
    scale = alt.Scale(type="log", base=2, nice=False, padding=10)
    return _against_epochs(rows, "effective_learning_rate", title, scale, "criterion", octaves_axis(*ends))


def _by_epochs(optima: pl.DataFrame) -> pl.DataFrame:
    """Return the rows whose budget is of epochs, with how many, and what each line is: an optimizer, and its case."""
    case = pl.format("batch size {}", "batch_size")
    if optima["workload"].n_unique() > 1:
        case = pl.format("{}, {}", "workload", case)
    rows = optima.filter(pl.col("budget").str.starts_with("epochs:")).with_columns(
        epochs=pl.col("budget").str.strip_prefix("epochs:").cast(pl.Float64), case=case
    )
    return drawable(rows.sort("batch_size", maintain_order=True))


def _against_epochs(
    rows: pl.DataFrame,
    value: str,
    title: str,
    scale: alt.Scale,
    apart: str,
    axis: alt.Axis | None = None,
    score_sign: int = 1,
) -> alt.LayerChart:
    """Return lines whose colours tell optimizers apart, and whose shapes and dashes what is in the column ``apart``."""
    epochs = rows["epochs"].unique().sort().to_list()
    ticks = alt.Axis(values=epochs, format="~g", grid=False, labelOverlap=True)
    x = alt.X("epochs:Q", title="epochs", scale=alt.Scale(type="log", base=2, padding=10), axis=ticks)
    y = alt.Y(f"{value}:Q", title=title, scale=scale, axis=axis or alt.Axis())
    base = alt.Chart(rows).encode(
        x=x,
        color=of_optimizer(rows, alt.Color, COLOURS),
        detail=["optimizer:N", "case:N"],
    )
    cases = rows[apart].unique(maintain_order=True).to_list()
    shape, dash = (
        kind(f"{apart}:N", sort=cases, title=None, legend=LEGEND, scale=alt.Scale(domain=cases, range=marks))
        for kind, marks in ((alt.Shape, SHAPES), (alt.StrokeDash, DASHES))
    )
    bars = base.mark_rule().encode(y=alt.Y(f"{value}_low:Q"), y2=f"{value}_high:Q", opacity=stands_out(0.6, 0.05))
    line = base.mark_line().encode(y=y, strokeDash=dash, opacity=stands_out(0.55))
    points = base.mark_point(filled=True, size=70).encode(
        y=y,
        shape=shape,
        opacity=stands_out(1),
        tooltip=[f"{apart}:N", *cell_tooltip(), "epochs:Q", *interval_tooltip(value), *rate_tooltip()],
    )
    rates = value == "effective_learning_rate"
    ways = (
        {"low": "down", "high": "up"} if rates else dict.fromkeys(("low", "high"), "up" if score_sign > 0 else "down")
    )
    color = of_optimizer(rows, alt.Color, COLOURS)
    return sized(bars, line, points, *edge_arrows(rows, y, ways, x=x, color=color))
