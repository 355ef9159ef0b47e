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
from sgdscope.analysis.tables import StudyTables, Tables
from sgdscope.formatting import duration, exact, interval, number, with_half_width
from sgdscope.report.text.summary import edge_sentences, plain_first
from sgdscope.seeds import parse_seeds_at, united_at
from sgdscope.studies import Origin
from sgdscope.study import Declaration
from sgdscope.terminal import TextTable, print_line, print_table, print_text, visible

# Of the ways to extend a study so many are said; the tables have all.
MOST_SAID = 3
LEGEND = (
    "± and [ ] are 95 % intervals, over n seeds and over packs (their range where fewer than 6). Seconds are a trial's "
    "share of a full pack's time; × is to the cheapest. Holds: shown to lose less than δ; lost: shown to lose more; "
    "? is undecided. At the edge: larger or smaller learning rates may be better, so nothing is said of the batch size."
)
RATES_LEGEND = (
    "Rates: * is extrapolated; † is flat, not identified within 3 octaves; ‡ is at the edge of the rates tried."
)


VERDICTS = ("holds", "lost", "not shown", "at the edge")
# How it is said that an optimizer is, or is not, worth it at some batch sizes.
WORTH = {
    "ahead": "worth it at {sizes} (ahead of sgd by more than δ)",
    "behind": "worse than sgd at {sizes} (by more than δ)",
    "same": "shown not to matter at {sizes} (within ±δ)",
    "not shown": "undecided at {sizes}",
    "at the edge": "not compared at {sizes}, where a best rate lies at the edge of the rates tried",
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
        costs, leads = of_part(advice.costs, part), of_part(advice.leads, part)
        say(f"{part.title}, {scope(part, of_part(advice.seconds, part))}")
        print_table(console, costs_table(costs, part.record.score_name))
        edges = edge_sentences(part.optima)
        for sentence in edges + batch_size_sentences(costs, part.optima) + momentum_sentences(leads, costs):
            say(sentence)
        if advice.batch_sizes:
            print_table(console, rates_table(of_part(advice.rates, part)))
        say("")
    say(LEGEND + (f" {RATES_LEGEND}" if advice.batch_sizes else ""))
    say("")
    if not study.finished:
        say("The study is not finished; what is said is of the trials that there are, and to go on comes first.")
    for sentence in further_sentences(advice.further, study.declaration, folder, origin):
        say(sentence)


def as_json(advice: Advice, declaration: Declaration, folder: Path, origin: Origin | None) -> str:
    """Return every table of the advice as JSON: by its name, a list of rows; numbers that are not finite are null."""
    tables = {name: table.rows(named=True) for name, table in advice.all().items()}
    for row in tables["further"]:
        row["command"] = command(row, declaration, folder, origin)
    return json.dumps({name: [_plain(row) for row in rows] for name, rows in tables.items()}, indent=2)


def scope(part: Tables, seconds: pl.DataFrame) -> str:
    """Say what the advice on one workload and budget holds for."""
    l2 = l2_of(part.record)
    at = "" if l2 is None else f", L2 {l2:g}"
    on = "".join(f", {row[0]} × {row[1]}" for row in seconds.select("devices", "device").unique().rows())
    chosen = "" if part.record.chosen_on == "validation" else "; its scores chose the learning rates"
    return f"for this test set{at}{on}{chosen}:"


def costs_table(costs: pl.DataFrame, score_name: str) -> TextTable:
    """Return the table of what batch sizes cost in time and in score."""
    names = ("optimizer", "batch", "seconds a trial", "×", f"test {score_name}", "from plateau", "")
    rows = [
        (
            row["optimizer"],
            str(row["batch_size"]),
            _seconds(row),
            f"{row['relative']:.1f}" if row["relative"] is not None else "",
            _plus_minus(row, "test_score"),
            _plus_minus(row, "difference", sign="+") if row["difference"] is not None else "",
            row["verdict"].replace("not shown", "?"),
        )
        for row in plain_first(costs).iter_rows(named=True)
    ]
    return TextTable(names, rows, left=1, names=2, left_too=(6,))


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
        rows.append((row["optimizer"], str(row["batch_size"]), criterion, predicted, measured, str(row["n"])))
    names = ("optimizer", "size", "rate for", "predicted", "measured", "n")
    return TextTable(names, rows, left=1, names=3, left_too=(2,))


def batch_size_sentences(costs: pl.DataFrame, optima: pl.DataFrame) -> list[str]:
    """Say of each optimizer the largest batch size that loses nothing, and the fastest of those that do not."""
    best = {(row["optimizer"], row["batch_size"]): row for row in optima.filter(criterion="score").rows(named=True)}
    said = []
    for name, rows in _by_optimizer(costs):
        sizes = {verdict: [row["batch_size"] for row in rows if row["verdict"] == verdict] for verdict in VERDICTS}
        if len(rows) == 1:
            said.append(f"{name}: one batch size, {rows[0]['batch_size']}; there is none to compare it with.")
            continue
        margin, n = number(rows[0]["margin"]), rows[0]["n"]
        largest = max(sizes["holds"], default=0)
        known = [row["batch_size"] for row in rows if row["verdict"] != "at the edge"]
        if len(known) < 2:
            said.append(
                f"{name}: batch sizes are not compared, since the best rates lie at the edge of the rates tried."
            )
            continue
        text = f"{name}: no batch size is shown to lose nothing"
        if largest:
            text = f"{name}: the largest batch size that loses nothing is at least {largest}"
            above = [size for size in sizes["lost"] if size > largest]
            text += f" and below {min(above)}" if above else ""
        limit = f"; {largest} is the largest tried" if largest == max(known) else ""
        text += f" (δ = {margin}, n = {n}{limit})"
        if below := [size for size in sizes["lost"] if size < largest]:
            text += f"; too small, and shown to lose: {_listed(below)}"
        if sizes["not shown"]:
            text += f"; undecided: {_listed(sizes['not shown'])}"
        if sizes["at the edge"]:
            text += f"; left out, at the edge of the rates tried: {_listed(sizes['at the edge'])}"
        fastest = next((row for row in rows if row["fastest"]), None)
        if fastest is not None:
            size, rate = fastest["batch_size"], _rate(best[name, fastest["batch_size"]], "learning_rate")
            text += f". Fastest that holds: {size}, {_seconds(fastest)} s ({_packs(fastest)}), at learning rate {rate}"
        said.append(f"{text}.")
    return said


def momentum_sentences(leads: pl.DataFrame, costs: pl.DataFrame) -> list[str]:
    """Say of each optimizer at which batch sizes it is worth it against SGD, and of both at their best ones."""
    said = []
    for name, rows in _by_optimizer(leads):
        equal = [row for row in rows if row["over"] == "equal batch sizes"]
        n, margin = rows[0]["n"], number(rows[0]["margin"])
        parts = [
            text.format(sizes=_listed(sizes))
            for verdict, text in WORTH.items()
            if (sizes := [row["batch_size"] for row in equal if row["verdict"] == verdict])
        ]
        cold = [row["batch_size"] for row in equal if row["warmed_up"] is False]
        note = f"; too few updates to warm up at {_listed(cold)}" if cold else ""
        said.append(f"{name}: {'; '.join(parts)} (δ = {margin}, Holm, n = {n}{note}).")
        said += [_of_the_best(row, costs) for row in rows if row["over"] == "best batch sizes"]
    return said


def _of_the_best(row: dict[str, Any], costs: pl.DataFrame) -> str:
    verdict = {
        "ahead": "it is ahead by more than δ",
        "behind": "it is behind by more than δ",
        "same": "shown not to matter within ±δ",
        "not shown": "undecided",
        "at the edge": "not compared, since a best rate lies at the edge of the rates tried",
    }[row["verdict"]]
    own = f"its best batch size, {row['batch_size']}, against sgd at its own, {row['sgd_batch_size']}"
    text = f"{row['optimizer']} at {own}: {_plus_minus(row, 'difference', sign='+')}, {verdict} (n = {row['n']})"
    times = [
        costs.filter(optimizer=name, batch_size=size)["seconds"].to_list()
        for name, size in ((row["optimizer"], row["batch_size"]), ("sgd", row["sgd_batch_size"]))
    ]
    both = [time[0] for time in times if time and time[0] is not None]
    if len(both) == 2 and row["batch_size"] != row["sgd_batch_size"]:
        text += f"; it takes {number(both[0] / both[1])} times sgd's seconds there"
    return f"{text}."


def further_sentences(
    further: pl.DataFrame, declaration: Declaration, folder: Path, origin: Origin | None
) -> list[str]:
    """Say which further trials would settle most for their cost, each with the command that trains them."""
    if further.is_empty():
        return ["Nothing is open that further trials are known to settle."]
    said = ["Further trials, those first that settle most for their cost (if what was measured is the truth, at 80 %):"]
    told = worth_telling(further.rows(named=True))
    for row in told:
        said.append(f"- {option_sentence(row)}")
        said.append(f"  {command(row, declaration, folder, origin)}")
    if len(further) > len(told):
        said.append(f"More ways: {len(further) - len(told)}, with --json.")
    return said


def option_sentence(row: dict[str, Any]) -> str:
    """Say what further trials add, what they cost and what they would settle."""
    about = f"{row['trials']:,} trials" + (f", about {duration(row['seconds'])}" if row["seconds"] else "")
    return f"{_added(row)} ({about}): {'; '.join(row['settles'])}."


def worth_telling(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first rows, of those that extend the same field only such as settle more than the ones before.

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
    values = _listed([f"{value:g}" for value in row["added"]])
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
    return " and ".join(f"{name} {_listed(of)}" for name, of in sizes.items())


def of_part(table: pl.DataFrame, part: Tables) -> pl.DataFrame:
    """Return the rows of a table that are of one workload and budget."""
    workload, budget = part.trials.select("workload", "budget").row(0)
    return table.filter(workload=workload, budget=budget)


def _by_optimizer(table: pl.DataFrame) -> list[tuple[str, list[dict[str, Any]]]]:
    rows = plain_first(table).rows(named=True)
    return [
        (name, [row for row in rows if row["optimizer"] == name])
        for name in dict.fromkeys(row["optimizer"] for row in rows)
    ]


def _listed(values: Sequence[Any]) -> str:
    texts = [str(value) for value in values]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def _seconds(row: dict[str, Any]) -> str:
    if row["seconds"] is None:
        return "not timed"
    return f"{number(row['seconds'])} {interval(row['seconds_low'], row['seconds_high'])}"


def _packs(row: dict[str, Any]) -> str:
    return f"{row['packs']} pack{'s' if row['packs'] > 1 else ''}"


def _rate(row: dict[str, Any], name: str) -> str:
    return f"{number(row[name])} {interval(row[f'{name}_low'], row[f'{name}_high'])}"


def _plus_minus(row: dict[str, Any], name: str, sign: str = "") -> str:
    return with_half_width(row[name], row[f"{name}_high"] - row[name], sign)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(of) for name, of in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
