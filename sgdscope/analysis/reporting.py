"""The trials of a cell that report its score: at the best rate, with seeds that did not choose it."""

from __future__ import annotations

import polars as pl

from sgdscope.analysis.curve import MOST_FAILED
from sgdscope.store import ended

# Fewer seeds report too roughly: then all seeds of the best rate do.
FEWEST_REPORTING = 10


def reporting_trials(cell: pl.DataFrame) -> pl.DataFrame | None:
    """Return the trials at the chosen rate whose seeds did not choose it; None where fewer than 10 seeds did not.

    Choosing flatters a score where validation and test split share a network's luck. A seed that was trained at one
    rate of the cell alone compares no rates, so it cannot have chosen. :class:`~sgdscope.seeds.Seeds` trains such
    seeds at the best rate and nowhere else, and their rate is the chosen one. Where several rates have seeds of their
    own, the trials are independent samples and tell nothing about the choice.

    Args:
        cell: The trials of one cell.

    Returns:
        Rows of ``cell``, all of one learning rate.
    """
    trials = ended(cell)
    alone = trials.filter(pl.len().over("seed") == 1)
    if alone["learning_rate"].n_unique() != 1 or len(alone) < FEWEST_REPORTING:
        return None
    at_rate = trials.filter(pl.col("learning_rate") == alone["learning_rate"][0])
    if len(at_rate) == len(trials) or (at_rate["status"] == "diverged").mean() > MOST_FAILED:  # type: ignore[operator]
        return None
    return alone
