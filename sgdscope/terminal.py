"""What is printed: shown as it is, wrapped between words, and never what decides whether a command does its work."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.text import Text

# What a terminal obeys rather than shows: control characters, and those that turn the direction of writing.
OBEYED = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
LINE_BREAK = "\n"
# What must stay on one line: an interval, a number with its half-width, unit or sign.
KEPT_TOGETHER = re.compile(r"\[[^\[\]\s]+, [^\[\]\s]+\]|(?<=\d) (?=%)|(?<=[±×÷=]) (?=\d)|(?<=\w) (?==)")
# Between columns of a table, and before what belongs to a row where rows are written below each other.
GAP, INDENT = " ", "  "
GLUE = "\N{NO-BREAK SPACE}"


def visible(text: str, kept: str = "") -> str:
    r"""Return a text whose control characters are written out, but for those that are kept.

    >>> print(visible("a\x1b[2J\n"))
    a\x1b[2J\n
    """
    return OBEYED.sub(lambda sign: sign[0] if sign[0] in kept else sign[0].encode("unicode_escape").decode(), text)


class Terminal(Console):
    """A console that shows texts as they are: it reads no markup in them, and obeys no control characters."""

    def __init__(self, **how: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as a console does, with control characters written out."""
        for segment in super().render(renderable, options):
            if segment.control is None and OBEYED.search(segment.text):
                yield Segment(visible(segment.text, LINE_BREAK), segment.style)
            else:
                yield segment

    def on_broken_pipe(self) -> None:
        """Print no more, since the reader has gone; the work goes on."""
        self.quiet = True


class Output:
    """A standard stream that never raises: what cannot be written is left out, and what cannot be encoded replaced."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write what can be written."""
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            return self.write(text.encode(encoding, "replace").decode(encoding))
        except OSError as error:
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Flush what can be written."""
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def close(self) -> None:
        """Leave the stream open, for what is printed after a study file that closes it."""
        self.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self, error: OSError) -> None:
        """Send the rest to nowhere, with what the stream still holds."""
        self.error = self.error or error
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.dup2(nowhere, self._stream.fileno())
        finally:
            os.close(nowhere)


@contextmanager
def outputs() -> Iterator[tuple[Output, Output]]:
    """Make the standard output and error streams never raise."""
    for descriptor in range(3):  # one that is closed would become that of the next file, for others to print into
        try:
            os.fstat(descriptor)
        except OSError as error:
            if error.errno == errno.EBADF:
                os.open(os.devnull, os.O_RDWR)
    streams = sys.stdout, sys.stderr
    out, err = (Output(io.StringIO() if stream is None else stream) for stream in streams)
    sys.stdout, sys.stderr = out, err
    try:
        yield out, err
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = streams


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
    console.print(Text(visible(line), style), soft_wrap=True)


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
        for line in self._visible().lines(width_of(console)):
            yield Text(line, no_wrap=True, overflow="ignore")

    def _visible(self) -> TextTable:
        rows = [tuple(map(visible, row)) for row in self.rows]
        return replace(self, headings=tuple(map(visible, self.headings)), rows=rows, caption=visible(self.caption))

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
