"""A user's table as text: cells as they were written, each with the line on which an editor shows it.

Types are never inferred from the first rows. A column becomes numbers only where it is used, all of it by one rule.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sgdscope.errors import InputError

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
    """A table of text. A cell that holds nothing is None.

    Args:
        path: Where it was read from.
        columns: Cells by the column's name.
        lines: The number or the name of each row.
        unit: What a row is called in messages.
        separator: What stood between the columns.
        along: Values along training, by the column and the row, of columns that hold the last of them.
        goals: Whether the values of a column are to be maximized or minimized, where its tool keeps that.
    """

    path: Path
    columns: dict[str, list[str | None]]
    lines: Sequence[int | str]
    unit: str = "line"
    separator: str = ","
    along: Mapping[str, list[list[float]]] = field(default_factory=dict)
    goals: Mapping[str, str] = field(default_factory=dict)

    def at(self, row: int) -> str:
        """Return where a row stands, as an error says it."""
        return f"{self.unit} {self.lines[row]}"

    @property
    def is_store(self) -> bool:
        """Whether a tool keeps these runs, among which others may be that are no trials."""
        return self.unit == "run"

    @property
    def rows(self) -> str:
        """What the rows are called in messages."""
        return "runs" if self.is_store else "rows"

    def of(self, rows: Sequence[int]) -> TextTable:
        """Return some of the rows."""
        columns = {name: [values[row] for row in rows] for name, values in self.columns.items()}
        along = {name: [values[row] for row in rows] for name, values in self.along.items()}
        return replace(self, columns=columns, lines=[self.lines[row] for row in rows], along=along)

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


def of_rows(
    path: Path, rows: Sequence[Mapping[str, Any]], lines: Sequence[int | str], unit: str, **more: Any
) -> TextTable:
    """Return rows of values as a table. What is nested is named by its path.

    >>> of_rows(Path("x"), [{"config": {"lr": 0.1}}, {"state": "finished"}], [1, 2], "line").columns
    {'config.lr': ['0.1', None], 'state': [None, 'finished']}
    """
    flat = [flattened(row) for row in rows]
    names = dict.fromkeys(name for row in flat for name in row)
    return TextTable(path, {name: [cell(row.get(name)) for row in flat] for name in names}, lines, unit, **more)


def flattened(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Return nested mappings as one, each value by its path."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{plain_name(str(name))}.{inner}": of for inner, of in flattened(value).items()}
        else:
            found[plain_name(str(name))] = value
    return found


def plain_name(name: str) -> str:
    """Return a column's name without the blanks and marks around it."""
    return name.strip().lstrip("\ufeff")


def cell(value: object) -> str | None:
    """Return a value as text, None where it stands for nothing."""
    text = "" if value is None else str(value).strip()
    return None if text.lower() in MISSING else text
