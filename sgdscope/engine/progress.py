"""What a run shows of itself: one calm display on a terminal, plain lines in a pipe."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

LINE_EVERY_SECONDS = 10.0


class RunProgress:
    """Overall progress in expected seconds of work, with the remaining time as the work done so far tells it."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[note]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal and not console.is_jupyter,
        )
        self._task = self._bar.add_task(title, total=1.0, note="estimating the remaining time …")
        self._begun = time.perf_counter()
        self._next_line = 0.0
        self._estimated = False

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, highlight=False, markup=False)

    def show(self, trials_done: int, trials_expected: int, seconds_left: float | None) -> None:
        """Show where the run stands; ``seconds_left`` is None while nothing has been timed."""
        now = time.perf_counter()
        elapsed = now - self._begun
        left = "estimating the remaining time …" if seconds_left is None else f"about {duration(seconds_left)} left"
        share = 0.0 if seconds_left is None else elapsed / max(elapsed + seconds_left, 1e-9)
        note = f"{trials_done} of about {trials_expected} trials, {left}"
        self._bar.update(self._task, completed=share, note=note)
        first_estimate = seconds_left is not None and not self._estimated
        self._estimated |= first_estimate
        if self._bar.disable and (first_estimate or now >= self._next_line):
            self._next_line = now + LINE_EVERY_SECONDS
            self.say(f"{duration(elapsed)}: {note}")


def duration(seconds: float) -> str:
    """Say a duration in the two largest units that matter.

    >>> duration(7.4), duration(75), duration(7300)
    ('7 s', '1 min 15 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
