"""What to use, in words: the same sentences at the end of ``run`` and ``show``, in ``advise`` and on the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from sgdscope.advice.advice import Advice
from sgdscope.advice.recommended import ALONE, EQUIVALENT
from sgdscope.analysis.edges import listed, spans
from sgdscope.analysis.tables import Tables
from sgdscope.formatting import duration, estimate, number, points, score
from sgdscope.records import WorkloadRecord
from sgdscope.report.figures.best_score import wide_margin_sentences
from sgdscope.report.figures.change import lines_of_optimizers
from sgdscope.report.figures.figure import counted
from sgdscope.report.text.commands import Words, extended, resumed
from sgdscope.report.text.verdicts import VERDICTS, verdict_of
from sgdscope.seeds import parse_seeds_at

# Verdicts of batch sizes that a range up to the largest has in common with larger ones.
OPEN = ("better", "better in short runs", "worse")


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
        for name, rows in lines_of_optimizers(of_part(advice.recommended, part))
        for row in rows.iter_rows(named=True)
    ]
    return said + against_sgd(of_part(advice.leads, part), record)


def note(advice: Advice, part: Tables) -> str:
    """Say what intervals, margin and seeds the recommendation rests on; nothing where no score is known."""
    rows = of_part(advice.recommended, part)
    if rows.is_empty():
        return ""
    margin, seeds = points(rows["margin"][0], part.record.in_percent), counted(int(rows["n"].max()))  # type: ignore[arg-type]
    worse = "lower" if part.record.score_sign > 0 else "higher"
    flattered = "" if part.record.chosen_on == "validation" else ", whose scores chose the learning rates"
    said = (
        f"[low, high]: 95 % intervals over {seeds}, for this test set{flattered}. Worse: {worse} by more than "
        f"{margin}; equivalent: by less; undecided: neither is significant at 5 %. Optimizers are compared with Holm's "
        f"correction."
    )
    return " ".join([said, *wide_margin_sentences(part)])


def against_sgd(leads: pl.DataFrame, record: WorkloadRecord) -> list[Said]:
    """Say of each optimizer at which batch sizes it is better than SGD, and how both compare at their best ones."""
    said = []
    for name, mine in lines_of_optimizers(leads):
        equal = mine.filter(over="equal batch sizes")
        tried = equal["batch_size"].sort().to_list()
        text = _compared([(verdict_of(row), row["batch_size"]) for row in equal.iter_rows(named=True)], tried)
        text = f"{text[0].lower()}{text[1:]}."
        for row in mine.filter(over="best batch sizes").iter_rows(named=True):
            by = "" if row["n"] == 1 else f" ({difference(row, record)})"
            text += f" Each at its best batch size: {VERDICTS[verdict_of(row)].removesuffix(',')}{by}."
        said.append(Said(f"{name} against sgd at equal batch sizes:", text))
    return said


def to_decide(advice: Advice, words: Words | None, folder: Path, finished: bool) -> Next:
    """Say what would decide what is open, with its price and the command.

    Args:
        advice: What the study advises.
        words: How the command line names the study; None where Python trained it.
        folder: Where it is.
        finished: Whether none of its trials is missing.
    """
    if not finished:
        return Next("The study is not finished. Resume it first:", resumed(words, folder))
    rows = advice.further.rows(named=True)
    if not rows:
        return Next("", "")
    first = rows[0]
    cells = {cell: None for row in rows if row["field"] == "seeds_at" for cell in row["cells"]}
    if first["field"] != "seeds_at":
        price = _price(first["trials"], first["seconds"])
        return Next(f"To decide more, add {added(first)} ({price}):", extended(words, folder, first))
    trials, seconds = _cost([parse_seeds_at(cell) for cell in cells], advice)
    return Next(
        f"To decide what is undecided, add seeds there ({_price(trials, seconds)}):",
        resumed(words, folder, until_decided=True),
    )


def added(row: dict[str, Any]) -> str:
    """Say what a row of the further trials adds."""
    values = listed(f"{value:g}" for value in row["added"])
    several = "s" if len(row["added"]) > 1 else ""
    return {
        "seeds": f"seeds up to {values}",
        "batch_sizes": f"batch size{several} {values}",
        "learning_rates": f"learning rate{several} {values}",
        "seeds_at": f"seeds up to {values}",
    }[row["field"]]


def of_part(table: pl.DataFrame, part: Tables) -> pl.DataFrame:
    """Return the rows of a table that are of one workload and budget."""
    workload, budget = part.trials.select("workload", "budget").row(0)
    return table.filter(workload=workload, budget=budget)


def _use(row: dict[str, Any], costs: pl.DataFrame, record: WorkloadRecord) -> Said:
    """Say which batch size and learning rate to use with one optimizer, and how the other batch sizes compare."""
    rate = _estimated(row, "learning_rate", lambda value, low, high: estimate(value, low, high, ".2g"))
    reached = _estimated(row, "test_score", lambda value, low, high: score(value, low, high, record.in_percent))
    time = "" if row["seconds"] is None else f", {number(row['seconds'])} s a trial"
    result = f"test {record.score_name} {reached}{time}."
    pair = f"batch size {row['batch_size']} and learning rate {rate}:"
    if row["basis"] == ALONE:
        return Said(f"{row['optimizer']}: {pair}", f"{result} No other batch size was run.")
    tried = costs["batch_size"].sort().to_list()
    verdicts = list(zip(costs["verdict"], costs["batch_size"], strict=True))
    place = {
        "smallest": " It is the smallest tried: smaller ones may be better.",
        "largest": " It is the largest tried: larger ones may be as good and faster.",
    }.get(row["place"], "")
    if row["basis"] == EQUIVALENT:
        return Said(f"{row['optimizer']}: use {pair}", f"{result}{place} {_compared(verdicts, tried)}.")
    others = [(verdict, size) for verdict, size in verdicts if verdict != "equivalent"]
    compared = f" {_compared(others, tried)}." if others else ""
    return Said(f"{row['optimizer']}: best guess, not confirmed: {pair}", f"{result}{place}{compared}")


def _estimated(row: dict[str, Any], name: str, written: Callable[[float, float, float], str]) -> str:
    """Write a number with its interval; of one seed there is none."""
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    if row["n"] > 1 and None not in (low, high):
        return written(value, low, high)
    number_alone, _, rest = written(value, value, value).partition(" [")
    return number_alone + rest.partition("]")[2]


def _compared(verdicts: Sequence[tuple[str, int]], tried: Sequence[int]) -> str:
    """Say which batch sizes have which verdict: ``Equivalent: 2 to 8; worse: 128 and larger``."""
    sizes = {name: [size for verdict, size in verdicts if verdict == name] for name in VERDICTS}
    said = "; ".join(
        f"{VERDICTS[name].removesuffix(',')}: {spans(mine, tried, open_end=name in OPEN)}"
        for name, mine in sizes.items()
        if mine
    )
    return said[0].upper() + said[1:]


def difference(row: dict[str, Any], record: WorkloadRecord) -> str:
    """Write a difference of scores with its interval, of accuracies in points; of one seed there is no interval."""
    value, low, high = (row[f"difference{end}"] for end in ("", "_low", "_high"))
    if not math.isfinite(high - low):
        return number(100 * value if record.in_percent else value, "+.2g")
    return score(value, low, high, record.in_percent, sign="+").replace(" %", " points")


def _cost(cells: Sequence[Any], advice: Advice) -> tuple[int, float | None]:
    """Return the trials that cells lack of the seeds that they are to have at the best rate, and their seconds."""
    best = advice.tables.optima.filter(criterion="score")
    trials, seconds = 0, 0.0
    known = True
    wanted: dict[tuple[str, int], int] = {}
    for cell in cells:
        key = (cell.optimizer, cell.batch_size)
        wanted[key] = max(wanted.get(key, 0), cell.seeds.best)
    for (optimizer, size), most in wanted.items():
        for row in best.filter(optimizer=optimizer, batch_size=size).iter_rows(named=True):
            lacking = max(0, most - row["n"])
            timed = advice.seconds.filter(workload=row["workload"], budget=row["budget"], batch_size=size)
            known &= not timed.is_empty()
            trials += lacking
            seconds += lacking * (timed["seconds"][0] if len(timed) else 0.0)
    return trials, seconds if known else None


def _price(trials: int, seconds: float | None) -> str:
    return f"about {trials:,} trials" + (f", {duration(seconds)}" if seconds else "")
