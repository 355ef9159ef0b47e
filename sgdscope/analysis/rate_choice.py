"""Choosing the learning rate and reporting its score, so that choosing flatters nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from sgdscope.analysis.curve import Curve, curve, shared_seeds
from sgdscope.analysis.reporting import reporting_trials
from sgdscope.records import WorkloadRecord
from sgdscope.stats.intervals import t_interval


@dataclass(frozen=True)
class Chosen:
    """A cell's scores at its chosen rate, larger being better, shape (n,): one for each seed.

    Where the rate is ``censored``, at an edge of the rates tried, the best score may be better than these. Where the
    scores are ``unpaired``, ``seeds`` number independent samples and say nothing of other cells' seeds.
    """

    seeds: np.ndarray
    scores: np.ndarray
    censored: tuple[str, ...] = ()
    unpaired: bool = False

    def of(self, seeds: np.ndarray) -> Chosen:
        """Return the scores of some of the seeds."""
        return replace(self, seeds=seeds, scores=self.scores[np.isin(self.seeds, seeds)])


def chosen_scores(cell: pl.DataFrame, record: WorkloadRecord) -> Chosen | None:
    """Return a cell's test scores, seed by seed, at the rate that was chosen without them.

    Where there is a validation split, it chooses; where the score chosen by is the test score itself, each seed's
    score is taken at the rate that the other seeds choose, which flatters nothing either; these are
    :func:`spread_left_one_out`. Scores are turned so that larger is better; a diverged trial counts as the constant
    predictor. None where no rate is eligible. Where the best rate has at least 10 seeds that did not choose it, these
    report (:func:`~sgdscope.analysis.reporting.reporting_trials`).
    """
    chooses, reports = curve(cell, record, "score"), curve(cell, record, "score", "test_score")
    if not reports.seeds.size or not chooses.eligible.any():
        return None
    if (held := reporting_trials(cell)) is not None:
        reports = curve(held, record, "score", "test_score")
        return Chosen(reports.seeds, reports.goodness[0], chooses.censored)
    if record.chosen_on == "validation":
        return Chosen(reports.seeds, reports.goodness[chooses.best()[0]], chooses.censored, reports.unpaired)
    return Chosen(reports.seeds, spread_left_one_out(reports), chooses.censored, reports.unpaired)


def left_one_out(found: Curve) -> np.ndarray:
    """Return each seed's value at the rate that the mean of the other seeds chooses; with one seed, at its best."""
    n = len(found.seeds)
    others = np.array([[seed for seed in range(n) if seed != left] for left in range(n)])
    value: np.ndarray = found.goodness[found.best(others if n > 1 else None), np.arange(n)]
    return value


def left_one_out_interval(found: Curve) -> tuple[float, float, float]:
    """Return the mean of :func:`left_one_out` with a 95 % interval for the mean of the rates that were chosen.

    mean ± √((t(n−1) s/√n)² + (2 f)²), where f is the flattery, what choosing and reporting on all seeds would add: the
    values share the seeds that chose their rates, so that their mean varies by more than t says (1.3 to 2.3 times the
    variance, most where the curve is flat). In ``benchmarks/coverage.py`` this holds .94 to .96 and t alone .81 to
    .93, where trials do not diverge.
    """
    left = left_one_out(found)
    mean, _, high = t_interval(left)
    half = math.hypot(high - mean, 2 * (float(found.goodness[found.best()[0]].mean()) - mean))
    return mean, mean - half, mean + half


def spread_left_one_out(found: Curve) -> np.ndarray:
    """Return the values of :func:`left_one_out`, so far from their mean that t over them gives its 95 % interval.

    Tests that take them for independent are right by that: of simulated studies with 5 to 15 seeds one-sided tests of a
    difference at 5 % are wrong in 4 to 6 %, where over the values themselves they are in 6 to 14 %.
    """
    left = left_one_out(found)
    mean, _, high = t_interval(left)
    if not 0 < high - mean < math.inf:
        return left
    return mean + (left - mean) * (left_one_out_interval(found)[2] - mean) / (high - mean)


def scores_by_batch_size(members: Mapping[int, pl.DataFrame], record: WorkloadRecord) -> dict[int, Chosen]:
    """Return chosen test scores by batch size, ascending, on the seeds that all of them have, by :func:`shared_seeds`.

    Args:
        members: the cells of one workload, budget and optimizer by batch size.
        record: what their workload is.
    """
    found = {size: chosen for size, cell in members.items() if (chosen := chosen_scores(cell, record)) is not None}
    if not found:
        return {}
    common, kept = shared_seeds([chosen.seeds for chosen in found.values()])
    if not common.size:
        return {}
    return {
        size: replace(
            chosen,
            seeds=common,
            scores=chosen.scores[mine],
            unpaired=chosen.unpaired or not np.array_equal(chosen.seeds[mine], common),
        )
        for (size, chosen), mine in zip(found.items(), kept, strict=True)
    }


def inside(scores: Mapping[int, Chosen]) -> dict[int, Chosen]:
    """Return the scores whose rate lies inside the rates tried."""
    return {size: chosen for size, chosen in scores.items() if not chosen.censored}


def edges_of(*scores: Mapping[int, Chosen]) -> dict[int, tuple[str, ...]]:
    """Return at which batch sizes, and at which ends of the rates tried, the rates of some optimizers are censored."""
    found: dict[int, set[str]] = {}
    for by_size in scores:
        for size, chosen in by_size.items():
            found.setdefault(size, set()).update(chosen.censored)
    return {size: tuple(end for end in ("low", "high") if end in ends) for size, ends in found.items() if ends}


def paired(one: Chosen, other: Chosen) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of both on the seeds that both have, or :func:`welch_pairs` where they share too few."""
    common, kept = shared_seeds([one.seeds, other.seeds])
    mine, theirs = one.scores[kept[0]], other.scores[kept[1]]
    shared = all(np.array_equal(of.seeds[k], common) for of, k in zip((one, other), kept, strict=True))
    if one.unpaired or other.unpaired or not shared:
        return welch_pairs(one.scores, other.scores)
    return mine, theirs


def welch_pairs(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return values whose paired t test is Welch's unpaired test of two independent samples.

    Their means are those of the samples, and the standard error of their differences is √(s₁²/n₁ + s₂²/n₂). There are
    as many as the smaller sample has: Welch's degrees of freedom are never fewer than its n − 1.

    Source: Welch (1938), Biometrika 29, 350-362.

    >>> mine, theirs = welch_pairs(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 2.0]))
    >>> round(float((mine - theirs).mean()), 6), round(float((mine - theirs).var(ddof=1) / 3), 6)
    (1.0, 0.666667)
    """
    n = min(len(one), len(other))
    if n < 2:
        return np.full(n, one.mean()), np.full(n, other.mean())
    error = math.sqrt(one.var(ddof=1) / len(one) + other.var(ddof=1) / len(other))
    steps = np.linspace(-1.0, 1.0, n)
    return one.mean() + steps / steps.std(ddof=1) * error * math.sqrt(n), np.full(n, other.mean())


def leads_over(scores: Mapping[int, Chosen], others: Mapping[int, Chosen]) -> dict[int, np.ndarray]:
    """Return by how much scores are better than others at the same batch size, seed by seed; none without a seed."""
    pairs = {size: paired(chosen, others[size]) for size, chosen in scores.items() if size in others}
    return {size: mine - theirs for size, (mine, theirs) in pairs.items() if mine.size}
