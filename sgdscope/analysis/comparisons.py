"""Scores and learning rates of two optimizers, or of two studies, against each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from sgdscope.analysis.rate_choice import Chosen, are_paired, paired
from sgdscope.analysis.sweep import Cells, pair_on_common_seeds
from sgdscope.analysis.trial_table import MARGIN, SEEDS
from sgdscope.frames import Column, Columns, with_interval
from sgdscope.stats.decisions import Decisions, decisions
from sgdscope.stats.intervals import Estimate, bootstrapped, t_quantile
from sgdscope.stats.laws import PLACES_PER_OCTAVE, fit_hinge

AT_EDGE = "at the edge"
# What is decided of a score, where larger is better.
OF_SCORES = {"above": "better", "below": "worse"}
DECIDED_COLUMNS: Columns = {
    "decides_low": Column(pl.Float64, "Lower end of the interval that decides the verdict, at `level`.", "score"),
    "decides_high": Column(pl.Float64, "Upper end of the interval that decides the verdict, at `level`.", "score"),
    "level": Column(
        pl.Float64,
        "Level of the interval that decides: 90 % for a test of equivalence and 95 % for one of a difference, higher "
        "where Holm's correction over batch sizes demands it.",
        "%",
    ),
    "p_beyond": Column(pl.Float64, "p value of a difference beyond the margin, with Holm's correction."),
    "p_same": Column(pl.Float64, "p value of equivalence within the margin, with Holm's correction."),
}
PAIRED = Column(
    pl.Boolean, "Whether both are compared seed by seed; otherwise they are independent samples (Welch's t test)."
)
SCORES_COLUMNS: Columns = {
    "n": SEEDS,
    "paired": PAIRED,
    **with_interval("difference", "Difference in test score; larger is better.", "score"),
    **DECIDED_COLUMNS,
    "margin": MARGIN,
    "verdict": Column(pl.String, "`better`, `worse`, `equivalent`, `undecided` or `at the edge`."),
}


def compare_scores(
    pairs: Sequence[tuple[Chosen, Chosen]], margin: float, names: tuple[str, str], sign: int
) -> list[dict[str, Any]]:
    """Return the differences of pairs of scores as rows of :data:`SCORES_COLUMNS`, with the mean score of each.

    Pairs of which a best rate lies at an edge of the rates tried are ``at the edge``. All others are decided together,
    by :func:`~sgdscope.stats.decisions.decisions`.

    Args:
        pairs: the scores of both, larger being better.
        margin: δ.
        names: the columns of the mean scores.
        sign: −1 where smaller scores are better, so that these means are given as they were measured.
    """
    rows: list[dict[str, Any]] = [{} for _ in pairs]
    for at_edge in (False, True):
        family = [number for number, pair in enumerate(pairs) if any(of.censored for of in pair) == at_edge]
        found = [paired(*pairs[number]) for number in family]
        if not family:
            continue
        apart = [mine - theirs for mine, theirs in found]
        n = np.array([len(values) for values in apart])
        error = np.array(
            [values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.inf for values in apart]
        )
        mean = np.array([values.mean() if len(values) else math.nan for values in apart])
        decided = decided_rows(mean, decisions(mean, error, n, margin), OF_SCORES)
        for number, values, row, (mine, theirs) in zip(family, n.tolist(), decided, found, strict=True):
            means = (sign * float(of.mean()) if of.size else None for of in (mine, theirs))
            rows[number] = row | {"n": values, "paired": are_paired(*pairs[number]), "margin": margin}
            rows[number] |= dict(zip(names, means, strict=True))
            if at_edge:
                rows[number]["verdict"] = AT_EDGE
    return rows


def decided_rows(mean: np.ndarray, found: Decisions, words: dict[str, str]) -> list[dict[str, Any]]:
    """Return differences and what was decided of them as rows.

    Args:
        mean: the differences.
        found: what was decided.
        words: the verdicts of what lies above and below the margin.
    """
    numbers = {
        "difference": mean,
        "difference_low": found.low95,
        "difference_high": found.high95,
        "decides_low": found.low,
        "decides_high": found.high,
        "level": 100 * found.level,
        "p_beyond": found.p_beyond,
        "p_same": found.p_same,
    }
    columns = {name: values.tolist() for name, values in numbers.items()}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return [
        row | {"verdict": words.get(decision, decision)} for row, decision in zip(rows, found.decision, strict=True)
    ]


def octaves_between(momentum: Cells, sgd: Cells, m: float) -> Estimate:
    """Return the mean of log₂ ε*/(1 − m) − log₂ ε*_SGD over batch sizes that both have, each on its own seeds."""
    shift = -math.log2(1 - m)
    value = float((momentum.vertices - sgd.vertices).mean()) + shift
    drawn = momentum.drawn_means(stream=1) - sgd.drawn_means(stream=2) + shift
    return bootstrapped(value, drawn, min(momentum.n, sgd.n))


def octaves_between_transitions(one: Cells, other: Cells) -> Estimate:
    """Return log₂ of the ratio of two transition batch sizes, B_ε of one over B_ε of the other.

    Both are fitted as by :func:`~sgdscope.analysis.transitions.transition_of`; seeds that both have are drawn jointly.
    """
    pair = [cells.bounded for cells in pair_on_common_seeds(one, other)]
    places = [float(fit_hinge(cells.x, cells.vertices, cells.bounds).transition[0]) for cells in pair]
    drawn = [fit_hinge(cells.x, *cells.drawn_vertices(stream)).transition for stream, cells in enumerate(pair)]
    found = bootstrapped(places[0] - places[1], drawn[0] - drawn[1], min(cells.n for cells in pair))
    rounded = 1 / PLACES_PER_OCTAVE  # half a step of the grid of places for each of the two
    low90, low95, high90, high95 = (
        end + side * rounded
        for side, ends in ((-1, (found.low90, found.low95)), (1, (found.high90, found.high95)))
        for end in ends
    )
    return Estimate(found.value, low90, high90, low95, high95)


def decided_estimates(
    estimates: Sequence[Estimate], n: Sequence[int], margin: float, words: dict[str, str]
) -> list[dict[str, Any]]:
    """Return estimates that are decided together, as rows: :func:`decided_rows` of their means and errors."""
    mean, seeds = np.array([of.value for of in estimates]), np.array(n)
    error = np.array(
        [
            (of.high95 - of.low95) / 2 / t_quantile(count) if count > 1 else math.inf
            for of, count in zip(estimates, n, strict=True)
        ]
    )
    return decided_rows(mean, decisions(mean, error, seeds, margin), words)
