"""Which learning rates next: a pure function of the declaration and of complete earlier rounds."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from sgdscope.analysis.collapse import collapsed_trials
from sgdscope.analysis.curve import MOST_FAILED, Curve
from sgdscope.analysis.exclusions import has_learned
from sgdscope.analysis.goodness import constant_goodness, goodness
from sgdscope.analysis.saturation import Outcome, outcome, stops
from sgdscope.analysis.trial_table import COLUMN, CRITERIA
from sgdscope.budget import Budget, Unlimited
from sgdscope.records import WorkloadRecord
from sgdscope.store import ended
from sgdscope.study import Cell, Declaration, Trial

# How far a search may go, log₂ of rates: beyond these a censored optimum stays censored.
LOWEST, HIGHEST = -24, 12
# What stands for a trial that is not there: not diverged, and no value.
NOTHING = (False, *[math.nan] * (len(COLUMN) + 1))
# When every rate tried fails to train, go down by this many octaves at once.
DESCENT = 4


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
    def unfinished(self) -> list[Cell]:
        """The cells of which trials are still to be trained."""
        return [stands.cell for stands in self.rounds if stands.pending] + self.waiting

    @property
    def trials(self) -> list[Trial]:
        """The trials of all rounds so far, trained or pending."""
        return [trial for cell in self.rounds for trial in cell.trials]


def learning_rate(half_octaves: int) -> float:
    """Return 2^(k/2): a power of 2, or √2 times one, the same float on every machine.

    >>> learning_rate(-6), learning_rate(1)
    (0.125, 1.4142135623730951)
    """
    return 2.0 ** (half_octaves // 2) * (math.sqrt(2.0) if half_octaves % 2 else 1.0)


def search(declaration: Declaration, trials: pl.DataFrame) -> Search:
    """Return the rounds that can be trained now and those that are finished, and the cells that wait for them.

    Each cell's search is replayed from its first round with the trials that the folder has, so the answer
    depends neither on the order in which packs finished nor on what else the folder holds. The first round
    of a cell is centred by the finished searches of its neighbours, for which it waits: the same batch size at the
    next smaller budget of the same kind, or else the next two larger batch sizes. Each later round extends, by an
    octave, the ends at which the optimum of a criterion is not bracketed yet; where both are, it tries the half octaves
    on both sides of each criterion's best rate, until nothing is left to try. A neighbour whose trials failed is passed
    over, and does not hold up the others. An unlimited budget doubles its epochs, for each workload, optimizer and
    batch size by itself, when the search at the last is finished and :func:`~sgdscope.analysis.saturation.stops` does
    not say that more gain nothing.

    All of that takes the first seeds, ``search`` of them. Where the declaration asks for more seeds near the best rate
    (:class:`~sgdscope.seeds.Seeds`), a cell whose search has ended gets them, while its neighbours go on
    (:func:`_more_seeds`).

    An end is bracketed when it is no contender for the best rate, as its interval counts them
    (:attr:`~sgdscope.analysis.curve.Curve.contenders`); or, at the upper end, when more than 20 % of its trials
    fail to train; or when it gains less than a tenth of what the best rate gains over the constant baseline, beyond
    which few seeds would search for ever. Where every rate fails to train, the round goes down by four octaves, and up
    by one where the highest rate did not diverge.
    """
    rows = ended(trials).select("trial_id", "status", *COLUMN.values(), "test_score").iter_rows()
    by_id = {trial_id: (status == "diverged", *values) for trial_id, status, *values in rows}
    failures = set(trials.filter(pl.col("status") == "failed")["trial_id"])
    found, waiting = list[Round](), list[Cell]()
    best, passed = dict[Cell, list[int]](), set[Cell]()
    opening = _Opening(declaration.budgets, declaration.score_margin)
    for cell in sorted(declaration.cells, key=_order(declaration)):
        opens = opening.of(cell)
        if opens is False:
            passed.add(cell)
            continue
        neighbours = [] if declaration.learning_rates else _neighbours(declaration, cell, passed)
        if opens is None or any(other not in best for other in neighbours):
            waiting.append(cell)
            continue
        stands, curves = _replay(declaration, cell, _first_rates(cell, neighbours, best), by_id)
        if stands.finished:
            found_best = [round(2 * math.log2(c.rates[c.best()[0]])) for c in curves if c.eligible.any()]
            best[cell] = found_best * 2 if len(found_best) == 1 else found_best  # no trial has a score, say
            opening.note(stands, [by_id[trial.id] for trial in stands.trials])
            stands = _more_seeds(declaration, stands, by_id)
        found.append(stands)
        if cell not in best and all(trial.id in failures for trial in stands.pending):
            passed.add(cell)
    return Search(found, waiting)


class _Opening:
    """Which cells the budgets ask for, given those that are finished."""

    def __init__(self, budgets: Sequence[Budget], score_margin: float | None) -> None:
        self._score_margin = score_margin
        self._plain = set(budgets)
        self._unlimited = [budget for budget in budgets if isinstance(budget, Unlimited)]
        self._doubled = {one for budget in self._unlimited for one in budget.budgets}
        self._finished = dict[Cell, list[Outcome | None]]()

    def note(self, stands: Round, rows: Sequence[tuple[Any, ...]]) -> None:
        """Take in a finished cell, and what came out of its trials."""
        cell = stands.cell
        if cell.budget not in self._doubled:
            return
        rates = tuple(sorted({trial.learning_rate for trial in stands.trials}))
        curves = _curves(cell.workload, rates, tuple(rows))
        table = np.array(rows, float)
        tested = goodness(table[:, -1], cell.workload, "score", table[:, 0] > 0).reshape(curves[1].goodness.shape)
        reported = {"score": tested, "train_loss": curves[1].goodness}
        self._finished[cell] = [
            outcome(found, reported[criterion], cell.budget.n)
            for criterion, found in zip(CRITERIA, curves, strict=True)
        ]

    def of(self, cell: Cell) -> bool | None:
        """Return whether the cell is asked for; None where that is not known yet."""
        if cell.budget in self._plain:
            return True
        answers = {self._by(budget, cell) for budget in self._unlimited if cell.budget in budget.budgets}
        if True in answers:
            return True
        return None if None in answers else False

    def _by(self, budget: Unlimited, cell: Cell) -> bool | None:
        so_far = list[list[Outcome | None]]()
        for earlier in budget.budgets[: budget.budgets.index(cell.budget)]:
            other = replace(cell, budget=earlier)
            if other not in self._finished:
                return None
            so_far.append(self._finished[other])
            outcomes = dict(zip(CRITERIA, zip(*so_far, strict=True), strict=True))
            if stops(outcomes, cell.workload, budget, self._score_margin):
                return False
        return True


def next_rates(tried: Sequence[int], curves: Sequence[Curve]) -> list[int]:
    """Return the rates that the next round of a cell adds, in half octaves: 2·log₂ of them.

    Whole octaves beyond the ends until both optima are bracketed, and then the half octaves around each.

    Args:
        tried: the rates tried in half octaves, ascending, one for each rate of the curves.
        curves: one for each criterion.
    """
    lowest, highest = tried[0], tried[-1]
    if not curves[0].stable.any():
        # Collapsed trials may have had too small a rate as well as too large a one.
        beyond = [highest + 2] if highest < 2 * HIGHEST and curves[0].diverged[-1].mean() <= MOST_FAILED else []
        return [k for k in range(lowest - 2 * DESCENT, lowest, 2) if k >= 2 * LOWEST] + beyond
    if wanted := _beyond(tried, curves):
        return wanted
    curves = [c for c in curves if c.eligible.any()]
    around = {tried[c.best()[0]] + side for c in curves for side in (-1, 1)} - set(tried)
    return sorted(k for k in around if 2 * LOWEST <= k <= 2 * HIGHEST)


def _beyond(tried: Sequence[int], curves: Sequence[Curve]) -> list[int]:
    """Return the whole octaves beyond the ends at which the optimum of a criterion is not bracketed."""
    stable_at_end = curves[0].stable[-1]
    curves = [c for c in curves if c.eligible.any()]  # where no trial has a score, the training loss tells
    wanted = []
    if tried[0] > 2 * LOWEST and not all(_out(c, 0) for c in curves):
        wanted.append(tried[0] - 2)
    if tried[-1] < 2 * HIGHEST and stable_at_end and not all(_out(c, -1) for c in curves):
        wanted.append(tried[-1] + 2)
    return wanted


def _order(declaration: Declaration) -> Callable[[Cell], tuple[int, int, int, int]]:
    """Order cells so that each comes after its neighbours."""

    def place(cell: Cell) -> tuple[int, int, int, int]:
        return (
            declaration.workloads.index(cell.workload),
            declaration.trial_budgets.index(cell.budget),
            declaration.trial_optimizers.index(cell.optimizer),
            -cell.batch_size,
        )

    return place


def _neighbours(declaration: Declaration, cell: Cell, passed: Set[Cell]) -> list[Cell]:
    """Return the cells that tell where to look, and for which this one waits, without those that are passed over.

    It is the next smaller budget of the same kind, or else the next two larger batch sizes.
    """
    budgets = [b for b in declaration.trial_budgets if type(b) is type(cell.budget) and b.n < cell.budget.n]
    smaller = [replace(cell, budget=budget) for budget in reversed(budgets)]
    larger = [replace(cell, batch_size=size) for size in declaration.batch_sizes if size > cell.batch_size]
    return [c for c in smaller if c not in passed][:1] or [c for c in larger if c not in passed][:2]


def _replay(
    declaration: Declaration, cell: Cell, first: Sequence[int], by_id: Mapping[str, tuple[Any, ...]]
) -> tuple[Round, list[Curve]]:
    """Return where the search of a cell stands, and its curves where it is finished."""
    tried: list[int] = []
    added = list(first)
    while True:
        tried = sorted(tried + added)
        rates = declaration.learning_rates or [learning_rate(k) for k in tried]
        trials = _trials_of(declaration, cell, tuple(rates), declaration.seeds_of(cell).search)
        pending = [trial for trial in trials if trial.id not in by_id]
        if pending:
            return Round(cell, trials, pending), []
        if declaration.learning_rates:
            return Round(cell, trials, []), []
        curves, added = _decided(cell.workload, tuple(tried), tuple(by_id[trial.id] for trial in trials))
        if not added:
            return Round(cell, trials, []), curves


def _more_seeds(declaration: Declaration, searched: Round, by_id: Mapping[str, tuple[Any, ...]]) -> Round:
    """Return where a cell stands whose search has ended, with the seeds that it gets beyond those of its search.

    First the rates within an octave of each criterion's best get ``rates`` seeds, then those within half an octave of
    the best for the score ``near_best``, and last that one alone ``best``. After each of these rounds the best of the
    rates that have as many seeds is found again on them; where it has moved, the rates around it are raised, too. A
    rate that more seeds show to diverge too often is no candidate any more. Of rates that were declared, those next to
    the best stand for half octaves. Where more seeds show that an end does not bracket the optimum, the search goes on
    there: a rate an octave beyond gets the first seeds, and all of this begins again.
    """
    cell, seeds = searched.cell, declaration.seeds_of(searched.cell)
    if isinstance(seeds.plain, int):
        return searched
    counts = dict.fromkeys((trial.learning_rate for trial in searched.trials), seeds.search)
    while True:
        stands = _raised(declaration, cell, counts, by_id)
        beyond = [] if stands.pending or declaration.learning_rates else _open_ends(declaration, cell, counts, by_id)
        if not beyond:
            return stands
        counts |= dict.fromkeys(map(learning_rate, beyond), seeds.search)


def _open_ends(
    declaration: Declaration, cell: Cell, counts: Mapping[float, int], by_id: Mapping[str, tuple[Any, ...]]
) -> list[int]:
    """Return the rates beyond open ends, as :func:`next_rates`, given all seeds that each rate is to have."""
    rates, most = tuple(sorted(counts)), max(counts.values())
    rows = list[tuple[Any, ...]]()
    for rate in rates:
        rows += [by_id[trial.id] for trial in _trials_of(declaration, cell, (rate,), counts[rate])]
        rows += [NOTHING] * (most - counts[rate])
    curves = _curves(cell.workload, rates, tuple(rows))
    return _beyond([round(2 * math.log2(rate)) for rate in rates], curves) if curves[0].stable.any() else []


def _raised(
    declaration: Declaration, cell: Cell, counts: dict[float, int], by_id: Mapping[str, tuple[Any, ...]]
) -> Round:
    """Return where a cell stands on the way to the seeds of its best rates; ``counts`` is raised."""
    seeds = declaration.seeds_of(cell)

    def trials() -> list[Trial]:
        return [trial for rate in sorted(counts) for trial in _trials_of(declaration, cell, (rate,), counts[rate])]

    if pending := [trial for trial in trials() if trial.id not in by_id]:
        return Round(cell, trials(), pending)
    score, loss = range(len(CRITERIA))
    # How many rates on each side get how many seeds, and by which criterion the one between them is the best.
    stages = [(2, seeds.rates, score), (2, seeds.rates, loss), (1, seeds.near_best, score), (0, seeds.best, score)]
    chosen_on, out = [seeds.search] * len(CRITERIA), [set[float]() for _ in CRITERIA]
    for width, count, by in stages:
        on = chosen_on[by]
        while count > chosen_on[by]:
            best = _best_of(declaration, cell, counts, on, by, out[by], by_id)
            if best is None:
                if on == chosen_on[by]:
                    break
                out[by] |= {rate for rate, has in counts.items() if has >= count}
                on = chosen_on[by]
                continue
            wanted = [rate for rate in _around(declaration, best, width) if counts.get(rate, 0) < count]
            counts |= dict.fromkeys(wanted, count)
            if pending := [trial for trial in trials() if trial.id not in by_id]:
                return Round(cell, trials(), pending)
            if not wanted and on == count:
                chosen_on[by] = count
            on = count
    return Round(cell, trials(), [])


def _best_of(
    declaration: Declaration,
    cell: Cell,
    counts: Mapping[float, int],
    count: int,
    criterion: int,
    out: Set[float],
    by_id: Mapping[str, tuple[Any, ...]],
) -> float | None:
    """Return the best of a cell's rates that have so many seeds and are not out, on these seeds; None without one."""
    rates = tuple(sorted(rate for rate, has in counts.items() if has >= count and rate not in out))
    if not rates:
        return None
    rows = tuple(by_id[trial.id] for trial in _trials_of(declaration, cell, rates, count))
    found = _curves(cell.workload, rates, rows)[criterion]
    return float(found.rates[found.best()[0]]) if found.eligible.any() else None


