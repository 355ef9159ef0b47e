"""Learning rate times sharpness along training, beside the limit of stability."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import altair as alt
import polars as pl

from sgdscope.analysis.tables import Tables
from sgdscope.formatting import estimate, number
from sgdscope.report.figures import style
from sgdscope.report.figures.along_training import along_the_budget
from sgdscope.report.figures.figure import Figure, seeds

# Of the largest number that is drawn.
LEAST_SHOWN = 1e-3


def figure(part: Tables) -> Figure | None:
    """Return the figure; None where no sharpness was measured."""
    if part.sharpness_at_best.filter(pl.col("product") > 0).is_empty():
        return None
    return Figure(
        "sharpness",
        "Learning rate times sharpness along training",
        sentence(part),
        "The learning rate ε at that time, times the largest eigenvalue λ_max of the Hessian of the training loss. At "
        "each batch size's optimal learning rate, with 95 % intervals. Dashed: 2(1 + m), above which gradient descent "
        "with momentum m diverges on a quadratic. What is below a thousandth of the largest is cut off.",
        "sharpness",
        chart(part),
    )


def sentence(part: Tables) -> str:
    """Say how large ε·λ_max becomes after the start at the smallest and the largest batch size, beside its limit."""
    rows = part.sharpness_at_best.filter(pl.col("step") > 0)
    if rows.is_empty():
        return f"The sharpness was measured at the start alone ({seeds(part.sharpness_at_best)})."
    said = []
    for optimizer in style.optimizers(rows):
        mine = rows.filter(optimizer=optimizer).sort("product", descending=True)
        sizes = mine["batch_size"].unique().sort().to_list()
        largest = [mine.filter(batch_size=size).row(0, named=True) for size in dict.fromkeys((sizes[0], sizes[-1]))]
        at = " and ".join(f"{_product(row)} at batch size {row['batch_size']}" for row in largest)
        limit = largest[0]["limit"]
        beside = "" if limit is None else f". The limit of stability is {number(limit)}"
        said.append(f"{optimizer}: the largest mean ε·λ_max after the start is {at}{beside}.")
    return f"{' '.join(said)} Intervals are over {seeds(rows)}."


def _product(row: Mapping[str, Any]) -> str:
    value, low, high = (row[f"product{end}"] for end in ("", "_low", "_high"))
    return estimate(value, low, high) if math.isfinite(high - low) else number(value)


def chart(part: Tables) -> style.HConcatChart:
    """Return ε·λ_max along training and its limit, one panel for each optimizer."""
    rows = style.drawable(part.sharpness_at_best.filter(pl.col("product") > 0).sort("batch_size"))
    # The lower end of an interval may lie below 0, which a logarithmic axis has not.
    rows = rows.with_columns(pl.when(pl.col("product_low") > 0).then("product_low").otherwise("product"))
    ends = pl.concat([rows["product"], rows["limit"].drop_nulls()])
    # What the schedule has made tiny would take most of the axis.
    ends = ends.clip(lower_bound=style.extent(ends)[1] * LEAST_SHOWN)
    behind = lambda optimizer: _limit(rows.filter(optimizer=optimizer))
    return along_the_budget(rows, "product", "ε·λ_max", ends, ("sharpness:Q", "rate_then:Q", "step:Q"), behind)


def _limit(rows: pl.DataFrame) -> list[alt.Chart]:
    """Return the limit of stability as a line, where the optimizer has one."""
    found = rows.drop_nulls("limit").select("limit").head(1)
    if found.is_empty():
        return []
    base = alt.Chart(found.with_columns(text=pl.lit("2(1 + m)"))).encode(y="limit:Q")
    return [
        base.mark_rule(strokeDash=[5, 4], color=style.NEUTRAL),
        base.mark_text(align="right", dx=-4, dy=-7, color=style.NEUTRAL).encode(x=alt.value("width"), text="text:N"),
    ]
