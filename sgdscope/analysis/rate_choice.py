"""Choosing the learning rate and reporting its score, so that choosing flatters nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from sgdscope.analysis.contenders import FEWEST_SHARED
from sgdscope.analysis.curve import Curve, curve, joined, numbered, on_common_seeds
from sgdscope.analysis.reporting import reporting_trials
from sgdscope.records import WorkloadRecord
from sgdscope.stats.intervals import interval_with_failures, named, t_interval


@dataclass(frozen=True)
class Chosen:
    """A cell's scores at its chosen rate, larger being better, one for each seed; NaN where a seed has none.

    Where the rate is ``censored``, at an edge of the rates tried, the best score may be better than these. Where the
    scores are ``unpaired``, ``seeds`` number independent samples and say nothing of other cells' seeds. ``interval`` is
    their mean with its 95 % interval where some trials failed to train; elsewhere t over the scores gives it.
    """

    seeds: np.ndarray
    scores: np.ndarray
    censored: tuple[str, ...] = ()
    unpaired: bool = False
    interval: tuple[float, float, float] | None = None

    @property
    def n(self) -> int:
        """How many seeds have a score."""
        return int((~np.isnan(self.scores)).sum())

    def as_measured(self, name: str, sign: int) -> dict[str, float]:
        """Return the mean score with its 95 % interval by name, turned back where ``sign`` is −1."""
        mean, low, high = self.interval or t_interval(self.scores[~np.isnan(self.scores)])
        return named(name, (mean, low, high) if sign > 0 else (-mean, -high, -low))

    def at(self, seeds: np.ndarray) -> np.ndarray:
        """Return the scores of seeds, ascending; NaN where a seed has none."""
        scores, mine = np.full(len(seeds), np.nan), np.isin(self.seeds, seeds)
        scores[np.searchsorted(seeds, self.seeds[mine])] = self.scores[mine]
        return scores

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
        return _at_rate(reports, 0, chooses.censored)
    if record.chosen_on == "validation":
        return _at_rate(reports, int(chooses.best()[0]), chooses.censored)
    scores = spread_left_one_out(reports)
    seeds = reports.seeds if len(scores) == len(reports.seeds) else np.arange(len(scores))
    return Chosen(seeds, scores, chooses.censored, reports.unpaired)


def _at_rate(found: Curve, rate: int, censored: tuple[str, ...]) -> Chosen:
    values, failed = found.goodness[rate], found.failed[rate]
    interval = interval_with_failures(values, failed) if failed.any() else None
    return Chosen(found.seeds, values, censored, found.unpaired, interval)


def left_one_out(found: Curve) -> np.ndarray:
    """Return each seed's value at the rate that the mean of the other seeds chooses; with one seed, at its best.

    It is NaN where the seed has no trial at that rate.
    """
    found = numbered(found)
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
    half = math.hypot(high - mean, 2 * (float(np.nanmean(found.goodness[found.best()[0]])) - mean))
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
    """Return chosen test scores by batch size, ascending, with one axis of seeds: those of all of them.

    Where two cells share fewer than 3 seeds though each has more, all are independent samples: their scores are
    numbered in place of seeds. A cell with fewer than 3 scores is left out where cells usually have as many.

    Args:
        members: the cells of one workload, budget and optimizer by batch size.
        record: what their workload is.
    """
    found = {size: chosen for size, cell in members.items() if (chosen := chosen_scores(cell, record)) is not None}
    found = {size: chosen for size, chosen in found.items() if chosen.n}
    kept = with_enough([chosen.n for chosen in found.values()])
    found = {size: chosen for (size, chosen), enough in zip(found.items(), kept, strict=True) if enough}
    if not found:
        return {}
    if any(chosen.unpaired for chosen in found.values()) or not _share_seeds(list(found.values())):
        known = {size: chosen.scores[~np.isnan(chosen.scores)] for size, chosen in found.items()}
        found = {
            size: replace(chosen, seeds=np.arange(len(known[size])), scores=known[size], unpaired=True)
            for size, chosen in found.items()
        }
    seeds = np.unique(np.concatenate([chosen.seeds for chosen in found.values()]))
    return {size: replace(chosen, seeds=seeds, scores=chosen.at(seeds)) for size, chosen in found.items()}


def best_over_batch_sizes(members: Mapping[int, pl.DataFrame], record: WorkloadRecord) -> tuple[int, Chosen] | None:
    """Return the best batch size of an optimizer, and the test scores, larger being better, with its best rate.

    Both are chosen together, as :func:`chosen_scores` chooses a rate; None where no rate is eligible. The scores are
    ``censored`` where the best rate of any batch size is: with rates beyond the edge it may be the best one.

    Args:
        members: the cells of one workload, budget and optimizer by batch size.
        record: what their workload is.
    """
    curves = [[curve(cell, record, "score", column) for cell in members.values()] for column in (None, "test_score")]
    measured = [number for number, found in enumerate(curves[0]) if found.seeds.size]
    if not measured:
        return None
    chooses, reports = (joined(on_common_seeds([of[number] for number in measured])) for of in curves)
    if not reports.seeds.size or not chooses.eligible.any():
        return None
    ends = {end for found in curves[0] for end in found.censored}
    censored = tuple(end for end in ("low", "high") if end in ends)
    sizes = np.repeat(np.array(list(members))[measured], [len(curves[0][number].rates) for number in measured])
    if record.chosen_on == "validation":
        best = int(sizes[int(chooses.best()[0])])
        chosen = chosen_scores(members[best], record)
        return None if chosen is None else (best, replace(chosen, censored=censored))
    return int(sizes[reports.best()[0]]), Chosen(
        reports.seeds, spread_left_one_out(reports), censored, reports.unpaired
    )


def with_enough(counts: Sequence[int]) -> list[bool]:
    """Return which cells have 3 seeds, or as many as cells usually have where that is fewer.

    >>> with_enough([5, 5, 2]), with_enough([2, 2, 1])
    ([True, True, False], [True, True, False])
    """
    usual = sorted(counts)[len(counts) // 2] if counts else 0
    return [count >= min(FEWEST_SHARED, usual) for count in counts]


def _share_seeds(found: Sequence[Chosen]) -> bool:
    known = [chosen.seeds[~np.isnan(chosen.scores)] for chosen in found]
    for number, one in enumerate(known):
        for other in known[:number]:
            fewest = min(len(one), len(other))
            if fewest > 1 and len(np.intersect1d(one, other)) < min(FEWEST_SHARED, fewest):
                return False
    return True


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
    if not are_paired(one, other):
        return welch_pairs(*(of.scores[~np.isnan(of.scores)] for of in (one, other)))
    return one.of(shared := _shared(one, other)).scores, other.of(shared).scores


def are_paired(one: Chosen, other: Chosen) -> bool:
    """Return whether :func:`paired` compares two cells seed by seed."""
    fewest = min(one.n, other.n)
    too_few = fewest > 1 and len(_shared(one, other)) < min(FEWEST_SHARED, fewest)
    return not (one.unpaired or other.unpaired or too_few)


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
    """Return by how much scores are better than others at the same batch size, on one axis of seeds; none without one.

    They are differences of :func:`paired` scores: NaN where one of both has none.
    """
    found = {}
    for size, chosen in scores.items():
        if size not in others:
            continue
        mine, theirs = paired(chosen, others[size])
        if mine.size:
            found[size] = mine - theirs, _shared(chosen, others[size])
    axis = np.unique(np.concatenate([seeds for _, seeds in found.values()])) if found else np.zeros(0)
    aligned = {}
    for size, (lead, seeds) in found.items():
        aligned[size] = np.full(max(len(axis), *(len(of) for of, _ in found.values())), np.nan)
        places = np.searchsorted(axis, seeds) if len(seeds) == len(lead) else np.arange(len(lead))
        aligned[size][places] = lead
    return aligned


def _shared(one: Chosen, other: Chosen) -> np.ndarray:
    shared: np.ndarray = np.intersect1d(*(of.seeds[~np.isnan(of.scores)] for of in (one, other)))
    return shared
