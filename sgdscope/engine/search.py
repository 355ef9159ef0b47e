"""Which learning rates next: a pure function of the declaration and of complete earlier rounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from sgdscope.analysis.curves import COLUMN, Curve, constant_goodness, goodness
from sgdscope.analysis.statistics import t_interval
from sgdscope.store import ended
from sgdscope.study import Cell, Declaration, Trial
from sgdscope.workloads.base import WorkloadRecord

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

    cell: Cell
    trials: list[Trial]
    pending: list[Trial]

    @property
    def finished(self) -> bool:
        """Whether nothing remains to be trained in this cell."""
        return not self.pending


@dataclass(frozen=True)
class Search:
    """Where the search of a study stands: the rounds that have begun or can, and the cells that wait for them."""

    rounds: list[Round]
    waiting: list[Cell]

    @property
    def pending(self) -> list[Trial]:
        """The trials that can be trained now."""
        return [trial for cell in self.rounds for trial in cell.pending]

    @property
    def trials(self) -> list[Trial]:
        """The trials of all rounds so far, trained or pending."""
        return [trial for cell in self.rounds for trial in cell.trials]


def search(declaration: Declaration, trials: pl.DataFrame) -> Search:
    """Return the rounds that can be trained now and those that are finished, and the cells that wait for them.

    Each cell's search is replayed from its first round with the trials that the folder has, so the answer
    depends neither on the order in which packs finished nor on what else the folder holds. The first round
    of a cell is centred by the finished search of its neighbour, for which it waits: the same batch size at the
    next smaller budget of the same kind, or else the next larger batch size. Each later round extends, by an
    octave, the ends at which the optimum of a criterion is not bracketed yet. A neighbour whose trials failed is
    passed over, and does not hold up the others.

    An end is bracketed when it is worse than the best rate by more than the paired 95 % t interval over seeds;
    or, at the upper end, when more than 20 % of its trials diverge; or when it gains less than a tenth of what
    the best rate gains over the constant predictor, beyond which few seeds would search for ever.
    """
    rows = ended(trials).select("trial_id", "status", *COLUMN.values()).iter_rows()
    by_id = {trial_id: (status == "diverged", *values) for trial_id, status, *values in rows}
    failures = set(trials.filter(pl.col("status") == "failed")["trial_id"])
    found, waiting = list[Round](), list[Cell]()
    finished, failed = dict[Cell, list[Curve]](), set[Cell]()
    for cell in sorted(declaration.cells, key=_order(declaration)):
        neighbour: Cell | None = None
        if not declaration.learning_rates:
            # A neighbour that is neither finished nor failed is still to come.
            neighbour = next((other for other in _neighbours(declaration, cell) if other not in failed), None)
            if neighbour is not None and neighbour not in finished:
                waiting.append(cell)
                continue
        first = _first_octaves(cell, neighbour, finished)
        stands, curves = _replay(declaration, cell, first, by_id)
        found.append(stands)
        if stands.finished:
            finished[cell] = curves
        elif all(trial.id in failures for trial in stands.pending):
            failed.add(cell)
    return Search(found, waiting)


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


def _order(declaration: Declaration) -> Callable[[Cell], tuple[int, int, int, int]]:
    """Order cells so that each comes after its neighbours."""

    def place(cell: Cell) -> tuple[int, int, int, int]:
        return (
            declaration.workloads.index(cell.workload),
            declaration.budgets.index(cell.budget),
            declaration.optimizers.index(cell.optimizer),
            -cell.batch_size,
        )

    return place


def _neighbours(declaration: Declaration, cell: Cell) -> Iterator[Cell]:
    """Yield the cells that can tell where to look, the best first."""
    for budget in reversed(declaration.budgets):
        if type(budget) is type(cell.budget) and budget.n < cell.budget.n:
            yield replace(cell, budget=budget)
    for batch_size in declaration.batch_sizes:
        if batch_size > cell.batch_size:
            yield replace(cell, batch_size=batch_size)


def _replay(
    declaration: Declaration, cell: Cell, first: Sequence[int], by_id: Mapping[str, tuple[Any, ...]]
) -> tuple[Round, list[Curve]]:
    def of_rates(rates: Sequence[float]) -> list[Trial]:
        place, seeds = (cell.workload, cell.budget), range(declaration.seeds)
        return [declaration.trial(cell.optimizer, cell.batch_size, rate, s, *place) for rate in rates for s in seeds]

    if declaration.learning_rates:
        trials = of_rates(declaration.learning_rates)
        return Round(cell, trials, [trial for trial in trials if trial.id not in by_id]), []
    octaves: list[int] = []
    added = list(first)
    curves: list[Curve] = []
    trials = []
    while added:
        octaves = sorted(octaves + added)
        trials = of_rates([2.0**k for k in octaves])
        pending = [trial for trial in trials if trial.id not in by_id]
        if pending:
            return Round(cell, trials, pending), []
        curves = _curves(cell.workload, octaves, [by_id[trial.id] for trial in trials])
        added = next_rates(octaves, curves)
    return Round(cell, trials, []), curves


def _curves(record: WorkloadRecord, octaves: Sequence[int], rows: Sequence[tuple[Any, ...]]) -> list[Curve]:
    seeds = len(rows) // len(octaves)
    shape = (len(octaves), seeds)
    table = np.array(rows, float)
    return [
        Curve(
            2.0 ** np.array(octaves),
            np.arange(seeds),
            goodness(table[:, 1 + number], record, criterion).reshape(shape),
            table[:, 0].astype(bool).reshape(shape),
            constant_goodness(record, criterion),
        )
        for number, criterion in enumerate(COLUMN)
    ]


def _first_octaves(cell: Cell, neighbour: Cell | None, finished: Mapping[Cell, list[Curve]]) -> list[int]:
    if neighbour is None or not finished[neighbour][0].eligible.any():
        shift = round(math.log2(cell.optimizer.effective_learning_rate(1.0)))
        low, high = (end - shift for end in FIRST_WINDOW)
    else:
        best = [round(math.log2(c.rates[c.best()[0]])) for c in finished[neighbour]]
        # Between proportional to the batch size and not growing with it, the optimum lies in this window.
        octaves_down = math.ceil(math.log2(neighbour.batch_size / cell.batch_size))
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
