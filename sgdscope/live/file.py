"""A file that grows: ``live.html`` in a study's folder, which a browser reads again by itself.

``run --live`` starts this module as a process of its own, which ends with the run: it neither slows nor stops training.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sgdscope import atomic
from sgdscope.errors import InputError, keep_traceback
from sgdscope.live.page import REFRESH_SECONDS, live_page, state_of

FILE = "live.html"
# Drawing takes at most this share of the time of one core.
SHARE = 0.05


def write(folder: Path, refreshing: bool = True) -> bool:
    """Write the page of a study as it is now, and return whether the study is finished."""
    page = live_page(folder, "report.html" if (folder / "report.html").is_file() else "", refreshing)
    atomic.replace(folder / FILE, page.html.encode(errors="replace"))
    return page.finished


def keep(folder: Path, wait: Callable[[float], bool]) -> None:
    """Write the page whenever trials were committed, until the study is finished or ``wait`` says to stop.

    Args:
        folder: The study's folder.
        wait: Waits so many seconds, and returns whether to stop.
    """
    written: tuple[str, ...] | None = None
    while True:
        begun = time.perf_counter()
        try:
            if (folder / "study.json").is_file() and (found := state_of(folder)) != written:
                if write(folder):
                    return
                written = found
        except InputError:
            pass  # a file that is not whole, as it may be at the next look
        except Exception as error:  # what is shown of a study must not end while it is trained
            keep_traceback(error, [folder / "errors"])
        if wait(max(REFRESH_SECONDS, (time.perf_counter() - begun) / SHARE)):
            return


@contextlib.contextmanager
def beside(folder: Path) -> Iterator[None]:
    """Keep the page of a study while it is trained here, and write it a last time at the end.

    The process that writes it ends when its input does, so it cannot outlive the run.
    """
    command = [sys.executable, "-m", "sgdscope.live.file", str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)  # noqa: S603 - our own module
    try:
        yield
    finally:
        assert process.stdin is not None  # noqa: S101 - a pipe was asked for
        process.stdin.close()
        process.wait()
        try:
            if (folder / "study.json").is_file():
                write(folder, refreshing=False)
        except Exception as error:  # what is shown of a study must not end it
            keep_traceback(error, [folder / "errors"])


def _input_ends(seconds: float) -> bool:
    return bool(select.select([sys.stdin], [], [], seconds)[0])


if __name__ == "__main__":
    os.nice(10)
    keep(Path(sys.argv[1]), _input_ends)
