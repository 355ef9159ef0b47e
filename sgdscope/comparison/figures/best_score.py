"""Best test score of each study against batch size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sgdscope.comparison.figures.panels import beside, common, has_several_batch_sizes, optima_of, sizes_of
from sgdscope.comparison.matching import Matched
from sgdscope.report.figures import style
from sgdscope.report.figures.against_batch_size import Way, against_batch_size
from sgdscope.report.figures.figure import EDGE, Figure, how_chosen

if TYPE_CHECKING:
    from sgdscope.comparison.comparison import Comparison


def figure(comparison: Comparison, part: Sequence[Matched]) -> Figure | None:
    """Return the figure; None with one batch size or without scores."""
    panels = [(name, style.drawable(rows)) for name, rows in optima_of(comparison, part, "score")]
    if not has_several_batch_sizes(panels):
        return None
    record, ends = comparison.record, ("test_score", "test_score_low", "test_score_high")
    axis = style.score_axis(record, zero=False, **common(panels, *ends))
    better: Way = "up" if record.score_sign > 0 else "down"
    sizes = sizes_of(panels)
    return Figure(
        "best-score",
        f"Best test {record.score_name} against batch size",
        "",
        f"{how_chosen(record)} Points: means over seeds. Bars: 95 % t intervals. {EDGE}",
        "score_difference",
        beside(panels, lambda _, rows: against_batch_size(rows, "test_score", axis, better, better, **sizes)),
    )
