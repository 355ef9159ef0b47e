"""Laws of the optimal learning rate against the batch size: a line, a hinge, and the smooth bends between them.

All are fitted by least squares to y = log₂ ε* against x = log₂ B, for many draws of y at once. An optimum at the edge
of the rates that were tried is a bound: it counts only where the law is on the wrong side of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KNEES_PER_OCTAVE = 20
# 1/k of the family of bends: from the hinge, 0, over the smooth form, 1, to one that bends all along.
SOFTNESSES = np.linspace(0.0, 2.0, 41)
# A bound that a fit breaks counts as a point, and one that it keeps does not: a few rounds settle which.
ROUNDS = 10


@dataclass(frozen=True)
class Hinge:
    """A fit y = level − slope·max(0, knee − x) to points: a line of free slope up to the knee, then constant."""

    knee: np.ndarray
    slope: np.ndarray
    level: np.ndarray


@dataclass(frozen=True)
class Bend:
    """A fit y = level − u·log₂(1 + 2^((knee − x)/u)) with u = 1/k: slope 1 far below the knee, 0 far above it."""

    knee: np.ndarray
    softness: np.ndarray
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
    design = np.stack([np.ones_like(x), x], axis=1)
    slopes: np.ndarray = y @ np.linalg.pinv(design)[1]
    if bounds is not None and (bounded := bounds.any(axis=1)).any():
        _, coefficients = _with_bounds(design, y[bounded], bounds[bounded])
        slopes[bounded] = coefficients[:, 1]
    return slopes


def fit_hinge(x: np.ndarray, y: np.ndarray, bounds: np.ndarray | None = None) -> Hinge:
    """Fit hinges, over a grid of knees between the second point and the last.

    A knee at the last point is a line without a bend.

    Args:
        x: log₂ batch sizes, ascending, shape (k,).
        y: log₂ learning rates, shape (draws, k).
        bounds: as for :func:`fit_line`.

    >>> x = np.arange(8.0)
    >>> hinge = fit_hinge(x, np.minimum(x, 4.0)[None] - 7)
    >>> [round(float(v[0]), 6) for v in (hinge.knee, hinge.slope, hinge.level)]
    [4.0, 1.0, -3.0]
    """
    knees = _knees(x[1], x[-1])
    below = np.maximum(0.0, knees[:, None] - x)
    designs = np.stack([np.ones_like(below), -below], axis=2)
    coefficients = y @ np.linalg.pinv(designs).transpose(0, 2, 1)
    squares = ((y - coefficients @ designs.transpose(0, 2, 1)) ** 2).sum(axis=2)
    if bounds is not None and (bounded := bounds.any(axis=1)).any():
        for number, design in enumerate(designs):
            fit = _with_bounds(design, y[bounded], bounds[bounded])
            squares[number, bounded], coefficients[number, bounded] = fit
    best = np.round(squares, 9).argmin(axis=0)
    chosen = coefficients[best, np.arange(len(y))]
    return Hinge(knees[best], chosen[:, 1], chosen[:, 0])


def fit_bend(x: np.ndarray, y: np.ndarray, bounds: np.ndarray | None = None) -> Bend:
    """Fit bends of the family ε* = ε_max (1 + (B_n/B)^k)^(−1/k), over a grid of knees and of 1/k.

    k = 1 is the smooth form of a critical batch size, k → ∞ the hinge of slope 1.

    Args:
        x: log₂ batch sizes, ascending, shape (k,).
        y: log₂ learning rates, shape (draws, k).
        bounds: as for :func:`fit_line`.

    Source: McCandlish et al. (2018), arXiv 1812.06162, equation 2.11 for k = 1.

    >>> x = np.arange(10.0)
    >>> bend = fit_bend(x, -np.log2(1 + 2.0 ** (4 - x))[None])
    >>> [round(float(v[0]), 6) for v in (bend.knee, bend.softness, bend.level)]
    [4.0, 1.0, 0.0]
    """
    knees, softness = (grid.ravel() for grid in np.meshgrid(_knees(x[0], x[-1]), SOFTNESSES))
    templates = _bends(knees, softness, x)
    bounds = np.zeros(y.shape) if bounds is None else bounds
    bounded = bounds.any(axis=1)
    best, level = np.empty(len(y), int), np.empty(len(y))
    best[~bounded], level[~bounded] = _nearest(templates, y[~bounded])
    for draw in np.flatnonzero(bounded):
        best[draw], level[draw] = _nearest_with_bounds(templates, y[draw], bounds[draw])
    return Bend(knees[best], softness[best], level)


def _nearest(templates: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which template comes closest to each draw when it may be moved up and down, and by how much."""
    means = templates.mean(axis=1)
    shapes, centred = templates - means[:, None], y - y.mean(axis=1, keepdims=True)
    squares = (shapes**2).sum(axis=1)[:, None] - 2 * shapes @ centred.T
    best = np.round(squares, 9).argmin(axis=0)
    return best, y.mean(axis=1) - means[best]


def _nearest_with_bounds(templates: np.ndarray, y: np.ndarray, bounds: np.ndarray) -> tuple[int, float]:
    gaps, counts = y - templates, np.ones(templates.shape, bool)
    for _ in range(ROUNDS):
        level = (gaps * counts).sum(axis=1) / np.maximum(1, counts.sum(axis=1))
        residual = level[:, None] - gaps
        broken = (bounds == 0) | (residual * bounds < 0)
        if (broken == counts).all():
            break
        counts = broken
    best = int(np.round((np.where(broken, residual, 0.0) ** 2).sum(axis=1), 9).argmin())
    return best, float(level[best])


def _bends(knees: np.ndarray, softness: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return −u·log₂(1 + 2^((knee − x)/u)), shape (len(knees), len(x)); for u = 0 the hinge."""
    below = knees[:, None] - x
    u = softness[:, None]
    scaled = np.divide(below, u, out=np.zeros_like(below), where=u > 0)
    bends: np.ndarray = np.where(u > 0, -u * np.logaddexp2(0.0, scaled), -np.maximum(0.0, below))
    return bends


def _knees(low: float, high: float) -> np.ndarray:
    return np.linspace(low, high, round((high - low) * KNEES_PER_OCTAVE) + 1)


def _with_bounds(design: np.ndarray, y: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return sums of squares, shape (draws,), and coefficients, shape (draws, columns)."""
    counts, coefficients = np.ones(y.shape, bool), np.empty((len(y), design.shape[1]))
    for _ in range(ROUNDS):
        for pattern in np.unique(counts, axis=0):
            draws = (counts == pattern).all(axis=1)
            coefficients[draws] = y[np.ix_(draws, pattern)] @ np.linalg.pinv(design[pattern]).T
        residual = coefficients @ design.T - y
        broken = (bounds == 0) | (residual * bounds < 0)
        if (broken == counts).all():
            break
        counts = broken
    return (np.where(broken, residual, 0.0) ** 2).sum(axis=1), coefficients
