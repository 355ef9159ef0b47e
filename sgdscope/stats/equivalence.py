"""Are scores the same, to within a margin: two one-sided tests, what contradicts them, and their power."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from sgdscope.stats.intervals import BOOTSTRAP_SEED, LEVEL, MOST_NAMED, Verdict, first_with_chance, holm

ALPHA = 0.05
# The power that the number of seeds is asked for.
POWER = 0.8
# Studies that are predicted to find how many seeds decide.
PREDICTED = 400
QUANTILES = (np.arange(400) + 0.5) / 400


@dataclass(frozen=True)
class Equivalence:
    """What paired differences say of a margin: arrays have one entry for each comparison.

    ``low90``, ``high90`` is the interval of the two one-sided tests at 5 %: they pass where it lies inside ±margin.
    ``low95``, ``high95`` is the usual interval. ``p_equivalent`` is the larger p value of the two tests,
    ``p_beyond`` that of lying beyond the margin, adjusted by Holm over the comparisons.
    """

    margin: float
    n: int
    mean: np.ndarray
    low90: np.ndarray
    high90: np.ndarray
    low95: np.ndarray
    high95: np.ndarray
    p_equivalent: np.ndarray
    p_beyond: np.ndarray

    @property
    def verdict(self) -> Verdict:
        """Supported where all comparisons pass; contradicted where one lies beyond the margin; else inconclusive."""
        if self.n > 1 and (self.p_equivalent < ALPHA).all():
            return "supported"
        return "contradicted" if (self.p_beyond < ALPHA).any() else "inconclusive"

    @property
    def smallest_margin(self) -> float:
        """The smallest margin at which all comparisons would pass."""
        return float(np.maximum(np.abs(self.low90), np.abs(self.high90)).max())


def equivalence(differences: np.ndarray, margin: float) -> Equivalence:
    """Compare paired differences with ±margin, by Student's t over seeds.

    All comparisons must pass for the verdict to be "supported", so that needs no correction (an
    intersection-union test); one is enough to contradict, which is why those p values are adjusted.

    Args:
        differences: of scores, shape (comparisons, n), column s from the two trainings with seed s; NaN where one of
            them is missing. Each comparison counts with the seeds that it has, and n is the fewest.
        margin: δ, in the units of the differences, larger than 0.

    Source: Schuirmann (1987), Journal of Pharmacokinetics and Biopharmaceutics 15, 657-680; Berger (1982),
    Technometrics 24, 295-300, on intersection-union tests.

    >>> equivalence(np.array([[0.1, -0.1, 0.2, -0.2, 0.0]]), margin=1.0).verdict
    'supported'
    """
    each = (~np.isnan(differences)).sum(axis=1)
    n = int(each.min())
    mean = np.nanmean(differences, axis=1) if n else np.full(len(each), math.nan)
    if n < 2:
        nothing, one = np.full(len(mean), math.inf), np.ones(len(mean))
        return Equivalence(margin, n, mean, -nothing, nothing, -nothing, nothing, one, one)
    error = np.nanstd(differences, axis=1, ddof=1) / np.sqrt(each)
    half90, half95 = (special.stdtrit(each - 1, quantile) * error for quantile in (0.95, 0.975))
    beyond = 2 * p_above(np.abs(mean) - margin, error, each)
    return Equivalence(
        margin,
        n,
        mean,
        mean - half90,
        mean + half90,
        mean - half95,
        mean + half95,
        p_equivalent=np.maximum(p_above(mean + margin, error, each), p_above(margin - mean, error, each)),
        p_beyond=holm(np.minimum(1.0, beyond)),
    )


def pairs_of(k: int) -> np.ndarray:
    """Return the contrasts whose products with k rows are the differences of all pairs, shape (k(k − 1)/2, k).

    >>> pairs_of(3).astype(int).tolist()
    [[1, -1, 0], [1, 0, -1], [0, 1, -1]]
    """
    one, other = np.triu_indices(k, 1)
    return np.eye(k)[one] - np.eye(k)[other]


def seeds_to_confirm(values: np.ndarray, contrasts: np.ndarray, margin: float) -> tuple[int | None, int | None]:
    """Return how many seeds in all confirm contrasts equivalent with a chance of 50 % and of 80 %, if they are equal.

    No one number fits all true differences: few seeds decide equal scores, and none decide scores that are the margin
    apart. So the seeds that are added have true differences of 0, and rows that vary independently as they did so far.

    Args:
        values: shape (k, n); seeds at which a row is NaN do not count.
        contrasts: shape (comparisons, k).
        margin: δ.

    Returns:
        Each None where 100 seeds do not confirm it, and both where what was measured speaks against equal scores: a
        difference of 0 lies outside of one of the intervals of 95 % together.
    """
    values = values[:, ~np.isnan(values).any(axis=0)]
    n, now = values.shape[1], contrasts @ values
    if not 2 <= n < MOST_NAMED or not now.var():
        return None, None
    means, seeds, squares = now.mean(axis=1), np.arange(n + 1, MOST_NAMED + 1), now.var(axis=1) * n
    quantile = special.stdtrit(n - 1, 1 - (1 - LEVEL) / 2 / len(contrasts))
    if (np.abs(means) > quantile * now.std(axis=1, ddof=1) / math.sqrt(n)).any():
        return None, None
    variance = values.var(axis=1, ddof=1)
    # What all rows share has no part in their differences.
    variance *= squares.sum() / (n - 1) / (contrasts**2 @ variance).sum()
    noise = np.random.default_rng(BOOTSTRAP_SEED).normal(size=(PREDICTED, len(values), len(seeds)))
    added = contrasts @ (np.sqrt(variance)[:, None] * noise) - means[:, None]
    moved = added.cumsum(axis=-1) / seeds
    rest = np.maximum(0.0, squares[:, None] + (added**2).cumsum(axis=-1) - seeds * moved**2)
    error = np.sqrt(rest / (seeds - 1) / seeds)
    same = np.abs(means[:, None] + moved) + special.stdtrit(seeds - 1, 1 - ALPHA) * error < margin
    return first_with_chance(same.all(axis=1).mean(axis=0), seeds)


def chance_to_show(gaps: Sequence[float], deviation: float, alpha: float, n: int) -> float:
    """Return how probable it is that n seeds show a mean to be on its side of margins, by t tests at level α.

    With σ the standard deviation over seeds, a test passes where its gap plus the error of the mean exceeds
    t(n−1, 1−α)·s/√n; the probability is averaged over the quantiles of s, as s² ~ σ²χ²(n−1)/(n−1).

    Args:
        gaps: how far the true mean is from each margin: one number, or two, of margins on opposite sides.
        deviation: σ.
        alpha: the level of each test, one-sided.
        n: seeds, at least 2.
    """
    if deviation == 0:
        return 1.0
    needed = special.stdtrit(n - 1, 1 - alpha) * np.sqrt(special.chdtri(n - 1, 1 - QUANTILES) / (n - 1))
    passed = sum(special.ndtr(gap * math.sqrt(n) / deviation - needed) for gap in gaps) - (len(gaps) - 1)
    return float(np.maximum(0.0, passed).mean())


def p_above(distance: np.ndarray, error: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return the one-sided p value, by Student's t, of a distance above 0 whose standard error n seeds give."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(error > 0, distance / error, np.where(distance > 0, math.inf, -math.inf))
    p: np.ndarray = special.stdtr(n - 1, -t)
    return p
