"""What a study advises, in words and as tables for the terminal."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console

from sgdscope.advice.advice import Advice
from sgdscope.analysis.derived import l2_of
from sgdscope.analysis.edges import listed
from sgdscope.analysis.tables import StudyTables, Tables
from sgdscope.formatting import duration, estimate, exact, number, points, score
from sgdscope.records import WorkloadRecord
from sgdscope.report.figures.change import lines_of_optimizers
from sgdscope.report.figures.figure import counted, plain_first, seeds
from sgdscope.report.text.summary import edge_sentences
from sgdscope.seeds import parse_seeds_at, united_at
from sgdscope.studies import Origin
from sgdscope.study import Declaration
from sgdscope.terminal import TextTable, print_line, print_table, print_text, visible

# So many ways to extend a study are said; the tables have all.
MOST_SAID = 3
LEGEND = (
    "[low, high]: 95 % intervals over seeds; of seconds over packs, or their range with fewer than 6 packs. Seconds: "
    "a trial's share of the time of a full pack. ×: relative to the fastest. Difference: from the equivalent batch "
    "sizes; larger is better. Equivalent and worse: by less and by more than the margin. At the edge: the best rate "
    "lies at the edge of the rates tried, so nothing is decided."
)
RATES_LEGEND = "* extrapolated. † uncertain by more than a factor of 8. ‡ at the edge of the rates tried."
# Comparisons, in the order in which they are said.
COMPARISONS = {
    "better": "better",
    "better in short runs": "better, in runs too short for momentum's steady state,",
    "equivalent": "equivalent",
    "worse": "worse",
    "undecided": "undecided",
    "at the edge": "not compared (best rate at the edge of the rates tried)",
}


def print_advice(advice: Advice, study: StudyTables, folder: Path, origin: Origin | None, console: Console) -> None:
    """Print what a study advises: a section for each workload and budget, and then the further trials.

    Args:
        advice: what it advises.
        study: the tables of the study that does.
        folder: its folder.
        origin: how the command line names it, where it is a built-in one.
        console: where to print.
    """

    def say(text: str) -> None:
        # A command is to be copied whole.
        (print_line if text.startswith("  sgdscope ") else print_text)(console, visible(text))

    for part in advice.tables.parts:
        say(f"{part.title}, {scope(part, of_part(advice.seconds, part))} {seeds(part.optima)}:")
        for sentence in advice_sentences(advice, part):
            say(sentence)
        print_table(console, costs_table(of_part(advice.costs, part), part.record))
        if advice.batch_sizes:
            print_table(console, rates_table(of_part(advice.rates, part)))
        say("")
    say(LEGEND + (f" {RATES_LEGEND}" if advice.batch_sizes else ""))
    say("")
    if not study.finished:
        say("The study is not finished: the advice rests on the trials so far. Finish the study first.")
    for sentence in further_sentences(advice.further, study.declaration, folder, origin):
        say(sentence)


def advice_sentences(advice: Advice, part: Tables) -> list[str]:
    """Say which batch size and learning rate to use, and whether momentum helps, for one workload and budget."""
    costs, record = of_part(advice.costs, part), part.record
    said = batch_size_sentences(costs, part.optima, record)
    return said + momentum_sentences(of_part(advice.leads, part), costs, record) + edge_sentences(part.optima)


def as_json(advice: Advice, declaration: Declaration, folder: Path, origin: Origin | None) -> str:
    """Return every table of the advice as JSON: by its name, a list of rows; numbers that are not finite are null."""
    tables = {name: table.rows(named=True) for name, table in advice.all().items()}
    for row in tables["further"]:
        row["command"] = command(row, declaration, folder, origin)
    return json.dumps({name: [_plain(row) for row in rows] for name, rows in tables.items()}, indent=2)


def scope(part: Tables, seconds: pl.DataFrame) -> str:
    """Say what the advice on one workload and budget is for."""
    l2 = l2_of(part.record)
    at = "" if l2 is None else f", L2 {l2:g}"
    on = "".join(f", {row[0]} × {row[1]}" for row in seconds.select("devices", "device").unique().rows())
    chosen = "" if part.record.chosen_on == "validation" else ", whose scores chose the learning rates"
    return f"for this test set{chosen}{at}{on},"


def costs_table(costs: pl.DataFrame, record: WorkloadRecord) -> TextTable:
    """Return the table of what batch sizes cost in time and in score."""
    names = ("optimizer", "batch", "seconds a trial", "×", "difference" + " (points)" * record.in_percent, "verdict")
    rows = [
        (
            row["optimizer"],
            str(row["batch_size"]),
            _seconds(row),
            f"{row['relative']:.1f}" if row["relative"] is not None else "",
            _difference(row, record).removesuffix(" points") if row["difference"] is not None else "",
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


def batch_size_sentences(costs: pl.DataFrame, optima: pl.DataFrame, record: WorkloadRecord) -> list[str]:
    """Say of each optimizer which batch size and learning rate to use, and how the others compare."""
    best = {(row["optimizer"], row["batch_size"]): row for row in optima.filter(criterion="score").rows(named=True)}
    said = []
    for name, mine in lines_of_optimizers(costs):
        rows = mine.rows(named=True)
        sizes = {verdict: mine.filter(verdict=verdict)["batch_size"].to_list() for verdict in COMPARISONS}
        if len(rows) == 1:
            said.append(f"{name}: only batch size {rows[0]['batch_size']} was run; nothing to compare it with.")
        elif len(rows) - len(sizes["at the edge"]) < 2:
            said.append(
                f"{name}: batch sizes are not compared, because the best rates lie at the edge of the rates tried."
            )
        else:
            fastest = mine.filter("fastest").rows(named=True)
            use = fastest[0]["batch_size"] if fastest else max(sizes["equivalent"])
            time = f" A trial takes {_seconds(fastest[0])} s ({_packs(fastest[0])})." if fastest else ""
            margin = f"margin {points(rows[0]['margin'], record.in_percent)}, 95 %, {counted(rows[0]['n'])}"
            compared = f"Test {record.score_name} is {_compared(sizes)}"
            if len(sizes["equivalent"]) == 1 and not sizes["equivalent"][0] > rows[0]["batch_size"]:
                compared = f"No larger batch size is confirmed equivalent in test {record.score_name}"
                rest = _compared(sizes | {"equivalent": []})
                compared += f": {rest}" if rest else ""
            said.append(
                f"{name}: use batch size {use} with learning rate {_rate(best[name, use], 'learning_rate')}.{time} "
                f"{compared} ({margin})."
            )
    return said


def momentum_sentences(leads: pl.DataFrame, costs: pl.DataFrame, record: WorkloadRecord) -> list[str]:
    """Say of each optimizer at which batch sizes it is better than SGD, and how both compare at their best ones."""
    said = []
    for name, mine in lines_of_optimizers(leads):
        equal = mine.filter(over="equal batch sizes")
        margin = points(mine["margin"][0], record.in_percent)
        sizes: dict[str, list[int]] = {verdict: [] for verdict in COMPARISONS}
        for row in equal.rows(named=True):
            sizes[_comparison(row)].append(row["batch_size"])
        short = equal.filter(~pl.col("warmed_up"))["batch_size"].to_list()
        note = f" Runs are too short for momentum's steady state at {listed(short)}." if short else ""
        scope = f"margin {margin}, 95 % with Holm's correction, {counted(mine['n'][0])}"
        said.append(f"{name} against SGD at equal batch sizes: {_compared(sizes)} ({scope}).{note}")
        said += [_of_the_best(row, costs, record) for row in mine.filter(over="best batch sizes").rows(named=True)]
    return said


def _compared(sizes: dict[str, list[int]]) -> str:
    return "; ".join(f"{COMPARISONS[verdict]} at {listed(mine)}" for verdict, mine in sizes.items() if mine)


def _comparison(row: dict[str, Any]) -> str:
    """Return a row's verdict; no advice rests on runs that are too short for momentum's steady state."""
    short = row["verdict"] == "better" and row["warmed_up"] is False
    return "better in short runs" if short else str(row["verdict"])


def _of_the_best(row: dict[str, Any], costs: pl.DataFrame, record: WorkloadRecord) -> str:
    sizes = f"at its best batch size, {row['batch_size']}, against SGD at {row['sgd_batch_size']}"
    text = f"{row['optimizer']} {sizes}: {COMPARISONS[_comparison(row)]}"
    text += f" ({_difference(row, record)}, {counted(row['n'])})."
    pairs = (row["optimizer"], row["batch_size"]), ("sgd", row["sgd_batch_size"])
    times = [costs.filter(optimizer=name, batch_size=size)["seconds"].drop_nulls().to_list() for name, size in pairs]
    if all(times) and row["batch_size"] != row["sgd_batch_size"]:
        text += f" It takes {number(times[0][0] / times[1][0])} times as long."
    return text


def further_sentences(
    further: pl.DataFrame, declaration: Declaration, folder: Path, origin: Origin | None
) -> list[str]:
    """Say which further trials would decide most for their cost, each with the command that trains them."""
    if further.is_empty():
        return ["No open question is known to be decided by further trials."]
    said = ["Further trials, ordered by how much they decide for their cost (with 80 % power, if estimates stay):"]
    told = worth_telling(further.rows(named=True))
    for row in told:
        said.append(f"- {option_sentence(row)}")
        said.append(f"  {command(row, declaration, folder, origin)}")
    if len(further) > len(told):
        said.append(f"More ways: {len(further) - len(told)}, with --json.")
    return said


def option_sentence(row: dict[str, Any]) -> str:
    """Say what further trials add, what they cost and what they would decide."""
    about = f"{row['trials']:,} trials" + (f", about {duration(row['seconds'])}" if row["seconds"] else "")
    return f"{_added(row)} ({about}): {'; '.join(row['settles'])}."


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


def command(row: dict[str, Any] | None, declaration: Declaration, folder: Path, origin: Origin | None) -> str:
    """Return the command that extends a folder as a row of the further trials says; without one, that goes on with it.

    A built-in study is named, with the fields in which the folder differs from it; of another only what is added is
    known, and STUDY stands for its file.
    """
    fields: dict[str, Sequence[Any]] = {
        name: getattr(declaration, name) for name in ("optimizers", "batch_sizes", "learning_rates", "budgets")
    }
    fields |= {"seeds": (declaration.seeds,), "first_seed": (declaration.first_seed,), "seeds_at": declaration.seeds_at}
    theirs = fields if origin is None else origin.fields
    wanted = fields if row is None else fields | {row["field"]: _with(fields[row["field"]], row)}
    words = ["sgdscope", "run", *(origin.words if origin else ("STUDY",)), "--out", str(folder)]
    for name, values in wanted.items():
        if values == theirs.get(name, (0,) if name == "first_seed" else ()):
            continue
        words += [f"--{name.replace('_', '-')}", *(exact(v) if isinstance(v, float) else str(v) for v in values)]
    return shlex.join(words)


def _with(values: Sequence[Any], row: dict[str, Any]) -> Sequence[Any]:
    """Return a field with what is added to it."""
    if row["field"] == "seeds":
        return (round(row["added"][0]),)
    if row["field"] == "seeds_at":
        return united_at(values, [parse_seeds_at(text) for text in row["cells"]])
    added = [round(value) if row["field"] == "batch_sizes" else value for value in row["added"]]
    return sorted([*values, *added])


def _added(row: dict[str, Any]) -> str:
    values = listed(f"{value:g}" for value in row["added"])
    if row["field"] == "seeds_at":
        return f"{values} seeds at {_cells(row['cells'])}"
    return {
        "seeds": f"{values} seeds",
        "batch_sizes": f"batch size{'s' if len(row['added']) > 1 else ''} {values}",
        "learning_rates": f"learning rate {values}",
    }[row["field"]]


def _cells(texts: Sequence[str]) -> str:
    """Name the optimizers and batch sizes of cells, those of one optimizer together."""
    sizes: dict[str, list[int]] = {}
    for cell in map(parse_seeds_at, texts):
        sizes.setdefault(cell.optimizer, []).append(cell.batch_size)
    return " and ".join(f"{name} {listed(of)}" for name, of in sizes.items())


def of_part(table: pl.DataFrame, part: Tables) -> pl.DataFrame:
    """Return the rows of a table that are of one workload and budget."""
    workload, budget = part.trials.select("workload", "budget").row(0)
    return table.filter(workload=workload, budget=budget)


def _seconds(row: dict[str, Any]) -> str:
    return (
        "not timed"
        if row["seconds"] is None
        else estimate(row["seconds"], row["seconds_low"], row["seconds_high"], ".2g")
    )


def _packs(row: dict[str, Any]) -> str:
    return f"{row['packs']} pack{'s' if row['packs'] > 1 else ''}"


def _rate(row: dict[str, Any], name: str) -> str:
    return estimate(row[name], row[f"{name}_low"], row[f"{name}_high"], ".2g")


def _difference(row: dict[str, Any], record: WorkloadRecord) -> str:
    ends = row["difference"], row["difference_low"], row["difference_high"]
    return score(*ends, record.in_percent, sign="+").replace(" %", " points")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(of) for name, of in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
