"""Are scores the same, to within a margin: two one-sided tests, what contradicts them, and how many seeds decide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from sgdscope.stats.intervals import Verdict, fewest_seeds, holm

ALPHA = 0.05
# The power that the number of seeds is asked for.
POWER = 0.8
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
    power: float
    seeds_needed: int | None

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
        differences: of scores, shape (comparisons, n), column s from the two trainings with seed s.
        margin: δ, in the units of the differences, larger than 0.

    Source: Schuirmann (1987), Journal of Pharmacokinetics and Biopharmaceutics 15, 657-680; Berger (1982),
    Technometrics 24, 295-300, on intersection-union tests.

    >>> equivalence(np.array([[0.1, -0.1, 0.2, -0.2, 0.0]]), margin=1.0).verdict
    'supported'
    """
    n = differences.shape[1]
    mean = differences.mean(axis=1)
    if n == 1:
        nothing, one = np.full(len(mean), math.inf), np.ones(len(mean))
        return Equivalence(margin, n, mean, -nothing, nothing, -nothing, nothing, one, one, 0.0, None)
    error = differences.std(axis=1, ddof=1) / math.sqrt(n)
    half90, half95 = (special.stdtrit(n - 1, quantile) * error for quantile in (0.95, 0.975))
    beyond = 2 * _upper(np.abs(mean) - margin, error, n)
    return Equivalence(
        margin,
        n,
        mean,
        mean - half90,
        mean + half90,
        mean - half95,
        mean + half95,
        p_equivalent=np.maximum(_upper(mean + margin, error, n), _upper(margin - mean, error, n)),
        p_beyond=holm(np.minimum(1.0, beyond)),
        power=power(error * math.sqrt(n), margin, n),
        seeds_needed=seeds_needed(error * math.sqrt(n), margin),
    )


def power(deviations: np.ndarray, margin: float, n: int) -> float:
    """Return how probable it is that all comparisons pass, when the true differences are 0 and n seeds are trained.

    With σ the standard deviation of a difference, both tests pass where its mean D ~ N(0, σ²/n) has
    |D| < δ − t(n−1, .95)·s/√n, as :func:`chance_to_show` has it. Comparisons count as independent of each other, which
    they are but for the plateau they share.

    Args:
        deviations: σ of each comparison.
        margin: δ.
        n: seeds.

    >>> round(power(np.array([1.0]), margin=2.0, n=5), 2)
    0.95
    """
    if n < 2:
        return 0.0
    return math.prod(chance_to_show([margin, margin], float(deviation), ALPHA, n) for deviation in deviations)


def seeds_needed(deviations: np.ndarray, margin: float) -> int | None:
    """Return the smallest number of seeds with a power of at least 0.8; None where 1,000 are not enough.

    >>> seeds_needed(np.array([1.0]), margin=1.0)
    11
    """
    return fewest_seeds(lambda n: power(deviations, margin, n) >= POWER)


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


def _upper(distance: np.ndarray, error: np.ndarray, n: int) -> np.ndarray:
    """Return the one-sided p value of a distance above 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(error > 0, distance / error, np.where(distance > 0, math.inf, -math.inf))
    p: np.ndarray = special.stdtr(n - 1, -t)
    return p
