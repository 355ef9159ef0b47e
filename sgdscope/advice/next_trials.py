"""Which further trials would settle most of what is open, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from sgdscope.advice.timing import seconds_at
from sgdscope.analysis.curve import Curve, curve
from sgdscope.analysis.optima import FLAT_OCTAVES
from sgdscope.analysis.regimes import batch_sizes_to_add, regime_limits
from sgdscope.analysis.reporting import FEWEST_REPORTING
from sgdscope.analysis.trial_table import OPTIMIZER_SCHEMA, Records, by_optimizer
from sgdscope.analysis.vertex import ROUNDED_OCTAVES
from sgdscope.budget import MOST_EXAMPLES
from sgdscope.frames import Column, Columns, schema
from sgdscope.seeds import Seeds, SeedsAt, united_at
from sgdscope.stats.equivalence import ALPHA, POWER, chance_to_show
from sgdscope.stats.intervals import LEVEL, fewest_seeds, t_quantile
from sgdscope.study import Declaration

# What is said of a criterion's rates: those for the score go without saying.
ABOUT = {"score": "", "train_loss": " for the training loss"}
# What more seeds than this would settle, they settle too rarely to be asked for.
MOST_ASKED = 100
# With one seed nothing has an interval, and nothing says how many seeds will do: as many as a study has by default.
FIRST_SEEDS = 5

FURTHER_COLUMNS: Columns = {
    "field": Column(pl.String, "Field of the study to extend: `seeds_at`, `seeds`, `batch_sizes` or `learning_rates`."),
    "added": Column(pl.List(pl.Float64), "Values to add."),
    "cells": Column(pl.List(pl.String), "Optimizers and batch sizes that get the seeds, as `--seeds-at` reads them."),
    "settles": Column(pl.List(pl.String), "Questions that the trials would decide."),
    "questions": Column(pl.Int64, "Number of these questions.", "questions"),
    "trials": Column(pl.Int64, "Number of further trials.", "trials"),
    "seconds": Column(pl.Float64, "Expected time of the further trials.", "s"),
}
FURTHER_SCHEMA = schema(FURTHER_COLUMNS)


@dataclass(frozen=True)
class Question:
    """What is open about one optimizer at one batch size, and the seeds that would settle it.

    Args:
        key: Workload, budget and optimizer.
        about: Its words, with ``{optimizer}`` and ``{at}`` for the optimizer and the batch sizes.
        batch_size: None where it is about several.
        seeds: How many seeds would settle it; None where no number is known to.
        cells: The optimizers and batch sizes that these seeds are needed at.
        everywhere: Whether all learning rates of the cells need them, and not the best rate alone.
    """

    key: tuple[str, str, str]
    about: str
    batch_size: int | None
    seeds: int | None = None
    cells: tuple[tuple[str, int], ...] = ()
    everywhere: bool = False


def further_trials(
    trials: pl.DataFrame,
    optima: pl.DataFrame,
    transitions: pl.DataFrame,
    score_limits: pl.DataFrame,
    costs: pl.DataFrame,
    leads: pl.DataFrame,
    seconds: pl.DataFrame,
    records: Records,
    learning_rates: Sequence[float] = (),
) -> pl.DataFrame:
    """Return ways to extend a study, one row each, those that settle most questions for their seconds first.

    ``field`` is what is extended: the seeds of ``cells`` (``seeds_at``), all ``seeds``, or ``batch_sizes`` or
    ``learning_rates`` by those in ``added``. ``settles`` says what for.

    Seeds of cells are asked for by open scores (batch sizes between both ends of B_score, and those at which momentum
    is neither better nor worse nor equivalent), at the best rate alone, and by flat optima, at all rates of their cell.
    They are as many as would do if what was measured so far were the truth (:func:`seeds_to_show`), and at most 100.
    Batch sizes are asked for by regimes of fewer than three, and where no batch size tells where scores are lost; rates
    by optima at an end of a declared grid. Rates come first: an optimum at an edge decides nothing.

    ``trials`` and ``seconds`` are what the extension takes, from the seconds that were measured; null where nothing was
    timed.

    Args:
        trials: a table of trials.
        optima: the optimal rates of its cells.
        transitions: where they stop growing.
        score_limits: its B_score.
        costs: what its batch sizes cost.
        leads: scores of momentum minus those of SGD.
        seconds: what its trials took.
        records: what their workloads are, by name.
        learning_rates: the grid that was declared, where rates were not searched.
    """
    cells = _cells(trials, seconds)
    options = [*_more_rates(optima, learning_rates, cells)]
    if max((cell.seeds.best for cell in cells), default=0) == 1:
        options.append(_first_seeds(cells))
    else:
        asked = [*_of_scores(costs, score_limits), *_of_leads(leads), *_of_flat(trials, optima, records)]
        options += _more_seeds(asked, cells)
    options += _more_batch_sizes(trials, transitions, score_limits, seconds, records, cells)
    found = pl.DataFrame(options, schema=FURTHER_SCHEMA)
    each = pl.when(pl.col("seconds") > 0).then(pl.col("seconds")).otherwise(pl.col("trials")) / pl.col("questions")
    rates = pl.col("field") == "learning_rates"
    return found.sort(rates, each, pl.col("questions"), descending=[True, False, True], maintain_order=True)


def cost_of(
    more: Sequence[SeedsAt], declaration: Declaration, trials: pl.DataFrame, seconds: pl.DataFrame
) -> tuple[int, float | None]:
    """Return the trials that cells lack of the seeds that they are to have, and their seconds; None if not timed.

    Of a searched coefficient each value counts as many as the one that was chosen.

    Args:
        more: The seeds of cells.
        declaration: The study as its folder declares it.
        trials: a table of trials.
        seconds: what they took.
    """
    names = {str(optimizer): declaration.names_of(optimizer) for optimizer in declaration.trial_optimizers}
    cells = _cells(trials, seconds)
    return _sum(
        (cell.trials_to(entry.seeds), cell.seconds)
        for entry in more
        for cell in cells
        if cell.batch_size == entry.batch_size and cell.key[2] in names.get(entry.optimizer, ())
    )


def seeds_to_show(gaps: Sequence[float], deviation: float, alpha: float) -> int | None:
    """Return the fewest seeds with a chance of 0.8 that one-sided t tests show a mean to be on its side of margins.

    The chance is that of :func:`~sgdscope.stats.equivalence.chance_to_show`.

    Args:
        gaps: how far the true mean is from each margin, one or two numbers.
        deviation: σ.
        alpha: the level of each test.

    Returns:
        At least 2; None where a gap is not above 0, or 1,000 seeds are not enough.

    >>> seeds_to_show([1.0], 1.0, alpha=0.025), seeds_to_show([1.0, 1.0], 1.0, alpha=0.05)
    (10, 11)
    """
    if min(gaps) <= 0 or not math.isfinite(deviation):
        return None
    return fewest_seeds(lambda n: chance_to_show(gaps, deviation, alpha, n) >= POWER)


def seeds_to_place(found: Curve) -> int | None:
    """Return how many seeds would tell a flat optimum within 3 octaves: those rates must be led that lie beyond.

    Of the windows of 3 octaves around the best rate the one is taken that fewest seeds would do for.

    Args:
        found: the curve of a cell with at least two seeds.
    """
    contending, best = np.flatnonzero(found.contenders), int(found.best()[0])
    leads = found.goodness[best] - found.goodness[contending]
    level = ALPHA / max(1, int(found.eligible.sum()) - 1)
    needed = [
        0 if rate == best else seeds_to_show([float(np.nanmean(lead))], float(np.nanstd(lead, ddof=1)), level)
        for rate, lead in zip(contending, leads, strict=True)
    ]
    octaves, steps = found.octaves[contending], found.steps[contending]
    windows = [
        [seeds for number, seeds in enumerate(needed) if not first <= number <= last]
        for first in range(len(needed))
        for last in range(first, len(needed))
        if contending[first] <= best <= contending[last]
        and octaves[last] - octaves[first] + (steps[first] + steps[last]) / 2 <= FLAT_OCTAVES + ROUNDED_OCTAVES
    ]
    possible = [
        max([0, *known]) for wanted in windows if len(known := [s for s in wanted if s is not None]) == len(wanted)
    ]
    return min(possible) if possible else None


@dataclass(frozen=True)
class _Cell:
    """What is known of a cell's cost: how many seeds its rates have, in ascending order, and the seconds of a trial."""

    key: tuple[str, str, str]
    batch_size: int
    counts: tuple[int, ...]
    seeds: Seeds
    seconds: float | None

    def with_more(self, seeds: int, everywhere: bool) -> Seeds:
        """Return the seeds that the cell has when so many report its score, or are at all its rates."""
        chose = self.seeds.near_best
        more = Seeds(seeds) if everywhere else Seeds(self.seeds.search, chose, chose + max(seeds, FEWEST_REPORTING))
        return self.seeds.united(more)

    def trials_to(self, seeds: Seeds) -> int:
        """Return how many trials the cell lacks of these seeds."""
        *others, best = self.counts
        return max(0, seeds.best - best) + sum(max(0, seeds.search - count) for count in others)


