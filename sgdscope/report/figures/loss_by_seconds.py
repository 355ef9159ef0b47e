"""Training loss against the seconds of a training run."""

from __future__ import annotations

import altair as alt

from sgdscope.analysis.tables import Tables
from sgdscope.report.figures import style
from sgdscope.report.figures.change import plainly
from sgdscope.report.figures.figure import Figure, seeds
from sgdscope.report.figures.score_by_cost import panels


def figure(part: Tables) -> Figure | None:
    """Return the figure; None without a method beside SGD and its momentum, or without training losses."""
    if part.score_by_cost.drop_nulls(["train_loss", "seconds"]).is_empty():
        return None
    return Figure(
        "loss-by-seconds",
        "Training loss against seconds",
        sentence(part),
        f"One point for each method and batch size, at its best learning rate for the score. Points: geometric means "
        f"over {seeds(part.score_by_cost)}. Seconds are a training run's share of its pack on this machine.",
        "score_by_cost",
        chart(part),
    )


def sentence(part: Tables) -> str:
    """Say the lowest training loss of each method, with its seconds."""
    rows, said = part.score_by_cost.drop_nulls(["train_loss", "seconds"]).sort("train_loss"), []
    for name in style.optimizers(rows):
        row = rows.filter(optimizer=name).row(0, named=True)
        loss = plainly(row["train_loss"], row["train_loss"], row["train_loss"]).split(" [")[0]
        said.append(f"{name} {loss} in {row['seconds']:.2g} s at batch size {row['batch_size']}")
    return f"Lowest training loss: {'; '.join(said)} ({seeds(rows)})."


def chart(part: Tables) -> style.HConcatChart:
    """Return the geometric mean of the training loss against seconds."""
    rows = part.score_by_cost.drop_nulls("train_loss")
    y = alt.Y("train_loss:Q", title="training loss", scale=alt.Scale(type="log", nice=False),
              axis=style.decades_axis(rows["train_loss"]))  # fmt: skip
    return panels(part, "train_loss", y, ("seconds",))
