"""How text is shown: a line a sentence in a pipe, wrapped between words and never in a number on a terminal."""

from __future__ import annotations

import os
import re
import textwrap

from rich.console import Console
from rich.text import Text

# What must stay on one line: an interval, a number with its half-width, unit or sign.
KEPT_TOGETHER = re.compile(r"\[[^\[\]\s]+, [^\[\]\s]+\]|(?<=\d) (?=%)|(?<=[±×÷=]) (?=\d)|(?<=n) (?== \d)")
GLUE = "\N{NO-BREAK SPACE}"


def width_of(console: Console) -> int | None:
    """Return how many columns there are; None in a pipe or a file, where lines have no end."""
    return console.width if console.is_terminal or "COLUMNS" in os.environ else None


def print_text(console: Console, text: str) -> None:
    """Print text as it is, without markup or colours; on a terminal its lines are wrapped between words."""
    width = console.width if console.is_terminal else None
    lines = text.split("\n") if width is None else [part for line in text.split("\n") for part in wrapped(line, width)]
    for line in lines:
        print_line(console, line)


def print_line(console: Console, line: str) -> None:
    """Print one line as it is, however long: a path or a command, which is to be copied whole."""
    console.print(Text(line), soft_wrap=True)


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
