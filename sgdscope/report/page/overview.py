"""The first screen: what was studied, where rates and scores bend, and what the study advises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sgdscope.advice.advice import Advice
from sgdscope.analysis.derived import l2_of
from sgdscope.analysis.tables import StudyTables, Tables
from sgdscope.analysis.transitions import AT_EDGE, IDENTIFIED, NOWHERE, THROUGHOUT, TOO_FEW
from sgdscope.analysis.trial_table import CRITERIA
from sgdscope.budget import Steps, known_budget
from sgdscope.formatting import duration, examples
from sgdscope.report.charts.style import optimizers
from sgdscope.report.seen import seeds
from sgdscope.report.text.advice import (
    batch_size_sentences,
    command,
    momentum_sentences,
    of_part,
    option_sentence,
    worth_telling,
)
from sgdscope.report.text.summary import edge_sentences, inside_of
from sgdscope.studies import origin_of


def facts(tables: StudyTables) -> dict[str, str]:
    """Return what was studied, by what it is."""
    trials, declaration = tables.trials, tables.declaration
    counts = trials["status"].value_counts().sort("status").iter_rows(named=True)
    status = ", ".join(f"{row['count']:,} {row['status']}" for row in counts)
    updates, seconds = trials["steps"].sum() or 0, trials["seconds"].sum() or 0.0
    devices = trials.drop_nulls("device").select("device", "devices").unique().sort("device", "devices")
    workloads = "; ".join(
        f"{record.name}: {' + '.join(f'{n:,}' for n in record.examples)} training, validation and test examples"
        + ("" if (l2 := l2_of(record)) is None else f", L2 {l2:g}")
        for record in declaration.workloads
    )
    return {
        "Workload": workloads,
        "Optimizers": ", ".join(map(str, declaration.optimizers))
        + ("" if declaration.compute_dtype == "float32" else f"; gradients in {declaration.compute_dtype}"),
        "Schedule": str(declaration.schedule),
        "Batch sizes": ", ".join(map(str, declaration.batch_sizes)),
        "Budget": ", ".join(map(str, declaration.budgets)),
        "Seeds": str(declaration.seeds),
        "Trials": f"{len(trials):,} ({status})",
        "Device": "; ".join(f"{row['devices']} × {row['device']}" for row in devices.iter_rows(named=True)),
        "Cost": f"{updates:,} updates, {duration(float(seconds))} of training",
    }


def bends(part: Tables) -> list[tuple[str, ...]]:
    """Return where things change along the batch size: a row of headings, and a row each, a column an optimizer."""
    names = optimizers(part.transitions)
    sizes = part.trials["batch_size"]
    largest = int(sizes.max())  # type: ignore[arg-type]
    at_steps = isinstance(known_budget(part.trials["budget"][0]), Steps)  # the smallest batch sizes learn least there
    rows: dict[str, list[str]] = {"": names}
    for criterion, what in zip(CRITERIA, ("score", "training loss"), strict=True):
        of = {row["optimizer"]: row for row in part.transitions.filter(criterion=criterion).rows(named=True)}
        rows[f"Learning rate for the {what} bends at"] = [_bend(of.get(name), largest) for name in names]
    ends = {(row["optimizer"], row["quantity"]): row for row in part.score_limits.rows(named=True)[::-1]}
    if not at_steps:
        tried = {name: inside_of(part, name) for name in names}
        rows["Score is shown to hold to"] = [_held(ends.get((name, "B_score")), tried[name]) for name in names]
        rows["Score is shown to be lost by"] = [_high(ends.get((name, "B_score"))) for name in names]
    if any(quantity == "B_mom" for _, quantity in ends):
        rows["Shown to be ahead of SGD from"] = [_high(ends.get((name, "B_mom"))) for name in names]
    return [(heading, *cells) for heading, cells in rows.items()]


def bends_caption(tables: Tables) -> str:
    """Say what the numbers of :func:`bends` are."""
    n = seeds(tables.transitions)
    return f"Batch sizes, with 95 % intervals, n = {n}; in parentheses: the bend is not identified."


def advice(tables: StudyTables, folder: Path) -> dict[str, Any]:
    """Return what the study advises: sentences for each workload and budget, and further trials with their commands."""
    found = Advice(tables, (), tables.declaration.learning_rates)
    parts = []
    for part in tables.parts:
        costs, leads = of_part(found.costs, part), of_part(found.leads, part)
        said = edge_sentences(part.optima)
        said += batch_size_sentences(costs, part.optima) + momentum_sentences(leads, costs)
        parts.append({"title": part.title, "sentences": said})
    origin = origin_of(tables.declaration)
    further = [
        {"sentence": option_sentence(row), "command": command(row, tables.declaration, folder, origin)}
        for row in worth_telling(found.further.rows(named=True))
    ]
    return {"parts": parts, "further": further}


def _bend(row: dict[str, Any] | None, largest: int) -> str:
    if row is None:
        return "not measured"
    if row["status"] in (TOO_FEW, AT_EDGE):
        return str(row["status"])
    if row["status"] == NOWHERE:
        return f"grows nowhere from {examples(row['transition_high'])}, the smallest, on"
    if row["status"] == THROUGHOUT:
        return f"grows up to {examples(row['transition_low'])}, the largest"
    if row["transition"] >= largest:
        return f"not up to {largest}"
    at = f"{examples(row['transition'])} [{examples(row['transition_low'])}, {examples(row['transition_high'])}]"
    return at if row["status"] == IDENTIFIED else f"({at})"


def _held(row: dict[str, Any] | None, tried: list[int]) -> str:
    if row is None:
        return ""
    if row["batch_sizes"] < 2 and row["left_out"]:
        return AT_EDGE
    # The smallest is what the others are compared with.
    if row["low"] == tried[0]:
        return f"none above {row['low']}"
    return f"{row['low']}, the largest tried" if row["low"] == tried[-1] else str(row["low"])


def _high(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    return str(row["high"]) if row["high"] else "none"
