"""The page of several studies: what each one recommends, with a link to its report."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sgdscope import atomic
from sgdscope.advice.advice import Advice
from sgdscope.advice.recommended import GUESS
from sgdscope.analysis.tables import StudyTables
from sgdscope.errors import InputError
from sgdscope.formatting import estimate, score
from sgdscope.report.figures.style import optimizers
from sgdscope.report.page.overview import headline
from sgdscope.report.page.templates import rendered_plain
from sgdscope.report.text.recommendation import recommendation

HEADINGS = ("Study", "Workload and budget", "Optimizer", "Batch size", "Learning rate", "Test score", "Trials")


def write_index(studies: Sequence[tuple[StudyTables, Path, bool]], path: Path) -> Path:
    """Write the page of several studies, and return its path.

    Args:
        studies: What each study has found, its folder, and whether a report is in it.
        path: The page.
    """
    here = Path(os.path.realpath(path)).parent
    names = Counter(tables.declaration.name for tables, _, _ in studies)
    shown, rows = [], []
    for number, (tables, folder, has_report) in enumerate(studies, 1):
        advice = Advice(tables, (), tables.declaration.learning_rates)
        where = os.path.relpath(os.path.realpath(folder), here)
        name = tables.declaration.name
        known = {"id": f"study-{number}", "study": name if names[name] == 1 else f"{name} ({where})"}
        shown.append(
            {
                "id": known["id"],
                "name": known["study"],
                "headline": headline(tables) if has_report else "",
                "report": _link(folder / "report.html", here) if has_report else "",
                "pending": 0 if tables.finished else max(tables.pending, 1),
                "sentences": [said for part in tables.parts for said in recommendation(advice, part)]
                if has_report
                else [],
                "folder": where,
            }
        )
        rows += [known | {"cells": cells} for cells in _cells(advice, tables)] if has_report else []
    html = rendered_plain("index.html.jinja", name="Studies", studies=shown, headings=HEADINGS, rows=rows)
    try:
        atomic.replace(path, html.encode(errors="replace"))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {atomic.why(error)}.") from error
    return path


def _cells(advice: Advice, tables: StudyTables) -> list[list[Any]]:
    """Return a row for each optimizer: what to use."""
    found = []
    order = {name: place for place, name in enumerate(optimizers(tables.optima))}
    for row in sorted(advice.recommended.rows(named=True), key=lambda row: order[row["optimizer"]]):
        mine = tables.trials.filter(workload=row["workload"], budget=row["budget"], optimizer=row["optimizer"])
        record = tables.records[row["workload"]]
        rate, reached = (
            (row[name], row[f"{name}_low"], row[f"{name}_high"]) for name in ("learning_rate", "test_score")
        )
        guess = " (best guess)" if row["basis"] == GUESS else ""
        found.append(
            [
                f"{row['workload']} at {row['budget']}",
                row["optimizer"],
                f"{row['batch_size']}{guess}",
                _interval(rate, partial(estimate, form=".2g")),
                _interval(reached, partial(score, in_percent=record.in_percent)),
                f"{len(mine):,}",
            ]
        )
    return found


def _interval(numbers: tuple[float | None, ...], written: Any) -> str:
    value, low, high = numbers
    if value is None:
        return ""
    if None not in (low, high):
        return str(written(value, low, high))
    return str(written(value, value, value)).partition(" [")[0]


def _link(page: Path, here: Path) -> str:
    return quote(Path(os.path.relpath(os.path.realpath(page), here)).as_posix())