def _cells(trials: pl.DataFrame, seconds: pl.DataFrame) -> list[_Cell]:
    found = []
    for key, members in by_optimizer(trials):
        timed = seconds.filter(**key)
        for size, cell in members.items():
            counts = cell.group_by("learning_rate").len()["len"].sort().to_list()
            rates_of_seed = cell.group_by("seed").len()["len"]
            chose = int((rates_of_seed > 1).sum()) or len(rates_of_seed)
            seeds = Seeds(min(counts[len(counts) // 2], chose), chose, max(chose, counts[-1]))
            found.append(_Cell((*key.values(),), size, tuple(counts), seeds, seconds_at(timed, size)))
    return found


def _option(
    field: str,
    added: Sequence[float],
    questions: Iterable[Question],
    trials: Iterable[tuple[int, float | None]],
    cells: Sequence[SeedsAt] = (),
) -> dict[str, Any]:
    """Return a row: what it settles, in words, and what the trials cost, given as counts with the seconds of each."""
    asked = list(questions)
    count, seconds = _sum(trials)
    return {
        "field": field,
        "added": [float(value) for value in added],
        "cells": [str(cell) for cell in cells],
        "settles": _words(asked),
        "questions": len(asked),
        "trials": count,
        "seconds": seconds,
    }


def _sum(trials: Iterable[tuple[int, float | None]]) -> tuple[int, float | None]:
    """Return how many trials are counted, and their seconds; None where one was not timed."""
    wanted = list(trials)
    known = all(each is not None for count, each in wanted if count)
    return sum(count for count, _ in wanted), sum(count * (each or 0.0) for count, each in wanted) if known else None


def _words(questions: Sequence[Question]) -> list[str]:
    """Say questions, those of one optimizer at several batch sizes, and of several budgets, as one."""
    grouped: dict[tuple[Any, ...], list[int]] = {}
    for q in questions:
        sizes = grouped.setdefault((q.key, q.about), [])
        sizes += [q.batch_size] if q.batch_size is not None else []
    said: dict[tuple[str, str], list[str]] = {}
    for ((workload, budget, optimizer), about), sizes in grouped.items():
        at = f" at {', '.join(map(str, sizes))}" if sizes else ""
        said.setdefault((workload, about.format(optimizer=optimizer, at=at)), []).append(budget)
    several = len({(workload, *budgets) for (workload, _), budgets in said.items()}) > 1
    several |= any(len(budgets) > 1 for budgets in said.values())
    return [
        text + (f" ({workload} at {', '.join(budgets)})" if several else "")
        for (workload, text), budgets in said.items()
    ]


def _first_seeds(cells: Sequence[_Cell]) -> dict[str, Any]:
    keys = dict.fromkeys(cell.key for cell in cells)
    questions = [Question(key, "{optimizer}: intervals, of which one seed has none", None) for key in keys]
    more = [(cell.trials_to(Seeds(FIRST_SEEDS)), cell.seconds) for cell in cells]
    return _option("seeds", [FIRST_SEEDS], questions, more)


def _more_seeds(questions: Sequence[Question], cells: Sequence[_Cell]) -> Iterator[dict[str, Any]]:
    """Yield an option for the questions about the same cells, and each number of seeds that settles more of them."""
    groups: dict[tuple[Any, ...], list[Question]] = {}
    for question in questions:
        if question.seeds and question.seeds <= MOST_ASKED:
            groups.setdefault((question.cells, question.everywhere), []).append(question)
    for (where, everywhere), asked in groups.items():
        mine = [cell for cell in cells if (cell.key[2], cell.batch_size) in where]
        for seeds in sorted({question.seeds or 0 for question in asked}):
            wanted = {cell: cell.with_more(seeds, everywhere) for cell in mine}
            named = united_at([SeedsAt(cell.key[2], cell.batch_size, more) for cell, more in wanted.items()])
            trials = [(cell.trials_to(more), cell.seconds) for cell, more in wanted.items()]
            settled = [
                question
                for (within, all_rates), others in groups.items()
                for question in others
                if {*within} <= {*where} and all_rates == everywhere and (question.seeds or 0) <= seeds
            ]
            if sum(count for count, _ in trials):
                yield _option("seeds_at", [seeds], settled, trials, named)


def seeds_for_loss(cost: dict[str, Any], among: int) -> int | None:
    """Return how many seeds would tell whether a batch size loses more than δ, one of so many that are compared."""
    short, alpha = cost["margin"] + cost["difference"], (1 - LEVEL) / 2
    return seeds_to_show([abs(short)], deviation(cost), alpha if short > 0 else alpha / among)


def seeds_for_lead(row: dict[str, Any], among: int) -> int | None:
    """Return how many seeds would tell whether an optimizer is better, worse or equivalent to SGD, one of so many."""
    away, margin, alpha = abs(row["difference"]), row["margin"], ALPHA / among
    beyond = away > margin
    gaps = [away - margin] if beyond else [margin - away, margin + away]
    return seeds_to_show(gaps, deviation(row), alpha / 2 if beyond else alpha)


def _of_scores(costs: pl.DataFrame, score_limits: pl.DataFrame) -> Iterator[Question]:
    """What is open between the two ends of B_score."""
    for row in score_limits.filter(quantity="B_score").iter_rows(named=True):
        key = {name: row[name] for name in OPTIMIZER_SCHEMA}
        with_those = costs.filter(**key, verdict="equivalent")["batch_size"].to_list()  # on common seeds
        between = costs.filter(**key, verdict="undecided").filter(pl.col("batch_size") < (row["high"] or math.inf))
        below: int | None = 0  # upward from the smallest: a batch size is shown to hold only where all below it are
        for cost in between.iter_rows(named=True):
            if cost["difference"] is None:
                continue
            short = row["margin"] + cost["difference"]
            seeds = wanted = seeds_for_loss(cost, len(between))
            if row["low"] is None or cost["batch_size"] > row["low"]:
                below = max(below, wanted) if short > 0 and below is not None and wanted is not None else None
                seeds = below if short > 0 else wanted
            # To be equivalent takes all smaller ones, too.
            open_still = between["batch_size"].to_list() if short > 0 else []
            needed = {*with_those, *(size for size in open_still if size < cost["batch_size"]), cost["batch_size"]}
            cells = tuple((key["optimizer"], size) for size in sorted(needed))
            about = "whether {optimizer} is worse by more than the margin{at}"
            yield Question((*key.values(),), about, cost["batch_size"], seeds, cells)


def _of_leads(leads: pl.DataFrame) -> Iterator[Question]:
    """Where momentum is neither shown to be ahead or behind nor the same; of so many together each by Holm."""
    asked = leads.filter(pl.col("over") != "recommended")
    for names, rows in asked.group_by(*OPTIMIZER_SCHEMA, "over", maintain_order=True):
        among = rows.filter(verdict="undecided")
        for row in among.iter_rows(named=True):
            wanted = seeds_for_lead(row, len(among))
            best = row["over"] == "best batch sizes"
            about = f"whether {{optimizer}} differs from {row['baseline']} by more than the margin"
            about += ", each at its best" if best else "{at}"
            cells = (str(names[2]), row["batch_size"]), (row["baseline"], row["sgd_batch_size"])
            yield Question((names[0], names[1], names[2]), about, None if best else row["batch_size"], wanted, cells)


def _of_flat(trials: pl.DataFrame, optima: pl.DataFrame, records: Records) -> Iterator[Question]:
    flat = optima.filter(pl.col("flat") & (pl.col("censored") == ""), criterion="score")
    for row in flat.iter_rows(named=True):
        key, size = {name: row[name] for name in OPTIMIZER_SCHEMA}, row["batch_size"]
        wanted = seeds_to_place(curve(trials.filter(**key, batch_size=size), records[row["workload"]], "score"))
        about, cells = "the learning rate of {optimizer}{at}, within 3 octaves", ((row["optimizer"], size),)
        yield Question((*key.values(),), about, size, wanted, cells, everywhere=True)


def deviation(row: dict[str, Any]) -> float:
    """Return the standard deviation over seeds that the 95 % interval of a difference was made from."""
    half: float = (row["difference_high"] - row["difference_low"]) / 2
    n = row.get("shared", row["n"])
    return half * math.sqrt(n) / t_quantile(n) if n > 1 else math.inf


def _more_batch_sizes(
    trials: pl.DataFrame,
    transitions: pl.DataFrame,
    score_limits: pl.DataFrame,
    seconds: pl.DataFrame,
    records: Records,
    cells: Sequence[_Cell],
) -> Iterator[dict[str, Any]]:
    asked: dict[tuple[int, ...], list[Question]] = {}
    measured = {key: [cell.batch_size for cell in cells if cell.key == key] for key in (c.key for c in cells)}
    possible = _possible(records, trials)
    for key, sizes in measured.items():
        if len(sizes) < 2:
            continue
        low, high = regime_limits(transitions, *key)
        add = batch_sizes_to_add(sizes, low, high, possible)
        of_key = dict(zip(OPTIMIZER_SCHEMA, key, strict=True))
        ends = score_limits.filter(**of_key, quantity="B_score") if len(score_limits) else score_limits
        row = ends.row(0, named=True) if len(ends) else None
        wanted = [(add[name], f"three {name}-dominated batch sizes for {{optimizer}}") for name in add]
        if row is not None:
            wanted += [(_around_the_end(sizes, row, possible), "where {optimizer} begins to lose")]
        for more, about in wanted:
            if more:
                asked.setdefault(tuple(sorted(more)), []).append(Question(key, about, None))
    for added, questions in asked.items():
        yield _option("batch_sizes", added, questions, _cells_of_sizes(added, seconds, cells))


def _cells_of_sizes(
    more: Sequence[int], seconds: pl.DataFrame, cells: Sequence[_Cell]
) -> Iterator[tuple[int, float | None]]:
    """Yield the trials of each new cell, as many as one of the same optimizer has, with their seconds."""
    for key in dict.fromkeys(cell.key for cell in cells):
        mine = [cell for cell in cells if cell.key == key]
        count = round(float(np.mean([sum(cell.counts) for cell in mine])))
        timed = seconds.filter(**dict(zip(OPTIMIZER_SCHEMA, key, strict=True)))
        for size in more:
            yield count, seconds_at(timed, size)


def _around_the_end(sizes: Sequence[int], row: dict[str, Any], possible: range) -> list[int]:
    """Return the batch sizes that would show where the score is first lost, where those there cannot."""
    low, high = row["low"], row["high"]
    if low is None:
        return []
    if high is None:
        larger = [2 * max(sizes)] if low == max(sizes) else []
        return [size for size in larger if size in possible]
    between = [low << k for k in range(1, high.bit_length()) if low << k < high and low << k in possible]
    return [] if any(low < size < high for size in sizes) else between


def _more_rates(
    optima: pl.DataFrame, learning_rates: Sequence[float], cells: Sequence[_Cell]
) -> Iterator[dict[str, Any]]:
    if not learning_rates:
        return
    for end, rate in (("low", min(learning_rates) / 2), ("high", max(learning_rates) * 2)):
        censored = optima.filter(pl.col("censored").str.contains(end))
        questions = [
            Question(
                (row["workload"], row["budget"], row["optimizer"]),
                f"the learning rate of {{optimizer}}{{at}}{ABOUT[row['criterion']]}, inside the grid",
                row["batch_size"],
            )
            for row in censored.sort("criterion", maintain_order=True).iter_rows(named=True)
        ]
        if questions:
            yield _option("learning_rates", [rate], questions, [(cell.seeds.search, cell.seconds) for cell in cells])


def _possible(records: Records, trials: pl.DataFrame) -> range:
    """Return the batch sizes that all workloads of a study can be trained at."""
    of = [records[name] for name in trials["workload"].unique()]
    multiple = math.lcm(*(record.batch_multiple for record in of))
    return range(multiple, min(record.examples[0] or MOST_EXAMPLES for record in of) + 1, multiple)