def _around(declaration: Declaration, rate: float, width: int) -> list[float]:
    """Return a rate and so many on each side of it: half octaves, or the next of the rates that were declared."""
    if declaration.learning_rates:
        place = declaration.learning_rates.index(rate)
        return list(declaration.learning_rates[max(0, place - width) : place + width + 1])
    place = round(2 * math.log2(rate))
    return [learning_rate(k) for k in range(max(2 * LOWEST, place - width), min(2 * HIGHEST, place + width) + 1)]


# A cell is replayed with every pack, and few of them have changed.
@functools.lru_cache(maxsize=2**12)
def _trials_of(declaration: Declaration, cell: Cell, rates: tuple[float, ...], count: int) -> list[Trial]:
    """Return the trials of a cell at some rates with so many seeds, those of a rate beside each other."""
    place = cell.workload, cell.budget
    seeds = range(declaration.first_seed, declaration.first_seed + count)
    return [declaration.trial(cell.optimizer, cell.batch_size, rate, s, *place) for rate in rates for s in seeds]


@functools.lru_cache(maxsize=2**12)
def _decided(
    record: WorkloadRecord, tried: tuple[int, ...], rows: tuple[tuple[Any, ...], ...]
) -> tuple[list[Curve], list[int]]:
    """Return the curves of a round that is complete, and the rates that follow it."""
    curves = _curves(record, tuple(learning_rate(k) for k in tried), rows)
    return curves, next_rates(tried, curves)


