"""The optimum between the learning rates tried: the maximum of a cubic or a parabola around the best one."""

from __future__ import annotations

import numpy as np

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


def vertices(
    octaves: np.ndarray, steps: np.ndarray, whole: np.ndarray, values: np.ndarray, best: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return log₂ ε* between the rates tried, and by how much that may stray: octaves, one of each for each draw.

    It is the maximum of the cubic that is fitted by least squares to the means of the rates within an octave of the
    best where there are five or more, else of the parabola through the best and its two neighbours. Where the best has
    no neighbour on one side, or the fit no maximum within an octave, the best rate itself is returned. The maximum
    strays by up to a quarter of the step of the grid there, the best rate by up to half of it, which seeds do not tell.

    Args:
        octaves: log₂ of the rates, shape (rates,).
        steps: The step of the grid around each rate, in octaves, shape (rates,).
        whole: Which rates the fit may use, shape (rates,).
        values: How good each rate is in each draw, shape (rates, draws).
        best: Which rate is the best in each draw, shape (draws,).
    """
    found: np.ndarray = octaves[best]
    steps = steps[best]
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
