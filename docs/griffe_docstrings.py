"""What the package's docstrings mean in Markdown: examples are code, and references are names."""

from __future__ import annotations

import re
from typing import Any

import griffe

# An example runs from its first prompt to the next empty line.
EXAMPLE = re.compile(r"(?m)^( *)>>> (?:.+\n?)+")
REFERENCE = re.compile(r":\w+:`~?([^`]+)`")


class Docstrings(griffe.Extension):
    """Rewrite each docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """Return a docstring whose examples are fenced and whose references are code."""
    text = REFERENCE.sub(r"`\1`", text).replace("::\n", ":\n")
    return EXAMPLE.sub(lambda found: f"{found[1]}```pycon\n{found[0].rstrip()}\n{found[1]}```\n", text).rstrip("\n")