@functools.lru_cache(maxsize=2**12)
def _curves(record: WorkloadRecord, rates: tuple[float, ...], rows: tuple[tuple[Any, ...], ...]) -> list[Curve]:
    shape = (len(rates), len(rows) // len(rates))
    table = np.array(rows, float)
    scores = np.where(np.isnan(table[:, 3]), np.nan, table[:, 1])  # one without the other is no score
    diverged = table[:, 0].astype(bool)
    collapsed = collapsed_trials(np.repeat(rates, shape[1]), scores, table[:, 2], diverged, record)
    return [
        Curve(
            np.array(rates),
            np.arange(shape[1]),
            goodness(values, record, criterion, diverged).reshape(shape),
            diverged.reshape(shape),
            constant_goodness(record, criterion),
            collapsed=collapsed.reshape(shape),
        )
        for criterion, values in zip(CRITERIA, (scores, table[:, 2]), strict=True)
    ]


def _first_rates(cell: Cell, neighbours: Sequence[Cell], best: Mapping[Cell, list[int]]) -> list[int]:
    """Return a cell's first round in half octaves: the whole octaves from one below what is expected to one above."""
    predicted = _predicted(cell, neighbours, best)
    if predicted:
        low, high = -(-min(predicted) // 2) - 1, max(predicted) // 2 + 1
    else:
        effective = cell.optimizer.effective_learning_rate(1.0)
        shift = 0 if effective is None else round(math.log2(effective))
        low, high = (end - shift for end in cell.optimizer.first_window)
    low, high = min(max(low, LOWEST), HIGHEST), max(min(high, HIGHEST), LOWEST)
    return [2 * k for k in range(low, high + 1)]


def _predicted(cell: Cell, neighbours: Sequence[Cell], best: Mapping[Cell, list[int]]) -> list[int]:
    """Return where the best rates of a cell are expected, in half octaves; none where nothing tells.

    At another budget, they are where they were. At a smaller batch size they lie lower by as much as they moved
    between the next two larger ones; where there is but one, between not at all and in proportion to the batch.
    """
    if not neighbours or not best[neighbours[0]]:
        return []
    near, far = neighbours[0], neighbours[-1]
    octaves_down = math.log2(near.batch_size / cell.batch_size)
    most = math.ceil(2 * octaves_down)
    if far == near or not best[far]:
        return [k - down for k in best[near] for down in {0, most}]
    ratio = octaves_down / math.log2(far.batch_size / near.batch_size)
    moved = [round(ratio * (k_far - k_near)) for k_far, k_near in zip(best[far], best[near], strict=True)]
    return [k - min(max(down, 0), most) for k, down in zip(best[near], moved, strict=True)]


def _out(found: Curve, end: int) -> bool:
    """Whether the rate at an end is no contender, has no value, or has learned next to nothing."""
    if not found.counts[end]:
        return True
    best, at_end = (float(np.nanmean(found.goodness[i])) - found.constant for i in (int(found.best()[0]), end))
    if best > 0 and not has_learned(at_end, best):
        return True
    return not found.contenders[end]
