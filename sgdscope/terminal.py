"""What is printed: shown as it is, and never what decides whether a command does its work."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# What a terminal obeys rather than shows: control characters, and those that turn the direction of writing.
OBEYED = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
LINE_BREAK = "\n"


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
        """Print no more: nobody reads it, and the work goes on."""
        self.quiet = True


class Output:
    """A standard stream that fails nobody: what cannot be written is left out, and what cannot be encoded replaced."""

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
    """Make the standard output and error streams fail nobody."""
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
