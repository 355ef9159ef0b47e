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
# Where none of these is, as in columns that are aligned.
BLANK = {" ": "blanks"}
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_delimited(path: Path) -> TextTable:
    """Read a ``.csv`` file, separated by commas, semicolons, tabs, bars or blanks.

    Blank lines are passed over, and so are a title and comments above the heading, a line of dashes below it, and a
    first column of row names without a heading. A column of dictionaries, as W&B's interface returns, becomes a column
    for each of their keys.
    """
    text = _decoded(path)
    first, separator, skipped = _heading(text)
    if not text.strip():
        raise InputError(f"{path} cannot be read as a table: it is empty.")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=separator == " ")
    records: list[tuple[int, list[str]]] = []
    line = 1
    for fields in reader:
        if any(field.strip(" -:") for field in fields) and line > skipped:  # of Markdown and of databases
            records.append((line, fields))
        line = reader.line_num + 1
    names, rows = [plain_name(name) for name in records[0][1]] if records else first, records[1:]
    names = [name.lstrip("# ") if place == 0 else name for place, name in enumerate(names)]  # as NumPy writes it
    while names and not names[-1]:
        names.pop()
    rows = [(line, _without_empty_end(fields, len(names))) for line, fields in rows]
    if rows and all(len(fields) == len(names) + 1 for _, fields in rows):
        names = ["", *names]  # row names, which R writes without a heading
    by = (SEPARATORS | BLANK)[separator]
    for line, fields in rows:
        if len(fields) != len(names):
            raise InputError(
                f"{path}: line {line} has {len(fields)} fields and the heading has {len(names)}, separated by {by}. "
                f"Put a field that holds a separator in quotes, and complete the line."
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
    lines = [(number, line) for number, line in enumerate(io.StringIO(text)) if line.strip()] or [(0, "")]
    declared = re.fullmatch(r"\"?sep=(.)\"?\s*", lines[0][1], re.IGNORECASE)
    if declared and len(lines) > 1:
        lines.pop(0)
    while (
        len(lines) > 1
        and (lines[0][1].startswith("#") or _fields(lines[0][1]) == 1)
        and lines[0][1].count('"') % 2 == 0  # or it is a heading of several lines
        and _fields(lines[1][1]) > _fields(lines[0][1])
    ):
        lines.pop(0)  # a title or a comment
    skipped, line = lines[0]
    separator = max(SEPARATORS, key=lambda separator: _fields(line, separator))
    if declared and declared[1] in SEPARATORS:
        separator = declared[1]
    elif _fields(line) == 1 and " " in line.strip():
        separator = " "
    names = next(csv.reader([line.removeprefix("#")], delimiter=separator, skipinitialspace=True), [])
    return [plain_name(name) for name in names], separator, skipped


def _fields(line: str, separator: str = "") -> int:
    """Return into how many fields a line is separated, by the best separator where none is given."""
    return max(
        len([field for field in next(csv.reader([line], delimiter=by), []) if field.strip()] or [""])
        for by in (separator or SEPARATORS)
    )


def _without_empty_end(fields: list[str], length: int) -> list[str]:
    while len(fields) > length and not fields[-1].strip():
        fields = fields[:-1]
    return fields
