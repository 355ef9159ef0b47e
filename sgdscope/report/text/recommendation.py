"""What to use, in words: the same sentences at the end of ``run`` and ``show``, in ``advise`` and on the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from sgdscope.advice.advice import Advice
from sgdscope.advice.next_trials import cost_of
from sgdscope.advice.recommended import ALONE, BEST, EQUIVALENT
from sgdscope.advice.until_decided import raised
from sgdscope.analysis.edges import listed
from sgdscope.analysis.tables import Tables
from sgdscope.formatting import duration, estimate, exact, number, optimizer_name, points, score
from sgdscope.optimizers import parse_optimizer
from sgdscope.records import WorkloadRecord
from sgdscope.report.figures.best_score import wide_margin_sentences
from sgdscope.report.figures.change import lines_of_optimizers
from sgdscope.report.figures.figure import seeds
from sgdscope.report.text.commands import Words, extended, resumed
from sgdscope.report.text.verdicts import by_verdict, in_words, sizes_by_verdict, verdict_of
from sgdscope.seeds import parse_seeds_at
from sgdscope.study import Declaration


class Said(NamedTuple):
    """A sentence or more: what to do, and the rest."""

    lead: str
    rest: str

    def __str__(self) -> str:
        """Return the whole."""
        return f"{self.lead} {self.rest}"


class Next(NamedTuple):
    """What would decide what is open: a sentence, and the command that does it; empty where none does."""

    sentence: str
    command: str


def recommendation(advice: Advice, part: Tables) -> list[Said]:
    """Say of each optimizer which batch size and learning rate to use, and how others compare with plain SGD.

    Args:
        advice: What a study advises.
        part: One workload and budget of it.
    """
    costs, record = of_part(advice.costs, part), part.record
    said = [
        _use(row, costs.filter(optimizer=row["optimizer"]), record)
        for _, rows in lines_of_optimizers(of_part(advice.recommended, part))
        for row in rows.iter_rows(named=True)
    ]
    return said + against_sgd(of_part(advice.leads, part), record)


def note(advice: Advice, part: Tables) -> str:
    """Say what intervals, margin and seeds the recommendation rests on; nothing where no score is known."""
    rows = of_part(advice.recommended, part)
    if rows.is_empty():
        return ""
    record, said = part.record, []
    if rows["n"].to_numpy().max() > 1:
        flattered = "" if record.chosen_on == "validation" else ", whose scores chose the learning rates"
        said.append(f"[low, high]: 95 % intervals over {seeds(rows)}, for this test set{flattered}.")
    else:
        said.append("One seed gives no intervals, so nothing is confirmed.")
    if of_part(advice.costs, part)["batch_size"].n_unique() > 1:
        worse = "lower" if record.score_sign > 0 else "higher"
        said.append(
            f"Worse: {worse} by more than {_margin(rows, record)}; equivalent: by less; undecided: the "
            f"seeds show neither."
        )
    if not of_part(advice.leads, part).is_empty():
        said.append("Optimizers are compared with Holm's correction.")
    return " ".join([*said, *wide_margin_sentences(part)])


def against_sgd(leads: pl.DataFrame, record: WorkloadRecord) -> list[Said]:
    """Say of each optimizer at which batch sizes it is better than its baseline, and how both compare at their best."""
    said = []
    for name, mine in lines_of_optimizers(leads):
        equal = mine.filter(over="equal batch sizes")
        text = "no batch size in common." if equal.is_empty() else f"{sizes_by_verdict(equal)}."
        for row in mine.filter(over="recommended").iter_rows(named=True):
            by = "" if row["n"] == 1 else f" ({difference(_as_measured(row, record), record, deciding=True)})"
            sizes = f"{row['batch_size']} against {row['sgd_batch_size']}"
            text += f" At the recommended batch sizes, {sizes}: {in_words(verdict_of(row))}{by}."
        said.append(Said(f"{optimizer_name(name)} against {mine['baseline'][0]} at equal batch sizes:", text))
    return said


def to_decide(advice: Advice, declaration: Declaration, words: Words | None, folder: Path, finished: bool) -> Next:
    """Say what would decide more, with its price and the command.

    Args:
        advice: What the study advises.
        declaration: The study as its folder declares it.
        words: How the command line names the study; None where Python trained it.
        folder: Where it is.
        finished: Whether none of its trials is missing.
    """
    if not finished:
        return Next("The study is not finished. Resume it first:", resumed(words, folder))
    first = next(advice.further.iter_rows(named=True), None)
    by_seeds = first is None or first["field"] == "seeds_at"
    if by_seeds and (more := raised(declaration, advice.tables, advice=advice)):
        price = _price(*cost_of(more, declaration, advice.tables.trials, advice.seconds))
        return Next(
            f"To decide more, add seeds where a question is open ({price} at the first look):",
            resumed(words, folder, until_decided=True),
        )
    if first is None:
        return Next("", "")
    at = f" at {cells(first['cells'])}" if first["field"] == "seeds_at" else ""
    price = _price(first["trials"], first["seconds"])
    return Next(f"To decide more, add {added(first)}{at} ({price}):", extended(words, folder, first))


def added(row: dict[str, Any]) -> str:
    """Say what a row of the further trials adds."""
    values = listed(f"{value:g}" for value in row["added"])
    several = "s" if len(row["added"]) > 1 else ""
    return {
        "seeds": f"seeds up to {values}",
        "batch_sizes": f"batch size{several} {values}",
        "learning_rates": f"learning rate{several} {values}",
        "seeds_at": f"seeds up to {max([parse_seeds_at(cell).seeds.best for cell in row['cells']], default=0)}",
    }[row["field"]]


def cells(texts: Sequence[str]) -> str:
    """Name the optimizers and batch sizes of cells, those of equal batch sizes together.

    >>> cells(["sgd@8=5,10,30", "sgd@64=5,10,30", "adam@8=5,10,30"])
    'batch sizes 8 and 64 with sgd and batch size 8 with adam'
    >>> cells(["sgd@8=5,10,30", "adam@8=5,10,30"])
    'batch size 8 with sgd and adam'
    """
    sizes: dict[str, list[int]] = {}
    for cell in map(parse_seeds_at, texts):
        sizes.setdefault(cell.optimizer, []).append(cell.batch_size)
    names: dict[tuple[int, ...], list[str]] = {}
    for name, mine in sizes.items():
        names.setdefault(tuple(sorted(mine)), []).append(name)
    return " and ".join(f"batch size{'s' * (len(of) > 1)} {listed(of)} with {listed(who)}" for of, who in names.items())


def of_part(table: pl.DataFrame, part: Tables) -> pl.DataFrame:
    """Return the rows of a table that are of one workload and budget."""
    workload, budget = part.trials.select("workload", "budget").row(0)
    return table.filter(workload=workload, budget=budget)


def difference(row: dict[str, Any], record: WorkloadRecord, deciding: bool = False) -> str:
    """Write a difference of scores, of accuracies in points, with its interval; of one seed there is none.

    Args:
        row: of a table with differences.
        record: what the workload is.
        deciding: whether the interval is the one that decides, with its correction, in place of that of 95 %.
    """
    low, high = (row[f"{'decides' if deciding else 'difference'}_{end}"] for end in ("low", "high"))
    if low is None or not math.isfinite(high - low):
        low = high = None
    return score(row["difference"], low, high, record.in_percent, sign="+").replace(" %", " points")


def _as_measured(row: dict[str, Any], record: WorkloadRecord) -> dict[str, Any]:
    """Return a row whose difference is that of the scores themselves, which may be better where they are smaller."""
    if record.score_sign > 0:
        return row
    names = ("difference", "decides_low", "decides_high")
    value, low, high = (row[name] for name in names)
    turned = (None if end is None else -end for end in (value, high, low))
    return row | dict(zip(names, turned, strict=True))


def _use(row: dict[str, Any], costs: pl.DataFrame, record: WorkloadRecord) -> Said:
    """Say which batch size and learning rate to use with one optimizer, and how the other batch sizes compare."""
    low, high = _ends(row, "learning_rate")
    rate = estimate(row["learning_rate"], low, high, ".2g")
    low, high = _ends(row, "test_score")
    reached = score(row["test_score"], low, high, record.in_percent)
    time = "" if row["seconds"] is None else f", {number(row['seconds'])} s a trial"
    result = f"test {record.score_name} {reached}{time}."
    name, pair = optimizer_name(row["optimizer"]), f"batch size {row['batch_size']} and learning rate {rate}:"
    if row["coefficient"] is not None:
        chosen = f"{parse_optimizer(row['optimizer']).searched} {exact(row['coefficient'])}"
        pair = f"batch size {row['batch_size']}, learning rate {rate} and {chosen}:"
    if row["basis"] == ALONE:
        return Said(f"{name}: {pair}", f"{result} No other batch size was run.")
    place = {
        "smallest": " It is the smallest tried: smaller ones may be better.",
        "largest": " It is the largest tried: larger ones may be as good and faster.",
    }.get(row["place"], "")
    verdicts = list(zip(costs["verdict"], costs["batch_size"], strict=True))
    tried = costs["batch_size"].sort().to_list()
    if row["basis"] == EQUIVALENT:
        first = "fastest" if row["seconds"] is not None else "largest"
        why = "" if row["place"] == "largest" else f" {row['batch_size']} is the {first} of the equivalent ones."
        return Said(f"{name}: use {pair}", f"{result}{place} {_capital(by_verdict(verdicts, tried))}.{why}")
    if row["basis"] == BEST:
        others = [(verdict, size) for verdict, size in verdicts if size != row["batch_size"]]
        return Said(f"{name}: use {pair}", f"{result}{place} {_capital(by_verdict(others, tried))}.")
    # A batch size that others are compared with is equivalent to itself alone.
    against = listed(size for verdict, size in verdicts if verdict == "equivalent")
    others = [(verdict, size) for verdict, size in verdicts if verdict != "equivalent"]
    compared = by_verdict(others, tried) if others else ""
    if others:
        compared = f" Compared with batch size {against}: {compared}." if against else f" {_capital(compared)}."
    return Said(f"{name}: best guess, not confirmed: {pair}", f"{result}{place}{compared}")


def _capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"


def _ends(row: dict[str, Any], name: str) -> tuple[float | None, float | None]:
    """Return the ends of an interval; of one seed there is none."""
    return (row[f"{name}_low"], row[f"{name}_high"]) if row["n"] > 1 else (None, None)


def _margin(rows: pl.DataFrame, record: WorkloadRecord) -> str:
    """Write the margin; the margin of each optimizer where they differ."""
    margins = {row["optimizer"]: points(row["margin"], record.in_percent) for row in rows.iter_rows(named=True)}
    if len(set(margins.values())) == 1:
        return next(iter(margins.values()))
    return listed(f"{margin} with {name}" for name, margin in margins.items())


def _price(trials: int, seconds: float | None) -> str:
    return f"about {trials:,} trials" + (f", {duration(seconds)}" if seconds else "")
