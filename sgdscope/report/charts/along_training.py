"""What happens along training, at each batch size's best rate for the score: loss, score and gradient noise scale."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from sgdscope.report.charts.style import (
    NEUTRAL,
    cell_tooltip,
    decades_axis,
    drawable,
    extent,
    interval_tooltip,
    of_batch_size,
    optimizers,
    rate_tooltip,
    side_by_side,
    sized,
    stands_out,
)


def loss_along_training(training_curves: pl.DataFrame) -> alt.HConcatChart:
    """Return the loss of minibatches along training, one panel for each optimizer, one line for each batch size."""
    rows = _drawn(training_curves, "minibatch_loss").filter(pl.col("value") > 0)
    return _along(
        rows,
        alt.Y("value:Q", title="minibatch loss", scale=_shared(rows, type="log"), axis=decades_axis(rows["value"])),
    )


def score_along_training(training_curves: pl.DataFrame, score_name: str) -> alt.HConcatChart:
    """Return the test score along training, one panel for each optimizer, one line for each batch size."""
    rows = _drawn(training_curves, "test_score")
    return _along(rows, alt.Y("value:Q", title=f"test {score_name}", scale=_shared(rows, zero=False)))


def noise_scale_along_training(noise_scale: pl.DataFrame, transitions: pl.DataFrame) -> alt.HConcatChart:
    """Return tr Σ/|G|² along training where it is identified, beside the batch size at which the rate bends.

    Args:
        noise_scale: at the rates that are shown, one for each cell.
        transitions: where the learning rate for the score bends.
    """
    rows = drawable(noise_scale.filter("identified").sort("batch_size"))
    panels = []
    for optimizer in optimizers(rows):
        mine = rows.filter(optimizer=optimizer)
        y = alt.Y(
            "noise_scale:Q",
            title="noise scale tr Σ/|G|², examples",
            scale=_log(rows),
            axis=decades_axis(rows["noise_scale"]),
        )
        x = alt.X("fraction:Q", title="share of the budget", axis=alt.Axis(format="%", grid=False))
        base = alt.Chart(mine, title=optimizer).encode(x=x, color=of_batch_size(rows))
        low = alt.Y("noise_scale_low:Q", scale=_log(rows))
        layers: list[Any] = [
            base.mark_rule(clip=True).encode(y=low, y2="noise_scale_high:Q", opacity=stands_out(0.45, 0.04)),
            base.mark_line(clip=True).encode(y=y, opacity=stands_out(0.9)),
            base.mark_point(filled=True, size=35, clip=True).encode(
                y=y,
                opacity=stands_out(1),
                tooltip=[*cell_tooltip(), "step:Q", *interval_tooltip("noise_scale"), rate_tooltip()[0]],
            ),
        ]
        panels.append(sized(*_knee(transitions.filter(optimizer=optimizer)), *layers))
    return side_by_side(panels)


def _knee(transitions: pl.DataFrame) -> list[alt.Chart]:
    """Return where the rate for the score bends, as a line with its interval, where that is identified."""
    found = (
        drawable(transitions)
        .filter(criterion="score", status="identified")
        .select("transition", "transition_low", "transition_high")
    )
    if found.is_empty():
        return []
    base = alt.Chart(found.with_columns(text=pl.lit("bend of ε*")))
    return [
        base.mark_rect(opacity=0.12, color=NEUTRAL, clip=True).encode(y="bend_low:Q", y2="bend_high:Q"),
        base.mark_rule(strokeDash=[5, 4], color=NEUTRAL).encode(y="bend:Q"),
        base.mark_text(align="right", dx=-4, dy=-7, color=NEUTRAL).encode(
            y="bend:Q", x=alt.value("width"), text="text:N"
        ),
    ]


def _drawn(training_curves: pl.DataFrame, metric: str) -> pl.DataFrame:
    return drawable(training_curves.filter(metric=metric).drop("workload", "budget", "metric").sort("batch_size"))


def _shared(rows: pl.DataFrame, **how: Any) -> alt.Scale:
    """Return one scale for the panels of all optimizers."""
    return alt.Scale(domain=extent(rows["value"]), nice=False, padding=8, **how)


def _log(rows: pl.DataFrame) -> alt.Scale:
    return alt.Scale(type="log", domain=extent(rows["noise_scale"]), nice=False, padding=14)


def _along(rows: pl.DataFrame, y: alt.Y) -> alt.HConcatChart:
    panels = []
    along = "epochs" if rows["epochs"].null_count() == 0 else "step"
    x = alt.X(
        f"{along}:Q", title={"epochs": "epochs", "step": "updates"}[along], axis=alt.Axis(grid=False, tickCount=6)
    )
    for optimizer in optimizers(rows):
        mine = rows.filter(optimizer=optimizer)
        base = alt.Chart(mine, title=optimizer).encode(x=x, color=of_batch_size(rows))
        low = alt.Y("value_low:Q", scale=y["scale"])
        band = base.mark_area(clip=True).encode(y=low, y2="value_high:Q", opacity=stands_out(0.08, 0))
        line = base.mark_line(clip=True, strokeWidth=1.5).encode(y=y, opacity=stands_out(0.9))
        points = base.mark_point(filled=True, size=60, clip=True).encode(  # to be hovered, not seen
            y=y,
            opacity=alt.value(0),
            tooltip=[*cell_tooltip(), f"{along}:Q", *interval_tooltip("value"), *rate_tooltip()],
        )
        panels.append(sized(band, line, points))
    return side_by_side(panels)
