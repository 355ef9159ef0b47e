"""Learning rates of a user's table: rates within rounding are one, and rates drawn at random are put in bins."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import polars as pl

# Rates are often written with three digits, which moves them by up to 5e-4 either way. No grid is as fine as this.
ROUNDING = 1e-3
# A cell with fewer rates than this shows no pattern.
FEWEST_RATES = 5
# Gaps of rates drawn at random vary by as much as their mean (1 for log-uniform); of grids, also refined, by a third.
RANDOM_GAPS = 0.4
BINS_PER_OCTAVE = 2

CELL = ["workload", "budget", "optimizer", "batch_size"]


def rounded_together(rates: Sequence[float]) -> dict[float, float]:
    """Return for each rate the one that stands for all within rounding: the most frequent, of equals the median.

    A group begins at its smallest rate and reaches 1e-3 above it, so that groups do not grow into each other.

    >>> rounded_together([0.0625, 0.06250001, 0.0625, 0.125])
    {0.0625: 0.0625, 0.06250001: 0.0625, 0.125: 0.125}
    """
    counts = Counter(rates)
    groups: list[list[float]] = []
    for rate in sorted(counts):
        if groups and rate <= groups[-1][0] * (1 + ROUNDING):
            groups[-1].append(rate)
        else:
            groups.append([rate])
    found: dict[float, float] = {}
    for group in groups:
        most = max(counts[rate] for rate in group)
        frequent = [rate for rate in group if counts[rate] == most]
        found |= dict.fromkeys(group, frequent[(len(frequent) - 1) // 2])
    return found


def drawn_at_random(trials: pl.DataFrame) -> bool:
    """Return whether the rates of one optimizer's trials were drawn at random rather than taken from a grid.

    They are where most rates have a single trial, the gaps between neighbours are as uneven as chance makes them, and
    cells do not share their rates.
    """
    cells = [cell["learning_rate"] for _, cell in trials.group_by(CELL, maintain_order=True)]
    cells = [cell for cell in cells if cell.n_unique() >= FEWEST_RATES]
    if not cells or np.median(np.concatenate([cell.value_counts()["count"].to_numpy() for cell in cells])) > 1:
        return False
    gaps = [np.diff(np.sort(np.log2(cell.unique().to_numpy()))) for cell in cells]
    uneven = np.concatenate([gap / gap.mean() for gap in gaps]).std() > RANDOM_GAPS
    shared = Counter(rate for cell in cells for rate in cell.unique().to_list())
    return bool(uneven and (len(cells) == 1 or np.mean([count > 1 for count in shared.values()]) < 0.5))


def binned(rate: float) -> float:
    """Return the middle of the half octave in which a rate lies, a power of √2.

    >>> binned(0.26), binned(0.29)
    (0.25, 0.25)
    """
    return float(2.0 ** (math.floor(math.log2(rate) * BINS_PER_OCTAVE + 0.5) / BINS_PER_OCTAVE))


def grouped(trials: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Return trials with one number for each rate, and what was done, one sentence each.

    In bins each trial is a sample of its own: its seed becomes a number that no other trial of the optimizer has.

    Args:
        trials: A table of trials that have an outcome.
    """
    said, parts = [], []
    for key, part in trials.group_by(["workload", "budget", "optimizer"], maintain_order=True):
        together = rounded_together(part["learning_rate"].to_list())
        rates, kept = len(together), len(set(together.values()))
        group = part.with_columns(pl.col("learning_rate").replace_strict(together, return_dtype=pl.Float64))
        if drawn_at_random(group):
            group = part.with_columns(
                learning_rate=pl.Series([binned(rate) for rate in part["learning_rate"]], dtype=pl.Float64),
                seed=pl.int_range(len(part), dtype=pl.Int64),
            )
            bins = group["learning_rate"].n_unique()
            said.append(
                f"{key[2]}: the {rates} learning rates look drawn at random. They are read as {bins} bins of half an "
                f"octave, each named by its middle, and the trials of a bin as independent samples."
            )
        elif kept < rates:
            said.append(f"{key[2]}: {rates} learning rates are read as {kept}, since they agree to 1 part in 1,000.")
        parts.append(group)
    return pl.concat(parts), said
