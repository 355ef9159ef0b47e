"""Best training loss of each study against batch size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import altair as alt
import polars as pl

from sgdscope.comparison.figures.panels import beside, common, has_several_batch_sizes, optima_of, sizes_of
from sgdscope.comparison.matching import Matched
from sgdscope.report.figures import style
from sgdscope.report.figures.against_batch_size import against_batch_size
from sgdscope.report.figures.figure import EDGE, Figure

if TYPE_CHECKING:
    from sgdscope.comparison.comparison import Comparison


def figure(comparison: Comparison, part: Sequence[Matched]) -> Figure | None:
    """Return the figure; None with one batch size or without a training loss above 0 in each study."""
    panels = [(name, style.drawable(rows)) for name, rows in optima_of(comparison, part, "train_loss")]
    panels = [(name, rows.filter(pl.col("train_loss") > 0)) for name, rows in panels]
    if not has_several_batch_sizes(panels):
        return None
    losses = pl.concat([rows["train_loss"] for _, rows in panels])
    scale = alt.Scale(
        type="log", nice=False, **common(panels, "train_loss", "train_loss_low", "train_loss_high", log=True)
    )
    axis = alt.Y("train_loss:Q", title="training loss", scale=scale, axis=style.decades_axis(losses))
    sizes = sizes_of(panels)
    return Figure(
        "training-loss",
        "Best training loss against batch size",
        "",
        "Loss on the whole training split after the last update, at the learning rate with the lowest one. Losses of "
        f"studies with other data or another loss function are not comparable. {EDGE}",
        "score_difference",
        beside(panels, lambda _, rows: against_batch_size(rows, "train_loss", axis, "down", "down", **sizes)),
    )
