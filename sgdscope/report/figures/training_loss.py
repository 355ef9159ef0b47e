"""Best training loss against batch size."""

from __future__ import annotations

import altair as alt

from sgdscope.analysis.tables import Tables
from sgdscope.report.figures.against_batch_size import against_batch_size
from sgdscope.report.figures.change import changes, lines_of_optimizers, plainly
from sgdscope.report.figures.figure import EDGE, Figure, means, several_batch_sizes
from sgdscope.report.figures.style import LayerChart, decades_axis, drawable


def figure(part: Tables) -> Figure | None:
    """Return the figure; None with one batch size or without a training loss."""
    if not several_batch_sizes(part) or "train_loss" not in part.optima["criterion"]:
        return None
    return Figure(
        "training-loss",
        "Best training loss against batch size",
        sentence(part),
        f"Loss on the whole training split after the last update, at the learning rate with the lowest one. "
        f"{means(part.curves)} {EDGE}",
        "optima",
        chart(part),
    )


def sentence(part: Tables) -> str:
    """Say how the best training loss changes from the smallest batch size to the largest."""
    lines = lines_of_optimizers(part.optima.filter(criterion="train_loss"))
    return changes("Training loss against batch size", lines, "train_loss", "batch_size", plainly)


def chart(part: Tables) -> LayerChart:
    """Return the geometric mean of the training loss at the rate that is best for it, with its 95 % t interval."""
    rows = drawable(part.optima.filter(criterion="train_loss"))
    scale = alt.Scale(type="log", nice=False, padding=12)
    y = alt.Y("train_loss:Q", title="training loss", scale=scale, axis=decades_axis(rows["train_loss"]))
    return against_batch_size(rows, "train_loss", y, "down", "down")
