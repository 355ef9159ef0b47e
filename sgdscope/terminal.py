"""How text is shown: a line a sentence in a pipe, wrapped between words and never in a number on a terminal."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

# What must stay on one line: an interval, a number with its half-width, unit or sign.
KEPT_TOGETHER = re.compile(r"\[[^\[\]\s]+, [^\[\]\s]+\]|(?<=\d) (?=%)|(?<=[±×÷=]) (?=\d)|(?<=\w) (?==)")
# Between columns of a table, and before what belongs to a row where rows are written below each other.
GAP, INDENT = " ", "  "
GLUE = "\N{NO-BREAK SPACE}"


def width_of(console: Console) -> int | None:
    """Return how many columns there are; None in a pipe or a file, where lines have no end."""
    return console.width if console.is_terminal or "COLUMNS" in os.environ else None


def print_text(console: Console, text: str, indent: int = 0, style: str = "") -> None:
    """Print text as it is, without markup; on a terminal its lines are wrapped between words.

    Indented text is a paragraph, and wrapped in a pipe too.
    """
    space = " " * indent
    for line in text.split("\n"):
        parts = wrapped(line, console.width - indent) if console.is_terminal or indent else [line]
        for part in parts:
            print_line(console, space + part, style)


def print_line(console: Console, line: str, style: str = "") -> None:
    """Print one line as it is, however long: a path or a command, which is to be copied whole."""
    console.print(Text(line, style), soft_wrap=True)


def wrapped(line: str, width: int) -> list[str]:
    """Return a line as several of at most a width; a word, number or interval that is longer stays whole.

    >>> wrapped("rate 0.25 [0.18, 0.35] at batch size 64", 14)
    ['rate 0.25', '[0.18, 0.35]', 'at batch size', '64']
    """
    if len(line) <= width:
        return [line]
    glued = KEPT_TOGETHER.sub(lambda found: found[0].replace(" ", GLUE), line)
    parts = textwrap.wrap(
        glued, width, break_long_words=False, break_on_hyphens=False, drop_whitespace=True, replace_whitespace=False
    )
    return [part.replace(GLUE, " ") for part in parts] or [line]


@dataclass(frozen=True)
class TextTable:
    """A table that breaks no number: where it is wider than the terminal, its rows are written below each other.

    Args:
        headings: one for each column.
        rows: texts, one for each column.
        left: how many columns from the left, of text, are written from the left; a line parts rows that differ there.
        names: how many columns from the left tell which row it is.
        caption: is written below it.
        left_too: further columns that are written from the left.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int
    names: int
    caption: str = ""
    left_too: tuple[int, ...] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.lines(width_of(console)):
            yield Text(line, no_wrap=True, overflow="ignore")

    def lines(self, width: int | None) -> list[str]:
        """Return the table as lines, of at most a width where there is one."""
        caption = [self.caption] if width is None else wrapped(self.caption, width)
        return (self._across(width) or self._below(width or 0)) + (caption if self.caption else [])

    def _across(self, width: int | None) -> list[str]:
        """Return a line a row; nothing where they are too wide."""
        widths = [max(map(cell_len, column)) for column in zip(self.headings, *self.rows, strict=True)]
        if width is not None and sum(widths) + len(GAP) * (len(widths) - 1) > width:
            return []
        parted = len({tuple(row[: self.left]) for row in self.rows}) < len(self.rows)
        lines, previous = [self._line(self.headings, widths), "─" * (sum(widths) + len(GAP) * (len(widths) - 1))], None
        for row in self.rows:
            if parted and previous not in (None, row[: self.left]):
                lines.append("")
            lines.append(self._line(row, widths))
            previous = row[: self.left]
        return lines

    def _line(self, row: Sequence[str], widths: Sequence[int]) -> str:
        cells = []
        for number, (cell, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - cell_len(cell))
            cells.append(cell + space if number < self.left or number in self.left_too else space + cell)
        return GAP.join(cells).rstrip()

    def _below(self, width: int) -> list[str]:
        """Return a block a row: its names, and below them a line for each other column."""
        longest = max(map(cell_len, self.headings[self.names :]))
        lines = list[str]()
        for row in self.rows:
            names = zip(self.headings[: self.names], row[: self.names], strict=True)
            lines += wrapped(", ".join(f"{heading} {cell}" for heading, cell in names), width)
            for heading, cell in zip(self.headings[self.names :], row[self.names :], strict=True):
                line = f"{INDENT}{heading:<{longest}}{INDENT}{cell}"
                if not cell:
                    continue
                if cell_len(line) <= width:
                    lines.append(line)
                else:
                    parts = wrapped(cell, width - 2 * len(INDENT))
                    lines += [f"{INDENT}{heading}", *(f"{INDENT * 2}{part}" for part in parts)]
        return lines


def print_table(console: Console, table: TextTable) -> None:
    """Print a table as wide as it is in a pipe, and as the terminal allows on one."""
    console.print(table, soft_wrap=True)
