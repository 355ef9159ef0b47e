"""How good each learning rate of a cell is: the curve from which every estimate of an optimum is taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from scipy import special

from sgdscope.analysis.trial_table import COLUMN, SCORES, Criterion
from sgdscope.errors import InputError
from sgdscope.records import WorkloadRecord
from sgdscope.stats.intervals import resampled_seeds
from sgdscope.store import ended

# A rate at which more than this share of trials fails to train is not eligible as the optimum.
MOST_FAILED = 0.2
# A trial that gains less than this share of what its cell's best rate gains over the constant baseline has collapsed.
COLLAPSED_GAIN = 0.5
# A cell that gains less than these shares of the constant baseline's score and training loss has learned nothing.
LEAST_SCORE, LEAST_FALL = 0.5, 0.01
# Seeds that two samples must share to be compared seed by seed.
FEWEST_SHARED = 3
# In at most this share of studies the truly best rate is not among the contenders.
MOST_WRONG = 0.05
# The spacing of float32 at 1: a loss that is computed as log(1 + e) is 0 or at least half of this, whatever e is.
RESOLUTION = 2.0**-23
# The optimum between rates is taken from those within so many octaves of the best: five half octaves.
VERTEX_OCTAVES = 1.0
# A cubic, which allows for a curve that is steeper on one side, takes so many rates.
FEWEST_FOR_CUBIC = 5
# Grids are written in two or three digits: distances between rates that differ by less, in octaves, are equal.
ROUNDED_OCTAVES = 0.1
# Below this the bend of a curve is rounding: equal means have no vertex.
LEAST_BEND = 1e-9
# How far from the optimum of a curve its estimates may lie though no seed tells, in steps of the grid.
STRAY_OF_VERTEX, STRAY_OF_BEST = 1 / 4, 1 / 2


@dataclass(frozen=True)
class Curve:
    """How good each learning rate of a cell is, by one criterion.

    ``goodness`` has shape (rates, seeds) and larger is better: the score with its sign turned where a smaller one
    is better, or minus the logarithm of the training loss, by :func:`log_losses`. A diverged trial counts as the
    constant baseline. It is NaN where a rate has no trial of a seed, or a trial without the value: each rate counts
    with the seeds that it has.
    """

    rates: np.ndarray
    seeds: np.ndarray
    goodness: np.ndarray
    diverged: np.ndarray
    constant: float = -math.inf  # the constant baseline's goodness, where it is known
    collapsed: np.ndarray | None = None  # by :func:`collapsed_trials`; none where it is not given

    @cached_property
    def failed(self) -> np.ndarray:
        """Which trials failed to train: they diverged or collapsed."""
        failed: np.ndarray = self.diverged if self.collapsed is None else self.diverged | self.collapsed
        return failed

    @cached_property
    def there(self) -> np.ndarray:
        """Which trials have a value, shape (rates, seeds)."""
        there: np.ndarray = ~np.isnan(self.goodness)
        return there

    @cached_property
    def counts(self) -> np.ndarray:
        """How many trials of each rate have a value, shape (rates,)."""
        counts: np.ndarray = self.there.sum(axis=1)
        return counts

    @cached_property
    def usual(self) -> int:
        """How many trials a rate has: the median of the rates that have any; of two middle ones the larger."""
        some = np.sort(self.counts[self.counts > 0])
        return int(some[len(some) // 2]) if some.size else 0

    @cached_property
    def n(self) -> int:
        """How many seeds tell where the optimum lies: the fewest of the eligible rates within an octave of the best."""
        near = np.abs(self.octaves - self.octaves[self.best()[0]]) <= VERTEX_OCTAVES + ROUNDED_OCTAVES
        return int(self.counts[near & self.eligible].min(initial=np.iinfo(int).max)) if self.eligible.any() else 0

    @property
    def unpaired(self) -> bool:
        """Whether rates are independent samples: fewer seeds than a pairing takes were run at two rates."""
        runs = self.there | self.diverged
        counts = np.sort(runs.sum(axis=1))
        # One rate alone may have been run with many more seeds.
        return len(counts) > 1 and int((runs.sum(axis=0) > 1).sum()) < min(FEWEST_SHARED, counts[-2])

    @property
    def stable(self) -> np.ndarray:
        """Whether at most 20 % of a rate's trials failed to train, shape (rates,)."""
        stable: np.ndarray = self.failed.sum(axis=1) <= MOST_FAILED * (self.there | self.failed).sum(axis=1)
        return stable

    @cached_property
    def enough(self) -> np.ndarray:
        """Which rates have half of the trials that rates usually have, and 3 where these have as many; shape (rates,).

        Of means of fewer trials the largest would be the luckiest. Fewer are no gap where they are so by design:
        :attr:`few_by_design`.
        """
        fewest = max(1, min(FEWEST_SHARED, self.usual))
        enough: np.ndarray = self.few_by_design | ((2 * self.counts >= self.usual) & (self.counts >= fewest))
        return enough

    @cached_property
    def few_by_design(self) -> np.ndarray:
        """Which rates have the seeds of a search and no others, shape (rates,).

        :class:`~sgdscope.seeds.Seeds` gives more to a few rates, of which all have those of the search, too. So two
        rates or more have the same first seeds, at least 3, and nearly all other rates have these.
        """
        runs = self.there | self.diverged
        few: np.ndarray = np.zeros(len(runs), np.bool_)
        if runs.all():
            return few | (len(runs) > 1 and runs.shape[1] >= FEWEST_SHARED)
        counts = runs.sum(axis=1)
        first = counts[(counts >= FEWEST_SHARED) & (np.diff(runs, axis=1, prepend=True).sum(axis=1) <= 1)]
        alike = [count for count in np.unique(first) if (first == count).sum() > 1]
        if alike and (2 * runs[counts > 0, : alike[0]].sum(axis=1) > alike[0]).all():
            few = (counts == alike[0]) & runs[:, : alike[0]].all(axis=1)
        return few

    @cached_property
    def eligible(self) -> np.ndarray:
        """Which rates may be the optimum, shape (rates,).

        These are stable, have :attr:`enough` trials, and a value for each trial that diverged. Where every rate fails
        to train, because the cell has learned nothing, those at which at most 20 % of the trials diverged are stable.
        """
        stable = self.stable
        if not stable.any():
            stable = self.diverged.sum(axis=1) <= MOST_FAILED * (self.there | self.diverged).sum(axis=1)
        eligible: np.ndarray = stable & self.enough & ~(self.diverged & ~self.there).any(axis=1)
        return eligible

    @cached_property
    def contenders(self) -> np.ndarray:
        """Which rates may be the best: the eligible ones that no other leads beyond chance, shape (rates,).

        A rate is out where, of its k − 1 t tests against the others, one rejects at a one-sided 5 % / (k − 1),
        so that the truly best rate is out in at most 5 % of studies however many are compared: the best of many is
        the luckiest of them, and beats its equals in more than 5 % where it is tested against each as if it were one.
        Rates are compared on the seeds that both have; where these are fewer than 3, the tests are Welch's. With one
        seed those that tie with the best remain.

        Source: Hsu (1981), Annals of Statistics 9, 1026-1034, on multiple comparisons with the best; by Bonferroni's
        inequality, since the variances differ from rate to rate.
        """
        others = int(self.eligible.sum()) - 1
        contending: np.ndarray = self.eligible.copy()
        if others > 0:
            lead, least = leads_between(self.goodness[contending], 1 - MOST_WRONG / others)
            contending[contending] = ~(np.round(lead - least, 12) > 0).any(axis=0)
            contending[self.best()[0]] = True
        return contending

    @cached_property
    def censored(self) -> tuple[str, ...]:
        """At which ends of the rates tried, ``low`` or ``high``, a contender lies: better rates may lie beyond."""
        tried = np.flatnonzero(self.enough | (self.counts == 0))
        ends = self.contenders[tried[[0, -1]]] if tried.size else np.zeros(2, bool)
        return tuple(name for name, reached in zip(("low", "high"), ends, strict=True) if reached)

    @property
    def gain(self) -> float:
        """By how much the mean at the best rate exceeds the constant baseline; infinite where that is unknown.

        −∞ where no rate is eligible, NaN where no trial has ended.
        """
        if not self.seeds.size:
            return math.nan
        best = int(self.best()[0])
        return float(np.nanmean(self.goodness[best])) - self.constant if best >= 0 else -math.inf

    @cached_property
    def octaves(self) -> np.ndarray:
        """log₂ of the rates, shape (rates,)."""
        octaves: np.ndarray = np.log2(self.rates)
        return octaves

    def best(self, seeds: np.ndarray | None = None, statistic: Callable[[np.ndarray], Any] = np.mean) -> np.ndarray:
        """Return the index of the best eligible rate; with draws of seeds, shape (draws, n), one for each draw.

        Of tied rates it is the middle one; −1 where no rate is eligible. Draws are compared by their means.
        """
        if not self.eligible.any():
            return np.full(1 if seeds is None else len(seeds), -1)
        if seeds is not None:
            return middle_of_tied(self._drawn_means(seeds))
        return middle_of_tied(self._means if statistic is np.mean else self._at_each_rate(statistic))

    def vertex(self, seeds: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return log₂ ε* between the rates tried, and by how much that may stray: octaves, one of each for each draw.

        It is the maximum of the cubic that is fitted by least squares to the means of the rates within an octave of
        the best where there are five or more, else of the parabola through the best and its two neighbours. Rates at
        which trials failed do not lie on a smooth curve: they are left out. Where the best has no neighbour on one
        side, or the fit no maximum within an octave, the best rate itself is returned. The maximum strays by up to a
        quarter of the step of the grid there, the best rate by up to half of it, which seeds do not tell.
        """
        values = self._means if seeds is None else self._drawn_means(seeds)
        return self._vertices(values, middle_of_tied(values))

    @cached_property
    def drawn(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Best rate, vertex and stray of each of the bootstrap's draws of seeds, as :meth:`best` and :meth:`vertex`."""
        values = self._drawn_means(resampled_seeds(len(self.seeds)))
        best = middle_of_tied(values)
        return best, *self._vertices(values, best)

    def _vertices(self, values: np.ndarray, best: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        octaves, whole = self.octaves, self.eligible & ~self.failed.any(axis=1)
        found: np.ndarray = octaves[best]
        steps = self.steps[best]
        strays = steps * STRAY_OF_BEST
        for index in np.unique(best):
            near = np.flatnonzero((np.abs(octaves - octaves[index]) <= VERTEX_OCTAVES + ROUNDED_OCTAVES) & whole)
            degree = 3 if len(near) >= FEWEST_FOR_CUBIC else 2
            if degree == 2:
                near = near[np.abs(near - index) <= 1]
            if len(near) < 3 or not near[0] < index < near[-1]:
                continue
            x = octaves[near] - octaves[index]
            draws = np.flatnonzero(best == index)
            fitted = np.linalg.pinv(np.vander(x, degree + 1, increasing=True)) @ values[np.ix_(near, draws)]
            slope, bend, root = fitted[1], fitted[2], np.abs(fitted[2])
            if degree == 3:
                root = np.sqrt(np.maximum(0.0, bend**2 - 3 * fitted[3] * slope))  # half the curvature at the maximum
            peaked = np.minimum(root, root - bend) > LEAST_BEND
            maximum = np.divide(slope, root - bend, out=np.full_like(slope, np.inf), where=peaked)
            peaked &= np.abs(maximum) <= VERTEX_OCTAVES
            found[draws[peaked]] += maximum[peaked]
            strays[draws[peaked]] = steps[draws[peaked]] * STRAY_OF_VERTEX
        return found, strays

    @property
    def steps(self) -> np.ndarray:
        """The step of the grid around each rate, in octaves; none where a single rate was tried."""
        steps = np.diff(self.octaves)
        if not len(steps):
            return np.zeros(1)
        around: np.ndarray = (np.append(steps, steps[-1]) + np.append(steps[0], steps)) / 2
        return around

    @cached_property
    def _means(self) -> np.ndarray:
        """The mean of each rate, shape (rates, 1); −∞ where it is not eligible."""
        return self._at_each_rate(np.mean)

    def _at_each_rate(self, statistic: Callable[[np.ndarray], Any]) -> np.ndarray:
        value = np.full((len(self.rates), 1), -np.inf)
        for rate in np.flatnonzero(self.eligible):
            value[rate] = statistic(self.goodness[rate, self.there[rate]])
        return np.round(value, 12)

    def _drawn_means(self, seeds: np.ndarray) -> np.ndarray:
        """Return the mean of each rate in each draw of seeds, shape (rates, draws); −∞ where it is not eligible.

        A rate of which a draw has no trial counts there with all of its trials.
        """
        draws, n = len(seeds), len(self.seeds)
        counts = np.bincount((seeds + n * np.arange(draws)[:, None]).ravel(), minlength=draws * n)
        counts = counts.reshape(draws, n).T.astype(float)
        sums, drawn = np.where(self.there, self.goodness, 0.0) @ counts, self.there @ counts
        value = np.round(np.where(drawn > 0, sums / np.maximum(drawn, 1), self._means), 12)
        value[~self.eligible] = -np.inf
        return value


def leads_between(values: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Return by how much each row leads each other, and the least lead at which a one-sided t test rejects.

    Rows are compared on the columns that both have; where these are fewer than 3 though each has more, by Welch's test.
    Of rows with one value the least lead is 0.

    Args:
        values: shape (rows, seeds), NaN where a row has none.
        level: one less the level of the test.

    Returns:
        Both of shape (rows, rows): entry (i, j) is of row i over row j.
    """
    there = ~np.isnan(values)
    zeros, counts = np.where(there, values, 0.0), there.sum(axis=1)
    both = (there[:, None] & there).astype(float)
    shared = both.sum(axis=2)
    differences = (zeros[:, None] - zeros) * both
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = differences.sum(axis=2) / shared
        spread = np.sqrt((((differences - mean[:, :, None]) * both) ** 2).sum(axis=2) / (shared - 1) / shared)
        least = special.stdtrit(np.maximum(shared - 1, 1), level) * spread
        means = zeros.sum(axis=1) / counts
        variance = (((zeros - means[:, None]) * there) ** 2).sum(axis=1) / (counts - 1) / counts
        error = variance[:, None] + variance
        terms = variance**2 / (counts - 1)
        freedom = np.divide(error**2, terms[:, None] + terms, out=np.ones(error.shape), where=error > 0)
        of_welch = special.stdtrit(freedom, level) * np.sqrt(error)
    unpaired = shared < np.minimum(FEWEST_SHARED, np.minimum(counts[:, None], counts))
    mean, least = np.where(unpaired, means[:, None] - means, mean), np.where(unpaired, of_welch, least)
    single = np.where(unpaired, np.minimum(counts[:, None], counts), shared) < 2
    return mean, np.where(single, 0.0, least)


def middle_of_tied(values: np.ndarray) -> np.ndarray:
    """Return of each column, shape (rates, draws), which rate has the largest value; of tied ones the middle."""
    tied = values == values.max(axis=0)
    middle = (tied.sum(axis=0) + 1) // 2
    index: np.ndarray = (np.cumsum(tied, axis=0) >= middle).argmax(axis=0)
    return index


def curve(cell: pl.DataFrame, record: WorkloadRecord, criterion: Criterion, column: str | None = None) -> Curve:
    """Return the curve of one cell from its complete and diverged trials.

    A trial that is missing, or without the value that is looked at, costs its own seed at its own rate alone.

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
    rates, rate = np.unique(cell["learning_rate"].to_numpy(), return_inverse=True)
    seeds, seed = np.unique(cell["seed"].to_numpy(), return_inverse=True)
    values = np.full((len(rates), len(seeds)), np.nan)
    diverged, collapsed = (np.zeros(values.shape, np.bool_) for _ in range(2))
    values[rate, seed] = goodness(value, record, criterion, gone)
    diverged[rate, seed], collapsed[rate, seed] = gone, collapsed_of(cell, record)
    return Curve(rates, seeds, values, diverged, constant_goodness(record, criterion), collapsed)


def collapsed_of(cell: pl.DataFrame, record: WorkloadRecord) -> np.ndarray:
    """Return which trials of one cell collapsed, by :func:`collapsed_trials`; all trials have ended."""
    columns = ("learning_rate", COLUMN["score"], COLUMN["train_loss"])
    rates, score, loss = (cell[name].cast(pl.Float64).to_numpy() for name in columns)
    return collapsed_trials(rates, score, loss, (cell["status"] == "diverged").to_numpy(), record)


def collapsed_trials(
    rates: np.ndarray, score: np.ndarray, loss: np.ndarray, diverged: np.ndarray, record: WorkloadRecord
) -> np.ndarray:
    """Return which trials of one cell ended with a finite loss, and learned less than half of what others did.

    A trial has collapsed where it gains less than half of what the cell's best rate gains over the constant baseline,
    both in the score that chooses and in the training loss. A gain that is not known does not decide, nor do gains of
    which no rate has any. Where no rate gains half of the constant score, nor a hundredth of the constant loss, the
    cell has learned nothing, and each of its trials has collapsed: networks that answer at random differ in score.

    Args:
        rates: of each trial.
        score: by which rates are chosen; NaN where a trial has none.
        loss: on the training split; NaN where a trial has none.
        diverged: which trials diverged; they count as the constant baseline, and have not collapsed.
        record: what their workload is.
    """
    _, rate = np.unique(rates, return_inverse=True)
    gains = np.array([(score - record.constant_score) * record.score_sign, record.constant_loss - loss])
    gains[:, diverged] = 0.0
    known = ~np.isnan(gains)
    most = np.array([[_most(gain, rate)] for gain in gains])
    least = np.array([[LEAST_SCORE * abs(record.constant_score)], [LEAST_FALL * record.constant_loss]])
    telling = known & (most > 0)
    low = (~telling | (gains < COLLAPSED_GAIN * most)).all(axis=0) & telling.any(axis=0)
    collapsed: np.ndarray = ~diverged & (low if (most > least).any() else known.any(axis=0))
    return collapsed


def _most(gain: np.ndarray, rate: np.ndarray) -> float:
    """Return the largest mean of a rate's gains; −∞ where no gain is known."""
    known = ~np.isnan(gain)
    counts = np.bincount(rate, known)
    sums = np.bincount(rate, np.where(known, gain, 0.0))
    return float(np.divide(sums, counts, out=np.full(len(counts), -np.inf), where=counts > 0).max(initial=-np.inf))


def constant_goodness(record: WorkloadRecord, criterion: Criterion) -> float:
    """Return how good the constant baseline is; −∞ where that is unknown, as of an external table."""
    good = float(goodness(np.array([np.nan]), record, criterion, np.array([True]))[0])
    return -math.inf if math.isnan(good) else good


def goodness(values: np.ndarray, record: WorkloadRecord, criterion: Criterion, diverged: np.ndarray) -> np.ndarray:
    """Return how good a column's values are, larger being better.

    Args:
        values: scores or training losses of trials; NaN where a trial has none.
        record: what their workload is.
        criterion: which of the two they are.
        diverged: which of the trials diverged; they count as the constant baseline.
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
    """Return the training loss below which losses are equal: 2⁻²³ of the constant baseline's, and at most 2⁻²³.

    A float32 near 1 has neighbours 2⁻²³ apart. The cross-entropy log Σ exp of an example is therefore 0 or about that,
    and a loss that is measured against targets is accurate to that share of what it is without a model. Differences
    below it are rounding, and the logarithm of an exact 0 would rule every mean. Stored losses stay as measured.

    Args:
        record: the workload, whose constant baseline's loss is the scale.

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
    """Return the curves with one axis of seeds, those of all of them, so that drawing seeds is the same in each."""
    if not curves:
        return []
    curves = [numbered(c) for c in curves]
    seeds = np.unique(np.concatenate([c.seeds for c in curves]))
    return [_on_seeds(c, seeds) for c in curves]


def numbered(found: Curve) -> Curve:
    """Return a curve whose rates are independent samples with its trials numbered in place of seeds; else as it is."""
    if not found.unpaired:
        return found
    order = np.argsort(~(found.there | found.failed), axis=1, kind="stable")
    order = order[:, : (found.there | found.failed).sum(axis=1).max()]
    good, diverged, failed = (np.take_along_axis(of, order, 1) for of in (found.goodness, found.diverged, found.failed))
    return replace(found, seeds=np.arange(order.shape[1]), goodness=good, diverged=diverged, collapsed=failed)


def _on_seeds(found: Curve, seeds: np.ndarray) -> Curve:
    """Return a curve with more seeds, of which its rates have no trials."""
    if np.array_equal(found.seeds, seeds):
        return found
    shape, mine = (len(found.rates), len(seeds)), np.isin(seeds, found.seeds)
    good, diverged, failed = np.full(shape, np.nan), np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    good[:, mine], diverged[:, mine], failed[:, mine] = found.goodness, found.diverged, found.failed
    return replace(found, seeds=seeds, goodness=good, diverged=diverged, collapsed=failed)


def joined(curves: Sequence[Curve]) -> Curve:
    """Return the rates of several cells, on common seeds, as if they were one cell's."""
    return Curve(
        np.concatenate([c.rates for c in curves]),
        curves[0].seeds,
        np.concatenate([c.goodness for c in curves]),
        np.concatenate([c.diverged for c in curves]),
        collapsed=np.concatenate([c.failed for c in curves]),
    )
