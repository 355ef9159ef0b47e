"""Score and loss against learning rate, and score against temperature: one line for each batch size."""

from __future__ import annotations

import math

import altair as alt
import polars as pl

from sgdscope.report.charts.style import (
    cell_tooltip,
    decades_axis,
    drawable,
    extent,
    interval_tooltip,
    octaves_axis,
    of_batch_size,
    optimizers,
    rate_tooltip,
    side_by_side,
    sized,
    stands_out,
)


def score_by_learning_rate(curves: pl.DataFrame, score_name: str, sign: int) -> alt.HConcatChart:
    """Return test score against learning rate, one panel for each optimizer and one line for each batch size."""
    y = alt.Y("test_score:Q", title=f"test {score_name}", scale=_near_best(curves, sign))
    return _by_rate(curves, "test_score", y)


def loss_by_learning_rate(curves: pl.DataFrame) -> alt.HConcatChart:
    """Return training loss against learning rate, one panel for each optimizer and one line for each batch size."""
    measured = drawable(curves).filter(pl.col("train_loss") > 0)
    ends = extent(measured["train_loss"])
    scale = alt.Scale(type="log", domain=ends, nice=False, padding=8)
    y = alt.Y("train_loss:Q", title="training loss", scale=scale, axis=decades_axis(measured["train_loss"]))
    return _by_rate(measured, "train_loss", y)


def score_by_temperature(curves: pl.DataFrame, score_name: str, sign: int) -> alt.HConcatChart:
    """Return test score against temperature ε(N/B − 1)/(N(1 − m)); the full batch, which has none, is left out."""
    y = alt.Y("test_score:Q", title=f"test {score_name}", scale=_near_best(curves, sign))
    warm = curves.filter(pl.col("temperature") > 0)
    ends = extent(warm["temperature"])
    x = alt.X(
        "temperature:Q",
        title="temperature ε(N/B − 1)/(N(1 − m))",
        scale=alt.Scale(type="log", domain=ends, nice=False, padding=8),
        axis=decades_axis(warm["temperature"], log_format="~e", labelOverlap=True),
    )
    return _by_rate(warm, "test_score", y, x)


def _by_rate(curves: pl.DataFrame, value: str, y: alt.Y, x: alt.X | None = None) -> alt.HConcatChart:
    panels = []
    rows = drawable(curves.sort("batch_size"))
    colour = of_batch_size(rows)
    for optimizer in optimizers(rows):
        mine = rows.filter(pl.col("optimizer") == optimizer)
        along = x or alt.X(
            "learning_rate:Q",
            title="learning rate ε",
            scale=alt.Scale(type="log", base=2, nice=False, padding=8),
            axis=octaves_axis(mine["learning_rate"]),
        )
        base = alt.Chart(mine, title=optimizer).encode(x=along, color=colour)
        line = base.mark_line(clip=True).encode(y=y, opacity=stands_out(0.9))
        low = alt.Y(f"{value}_low:Q", scale=y["scale"])
        rules = base.mark_rule(clip=True).encode(y=low, y2=f"{value}_high:Q", opacity=stands_out(0.45, 0.04))
        points = base.mark_point(filled=True, size=35, clip=True).encode(
            y=y, opacity=stands_out(1), tooltip=[*cell_tooltip(), *interval_tooltip(value), *rate_tooltip()]
        )
        panels.append(sized(rules, line, points))
    return side_by_side(panels)


def _near_best(curves: pl.DataFrame, sign: int) -> alt.Scale:
    """Show what lies within reach of the best: twice the span of the batch sizes' best means; the rest is cut."""
    bests = curves.group_by("optimizer", "batch_size").agg(best=(sign * pl.col("test_score")).max())["best"].to_list()
    known = [best for best in bests if best is not None and math.isfinite(best)]
    best, worst = max(known), min(known)
    reach = max(best - worst, 0.05 * abs(best)) or 1.0
    ends = sorted([sign * (worst - reach), sign * (best + 0.1 * reach)])
    return alt.Scale(domain=ends, nice=False, clamp=False)
