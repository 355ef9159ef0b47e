"""Test score along training."""

from __future__ import annotations

from sgdscope.analysis.tables import Tables
from sgdscope.formatting import score
from sgdscope.report.figures.along_training import (
    along_training,
    caption_along,
    measured_along,
    rows_along,
    sentence_along,
)
from sgdscope.report.figures.figure import Figure
from sgdscope.report.figures.style import HConcatChart, score_axis

METRIC = "test_score"


def figure(part: Tables) -> Figure | None:
    """Return the figure; None where the score was not measured along training."""
    if not measured_along(part, METRIC):
        return None
    record = part.record
    what = f"Test {record.score_name}"
    return Figure(
        "score-along-training",
        f"{what} along training",
        sentence_along(part, METRIC, what, lambda value, low, high: score(value, low, high, record.in_percent)),
        caption_along(part, "95 % t intervals"),
        "training_curves",
        chart(part),
    )


def chart(part: Tables) -> HConcatChart:
    """Return the test score along training, one panel for each optimizer, one line for each batch size."""
    axis = score_axis(part.record)
    return along_training(rows_along(part, METRIC), axis["title"], axis["axis"], zero=False)
