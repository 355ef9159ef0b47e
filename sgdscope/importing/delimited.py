"""Tables with separators, as trackers, pandas and spreadsheets write them."""

from __future__ import annotations

import ast
import codecs
import csv
import io
import json
import re
from pathlib import Path
from typing import Any

from sgdscope.errors import InputError
from sgdscope.importing.table import TextTable, cell, flattened, plain_name

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_delimited(path: Path) -> TextTable:
    """Read a ``.csv`` file, separated by commas, semicolons, tabs or bars.

    Blank lines are passed over, and so is a first column of row names without a heading. A column of dictionaries,
    as W&B's interface returns, becomes a column for each of their keys.
    """
    text = _decoded(path)
    first, separator, skipped = _heading(text)
    if not text.strip():
        raise InputError(f"{path} cannot be read as a table: it is empty.")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    records: list[tuple[int, list[str]]] = []
    line = 1
    for fields in reader:
        if any(field.strip() for field in fields) and line > skipped:
            records.append((line, fields))
        line = reader.line_num + 1
    names, rows = [plain_name(name) for name in records[0][1]] if records else first, records[1:]
    while names and not names[-1]:
        names.pop()
    rows = [(line, _without_empty_end(fields, len(names))) for line, fields in rows]
    if rows and all(len(fields) == len(names) + 1 for _, fields in rows):
        names = ["", *names]  # row names, which R writes without a heading
    for line, fields in rows:
        if len(fields) != len(names):
            raise InputError(
                f"{path}: line {line} has {len(fields)} fields and the heading has {len(names)}, separated by "
                f"{SEPARATORS[separator]}. Put a field that holds a separator in quotes, and complete the line."
            )
    columns: dict[str, list[str | None]] = {}
    for place, name in enumerate(names):
        values = [cell(fields[place]) for _, fields in rows]
        if name in columns and columns[name] != values:
            columns[f"{name} (twice)"] = values
        else:
            columns[name] = values
    lines = [line for line, _ in rows]
    return TextTable(path, _without_dictionaries(columns), lines, "line", separator)


def _without_dictionaries(columns: dict[str, list[str | None]]) -> dict[str, list[str | None]]:
    """Return columns of which those of dictionaries, in JSON or in Python's words, are columns of their values."""
    found: dict[str, list[str | None]] = {}
    for name, texts in columns.items():
        values = [_dictionary(text) for text in texts] if any(text and text[0] == "{" for text in texts) else []
        if not values or any(value is None for value in values):
            found[name] = texts
            continue
        rows = [flattened(value or {}) for value in values]
        found |= {f"{name}.{key}": [cell(row.get(key)) for row in rows] for row in rows for key in row}
    return found


def _dictionary(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        try:
            value = ast.literal_eval(re.sub(r"(?<=[:,\[ ])(nan|-?inf)(?=[,}\]])", "None", text))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    marked = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), None)
    if marked is None and b"\0" in content[:2]:
        marked = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    try:
        text = content.decode(marked or "utf-8")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")  # as spreadsheets on Windows write
    if "\0" in text:
        raise InputError(f"{path} cannot be read as a table: it is not text.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _heading(text: str) -> tuple[list[str], str, int]:
    """Return the names of the columns, what separates them, and how many lines stand before them.

    A first line ``sep=;`` names the separator for spreadsheets.
    """
    skipped = 0
    lines = io.StringIO(text)
    line = next((line for line in lines if line.strip()), "")
    declared = re.fullmatch(r"\"?sep=(.)\"?\s*", line, re.IGNORECASE)
    if declared:
        skipped = text[: text.index(line)].count("\n") + 1
        line = next((line for line in lines if line.strip()), "")
    counts = {separator: len(next(csv.reader([line], delimiter=separator), [])) for separator in SEPARATORS}
    separator = max(counts, key=lambda separator: counts[separator])
    if declared and declared[1] in SEPARATORS:
        separator = declared[1]
    return [plain_name(name) for name in next(csv.reader([line], delimiter=separator), [])], separator, skipped


def _without_empty_end(fields: list[str], length: int) -> list[str]:
    while len(fields) > length and not fields[-1].strip():
        fields = fields[:-1]
    return fields
