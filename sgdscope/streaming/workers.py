"""Data-loading workers: processes of the host that read examples before training needs them.

Batches come in the order in which they were asked for, whatever the number of workers. Nothing here imports JAX.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np

from sgdscope.errors import InputError, SgdscopeError
from sgdscope.records import Arrays, Layout
from sgdscope.system import cores

Request = tuple[Any, ...]
Read = Callable[..., Arrays]

# Examples of one task: enough that handing it over costs nothing, few enough that all processes end a batch together.
TASK = 32
# What is read ahead lies in memory that the processes share: about so much, but for each process a few tasks.
SHARED_BYTES = 2**28
TASKS_FOR_EACH = 4
MOST_TASKS = 512


# A worker runs the user's script again, up to there.
GUARD = "A Python script that calls sgdscope on images needs `if __name__ == '__main__':` above the call."


class WorkerDiedError(SgdscopeError, RuntimeError):
    """A data-loading worker has ended, and the training that waits for it stops."""


class Workers:
    """Processes that read examples.

    They end with :meth:`close`, and where their parent is killed. Ctrl-C is for the parent alone.

    Args:
        read: ``read(*request) -> example``, a dictionary of arrays; both are sent to the workers.
        layout: the shape and type of each array of an example.
        count: the number of workers. Default: one for each core.
    """

    def __init__(self, read: Read, layout: Layout, count: int | None = None) -> None:
        self.count = count or cores()
        self._read, self._layout = read, dict(layout)
        size = slot_bytes(self._layout)
        self._tasks = max(TASKS_FOR_EACH * self.count, min(MOST_TASKS, SHARED_BYTES // size))
        self._shared = multiprocessing.get_context("spawn").RawArray("B", self._tasks * size)
        self._slots = [slot(self._shared, number, self._layout) for number in range(self._tasks)]
        self._free = list(range(self._tasks))
        self._pool: ProcessPoolExecutor | None = None
        self._processes = set[BaseProcess]()
        self._others = set[BaseProcess]()

    def batches(self, wanted: Iterable[Sequence[Request]]) -> Generator[dict[str, np.ndarray], None, None]:
        """Yield a batch for each sequence of requests, arrays with a leading axis of its examples, in that order.

        One such iterator is read from at a time, and closed before the next begins.

        Raises:
            WorkerDiedError: If a worker ended; a later call begins new ones.
        """
        pieces = deque[_Piece]()
        try:
            for requests in wanted:
                batch = {key: np.empty((len(requests), *shape), dtype) for key, (shape, dtype) in self._layout.items()}
                for first in range(0, len(requests), TASK):
                    while not self._free:
                        piece = self._taken(pieces)
                        if piece.last:
                            yield piece.batch
                    task = requests[first : first + TASK]
                    pieces.append(self._submit(task, batch, first, first + TASK >= len(requests)))
            while pieces:
                piece = self._taken(pieces)
                if piece.last:
                    yield piece.batch
        except BrokenProcessPool as error:
            raise WorkerDiedError(self._obituary()) from error
        finally:
            wait([piece.future for piece in pieces if not piece.future.cancel()])
            self._free = list(range(self._tasks))

    def close(self) -> None:
        """End the processes; what was asked for and is not read yet is given up."""
        if self._pool is not None:
            end(self._pool, self._processes)
            self._pool = None

    def _submit(self, requests: Sequence[Request], batch: dict[str, np.ndarray], first: int, last: bool) -> _Piece:
        if self._pool is None:
            self._others = set(multiprocessing.active_children())
            self._pool = pool(self.count, _share, (self._read, self._shared, self._layout))
        number = self._free.pop()
        with without_interrupts():
            future = self._pool.submit(_read_task, number, requests)
        if len(self._processes) < self.count:
            self._processes = set(multiprocessing.active_children()) - self._others
        return _Piece(future, number, batch, first, len(requests), last)

    def _taken(self, pieces: deque[_Piece]) -> _Piece:
        """Return the first piece when it has been read, copied to its place in its batch."""
        piece = pieces[0]
        piece.future.result()
        for key, array in piece.batch.items():
            array[piece.first : piece.first + piece.count] = self._slots[piece.slot][key][: piece.count]
        self._free.append(piece.slot)
        return pieces.popleft()

    def _obituary(self) -> str:
        self.close()
        said = obituary(self._processes)
        self._processes.clear()
        return said


@dataclass(frozen=True)
class _Piece:
    """A task that has been handed over: its place in the shared memory, and where in which batch it belongs."""

    future: Future[None]
    slot: int
    batch: dict[str, np.ndarray]
    first: int
    count: int
    last: bool


def pool(count: int, begin: Callable[..., None] = lambda: None, arguments: tuple[Any, ...] = ()) -> ProcessPoolExecutor:
    """Return processes that are begun afresh, since a copy of one in which JAX runs may hang."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, context, initializer=begin, initargs=arguments)


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Begin processes that never see Ctrl-C, not even before they can leave it to the parent: they inherit the mask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end(pool: ProcessPoolExecutor, begun: Iterable[BaseProcess]) -> None:
    """Shut a pool down, and end whatever of its processes is left; what has not begun is given up."""
    # For a pool that broke Python 3.11 may wait for ever: in its first releases for a pipe without a reader (CPython's
    # issue 94777), in all for processes that it forgot since a task was cancelled at that moment.
    if sys.version_info < (3, 11, 7) and (queue := getattr(pool, "_call_queue", None)) and pool._broken:
        queue._reader.close()
    pool.shutdown(cancel_futures=True)
    for process in begun:
        if process.is_alive():
            process.terminate()
            process.join()


