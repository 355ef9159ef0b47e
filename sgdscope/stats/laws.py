"""Laws of the optimal learning rate against the batch size: a line, a hinge, and smooth transitions.

All are fitted by least squares to y = log₂ ε* against x = log₂ B, for many draws of y at once. An optimum at the edge
of the rates that were tried is a bound: it counts only where the law is on the wrong side of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PLACES_PER_OCTAVE = 20
# 1/k of the family of transitions: from the hinge, 0, over the smooth form, 1, to one that has no straight part.
SOFTNESSES = np.linspace(0.0, 2.0, 41)
# A bound that a fit breaks counts as a point, and one that it keeps does not: a few rounds settle which. A step
# towards the fit to what counts is halved while it makes things worse, and given up as too small in the end.
ROUNDS = 20
SMALLEST_STEP = 1 / 64
# Sums of squares that differ by less are equal.
ROUNDING = 1e-9
# So many draws times laws are compared at once: what a processor's cache holds.
PAIRS_AT_ONCE = 100_000


@dataclass(frozen=True)
class Hinge:
    """A fit y = level − slope·max(0, transition − x) to points: a line of free slope, and constant beyond it."""

    transition: np.ndarray
    slope: np.ndarray
    level: np.ndarray


@dataclass(frozen=True)
class SoftHinge:
    """A fit y = level − slope·u·log₂(1 + 2^((transition − x)/u)), u = 1/k: of that slope far below, 0 far above."""

    transition: np.ndarray
    softness: np.ndarray
    slope: np.ndarray
    level: np.ndarray


def fit_line(x: np.ndarray, y: np.ndarray, bounds: np.ndarray | None = None) -> np.ndarray:
    """Return the slopes of straight lines, one for each draw.

    Args:
        x: log₂ batch sizes, shape (k,).
        y: log₂ learning rates, shape (draws, k).
        bounds: shape (draws, k): 0 for an optimum, −1 where it lies at y or below, +1 where at y or above.

    >>> fit_line(np.arange(4.0), np.array([[0.0, 1.0, 2.0, 3.0]])).round(6)
    array([1.])
    """
    return _fit(x[None], y, bounds)[2]


def fit_hinge(x: np.ndarray, y: np.ndarray, bounds: np.ndarray | None = None) -> Hinge:
    """Fit hinges, over a grid of transitions between the second point and the last.

    A transition at the last point is a straight line.

    Args:
        x: log₂ batch sizes, ascending, shape (k,).
        y: log₂ learning rates, shape (draws, k).
        bounds: as for :func:`fit_line`.

    >>> x = np.arange(8.0)
    >>> hinge = fit_hinge(x, np.minimum(x, 4.0)[None] - 7)
    >>> [round(float(v[0]), 6) for v in (hinge.transition, hinge.slope, hinge.level)]
    [4.0, 1.0, -3.0]
    """
    places = _places(x[1], x[-1])
    best, level, slope = _fit(-np.maximum(0.0, places[:, None] - x), y, bounds)
    return Hinge(places[best], slope, level)


def fit_soft_hinge(x: np.ndarray, y: np.ndarray, bounds: np.ndarray | None = None) -> SoftHinge:
    """Fit the family ε* = ε_max (1 + (B_n/B)^k)^(−s/k), over a grid of B_n and of 1/k.

    k = 1 is the smooth form of a critical batch size, k → ∞ the hinge, each with a free slope s.

    Args:
        x: log₂ batch sizes, ascending, shape (k,).
        y: log₂ learning rates, shape (draws, k).
        bounds: as for :func:`fit_line`.

    Source: McCandlish et al. (2018), arXiv 1812.06162, equation 2.11 for k = 1.

    >>> x = np.arange(10.0)
    >>> soft = fit_soft_hinge(x, -np.log2(1 + 2.0 ** (4 - x))[None])
    >>> [round(float(v[0]), 6) for v in (soft.transition, soft.softness, soft.slope, soft.level)]
    [4.0, 1.0, 1.0, 0.0]
    """
    places, softness = (grid.ravel() for grid in np.meshgrid(_places(x[0], x[-1]), SOFTNESSES))
    best, level, slope = _fit(_soft_hinges(places, softness, x), y, bounds)
    return SoftHinge(places[best], softness[best], slope, level)


def _fit(laws: np.ndarray, y: np.ndarray, bounds: np.ndarray | None) -> tuple[np.ndarray, ...]:
    """Fit y = level + slope·law, to each draw the law that comes closest, and of those that tie the first.

    Args:
        laws: shape (laws, k).
        y: shape (draws, k).
        bounds: as for :func:`fit_line`.

    Returns:
        Which law, its level and its slope, each of shape (draws,).
    """
    bounds = np.zeros(y.shape) if bounds is None else bounds
    certain, best = bounds == 0, np.empty(len(y), int)
    whole = certain.all(axis=1)
    for draws in _in_portions(np.flatnonzero(whole), len(laws)):
        squares = _squares(laws, y[draws], np.ones((1, y.shape[1])))
        best[draws] = (squares <= squares.min(axis=1, keepdims=True) + ROUNDING).argmax(axis=1)
    for draws in _in_portions(np.flatnonzero(~whole), len(laws)):
        # What the points alone cost is the least that a law can cost: most are out of the question by that.
        least = _squares(laws, y[draws], certain[draws].astype(float))
        attained, _, _ = _one_sided(laws[least.argmin(axis=1)], y[draws], bounds[draws])
        draw, law = np.nonzero(least <= attained[:, None] + ROUNDING)
        cost, _, _ = _one_sided(laws[law], y[draws[draw]], bounds[draws[draw]])
        smallest = np.minimum.reduceat(cost, np.searchsorted(draw, np.arange(len(draws))))
        closest = np.flatnonzero(cost <= smallest[draw] + ROUNDING)
        best[draws] = law[closest[np.unique(draw[closest], return_index=True)[1]]]
    _, level, slope = _one_sided(laws[best], y, bounds)
    return best, level, slope


def _in_portions(draws: np.ndarray, laws: int) -> list[np.ndarray]:
    size = PAIRS_AT_ONCE // laws + 1
    return [draws[start : start + size] for start in range(0, len(draws), size)]


def _squares(laws: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted sums of squares of y − level − slope·law, shape (draws, laws)."""
    total = np.maximum(1.0, weights.sum(axis=1, keepdims=True))
    y = y - (weights * y).sum(axis=1, keepdims=True) / total
    of_y = (weights * y**2).sum(axis=1, keepdims=True)
    of_laws = weights @ (laws**2).T - (weights @ laws.T) ** 2 / total
    squares: np.ndarray = (weights * y) @ laws.T
    squares **= 2
    squares /= np.where(of_laws > ROUNDING, -of_laws, -np.inf)
    squares += of_y
    return squares


