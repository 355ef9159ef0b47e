"""How surely the optimal learning rate grows with the batch size, and how sharp the transition is."""

from __future__ import annotations

import math

import numpy as np

from sgdscope.analysis.sweep import Cells
from sgdscope.analysis.transitions import FARTHEST, lean_of_slope, place_interval
from sgdscope.stats.intervals import bootstrap_t_interval
from sgdscope.stats.laws import SOFTNESSES, fit_soft_hinge


def grid_error(found: Cells) -> float:
    """Return the standard error of a slope that seeds do not make smaller: from how far each vertex may stray.

    √(Σ wᵢ² rᵢ²/3), with w the weights of least squares and r the strays, within which a vertex may lie anywhere; and
    half of the lean, since an interval of 95 % reaches two standard errors.
    """
    x = found.x - found.x.mean()
    strays = np.array([float(c.vertex()[1][0]) for c in found.curves])
    return math.hypot(math.sqrt(((x / (x @ x)) ** 2 * strays**2 / 3).sum()), lean_of_slope(found) / 2)


def sharpness_of(found: Cells) -> dict[str, float]:
    """Return transition and exponent k of ε* = ε_max (1 + (B_n/B)^k)^(−s/k), s free, with 95 % intervals.

    The interval of k is that of 1/k, turned over: it reaches infinity, the hinge, where that of 1/k reaches 0.
    """
    found = found.bounded
    estimate = fit_soft_hinge(found.x, found.vertices, found.bounds)
    drawn = fit_soft_hinge(found.x, *found.drawn_vertices())
    softness = float(estimate.softness[0])
    # The hinge is an end of the family: estimates at it have draws on one side alone, which are mirrored.
    around = np.concatenate([drawn.softness, 2 * softness - drawn.softness])
    low, high = bootstrap_t_interval(softness, around, found.n)
    place = float(estimate.transition[0])
    place_low, place_high = place_interval(place, drawn.transition, found.n)
    return {
        "transition": 2.0**place,
        "transition_low": 2.0 ** max(place_low, -FARTHEST),
        "transition_high": 2.0 ** min(place_high, FARTHEST),
        "k": _inverse(softness),
        "k_low": _inverse(high) if high < SOFTNESSES[-1] else 0.0,
        "k_high": _inverse(low),
    }


def _inverse(softness: float) -> float:
    return 1 / softness if softness > 0 else math.inf
