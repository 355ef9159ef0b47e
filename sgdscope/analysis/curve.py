"""How good each learning rate of a cell is: the curve from which every estimate of an optimum is taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from sgdscope.analysis.collapse import collapsed_of
from sgdscope.analysis.contenders import FEWEST_SHARED, contenders, middle_of_tied
from sgdscope.analysis.goodness import constant_goodness, goodness
from sgdscope.analysis.trial_table import COLUMN, SCORES, Criterion
from sgdscope.analysis.vertex import ROUNDED_OCTAVES, VERTEX_OCTAVES, vertices
from sgdscope.records import WorkloadRecord
from sgdscope.stats.intervals import resampled_seeds
from sgdscope.store import ended

# A rate at which more than this share of trials fails to train is not eligible as the optimum.
MOST_FAILED = 0.2


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
        """Which rates may be the best, shape (rates,): see :func:`~sgdscope.analysis.contenders.contenders`."""
        return contenders(self.goodness, self.eligible, int(self.best()[0]))

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

        See :func:`~sgdscope.analysis.vertex.vertices`. Rates at which trials failed do not lie on a smooth curve: they
        are left out.
        """
        values = self._means if seeds is None else self._drawn_means(seeds)
        return self._between(values, middle_of_tied(values))

    @cached_property
    def drawn(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Best rate, vertex and stray of each of the bootstrap's draws of seeds, as :meth:`best` and :meth:`vertex`."""
        values = self._drawn_means(resampled_seeds(len(self.seeds)))
        best = middle_of_tied(values)
        return best, *self._between(values, best)

    def _between(self, values: np.ndarray, best: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        whole = self.eligible & ~self.failed.any(axis=1)
        return vertices(self.octaves, self.steps, whole, values, best)

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


def curve(cell: pl.DataFrame, record: WorkloadRecord, criterion: Criterion, column: str | None = None) -> Curve:
    """Return the curve of one cell from its complete and diverged trials.

    A trial that is missing, or without the value that is looked at, costs its own seed at its own rate alone.

    Args:
        cell: the trials of one cell.
        record: what their workload is.
        criterion: whether scores or training losses are looked at.
        column: which column holds them. Default: the one that the criterion chooses by.
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
