"""The two regimes of each study beside each other, on one axis of learning rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from sgdscope.comparison.figures.panels import common
from sgdscope.comparison.matching import Matched
from sgdscope.report.figures import style, two_regimes
from sgdscope.report.figures.effective_rates import effective_rates, rate_axis
from sgdscope.report.figures.figure import Figure, has_scores, several_batch_sizes

if TYPE_CHECKING:
    from sgdscope.comparison.comparison import Comparison

ENDS = ("effective_learning_rate", "effective_low", "effective_high")


def figure(comparison: Comparison, part: Sequence[Matched]) -> Figure | None:
    """Return the figure; None with one batch size or without scores."""
    parts = []
    for side, key in zip(comparison.sides, part[0].keys, strict=True):
        mine = [
            of
            for of in side.tables.parts
            if (of.record.name, of.trials["budget"][0]) == (key["workload"], key["budget"])
        ]
        parts += [(side.name, of) for of in mine if several_batch_sizes(of) and has_scores(of.optima)]
    if not parts:
        return None
    rates = [(name, effective_rates(of.optima.filter(criterion="score"))) for name, of in parts]
    axis = rate_axis(pl.concat([rows for _, rows in rates]), **common(rates, *ENDS, log=True))
    sizes = [size for _, of in parts for size in (*of.trials["batch_size"].unique(), of.record.examples[0]) if size]
    charts = [
        panel.properties(title=f"{name}: {panel.title}")
        for name, of in parts
        for panel in two_regimes.panels(of, axis, sizes)
    ]
    return Figure(
        "two-regimes",
        "The two regimes",
        "",
        "Optimal effective learning rates up to the full batch. Noise-dominated: below the 95 % interval of SGD's "
        "transition batch size. Curvature-dominated: above that of the optimizer's own. Not shaded: in neither.",
        "transition_difference",
        style.side_by_side(charts),
    )
