"""Minibatch loss along training."""

from __future__ import annotations

import polars as pl

from sgdscope.analysis.tables import Tables
from sgdscope.report.figures.along_training import (
    along_training,
    caption_along,
    measured_along,
    rows_along,
    sentence_along,
)
from sgdscope.report.figures.change import plainly
from sgdscope.report.figures.figure import Figure
from sgdscope.report.figures.style import HConcatChart, decades_axis

METRIC = "minibatch_loss"


def figure(part: Tables) -> Figure | None:
    """Return the figure; None where the loss was not measured along training."""
    if not measured_along(part, METRIC):
        return None
    return Figure(
        "loss-along-training",
        "Loss along training",
        sentence_along(part, METRIC, "Minibatch loss", plainly),
        caption_along(part, "95 % t intervals of the logarithm"),
        "training_curves",
        chart(part),
    )


def chart(part: Tables) -> HConcatChart:
    """Return the loss of minibatches along training, one panel for each optimizer, one line for each batch size."""
    rows = rows_along(part, METRIC).filter(pl.col("value") > 0)
    return along_training(rows, "minibatch loss", decades_axis(rows["value"]), type="log")
