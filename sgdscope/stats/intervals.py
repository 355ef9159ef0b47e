"""Small-sample statistics that several tables share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

Verdict = Literal["supported", "contradicted", "inconclusive"]
LEVEL = 0.95
RESAMPLES = 2000
# The most seeds that are looked at for what would decide, and that are named for a claim.
MOST_SEEDS, MOST_NAMED = 1000, 100
# The chances that the seeds of a claim are named for.
CHANCES = (0.5, 0.8)
BOOTSTRAP_SEED = 20200626  # fixed, so that a table is a function of its trials


def t_quantile(n: int, level: float = LEVEL) -> float:
    """Return the two-sided quantile of Student's t for the mean of n values; infinite for one value."""
    return float(special.stdtrit(n - 1, (1 + level) / 2)) if n > 1 else math.inf


def t_interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float, float]:
    """Return mean and t interval, mean ± t(n−1) s/√n, by default of 95 %; infinitely wide for one.

    Values that are NaN, of seeds that have none, do not count.

    >>> mean, low, high = t_interval(np.array([1.0, 2.0, 3.0]))
    >>> round(mean, 3), round(low, 3), round(high, 3)
    (2.0, -0.484, 4.484)
    """
    values = values[~np.isnan(values)]
    n = len(values)
    mean = float(np.mean(values)) if n else math.nan
    if n < 2:
        return mean, -math.inf, math.inf
    half = t_quantile(n, level) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return mean, mean - half, mean + half


