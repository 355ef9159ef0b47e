"""A user's table as text: cells as they were written, each with the line on which an editor shows it.

Types are never inferred from the first rows. A column becomes numbers only where it is used, all of it by one rule.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from sgdscope.errors import InputError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# What pandas, R, spreadsheets and databases write where there is nothing.
MISSING = frozenset(("", "nan", "none", "null", "na", "n/a", "<na>", "#n/a", "nil", "undefined", "-", "--", ".", "?"))
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
INFINITE = re.compile(r"([+-]?)(inf|infinity|∞)", re.IGNORECASE)
GROUPED_BY_COMMAS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")
GROUPED_BY_POINTS = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+(,\d*)?")
# Between groups of three digits: blanks of every width, apostrophes, underscores.
BETWEEN_GROUPS = re.compile(r"(?<=\d)[\s'’_](?=\d{3}(?!\d))")


@dataclass(frozen=True)
class TextTable:
    """A table of text: ``columns`` by name, ``lines`` the number of each row, called a ``unit`` in messages.

    A cell that holds nothing is None.
    """

    path: Path
    columns: dict[str, list[str | None]]
    lines: list[int]
    unit: str = "line"
    separator: str = ","

    def at(self, row: int) -> str:
        """Return where a row stands, as an error says it."""
        return f"{self.unit} {self.lines[row]}"

    def of(self, rows: Sequence[int]) -> TextTable:
        """Return some of the rows."""
        columns = {name: [values[row] for row in rows] for name, values in self.columns.items()}
        return replace(self, columns=columns, lines=[self.lines[row] for row in rows])

    def decimal_comma(self, names: Sequence[str]) -> bool:
        """Return whether numbers are written with a decimal comma, as ``0,95``.

        ``1,024`` alone may be either number: the other cells decide, and semicolons between columns where none does.

        Raises:
            InputError: If some numbers have a decimal comma and others a decimal point.
        """
        seen: dict[str, tuple[str, int]] = {}
        for name in names:
            for row, text in enumerate(self.columns.get(name, [])):
                bare = BETWEEN_GROUPS.sub("", (text or "").rstrip("% "))
                if not re.fullmatch(r"[+\-−]?[\d.,]+(e[+-]?\d+)?", bare, re.IGNORECASE):
                    continue
                last = max(bare.rfind(","), bare.rfind("."))
                grouped = GROUPED_BY_COMMAS.fullmatch(bare) or GROUPED_BY_POINTS.fullmatch(bare)
                both = "," in bare and "." in bare
                if last >= 0 and (both or not grouped):
                    seen.setdefault(bare[last], (text or "", row))
        if len(seen) == 2:
            (comma, first), (point, second) = seen[","], seen["."]
            raise InputError(
                f"{self.path}: {comma!r} in {self.at(first)} has a decimal comma and {point!r} in {self.at(second)} a "
                f"decimal point. Write all numbers in one way."
            )
        return "," in seen or (not seen and self.separator == ";")

    def numbers(self, name: str, decimal_comma: bool) -> list[float]:
        """Return a column as numbers; NaN where a cell holds nothing.

        Raises:
            InputError: If a cell holds something else, or some cells are percentages and others are not.
        """
        values = [math.nan if text is None else number(text, decimal_comma) for text in self.columns[name]]
        for row, (text, value) in enumerate(zip(self.columns[name], values, strict=True)):
            if value is None:
                raise InputError(f"{self.path}: {name} {text!r} is not a number ({self.at(row)}).")
        shares = [row for row, text in enumerate(self.columns[name]) if text and text.endswith("%")]
        plain = [row for row, text in enumerate(self.columns[name]) if text and not text.endswith("%")]
        if shares and plain:
            raise InputError(
                f"{self.path}: {name} is a percentage in {self.at(shares[0])} and has no % in {self.at(plain[0])}. "
                f"Write all of the column in one way."
            )
        return [value for value in values if value is not None]


def number(text: str, decimal_comma: bool = False) -> float | None:
    """Return the number that a cell holds, without its percent sign; None where it holds none.

    >>> number("1,024"), number("0,95", decimal_comma=True), number("97.3%"), number("1e3"), number("fast")
    (1024.0, 0.95, 97.3, 1000.0, None)
    """
    bare = BETWEEN_GROUPS.sub("", text.strip().removesuffix("%").strip().replace("−", "-"))
    infinite = INFINITE.fullmatch(bare)
    if infinite:
        return -math.inf if infinite[1] == "-" else math.inf
    if decimal_comma:
        if GROUPED_BY_POINTS.fullmatch(bare):
            bare = bare.replace(".", "")
        bare = bare.replace(",", ".")
    elif GROUPED_BY_COMMAS.fullmatch(bare):
        bare = bare.replace(",", "")
    return float(bare) if NUMBER.fullmatch(bare) else None


def read_text_table(path: Path) -> TextTable:
    """Read a ``.csv`` or ``.parquet`` file as text.

    The separator of a ``.csv`` file may be a comma, a semicolon, a tab or a bar. Blank lines are passed over, and so
    is a first column of row names without a heading.

    Args:
        path: The file.

    Raises:
        InputError: If the file cannot be read as a table.
    """
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise InputError(f"{path} must end in .csv or .parquet.")
    try:
        return _parquet(path) if kind == ".parquet" else _csv(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except (OSError, csv.Error, pl.exceptions.PolarsError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"{path} cannot be read as a table: {reason}.") from error


def _parquet(path: Path) -> TextTable:
    table = pl.read_parquet(path)
    columns = {_name(name): [_cell(value) for value in table[name].to_list()] for name in table.columns}
    return TextTable(path, columns, list(range(1, len(table) + 1)), "row")


def _csv(path: Path) -> TextTable:
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
    names, rows = [_name(name) for name in records[0][1]] if records else first, records[1:]
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
        values = [_cell(fields[place]) for _, fields in rows]
        if name in columns and columns[name] != values:
            columns[f"{name} (twice)"] = values
        else:
            columns[name] = values
    return TextTable(path, columns, [line for line, _ in rows], "line", separator)


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
    return [_name(name) for name in next(csv.reader([line], delimiter=separator), [])], separator, skipped


def _without_empty_end(fields: list[str], length: int) -> list[str]:
    while len(fields) > length and not fields[-1].strip():
        fields = fields[:-1]
    return fields


def _name(name: str) -> str:
    return name.strip().lstrip("\ufeff")


def _cell(value: object) -> str | None:
    text = "" if value is None else str(value).strip()
    return None if text.lower() in MISSING else text
