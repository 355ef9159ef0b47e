"""What a run shows of itself: one calm display on a terminal, plain lines in a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from types import TracebackType
from typing import Self

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table
from rich.text import Text

from sgdscope.engine.standing import Standing
from sgdscope.formatting import duration
from sgdscope.terminal import visible

LINE_EVERY_SECONDS = 10.0
# A cell by the share of it that is done: none, some, all of what is known to be wanted.
SHADES = "·░▒▓█"
# How many of them a cell is wide.
CELL = 2
# A narrower terminal has no place for a bar beside the remaining time.
WIDTH_WITH_BAR = 100
# More rows would scroll, and no longer be one calm display.
MOST_ROWS = 12


class RunProgress:
    """Overall progress in expected seconds of work, with the remaining time as the work done so far tells it.

    Below it, where it can be drawn over, stand the cells and the best so far.
    """

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        # What is too wide is wrapped between words; else rich would cut it, in the midst of a number.
        text = TextColumn("{task.percentage:>3.0f} %  {task.fields[note]}", markup=False, table_column=Column())
        name = TextColumn("{task.description}", markup=False)
        columns = (name, BarColumn(bar_width=30), text) if console.width >= WIDTH_WITH_BAR else (text,)
        self._bar = Progress(*columns, console=console)
        self._task = self._bar.add_task(visible(title), total=1.0, note="estimating the remaining time …")
        # A notebook can draw over what it shows with ipywidgets alone.
        redrawn = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
        self._live = Live(self._bar, console=console, transient=True) if redrawn else None
        self._begun = time.perf_counter()
        self._next_line = 0.0
        self._estimated = False
        self._workers: Sequence[str] = ()

    def __enter__(self) -> Self:
        if self._live:
            self._shown(self._live.start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._shown(self._live.stop)

    def say(self, text: str) -> None:
        """Print a line above the display."""
        self._shown(lambda: self._console.print(Text(visible(text)), soft_wrap=self._live is None))

    def _shown(self, show: Callable[[], None]) -> None:
        """Show something, and nothing more where that fails: a closed pipe or terminal must not end the training."""
        try:
            show()
        except (OSError, ValueError, SystemExit):  # a rich console exits where its pipe is closed
            self._console, self._live = Console(quiet=True), None

    def show(self, trials_done: int, trials_expected: int, seconds_left: float | None) -> None:
        """Show where the run stands; ``seconds_left`` is None while nothing has been timed."""
        now = time.perf_counter()
        elapsed = now - self._begun
        left = "estimating the remaining time …" if seconds_left is None else f"about {duration(seconds_left)} left"
        share = 0.0 if seconds_left is None else elapsed / max(elapsed + seconds_left, 1e-9)
        note = f"{trials_done} of about {trials_expected} trials, {left}"
        self._bar.update(self._task, completed=share, note=visible(note))
        first_estimate = seconds_left is not None and not self._estimated
        self._estimated |= first_estimate
        if not self._live and (first_estimate or now >= self._next_line):
            self._next_line = now + LINE_EVERY_SECONDS
            self.say(f"{duration(elapsed)}: {note}")
            for worker in _named(self._workers):
                self.say(f"  {worker}")

    def show_workers(self, workers: Sequence[str]) -> None:
        """Show the workers of the folder, this one first, with the next line or the next cells."""
        self._workers = workers

    @property
    def is_redrawn(self) -> bool:
        """Whether there is a display that can be drawn over, which a pipe is not."""
        return self._live is not None

    def show_cells(self, standing: Standing) -> None:
        """Show the cells, and the best so far, where they can be drawn over."""
        if self._live:
            best = Text(visible(standing.best), "dim")
            cells = cells_table(standing, self._console.width - 2)
            workers = [Text(f"  {visible(worker)}", "dim") for worker in _named(self._workers)]
            shown = Group(self._bar, Padding(cells, (1, 0, 1, 2)), best, *workers)
            self._shown(partial(self._live.update, shown))


def _named(workers: Sequence[str]) -> list[str]:
    """Return lines that name as many workers as there is room for, and how many more there are."""
    more = len(workers) - MOST_ROWS
    return [*workers[:MOST_ROWS], *[f"and {more} more workers"] * (more > 0)]


def cells_table(standing: Standing, width: int) -> RenderableType:
    """Return the cells as a table, a row for each optimizer and a column for each batch size, shaded as they are done.

    Of many rows those are shown in which the run is now: neither done nor to come. Batch sizes for which the width is
    too small follow in a table below.
    """
    rows = list(standing.shares.items())
    begun = [number for number, (_, shares) in enumerate(rows) if any(share < 1 for share in shares.values())]
    first = max(0, min(begun[0] if begun else 0, len(rows) - MOST_ROWS))
    told_apart = [len({names[place] for names, _ in rows}) > 1 for place in (0, 1)]
    shown = [
        (visible(" ".join(name for name, apart in zip(names, [*told_apart, True], strict=True) if apart)), shares)
        for names, shares in rows[first : first + MOST_ROWS]
    ]
    sizes = list(shown[0][1]) if shown else []
    column = 1 + max((len(str(size)) for size in sizes), default=0)
    at_once = max(1, (width - max((cell_len(name) for name, _ in shown), default=0)) // max(column, 1 + CELL))
    tables = []
    for some in (sizes[place : place + at_once] for place in range(0, len(sizes), at_once)):
        table = Table.grid(padding=(0, 1))
        for _ in range(1 + len(some)):
            table.add_column(justify="right", no_wrap=True)
        table.add_row("", *(Text(str(size), "dim") for size in some))
        for name, shares in shown:
            table.add_row(Text(name, "dim"), *(_shaded(shares[size]) for size in some))
        tables.append(table)
    return Group(*tables)


def _shaded(share: float) -> Text:
    shade = SHADES[0] if share == 0 else SHADES[1 + int(share * (len(SHADES) - 2))]
    return Text(shade * CELL, "cyan" if share else "dim")
