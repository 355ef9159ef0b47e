"""JSON: a run a line, a list of runs, or columns, as pandas writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sgdscope.errors import InputError
from sgdscope.importing.table import TextTable, of_rows


def read_json(path: Path) -> TextTable:
    """Read a ``.json``, ``.jsonl`` or ``.ndjson`` file.

    Raises:
        InputError: If it holds something else than runs, or a line is not JSON.
    """
    text = path.read_text(encoding="utf-8-sig")
    try:
        whole = json.loads(text)
    except ValueError:
        return _lines(path, text)
    runs, unit = (whole, "run") if isinstance(whole, list) else ([whole], "line")
    if isinstance(whole, dict) and whole and all(isinstance(column, dict | list) for column in whole.values()):
        runs, unit = _by_row(path, whole), "row"
    if not all(isinstance(run, dict) for run in runs):
        raise InputError(f"{path} holds no runs. Write an object for each run, one a line or in a list.")
    return of_rows(path, runs, range(1, len(runs) + 1), unit)


def _lines(path: Path, text: str) -> TextTable:
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    runs: list[Any] = []
    for number, line in lines:
        try:
            runs.append(json.loads(line))
        except ValueError as error:
            raise InputError(f"{path}: line {number} is not JSON ({error}).") from error
        if not isinstance(runs[-1], dict):
            raise InputError(f"{path}: line {number} is not an object. Write an object for each run.")
    return of_rows(path, runs, [number for number, _ in lines], "line")


def _by_row(path: Path, columns: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the runs of columns that are lists, or values by row."""
    values = [column if isinstance(column, dict) else dict(enumerate(column)) for column in columns.values()]
    if any(list(column) != list(values[0]) for column in values):
        raise InputError(f"{path}: its columns have different rows. Write an object for each run.")
    return [{name: column[row] for name, column in zip(columns, values, strict=True)} for row in values[0]]