def obituary(workers: Iterable[BaseProcess]) -> str:
    """Say which workers of a broken pool, when it has been shut down, ended before their time, and of what."""
    # The others have then been terminated.
    dead = [(process.pid, code) for process in workers if (code := process.exitcode) not in (None, 0, -signal.SIGTERM)]
    ends = [f"exit code {code}" if code > 0 else signal.Signals(-code).name for _, code in dead]
    who = ", ".join(f" {pid} ({end})" for (pid, _), end in zip(dead, ends, strict=True))
    if dead and all(code > 0 for _, code in dead):
        return f"Data-loading worker{who} ended early. {GUARD}"
    return f"Data-loading worker{who} was killed, possibly out of memory. Run the same command to resume."


def slot_bytes(layout: Layout) -> int:
    """Return the bytes of a task's examples.

    >>> slot_bytes({"label": ((), np.dtype(np.uint16))}) == TASK * 2
    True
    """
    return sum(TASK * math.prod(shape) * dtype.itemsize for shape, dtype in layout.values())


def check_example(example: Arrays, layout: Layout) -> None:
    """Refuse an example whose arrays are not those of the layout, in name, shape and type.

    >>> check_example({"label": np.float32(0.5)}, {"label": ((), np.dtype(np.uint16))})
    Traceback (most recent call last):
    sgdscope.errors.InputError: the feed's read gave 'label' as float32 of shape (), its layout says uint16 of shape ().

    Raises:
        InputError: If an array differs; it names the array.
    """
    if example.keys() != layout.keys():
        raise InputError(f"the feed's read gave the arrays {', '.join(example)}, its layout has {', '.join(layout)}.")
    for key, (shape, dtype) in layout.items():
        array = np.asarray(example[key])
        if array.shape != shape or array.dtype != dtype:
            raise InputError(
                f"the feed's read gave {key!r} as {array.dtype} of shape {array.shape}, its layout says {dtype} of "
                f"shape {shape}."
            )


def slot(shared: Any, number: int, layout: Layout) -> dict[str, np.ndarray]:
    """Return the arrays of one task in the shared memory."""
    place, arrays = number * slot_bytes(layout), {}
    for key, (shape, dtype) in layout.items():
        arrays[key] = np.ndarray((TASK, *shape), dtype, shared, place)
        place += arrays[key].nbytes
    return arrays


# ── In the processes ─────────────────────────────────────────────────────────────────────────────────────

_what: tuple[Read, Any, Layout]


def _share(read: Read, shared: Any, layout: Layout) -> None:
    global _what
    _what = read, shared, layout
    leave_to_parent()


def leave_to_parent() -> None:
    """Leave Ctrl-C to the parent, and end with it: where it was killed, a process would wait for ever for its word."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _read_task(number: int, requests: Sequence[Request]) -> None:
    read, shared, layout = _what
    arrays = slot(shared, number, layout)
    for place, request in enumerate(requests):
        example = read(*request)
        check_example(example, layout)
        for key, array in arrays.items():
            array[place] = example[key]
