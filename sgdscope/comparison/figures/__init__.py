"""The figures of a comparison, on common axes: each is the file that has the name of its anchor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgdscope.comparison.figures import best_score, optimal_learning_rate, score_difference, training_loss, two_regimes
from sgdscope.comparison.figures.panels import parts_of
from sgdscope.report.export import plain, unused
from sgdscope.report.figures.figure import Figure

if TYPE_CHECKING:
    from sgdscope.comparison.comparison import Comparison

FIGURES = (best_score, score_difference, optimal_learning_rate, training_loss, two_regimes)


def figures_of(comparison: Comparison) -> dict[str, Figure]:
    """Return the figures by id; ids begin with the workload and the budget where several of them are compared."""
    parts = parts_of(comparison)
    found: dict[str, Figure] = {}
    for title, part in parts.items():
        prefix = f"{unused(plain(title), found)}-" if len(parts) > 1 else ""
        drawn = [figure for module in FIGURES if (figure := module.figure(comparison, part))]
        found |= {f"{prefix}{figure.name}": figure for figure in drawn}
    return found
