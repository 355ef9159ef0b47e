"""How good each learning rate of a cell is: the curve from which every estimate of an optimum is taken."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from scipy import special

from sgdscope.analysis.trial_table import COLUMN, SCORES, Criterion
from sgdscope.errors import InputError
from sgdscope.records import WorkloadRecord
from sgdscope.stats.intervals import resampled_seeds, t_quantile
from sgdscope.store import ended

# A rate at which more than this share of trials diverges is not eligible as the optimum.
MOST_DIVERGED = 0.2
# Seeds that two samples must share to be compared seed by seed.
FEWEST_SHARED = 3
# In at most this share of studies the truly best rate is not among the contenders.
MOST_WRONG = 0.05
# The spacing of float32 at 1: a loss that is computed as log(1 + e) is 0 or at least half of this, whatever e is.
RESOLUTION = 2.0**-23
# A parabola over more octaves than this on each side is biased where the curve is not symmetric.
VERTEX_OCTAVES = 1.0
# Grids are written in two or three digits: distances between rates that differ by less, in octaves, are equal.
ROUNDED_OCTAVES = 0.1
# Below this the bend of a parabola is rounding: equal means have no vertex.
LEAST_BEND = 1e-9
# How far from the optimum of a curve its estimates may lie though no seed tells, in steps of the grid.
STRAY_OF_VERTEX, STRAY_OF_BEST = 1 / 8, 1 / 2


@dataclass(frozen=True)
class Curve:
    """How good each learning rate of a cell is, by one criterion.

    ``goodness`` has shape (rates, seeds) and larger is better: the score with its sign turned where a smaller one
    is better, or minus the logarithm of the training loss, by :func:`log_losses`. A diverged trial counts as the
    constant predictor. A complete trial without a value is NaN.
    """

    rates: np.ndarray
    seeds: np.ndarray
    goodness: np.ndarray
    diverged: np.ndarray
    constant: float = -math.inf  # the constant predictor's goodness, where it is known
    unpaired: bool = False  # whether columns are independent samples of each rate, since no seed was run at two rates

    @property
    def stable(self) -> np.ndarray:
        """Whether at most 20 % of a rate's trials diverged, shape (rates,)."""
        stable: np.ndarray = self.diverged.mean(axis=1) <= MOST_DIVERGED
        return stable

    @property
    def eligible(self) -> np.ndarray:
        """Whether a rate is stable and each of its trials has a value, shape (rates,)."""
        eligible: np.ndarray = self.stable & ~np.isnan(self.goodness).any(axis=1)
        return eligible

    @property
    def contenders(self) -> np.ndarray:
        """Which rates may be the best: the eligible ones that no other leads beyond chance, shape (rates,).

        A rate is out where, of its k − 1 paired t tests against the others, one rejects at a one-sided 5 % / (k − 1),
        so that the truly best rate is out in at most 5 % of studies however many are compared: the winner of many is
        the luckiest of them, and beats its equals in more than 5 % where it is tested against each as if it were one.
        With one seed those that tie with the best remain. Where the trials are unpaired, the tests are Welch's.

        Source: Hsu (1981), Annals of Statistics 9, 1026-1034, on multiple comparisons with the best; by Bonferroni's
        inequality, since the variances differ from rate to rate.
        """
        n, others = len(self.seeds), int(self.eligible.sum()) - 1
        contending: np.ndarray = self.eligible
        if others > 0:
            values = self.goodness[contending]
            leads = values[:, None] - values  # of each rate over each other, seed by seed
            least: float | np.ndarray = 0.0
            if n > 1 and self.unpaired:
                least = welch_least(values, 1 - MOST_WRONG / others)
            elif n > 1:
                least = t_quantile(n, 1 - 2 * MOST_WRONG / others) * leads.std(axis=2, ddof=1) / math.sqrt(n)
            contending[contending] = ~(np.round(leads.mean(axis=2) - least, 12) > 0).any(axis=0)
            contending[self.best()[0]] = True
        return contending

    @cached_property
    def censored(self) -> tuple[str, ...]:
        """At which ends of the rates tried, ``low`` or ``high``, a contender lies: better rates may lie beyond."""
        ends = self.contenders[[0, -1]] if self.seeds.size else np.zeros(2, bool)
        return tuple(name for name, reached in zip(("low", "high"), ends, strict=True) if reached)

    @property
    def gain(self) -> float:
        """By how much the mean at the best rate exceeds the constant predictor; infinite where that is unknown.

        −∞ where no rate is eligible, NaN where no trial has ended.
        """
        if not self.seeds.size:
            return math.nan
        best = int(self.best()[0])
        return float(self.goodness[best].mean()) - self.constant if best >= 0 else -math.inf

    @property
    def octaves(self) -> np.ndarray:
        """log₂ of the rates, shape (rates,)."""
        octaves: np.ndarray = np.log2(self.rates)
        return octaves

    def best(self, seeds: np.ndarray | None = None, statistic: Any = np.mean) -> np.ndarray:
        """Return the index of the best eligible rate; with draws of seeds, shape (draws, n), one for each draw.

        Of tied rates it is the middle one; −1 where no rate is eligible.
        """
        if not self.eligible.any():
            return np.full(1 if seeds is None else len(seeds), -1)
        return middle_of_tied(self._values(seeds, statistic))

    def vertex(self, seeds: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return log₂ ε* between the rates tried, and by how much that may stray: octaves, one of each for each draw.

        It is the vertex of the parabola that is fitted by least squares to the means of the rates within an octave of
        the best, and never more than an octave from it. Rates at which trials diverged do not lie on a smooth curve:
        they are left out. Where there are fewer than three, none on one side of the best, or the parabola does not
        open downwards, the best rate itself is returned. Where a curve is no parabola its vertex strays by up to
        about an eighth of the step of the grid there, the best rate by up to half of it, which seeds do not tell.
        """
        values = self._values(seeds, np.mean)
        return self._vertices(values, middle_of_tied(values))

    @cached_property
    def drawn(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Best rate, vertex and stray of each of the bootstrap's draws of seeds, as :meth:`best` and :meth:`vertex`."""
        values = self._values(resampled_seeds(len(self.seeds)), np.mean)
        best = middle_of_tied(values)
        return best, *self._vertices(values, best)

    def _vertices(self, values: np.ndarray, best: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        octaves, whole = self.octaves, self.eligible & ~self.diverged.any(axis=1)
        found: np.ndarray = octaves[best]
        steps = self.steps[best]
        strays = steps * STRAY_OF_BEST
        for index in np.unique(best):
            near = np.flatnonzero((np.abs(octaves - octaves[index]) <= VERTEX_OCTAVES + ROUNDED_OCTAVES) & whole)
            if len(near) < 3 or not near[0] < index < near[-1]:
                continue
            x = octaves[near] - octaves[index]
            draws = np.flatnonzero(best == index)
            _, slope, bend = np.linalg.pinv(np.vander(x, 3, increasing=True)) @ values[np.ix_(near, draws)]
            downwards = bend < -LEAST_BEND
            vertex = np.divide(-slope, 2 * bend, out=np.zeros_like(slope), where=downwards)
            found[draws] += np.clip(vertex, -VERTEX_OCTAVES, VERTEX_OCTAVES)
            strays[draws[downwards]] = steps[draws[downwards]] * STRAY_OF_VERTEX
        return found, strays

    @property
    def steps(self) -> np.ndarray:
        """The step of the grid around each rate, in octaves; none where a single rate was tried."""
        steps = np.diff(self.octaves)
        if not len(steps):
            return np.zeros(1)
        around: np.ndarray = (np.append(steps, steps[-1]) + np.append(steps[0], steps)) / 2
        return around

    def _values(self, seeds: np.ndarray | None, statistic: Any) -> np.ndarray:
        """Return how good each rate is in each draw, shape (rates, draws); −∞ where it is not eligible."""
        value: np.ndarray
        if seeds is None:
            value = statistic(self.goodness, axis=1)[:, None]
        elif statistic is np.mean:
            draws, n = len(seeds), self.goodness.shape[1]
            counts = np.bincount((seeds + n * np.arange(draws)[:, None]).ravel(), minlength=draws * n)
            value = self.goodness @ (counts.reshape(draws, n) / seeds.shape[1]).T
        else:
            value = statistic(self.goodness[:, seeds], axis=2)
        value = np.round(value, 12)
        value[~self.eligible] = -np.inf
        return value


def middle_of_tied(values: np.ndarray) -> np.ndarray:
    """Return of each column, shape (rates, draws), which rate has the largest value; of tied ones the middle."""
    tied = values == values.max(axis=0)
    middle = (tied.sum(axis=0) + 1) // 2
    index: np.ndarray = (np.cumsum(tied, axis=0) >= middle).argmax(axis=0)
    return index


def curve(cell: pl.DataFrame, record: WorkloadRecord, criterion: Criterion, column: str | None = None) -> Curve:
    """Return the curve of one cell from its complete and diverged trials.

    Rates are compared on the same seeds: what lacks trials is left out, by :func:`without_gaps`. A complete trial
    without the value that is looked at does not count. Where no seed was run at two rates, the trials of each rate are
    independent samples: they are numbered in the order of their seeds, and the curve is ``unpaired``.

    Args:
        cell: the trials of one cell.
        record: what their workload is.
        criterion: whether scores or training losses are looked at.
        column: which column holds them; the one that the criterion chooses by unless told otherwise.
    """
    cell = ended(cell)
    # A page asks for thousands of curves, and for so few rows a table's own operations take most of the time.
    value = cell[column or COLUMN[criterion]].to_numpy()
    gone = (cell["status"] == "diverged").to_numpy()
    if criterion == "score":
        lacking = [cell[name].is_null().to_numpy() for name in SCORES & set(cell.columns)]
        value = np.where(np.any(lacking, axis=0), np.nan, value) if lacking else value
    known = gone | ~np.isnan(value)
    # A rate that never has the value stays, so that a search knows it was tried, and is not eligible.
    counted = known | ~np.isin(cell["learning_rate"].to_numpy(), cell["learning_rate"].to_numpy()[known])
    rates, rate = np.unique(cell["learning_rate"].to_numpy()[counted], return_inverse=True)
    seeds, seed = np.unique(cell["seed"].to_numpy()[counted], return_inverse=True)
    unpaired = is_unpaired(rate, seed)
    if unpaired:
        order = np.lexsort((seed, rate))
        seed = np.empty_like(seed)
        seed[order] = np.arange(len(order)) - np.searchsorted(rate[order], rate[order])
        seeds = np.arange(seed.max() + 1)
    values = np.full((len(rates), len(seeds)), np.nan)
    diverged, there = (np.zeros((len(rates), len(seeds)), np.bool_) for _ in range(2))
    values[rate, seed], diverged[rate, seed], there[rate, seed] = value[counted], gone[counted], True
    good = goodness(values, record, criterion, diverged)
    chosen_by = np.full(values.shape, np.nan)  # what is chosen and what is reported leave out the same trials
    chosen_by[rate, seed] = cell[COLUMN[criterion]].to_numpy()[counted]
    chosen_by = goodness(chosen_by, record, criterion, diverged)
    compares = np.flatnonzero(seeds_that_compare(there))
    seeds, good = seeds[compares], good[:, compares]
    there, diverged, chosen_by = there[:, compares], diverged[:, compares], chosen_by[:, compares]
    kept = np.ix_(*without_gaps(there, np.where(there, chosen_by, np.nan), diverged, unpaired))
    return Curve(
        rates[kept[0].ravel()],
        seeds[kept[1].ravel()],
        good[kept],
        diverged[kept],
        constant_goodness(record, criterion),
        unpaired,
    )


def is_unpaired(rate: np.ndarray, seed: np.ndarray) -> bool:
    """Return whether fewer seeds than a pairing takes were run at two rates, of the trials of a cell.

    Args:
        rate: index of each trial's rate.
        seed: index of each trial's seed.

    >>> is_unpaired(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])), is_unpaired(np.array([0, 0, 1, 1]), np.arange(4))
    (False, True)
    """
    if not len(rate) or rate.max() == 0:
        return False
    usual = int(np.sort(np.bincount(rate))[-2])  # one rate alone may have been run with many more seeds
    return int((np.bincount(seed) > 1).sum()) < min(FEWEST_SHARED, usual)


def seeds_that_compare(there: np.ndarray) -> np.ndarray:
    """Return which seeds compare the rates of a cell, shape (seeds,): not those that only its best rates have.

    :class:`~sgdscope.seeds.Seeds` gives more seeds to a few rates, all of which have the seeds of the search, too, as
    have several rates nothing else. Such seeds are no gaps of the other rates.

    Args:
        there: which trials there are, shape (rates, seeds).
    """
    whole = np.ones(there.shape[1], np.bool_)
    if not there.size:
        return whole
    counts = there.sum(axis=1)
    ordered = there[np.argsort(counts, kind="stable")]
    nested = (ordered[1:] >= ordered[:-1]).all()
    fewest: np.ndarray = ordered[0]
    if nested and (counts == counts.min()).sum() > 1 and fewest.sum() >= min(FEWEST_SHARED, there.shape[1]):
        return fewest
    return whole


def without_gaps(
    there: np.ndarray, good: np.ndarray, diverged: np.ndarray, unpaired: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return which rates and seeds to keep so that each rate has each seed.

    The rate or seed whose leaving out costs the fewest trials goes first, of equals the rate. The best rate, by the
    mean of its own trials, stays: to leave it out would move the optimum. Its two neighbours, which tell where between
    the rates the optimum lies, stay as long as that leaves 3 seeds. A rate that lacks more than half of the seeds that
    rates usually have is neither. Where that leaves no seed, as where two grids were run with seeds of their own, the
    seeds of the best rate alone count. Of unpaired trials as many of each rate are kept as keep the most in all, at
    least 2 if any rate has them, and no more than the best rate has.

    Args:
        there: which trials there are, shape (rates, seeds).
        good: how good they are, NaN where there is none.
        diverged: which of them diverged.
        unpaired: whether columns are numbers in place of seeds.
    """
    if there.all():
        return np.arange(there.shape[0]), np.arange(there.shape[1])
    counts = there.sum(axis=1)
    usual = np.sort(counts)[len(counts) // 2]
    eligible = (2 * counts >= usual) & (diverged.sum(axis=1) <= MOST_DIVERGED * counts)
    means = np.where(there, np.where(np.isnan(good), -np.inf, good), 0.0).sum(axis=1) / counts
    best = int(np.argmax(np.where(eligible, means, -np.inf)))
    if unpaired:
        most = max(int(counts[best]), min(2, int(counts.max())))
        n = max(range(min(2, most), most + 1), key=lambda n: n * int((counts >= n).sum()))
        return np.flatnonzero(counts >= n), np.arange(n)
    beside = [rate for rate in (best - 1, best, best + 1) if 0 <= rate < len(counts) and 2 * counts[rate] >= usual]
    rates, seeds = _rectangle(there, beside)
    if len(seeds) < min(FEWEST_SHARED, usual):
        rates, seeds = _rectangle(there, [best])
    if not len(seeds):
        own = np.flatnonzero(there[best])
        rates, seeds = _rectangle(there[:, own], [best])
        seeds = own[seeds]
    return rates, seeds


def _rectangle(there: np.ndarray, staying: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    rates, seeds = np.arange(there.shape[0]), np.arange(there.shape[1])
    while not (part := there[np.ix_(rates, seeds)]).all():
        of_rates, of_seeds = part.sum(axis=1), part.sum(axis=0)
        cost_of_rates = np.where(part.all(axis=1) | np.isin(rates, staying), np.inf, of_rates)
        cost_of_seeds = np.where(part.all(axis=0), np.inf, of_seeds)
        if cost_of_rates.min() <= cost_of_seeds.min():
            rates = np.delete(rates, cost_of_rates.argmin())
        else:
            seeds = np.delete(seeds, cost_of_seeds.argmin())
    return rates, seeds


def constant_goodness(record: WorkloadRecord, criterion: Criterion) -> float:
    """Return how good the constant predictor is; −∞ where that is unknown, as of somebody's own table."""
    good = float(goodness(np.array([np.nan]), record, criterion, np.array([True]))[0])
    return -math.inf if math.isnan(good) else good


def goodness(values: np.ndarray, record: WorkloadRecord, criterion: Criterion, diverged: np.ndarray) -> np.ndarray:
    """Return how good a column's values are, larger being better.

    Args:
        values: scores or training losses of trials; NaN where a trial has none.
        record: what their workload is.
        criterion: which of the two they are.
        diverged: which of the trials diverged; they count as the constant predictor.
    """
    if criterion == "score":
        return np.where(diverged, record.constant_score, values) * record.score_sign
    losses = np.where(diverged, record.constant_loss, values)
    if (losses < 0).any():
        raise InputError(
            f"workload {record.name!r}: a training loss of {losses.min():.3g} has no logarithm to compare it by; "
            f"add a constant to the loss so that it cannot be negative."
        )
    return -log_losses(losses, record)


def smallest_loss(record: WorkloadRecord) -> float:
    """Return the training loss below which losses are equal: 2⁻²³ of the constant predictor's, and at most 2⁻²³.

    A float32 near 1 has neighbours 2⁻²³ apart. The cross-entropy log Σ exp of an example is therefore 0 or about that,
    and a loss that is measured against targets is accurate to that share of what it is without a model. Differences
    below it are rounding, and the logarithm of an exact 0 would rule every mean. Stored losses stay as measured.

    Args:
        record: the workload, whose constant predictor's loss is the scale.

    Returns:
        The floor, in the unit of the loss.
    """
    scale = min(record.constant_loss, 1.0) if record.constant_loss > 0 else 1.0
    return RESOLUTION * scale


def log_losses(losses: np.ndarray, record: WorkloadRecord) -> np.ndarray:
    """Return the logarithms by which training losses are compared and averaged; see :func:`smallest_loss`.

    Args:
        losses: not negative; NaN stays NaN.
        record: what their workload is.
    """
    logarithms: np.ndarray = np.log(np.maximum(losses, smallest_loss(record)))
    return logarithms


def on_common_seeds(curves: Sequence[Curve]) -> list[Curve]:
    """Return the curves on the seeds that all of them have, so that drawing seeds is the same in each.

    Where too few are shared to pair by, the curves are independent samples, and their seeds are numbered in order.
    """
    if not curves:
        return []
    common, kept = shared_seeds([c.seeds for c in curves])
    return [
        replace(c, seeds=common, goodness=c.goodness[:, k], diverged=c.diverged[:, k])
        for c, k in zip(curves, kept, strict=True)
    ]


def shared_seeds(seeds: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the seeds that several samples share, and which of each sample's they are.

    Where samples share fewer than 3 seeds though each has more, they are independent: the first of each are taken, as
    many as the smallest has, and numbered from 0. A sample of one seed is compared on that seed or not at all.
    """
    common = functools.reduce(np.intersect1d, seeds)
    fewest = min(len(of) for of in seeds)
    if fewest < 2 or len(common) >= min(FEWEST_SHARED, fewest):
        return common, [np.isin(of, common) for of in seeds]
    return np.arange(fewest), [np.arange(len(of)) < fewest for of in seeds]


def welch_least(values: np.ndarray, level: float) -> np.ndarray:
    """Return by how much each row must lead each other for Welch's one-sided test to reject, shape (rows, rows)."""
    n = values.shape[1]
    variance = values.var(axis=1, ddof=1) / n
    both = variance[:, None] + variance
    with np.errstate(invalid="ignore"):
        freedom = (n - 1) * both**2 / (variance[:, None] ** 2 + variance**2)
    least: np.ndarray = special.stdtrit(np.where(both > 0, freedom, n - 1), level) * np.sqrt(both)
    return least


def joined(curves: Sequence[Curve]) -> Curve:
    """Return the rates of several cells, on common seeds, as if they were one cell's."""
    return Curve(
        np.concatenate([c.rates for c in curves]),
        curves[0].seeds,
        np.concatenate([c.goodness for c in curves]),
        np.concatenate([c.diverged for c in curves]),
        unpaired=any(c.unpaired for c in curves),
    )
