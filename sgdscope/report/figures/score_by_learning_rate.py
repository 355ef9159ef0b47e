"""Test score against learning rate."""

from __future__ import annotations

from sgdscope.analysis.tables import Tables
from sgdscope.report.figures.against_learning_rate import against_learning_rate, best_rate_sentence, near_best
from sgdscope.report.figures.figure import BASELINE, Figure, has_scores, means
from sgdscope.report.figures.style import HConcatChart


def figure(part: Tables) -> Figure | None:
    """Return the figure; None without scores."""
    if not has_scores(part.optima):
        return None
    return Figure(
        "score-by-learning-rate",
        f"Test {part.record.score_name} against learning rate",
        sentence(part),
        f"One line for each batch size. {means(part.curves)} {BASELINE} Values far from the best are cut off.",
        "curves",
        chart(part),
    )


def sentence(part: Tables) -> str:
    """Say how the best learning rate for the score changes with the batch size."""
    return best_rate_sentence(part, "score", f"{part.record.chosen_on} {part.record.score_name}")


def chart(part: Tables) -> HConcatChart:
    """Return the test score against learning rate, one panel for each optimizer and one line for each batch size."""
    return against_learning_rate(part.curves, "test_score", near_best(part))
