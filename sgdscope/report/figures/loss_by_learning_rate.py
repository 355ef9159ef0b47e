"""Training loss against learning rate."""

from __future__ import annotations

import altair as alt
import polars as pl

from sgdscope.analysis.tables import Tables
from sgdscope.report.figures import style
from sgdscope.report.figures.against_learning_rate import against_learning_rate, best_rate_sentence
from sgdscope.report.figures.figure import BASELINE, Figure, means


def figure(part: Tables) -> Figure | None:
    """Return the figure; None without a training loss."""
    if part.curves["train_loss"].drop_nans().drop_nulls().is_empty():
        return None
    return Figure(
        "loss-by-learning-rate",
        "Training loss against learning rate",
        sentence(part),
        f"One line for each batch size. {means(part.curves)} {BASELINE}",
        "curves",
        chart(part),
    )


def sentence(part: Tables) -> str:
    """Say how the best learning rate for the training loss changes with the batch size."""
    return best_rate_sentence(part, "train_loss", "training loss")


def chart(part: Tables) -> style.HConcatChart:
    """Return the training loss against learning rate, one panel for each optimizer and one line for each batch size."""
    measured = style.drawable(part.curves).filter(pl.col("train_loss") > 0)
    scale = alt.Scale(type="log", domain=style.extent(measured["train_loss"]), nice=False, padding=8)
    y = alt.Y("train_loss:Q", title="training loss", scale=scale, axis=style.decades_axis(measured["train_loss"]))
    return against_learning_rate(measured, "train_loss", y)
