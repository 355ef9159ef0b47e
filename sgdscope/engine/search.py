"""Which learning rates next: a pure function of the declaration and of complete earlier rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from sgdscope.analysis.curves import COLUMN, Curve, constant_goodness, goodness
from sgdscope.analysis.statistics import t_interval
from sgdscope.optimizers import SGD
from sgdscope.store import ended
from sgdscope.study import Declaration, Trial

# The first window, log₂ of effective rates, at the largest batch size, where nothing is known yet.
FIRST_WINDOW = (-3, 1)
# How far a search may go: beyond these a censored optimum stays censored.
LOWEST, HIGHEST = -24, 12
# When every rate tried diverges, go down by this many octaves at once.
DESCENT = 4
# An end that gains less than this share of what the best rate gains has learned next to nothing.
LEAST_GAIN = 0.1


@dataclass(frozen=True)
class Round:
    """Where the search of one cell stands: the trials of all rounds so far, and those still to be trained."""

    optimizer: SGD
    batch_size: int
    trials: list[Trial]
    pending: list[Trial]

    @property
    def finished(self) -> bool:
        """Whether nothing remains to be trained in this cell."""
        return not self.pending


def rounds(declaration: Declaration, trials: pl.DataFrame) -> list[Round]:
    """Return the rounds that can be trained now and those that are finished, from the largest batch size down.

    Each cell's search is replayed from its first round with the trials that the folder has, so the answer
    depends neither on the order in which packs finished nor on what else the folder holds. The first round
    of a cell is centred by the finished search of the next larger batch size; each later one extends, by an
    octave, the ends at which the optimum of a criterion is not bracketed yet. A cell whose neighbour is not
    finished is not in the list; one whose trials failed is passed over, and does not hold up the others.

    An end is bracketed when it is worse than the best rate by more than the paired 95 % t interval over seeds;
    or, at the upper end, when more than 20 % of its trials diverge; or when it gains less than a tenth of what
    the best rate gains over the constant predictor, beyond which few seeds would search for ever.
    """
    rows = ended(trials).select("trial_id", "status", *COLUMN.values()).iter_rows()
    by_id = {trial_id: (status == "diverged", *values) for trial_id, status, *values in rows}
    failed = set(trials.filter(pl.col("status") == "failed")["trial_id"])
    found = []
    for optimizer in declaration.optimizers:
        neighbour: tuple[int, list[Curve]] | None = None
        for batch_size in reversed(declaration.batch_sizes):
            cell, curves = _replay(declaration, optimizer, batch_size, neighbour, by_id)
            found.append(cell)
            if cell.finished:
                neighbour = (batch_size, curves)
            elif not declaration.learning_rates and not all(trial.id in failed for trial in cell.pending):
                break
    return found


def next_rates(octaves: Sequence[int], curves: Sequence[Curve]) -> list[int]:
    """Return log₂ of the rates that the next round of a cell adds; none when both optima are bracketed.

    Args:
        octaves: log₂ of the rates tried, ascending and contiguous, one for each rate of the curves.
        curves: one for each criterion.
    """
    lowest, highest = octaves[0], octaves[-1]
    if not curves[0].eligible.any():
        return [k for k in range(lowest - DESCENT, lowest) if k >= LOWEST]
    wanted = []
    if lowest > LOWEST and not all(_worse(c, 0) for c in curves):
        wanted.append(lowest - 1)
    if highest < HIGHEST and curves[0].eligible[-1] and not all(_worse(c, -1) for c in curves):
        wanted.append(highest + 1)
    return wanted


def _replay(
    declaration: Declaration,
    optimizer: SGD,
    batch_size: int,
    neighbour: tuple[int, list[Curve]] | None,
    by_id: Mapping[str, tuple[Any, ...]],
) -> tuple[Round, list[Curve]]:
    def of_rates(rates: Sequence[float]) -> list[Trial]:
        return [
            declaration.trial(optimizer, batch_size, rate, seed) for rate in rates for seed in range(declaration.seeds)
        ]

    if declaration.learning_rates:
        trials = of_rates(declaration.learning_rates)
        return Round(optimizer, batch_size, trials, [t for t in trials if t.id not in by_id]), []
    octaves: list[int] = []
    added = _first_octaves(optimizer, batch_size, neighbour)
    curves: list[Curve] = []
    trials = []
    while added:
        octaves = sorted(octaves + added)
        trials = of_rates([2.0**k for k in octaves])
        pending = [trial for trial in trials if trial.id not in by_id]
        if pending:
            return Round(optimizer, batch_size, trials, pending), []
        curves = _curves(declaration, octaves, [by_id[trial.id] for trial in trials])
        added = next_rates(octaves, curves)
    return Round(optimizer, batch_size, trials, []), curves


def _curves(declaration: Declaration, octaves: Sequence[int], rows: Sequence[tuple[Any, ...]]) -> list[Curve]:
    shape = (len(octaves), declaration.seeds)
    table = np.array(rows, float)
    return [
        Curve(
            2.0 ** np.array(octaves),
            np.arange(declaration.seeds),
            goodness(table[:, 1 + number], declaration.workload, criterion).reshape(shape),
            table[:, 0].astype(bool).reshape(shape),
            constant_goodness(declaration.workload, criterion),
        )
        for number, criterion in enumerate(COLUMN)
    ]


def _first_octaves(optimizer: SGD, batch_size: int, neighbour: tuple[int, list[Curve]] | None) -> list[int]:
    if neighbour is None or not neighbour[1][0].eligible.any():
        shift = round(math.log2(optimizer.effective_learning_rate(1.0)))
        low, high = (end - shift for end in FIRST_WINDOW)
    else:
        larger, curves = neighbour
        best = [round(math.log2(c.rates[c.best()[0]])) for c in curves]
        # Between proportional to the batch size and not growing with it, the optimum lies in this window.
        octaves_down = math.ceil(math.log2(larger / batch_size))
        low, high = min(best) - octaves_down - 1, max(best) + 1
    low, high = min(max(low, LOWEST), HIGHEST), max(min(high, HIGHEST), LOWEST)
    return list(range(low, high + 1))


def _worse(found: Curve, end: int) -> bool:
    """Whether the rate at an end is worse than the best by more than the paired interval."""
    best = int(found.best()[0])
    difference = found.goodness[best] - found.goodness[end]
    gained = [float(np.mean(found.goodness[i])) - found.constant for i in (end, best)]
    if gained[1] > 0 and gained[0] < LEAST_GAIN * gained[1]:
        return True
    mean, low, _ = t_interval(difference)
    if len(difference) == 1:
        return bool(mean > 0)
    return bool(np.isfinite(low) and low > 0)
