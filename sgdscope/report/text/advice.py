"""What a study advises, in words and as tables for the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console

from sgdscope.advice.advice import Advice
from sgdscope.analysis.derived import l2_of
from sgdscope.analysis.tables import StudyTables, Tables
from sgdscope.formatting import duration, estimate
from sgdscope.frames import finite
from sgdscope.records import WorkloadRecord
from sgdscope.report.figures.figure import plain_first
from sgdscope.report.text.commands import Words, extended
from sgdscope.report.text.recommendation import Next, added, cells, difference, note, of_part, recommendation, to_decide
from sgdscope.report.text.summary import edge_sentences
from sgdscope.terminal import TextTable, print_line, print_table, print_text, visible

# So many ways to extend a study are said; the tables have all.
MOST_SAID = 3
LEGEND = (
    "Seconds: of one training run when many train together, with their 95 % interval over packs, or "
    "their range with fewer than 6. ×: relative to the fastest. Difference: from the equivalent batch sizes; larger is "
    "better. At the edge: the best rate's interval reaches the edge of the rates tried, so nothing is decided. A "
    "verdict has Holm's correction and compares each smaller equivalent batch size too: it can be undecided where the "
    "interval alone would decide."
)
SO_FAR = ", preliminary: the study is not finished"
RATES_LEGEND = (
    "* extrapolated. † uncertain by more than a factor of 8. ‡ its interval reaches the edge of the rates tried."
)


def print_advice(advice: Advice, study: StudyTables, folder: Path, words: Words | None, console: Console) -> None:
    """Print what a study advises: a section for each workload and budget, and then the further trials.

    Args:
        advice: what it advises.
        study: the tables of the study that does.
        folder: its folder.
        words: how the command line names it; None where Python trained it.
        console: where to print.
    """
    for part in advice.tables.parts:
        print_text(console, visible(f"{part.title}{_scope(part, of_part(advice.seconds, part))}:"))
        print_table(console, costs_table(of_part(advice.costs, part), part.record))
        if advice.batch_sizes:
            print_table(console, rates_table(of_part(advice.rates, part)))
        for sentence in edge_sentences(part.optima):
            print_text(console, visible(sentence))
        print_text(console, LEGEND + (f" {RATES_LEGEND}" if advice.batch_sizes else ""))
    if study.finished:
        for sentence, command in further_sentences(advice.further, words, folder):
            print_text(console, visible(sentence))
            if command:
                print_line(console, visible(f"  {command}"))
    else:
        _print_next(to_decide(advice, study.declaration, words, folder, finished=False), console)
    print_recommendation(advice, study, folder, words, console)


def print_recommendation(
    advice: Advice, tables: Tables, folder: Path | None, words: Words | None, console: Console
) -> None:
    """Print what to use, and the command that would decide more once the study is finished.

    Args:
        advice: what a study, or a table, advises.
        tables: its tables.
        folder: where the study is; None for a table.
        words: how the command line names it; None where Python trained it.
        console: where to print.
    """
    for part in tables.parts:
        rests_on = note(advice, part)
        if not rests_on:  # no score is known
            continue
        console.print()
        of = f" ({part.title})" if len(tables.parts) > 1 else ""
        so_far = isinstance(tables, StudyTables) and not tables.finished
        print_text(console, f"Recommendation{visible(of)}{SO_FAR * so_far}", style="bold")
        for sentence in recommendation(advice, part):
            print_text(console, visible(str(sentence)))
        print_text(console, rests_on, style="dim")
    if folder is not None and isinstance(tables, StudyTables) and tables.finished:
        _print_next(to_decide(advice, tables.declaration, words, folder, finished=True), console)


def _print_next(following: Next, console: Console) -> None:
    if following.sentence:
        print_text(console, visible(following.sentence))
        print_line(console, visible(f"  {following.command}"))


def as_json(advice: Advice, folder: Path, words: Words | None) -> str:
    """Return every table of the advice as JSON: by its name, a list of rows; numbers that are not finite are null."""
    tables = {name: table.rows(named=True) for name, table in advice.all().items()}
    for row in tables["further"]:
        row["command"] = extended(words, folder, row)
    return json.dumps({name: [finite(row) for row in rows] for name, rows in tables.items()}, indent=2)


def _scope(part: Tables, seconds: pl.DataFrame) -> str:
    """Say what the advice on one workload and budget is for."""
    l2 = l2_of(part.record)
    at = "" if l2 is None else f", L2 {l2:g}"
    return at + "".join(f", {row[0]} × {row[1]}" for row in seconds.select("devices", "device").unique().rows())


def costs_table(costs: pl.DataFrame, record: WorkloadRecord) -> TextTable:
    """Return the table of what batch sizes cost in time and in score."""
    names = ("optimizer", "batch", "seconds a trial", "×", "difference" + " (points)" * record.in_percent, "verdict")
    rows = [
        (
            row["optimizer"],
            str(row["batch_size"]),
            _seconds(row),
            f"{row['relative']:.1f}" if row["relative"] is not None else "",
            difference(row, record).removesuffix(" points") if row["difference"] is not None else "",
            row["verdict"],
        )
        for row in plain_first(costs).iter_rows(named=True)
    ]
    return TextTable(names, rows, left=1, names=2, left_too=(5,))


def rates_table(rates: pl.DataFrame) -> TextTable:
    """Return the table of the learning rates for the batch sizes that were asked for."""
    rows = []
    for row in plain_first(rates).iter_rows(named=True):
        predicted = row["place"]
        if row["learning_rate"] is not None:
            marks = ("*" if row["place"] == "extrapolated" else "") + ("†" if row["flat"] else "")
            predicted = _rate(row, "learning_rate") + marks
        measured = "" if row["measured"] is None else _rate(row, "measured") + ("‡" if row["censored"] else "")
        criterion = "test score" if row["criterion"] == "score" else "training loss"
        rows.append((row["optimizer"], str(row["batch_size"]), criterion, predicted, measured))
    names = ("optimizer", "batch", "rate for", "predicted", "measured")
    return TextTable(names, rows, left=1, names=3, left_too=(2,))


def further_sentences(further: pl.DataFrame, words: Words | None, folder: Path) -> list[tuple[str, str]]:
    """Say which further trials would decide most for their cost, each with the command that trains them."""
    if further.is_empty():
        return [("No open question is known to be decided by further trials.", "")]
    said = [("Further trials, ordered by how much they decide for their cost (with a chance of 80 %):", "")]
    told = worth_telling(further.rows(named=True))
    said += [(f"- {option_sentence(row)}", extended(words, folder, row)) for row in told]
    if len(further) > len(told):
        said.append((f"More ways: {len(further) - len(told)}, with --json.", ""))
    return said


def option_sentence(row: dict[str, Any]) -> str:
    """Say what further trials add, what they cost and what they would decide."""
    about = f"{row['trials']:,} trials" + (f", about {duration(row['seconds'])}" if row["seconds"] else "")
    at = f" at {cells(row['cells'])}" if row["field"] == "seeds_at" else ""
    return f"{added(row)}{at} ({about}): {'; '.join(row['settles'])}."


def worth_telling(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first rows; of those that extend the same field, only rows that decide more than the ones before.

    Rates below and rates above the ones tried answer different questions, as do seeds of different cells: all are
    returned.
    """
    told: list[dict[str, Any]] = []
    for row in rows:
        if row["field"] in ("learning_rates", "seeds_at") or all(
            row["questions"] > other["questions"] for other in told if other["field"] == row["field"]
        ):
            told.append(row)
    return told[:MOST_SAID]


def _seconds(row: dict[str, Any]) -> str:
    return (
        "not timed"
        if row["seconds"] is None
        else estimate(row["seconds"], row["seconds_low"], row["seconds_high"], ".2g")
    )


def _rate(row: dict[str, Any], name: str) -> str:
    return estimate(row[name], row[f"{name}_low"], row[f"{name}_high"], ".2g")
