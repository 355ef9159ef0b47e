"""The first screen: what was studied, what to use, and how score and learning rate depend on the batch size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sgdscope.advice.advice import Advice
from sgdscope.analysis.derived import l2_of
from sgdscope.analysis.edges import listed, spans
from sgdscope.analysis.external_table import NAMES
from sgdscope.analysis.tables import StudyTables, Tables
from sgdscope.analysis.transitions import AT_EDGE, IDENTIFIED, NOWHERE, THROUGHOUT, TOO_FEW
from sgdscope.analysis.trial_table import CRITERIA
from sgdscope.budget import Steps, known_budget
from sgdscope.formatting import batch_size, duration
from sgdscope.records import WorkloadRecord
from sgdscope.report.figures.best_score import batch_sizes_inside
from sgdscope.report.figures.figure import declared_seeds
from sgdscope.report.figures.style import optimizers
from sgdscope.report.text.advice import option_sentence, worth_telling
from sgdscope.report.text.commands import Words, extended
from sgdscope.report.text.recommendation import Next, note, recommendation, to_decide


def headline(tables: StudyTables) -> str:
    """Say what was studied in one line."""
    declaration, trials = tables.declaration, tables.trials
    sizes = trials["batch_size"].unique().sort().to_list()
    said = [
        f"SGD study of {listed(record.name for record in declaration.workloads)}",
        ", ".join(map(str, declaration.optimizers)),
        f"batch size{'s' * (len(sizes) > 1)} {spans(sizes, sizes)}",
        _budgets(tables),
        declared_seeds(declaration.seeds),
        f"{len(trials):,} trials",
    ]
    return " · ".join(part for part in said if part)


def facts(tables: StudyTables) -> dict[str, str]:
    """Return what was studied, by what it is; nothing of what is not known of runs that were made elsewhere."""
    trials, declaration = tables.trials, tables.declaration
    counts = trials["status"].value_counts().sort("status").iter_rows(named=True)
    status = ", ".join(f"{row['count']:,} {row['status']}" for row in counts)
    updates, spent = trials["steps"].sum() or 0, float(trials["seconds"].sum() or 0.0)
    devices = trials.drop_nulls("device").select("device", "devices").unique().sort("device", "devices")
    workloads = "; ".join(
        record.name + _examples(record) + ("" if (l2 := l2_of(record)) is None else f", L2 {l2:g}")
        for record in declaration.workloads
    )
    shown = {
        "Workload": workloads,
        "Optimizers": ", ".join(map(str, declaration.optimizers))
        + ("" if declaration.compute_dtype == "float32" else f"; gradients in {declaration.compute_dtype}"),
        "Schedule": str(declaration.schedule),
        "Batch sizes": ", ".join(map(str, declaration.batch_sizes)),
        "Budget": _budgets(tables),
        "Seeds": str(declaration.seeds),
        "Trials": f"{len(trials):,} ({status})",
        "Device": "; ".join(f"{row['devices']} × {row['device']}" for row in devices.iter_rows(named=True)),
        "Cost": ", ".join(
            [f"{updates:,} updates"] * (updates > 0)
            + [f"{duration(spent) if spent >= 1 else f'{spent:.1g} s'} of training"] * (spent > 0)
        ),
    }
    return {name: what for name, what in shown.items() if what}


def _budgets(tables: StudyTables) -> str:
    """Return the budgets; nothing where a table of runs has none."""
    return ", ".join(str(budget) for budget in tables.declaration.budgets if str(budget) != NAMES["budget"])


def _examples(record: WorkloadRecord) -> str:
    """Return how many examples each split has, as far as it is known."""
    known = [(n, split) for n, split in zip(record.examples, ("training", "validation", "test"), strict=True) if n]
    if not known:
        return ""
    return f": {' + '.join(f'{n:,}' for n, _ in known)} {listed(split for _, split in known)} examples"


def limits(part: Tables) -> list[tuple[str, ...]]:
    """Return the critical batch sizes: a row of headings, and a row each, a column an optimizer."""
    names, largest = optimizers(part.transitions), int(part.trials["batch_size"].max())  # type: ignore[arg-type]
    rows: dict[str, list[str]] = {"": names}
    for criterion, what in zip(CRITERIA, ("test score", "training loss"), strict=True):
        of = {row["optimizer"]: row for row in part.transitions.filter(criterion=criterion).rows(named=True)}
        rows[f"Transition batch size, {what}"] = [_transition(of.get(name), largest) for name in names]
    ends = {(row["optimizer"], row["quantity"]): row for row in part.score_limits.rows(named=True)[::-1]}
    # At a constant number of steps the smallest batch sizes learn least: no plateau begins with them.
    if not isinstance(known_budget(part.trials["budget"][0]), Steps):
        plateaus = [ends.get((name, "B_score")) for name in names]
        tried = [batch_sizes_inside(part, name) for name in names]
        rows["Largest equivalent batch size"] = [*map(_equivalent, plateaus, tried)]
        rows["First worse batch size"] = [*map(_first, plateaus)]
    if any(quantity == "B_mom" for _, quantity in ends):
        rows["First batch size better than SGD"] = [_first(ends.get((name, "B_mom"))) for name in names]
    return [(heading, *cells) for heading, cells in rows.items()]


def advice(tables: StudyTables, folder: Path | None, found: Advice, words: Words | None) -> dict[str, Any]:
    """Return what the study recommends: sentences for each workload and budget, and the command that decides more."""
    following, further = Next("", ""), []
    if folder is not None:
        following = to_decide(found, tables.declaration, words, folder, tables.finished)
        further = [
            {"sentence": option_sentence(row), "command": extended(words, folder, row)}
            for row in worth_telling(found.further.rows(named=True))
        ]
    parts = [{"title": part.title, "sentences": recommendation(found, part)} for part in tables.parts]
    notes = {part.title: text for part in tables.parts if (text := note(found, part))}
    alike = len(set(notes.values())) == 1
    return {
        "parts": parts,
        "notes": [*notes.values()][:1] if alike else [f"{title}: {text}" for title, text in notes.items()],
        "next": following,
        "further": [option for option in further if option["command"] != following.command],
    }


def _transition(row: dict[str, Any] | None, largest: int) -> str:
    if row is None:
        return "not measured"
    if row["status"] in (TOO_FEW, AT_EDGE):
        return str(row["status"])
    if row["status"] == NOWHERE:
        return f"at most {batch_size(row['transition_high'])}, the smallest"
    if row["status"] == THROUGHOUT:
        return f"at least {batch_size(row['transition_low'])}, the largest"
    if row["transition"] >= largest:
        return f"none up to {largest}"
    at, low, high = (batch_size(row[f"transition{end}"]) for end in ("", "_low", "_high"))
    return f"{at} [{low}, {high}]" + ("" if row["status"] == IDENTIFIED else ", not identified")


def _equivalent(row: dict[str, Any] | None, tried: list[int]) -> str:
    if row is None:
        return ""
    if row["batch_sizes"] < 2 and row["left_out"]:
        return AT_EDGE
    # The smallest is what the others are compared with.
    if row["low"] == tried[0]:
        return f"none above {row['low']}"
    return f"{row['low']}, the largest" if row["low"] == tried[-1] else str(row["low"])


def _first(row: dict[str, Any] | None) -> str:
    return "" if row is None else str(row["high"] or "none")
