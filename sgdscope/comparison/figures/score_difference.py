"""Best test score of each study minus that of the reference against batch size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from sgdscope.comparison.figures.panels import beside, common, has_several_batch_sizes, sizes_of
from sgdscope.comparison.matching import Matched
from sgdscope.report.figures.differences import HOW_TO_READ, differences
from sgdscope.report.figures.figure import Figure

if TYPE_CHECKING:
    from sgdscope.comparison.comparison import Comparison


def figure(comparison: Comparison, part: Sequence[Matched]) -> Figure | None:
    """Return the figure; None with one batch size."""
    lines = pl.Enum(comparison.names)
    panels = []
    for of in part:
        rows = [
            comparison.score_difference.filter(
                study=side.name, **{axis: of.value(axis, 0, place) for axis in of.keys[0]}
            )
            for place, side in enumerate(comparison.sides)
            if place
        ]
        drawn = pl.concat(rows).drop_nulls("batch_size")
        panels.append((of.value("optimizer"), drawn.with_columns(optimizer=pl.col("study").cast(lines))))
    panels = [(name, rows) for name, rows in panels if not rows.is_empty()]
    if not has_several_batch_sizes(panels):
        return None
    record, reference = comparison.record, comparison.names[0]
    scale, ends = 100 if record.in_percent else 1, ("decides_low", "decides_high", "margin", "below")
    scaled = [(name, rows.with_columns(below=-pl.col("margin")).select(ends) * scale) for name, rows in panels]
    axis, sizes = common(scaled, *ends), sizes_of(panels)
    title = f"difference in test {record.score_name}"
    return Figure(
        "score-difference",
        f"Difference from {reference} in test {record.score_name} against batch size",
        "",
        f"Best test {record.score_name} minus that of {reference} at the same batch size. Above 0 is better. "
        f"{HOW_TO_READ}",
        "score_difference",
        beside(panels, lambda _, rows: differences(rows, record, title, axis, sizes)),
    )