def _one_sided(laws: np.ndarray, y: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, ...]:
    """Fit y = level + slope·law where bounds count only where they are broken; all arguments of shape (fits, k).

    The loss is convex, and each round is a step of Newton's method. What the points that count leave open stays as it
    was.

    Returns:
        Sums of squares, levels and slopes, each of shape (fits,).
    """
    least, level, slope, step = np.full(len(y), np.inf), np.zeros(len(y)), np.ones(len(y)), np.ones(len(y))
    counts, left = np.ones(y.shape, bool), np.arange(len(y))
    for _ in range(ROUNDS):
        law, value, counted = laws[left], y[left], counts[left]
        total = counted.sum(axis=1)
        of_law, of_value = ((values * counted).sum(axis=1) / total for values in (law, value))
        away = (law - of_law[:, None]) * counted
        spread = (away * law).sum(axis=1)
        steeper = np.divide((away * value).sum(axis=1), spread, out=slope[left], where=spread > ROUNDING)
        higher = of_value - steeper * of_law
        steeper = slope[left] + step[left] * (steeper - slope[left])
        higher = level[left] + step[left] * (higher - level[left])
        residual = higher[:, None] + steeper[:, None] * law - value
        broken = (bounds[left] == 0) | (residual * bounds[left] < 0)
        squares = (np.where(broken, residual, 0.0) ** 2).sum(axis=1)
        better = squares < least[left]
        at = left[better]
        least[at], level[at], slope[at] = squares[better], higher[better], steeper[better]
        # Where nothing is broken nothing is left to gain.
        settled = better & (step[left] == 1) & (~broken.any(axis=1) | (broken == counted).all(axis=1))
        counts[at] = broken[better]
        step[left] = np.where(better, 1.0, step[left] / 2)
        left = left[~settled & (step[left] >= SMALLEST_STEP) & counts[left].any(axis=1)]
        if not left.size:
            break
    return least, level, slope


def _soft_hinges(places: np.ndarray, softness: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return −u·log₂(1 + 2^((transition − x)/u)), shape (len(places), len(x)); for u = 0 the hinge."""
    below = places[:, None] - x
    u = softness[:, None]
    scaled = np.divide(below, u, out=np.zeros_like(below), where=u > 0)
    bends: np.ndarray = np.where(u > 0, -u * np.logaddexp2(0.0, scaled), -np.maximum(0.0, below))
    return bends


def _places(low: float, high: float) -> np.ndarray:
    return np.linspace(low, high, round((high - low) * PLACES_PER_OCTAVE) + 1)
