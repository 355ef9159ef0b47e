"""Which of several differences exceed a margin, or lie within it: Holm's tests, and the interval that decides each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from sgdscope.stats.equivalence import ALPHA, p_above
from sgdscope.stats.intervals import holm, holm_levels

Decision = Literal["above", "below", "equivalent", "undecided"]


@dataclass(frozen=True)
class Decisions:
    """What is decided of each of several differences: arrays have one entry for each.

    ``low`` and ``high`` are the interval that decides, at ``level``: it lies beyond the margin where the difference is
    ``above`` or ``below``, within ±margin where it is ``equivalent``, and otherwise neither. ``low95`` and ``high95``
    are the usual interval of the difference alone.
    """

    decision: list[Decision]
    p_beyond: np.ndarray
    p_same: np.ndarray
    low: np.ndarray
    high: np.ndarray
    level: np.ndarray
    low95: np.ndarray
    high95: np.ndarray


def decisions(mean: np.ndarray, error: np.ndarray, n: np.ndarray, margin: float) -> Decisions:
    """Decide several differences together, by Student's t.

    A difference is beyond ±margin by two-sided tests at 5 %, and within it by two one-sided tests at 5 %. Each family
    has Holm's correction, so that of all decisions of a kind one is false in at most 5 % of studies. A test that is
    the r-th of k to reject has the level 5 % / (k − r + 1), and those that do not reject that of the first of them: the
    interval that decides has this level.

    Args:
        mean: the differences, shape (k,).
        error: their standard errors; what is unknown is not finite.
        n: the seeds that each error rests on; with fewer than 2 nothing is decided.
        margin: δ, in the units of the differences.

    >>> found = decisions(np.array([0.0, 3.0, 1.0]), np.array([0.1, 0.1, 0.5]), np.array([9, 9, 9]), margin=1.0)
    >>> found.decision
    ['equivalent', 'above', 'undecided']
    """
    known = (n > 1) & np.isfinite(error)
    freedom, spread = np.maximum(n - 1, 1), np.where(known, error, np.inf)
    beyond, same = (
        np.where(known, p_above(distance, np.where(known, error, 1.0), freedom + 1), 1.0)
        for distance in (np.abs(mean) - margin, margin - np.abs(mean))
    )
    beyond = np.minimum(1.0, 2 * beyond)
    # The interval of two one-sided tests leaves out the level on each side, that of a two-sided test half of it.
    tails = holm_levels(beyond, ALPHA) / 2, holm_levels(same, ALPHA)
    p_beyond, p_same = holm(beyond), holm(same)
    is_beyond, is_same = p_beyond < ALPHA, (p_beyond >= ALPHA) & (p_same < ALPHA)
    tail = np.where(is_beyond, tails[0], np.where(is_same, tails[1], np.minimum(*tails)))
    half, half95 = (special.stdtrit(freedom, 1 - of) * spread for of in (tail, np.full(len(mean), ALPHA / 2)))
    signed = np.where(is_beyond, np.where(mean > 0, "above", "below"), np.where(is_same, "equivalent", "undecided"))
    ends = mean - half, mean + half, 1 - 2 * tail, mean - half95, mean + half95
    return Decisions(signed.tolist(), p_beyond, p_same, *ends)