def share_interval(count: np.ndarray, n: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Return the exact interval of a share, from how many of n trials have it; NaN where n is 0.

    Source: Clopper and Pearson (1934), Biometrika 26, 404-413.

    >>> low, high = share_interval(np.array([0]), np.array([5]))
    >>> round(float(low[0]), 3), round(float(high[0]), 3)
    (0.0, 0.522)
    """
    tail = (1 - level) / 2
    with np.errstate(invalid="ignore"):
        low = np.where(count > 0, special.betaincinv(np.maximum(count, 1), n - count + 1, tail), 0.0)
        high = np.where(count < n, special.betaincinv(count + 1, np.maximum(n - count, 1), 1 - tail), 1.0)
    return low, high


def interval_with_failures(values: np.ndarray, failed: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of trials with its 95 % interval, where some may have failed to train.

    Where none failed it is :func:`t_interval`, of trials that train: few seeds say little of rare failures, and their
    share has an interval of its own. Where some failed, a t interval of all trials does not contain the mean often
    enough: the mean is (1 − p)·m + p·c, and its interval has the least and the largest of these, with p in the exact
    interval of the share that fails and m in the t interval of the trials that trained, each at 97.5 %, and c from the
    least to the largest value of those that failed.

    Args:
        values: one of each trial, shape (n,); NaN where it has none, which does not count.
        failed: which trials diverged or collapsed.

    >>> mean, low, high = interval_with_failures(np.array([0.9, 0.92, 0.91, 0.89, 0.1]), np.array([0, 0, 0, 0, 1]) > 0)
    >>> round(mean, 3), round(low, 3), round(high, 3)
    (0.744, 0.283, 0.93)
    """
    failed = failed[~np.isnan(values)]
    values = values[~np.isnan(values)]
    if not failed.any() or failed.all():
        return t_interval(values)
    level = (1 + LEVEL) / 2
    shares = share_interval(failed.sum(), np.array(len(values)), level)
    ends = [
        (1 - share) * trained + share * lost
        for share in map(float, shares)
        for trained in t_interval(values[~failed], level)[1:]
        for lost in (values[failed].min(), values[failed].max())
    ]
    return float(values.mean()), float(min(ends)), float(max(ends))


def named(name: str, bounds: tuple[float, float, float]) -> dict[str, float]:
    """Return a mean and the ends of its interval as a table's columns.

    >>> named("score", (0.5, 0.4, 0.6))
    {'score': 0.5, 'score_low': 0.4, 'score_high': 0.6}
    """
    return dict(zip((name, f"{name}_low", f"{name}_high"), bounds, strict=True))


def resampled_seeds(n: int) -> np.ndarray:
    """Return the bootstrap's draws of n seeds, shape (RESAMPLES, n): the same for every cell, so draws are joint."""
    return np.random.default_rng(BOOTSTRAP_SEED).integers(0, n, (RESAMPLES, n))


def bootstrap_t_interval(
    estimate: float, resampled: np.ndarray, n: int, level: float = LEVEL, lean: float = 0.0
) -> tuple[float, float]:
    """Return estimate ± √((t(n−1)·SE)²·n/(n−1) + lean²), with SE the standard deviation of the bootstrap's estimates.

    With 5 seeds plain percentiles cover only about 90 %; the factor undoes the bootstrap's 1/n variance, and t its
    normal quantile. ``lean`` is the most by which the estimate may be wrong whatever
    the seeds say.
    """
    if n < 2:
        return -math.inf, math.inf
    half = math.hypot(t_quantile(n, level) * float(np.std(resampled)) * math.sqrt(n / (n - 1)), lean)
    return estimate - half, estimate + half


@dataclass(frozen=True)
class Estimate:
    """A number with its 90 % and 95 % intervals."""

    value: float
    low90: float
    high90: float
    low95: float
    high95: float

    def verdict(self, low: float, high: float) -> Verdict:
        """Return ``supported`` where the 90 % interval lies in a zone, ``contradicted`` where the 95 % lies outside.

        >>> Estimate(1.0, 0.9, 1.1, 0.85, 1.15).verdict(0.75, 1.25)
        'supported'
        """
        if low <= self.low90 and self.high90 <= high:
            return "supported"
        return "contradicted" if self.high95 < low or self.low95 > high else "inconclusive"

    def moved(self, by: float) -> Estimate:
        """Return the estimate of a number that is larger by so much.

        >>> Estimate(1.0, 0.5, 1.5, 0.0, 2.0).moved(1.0)
        Estimate(value=2.0, low90=1.5, high90=2.5, low95=1.0, high95=3.0)
        """
        return Estimate(*(end + by for end in (self.value, self.low90, self.high90, self.low95, self.high95)))


def estimated(values: np.ndarray) -> Estimate:
    """Return the mean of one value a seed with its t intervals.

    >>> estimated(np.array([1.0, 2.0, 3.0])).verdict(-1.0, 1.0)
    'inconclusive'
    """
    mean, low90, high90 = t_interval(values, 0.90)
    return Estimate(mean, low90, high90, *t_interval(values)[1:])


def fewest_seeds(enough: Callable[[int], bool]) -> int | None:
    """Return the least number of seeds from 2 on that is enough, as is then any larger one; None beyond 1,000.

    >>> fewest_seeds(lambda n: n >= 17), fewest_seeds(lambda n: False)
    (17, None)
    """
    if not enough(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def seeds_to_decide(
    estimate: Estimate, n: int, low: float, high: float, grid_error: float = 0.0
) -> tuple[int | None, int | None]:
    """Return how many seeds in all decide a zone with a chance of 50 % and of 80 %; None where 100 do not.

    The chance is predictive: it is averaged over what the true value may be, given the estimate, and over the seeds
    that are added. The variance is drawn as (n − 1)s²/χ²(n − 1) and the true value as estimate + z·σ/√n. With N seeds
    the intervals are mean ± t(N − 1)·√(s²/N + g²): g, the error that the grid of rates leaves, no seed makes smaller.

    Args:
        estimate: what n seeds give.
        n: the number of seeds; one seed tells no variance.
        low: the zone's lower end.
        high: the zone's upper end.
        grid_error: g. Default: 0.

    Source: Spiegelhalter, Abrams and Myles (2004), Bayesian Approaches to Clinical Trials, chapter 6, with flat priors.

    >>> seeds_to_decide(Estimate(1.0, 0.7, 1.3, 0.6, 1.4), 5, 0.75, 1.25)
    (12, 84)
    """
    if not 2 <= n < MOST_NAMED or not math.isfinite(estimate.high90):
        return None, None
    error = (estimate.high90 - estimate.low90) / 2 / t_quantile(n, 0.90)
    variance = n * max(0.0, error**2 - grid_error**2)
    rng, seeds = np.random.default_rng(BOOTSTRAP_SEED), np.arange(n + 1, MOST_NAMED + 1)
    deviation = np.sqrt(variance * (n - 1) / rng.chisquare(n - 1, (RESAMPLES, 1)))
    away = deviation * rng.normal(size=(RESAMPLES, 1)) / math.sqrt(n)
    added = away + deviation * rng.normal(size=(RESAMPLES, len(seeds)))
    moved = added.cumsum(axis=1) / seeds
    squares = (n - 1) * variance + (added**2).cumsum(axis=1) - seeds * moved**2
    errors = np.sqrt(np.maximum(0.0, squares) / (seeds - 1) / seeds + grid_error**2)
    half90, half95 = (special.stdtrit(seeds - 1, quantile) * errors for quantile in (0.95, 0.975))
    mean = estimate.value + moved
    supported = (low <= mean - half90) & (mean + half90 <= high)
    chance = (supported | (mean + half95 < low) | (mean - half95 > high)).mean(axis=0)
    return first_with_chance(chance, seeds)


def first_with_chance(chance: np.ndarray, seeds: np.ndarray) -> tuple[int | None, int | None]:
    """Return the fewest seeds that decide with a chance of 50 % and of 80 %; None where none do.

    >>> first_with_chance(np.array([0.4, 0.6, 0.7]), np.array([10, 11, 12]))
    (11, None)
    """
    half, most = (next((int(at) for at in seeds[chance >= wanted]), None) for wanted in CHANCES)
    return half, most


def bootstrapped(value: float, resampled: np.ndarray, n: int, lean: float = 0.0) -> Estimate:
    """Return an estimate with the intervals of :func:`bootstrap_t_interval`, which are wider by a lean on each side."""
    ends = [bootstrap_t_interval(value, resampled, n, level) for level in (0.90, 0.95)]
    return Estimate(
        value, *(end + side * lean for interval in ends for side, end in zip((-1, 1), interval, strict=True))
    )


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return Holm's adjusted p values: of k tests the i-th smallest times k − i + 1, never below a smaller one's.

    An adjusted value below α rejects its hypothesis, and of all k together at most a share α of studies rejects a
    true one.

    Source: Holm (1979), Scandinavian Journal of Statistics 6, 65-70.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(6).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    adjusted = np.empty(len(p_values))
    factors = np.arange(len(p_values), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p_values[order] * factors))
    return adjusted


def holm_levels(p_values: np.ndarray, alpha: float) -> np.ndarray:
    """Return the level at which Holm's procedure tests each hypothesis: it rejects where p is below it.

    The r-th smallest of k has α/(k − r + 1). Those from the first that is not rejected on have the level of that one,
    and none of them is below it.

    >>> holm_levels(np.array([0.01, 0.04, 0.001]), 0.05).round(4).tolist()
    [0.025, 0.05, 0.0167]
    >>> holm_levels(np.array([0.03, 0.04, 0.001]), 0.05).round(4).tolist()
    [0.025, 0.025, 0.0167]
    """
    order, k = np.argsort(p_values), len(p_values)
    rejected = int((holm(p_values) < alpha).sum())
    levels = np.empty(k)
    levels[order] = alpha / (k - np.minimum(np.arange(k), rejected))
    return levels
