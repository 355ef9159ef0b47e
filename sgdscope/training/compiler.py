"""Programs compiled in the background, two at a time, and kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Protocol

from sgdscope.training.jax_setup import COMPILER_OPTIONS, QUICKLY_COMPILED, pinned, seal_cache

# Programs that are compiled at the same time.
AT_ONCE = 2


@dataclass(frozen=True)
class CompileTime:
    """The seconds that one program took to be traced, and to be compiled or loaded from the cache."""

    program: str
    trace: float
    compile: float


class Program(Protocol):
    """What can be compiled: a hashable value that says what it is for. Equal programs are compiled once."""

    @property
    def runs_once(self) -> bool:
        """Whether it runs but once or twice a trial, so that it is compiled quickly."""


class Compiler:
    """Compiles what is asked for, once, for a platform by JAX's name."""

    def __init__(self, platform: str) -> None:
        self.compile_times: list[CompileTime] = []
        self._platform = platform
        self._made: dict[Any, Future[Any]] = {}
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="compile")

    def prepare(self, program: Program, lower: Callable[[], Any]) -> Future[Any]:
        """Begin to trace and compile a program in the background, unless that has been done."""
        with self._lock:
            if program not in self._made:
                self._made[program] = self._threads.submit(self._compile, program, lower)
            return self._made[program]

    def _compile(self, program: Program, lower: Callable[[], Any]) -> Any:
        """Return a program after tracing and compiling it; on a CPU quickly where it runs but once or twice."""
        begun = time.perf_counter()
        with pinned():
            lowered = lower()
            traced = time.perf_counter()
            options = dict(COMPILER_OPTIONS[self._platform])
            if program.runs_once and self._platform == "cpu":
                options |= QUICKLY_COMPILED
            compiled = lowered.compile(compiler_options=options)
        self.compile_times.append(CompileTime(str(program), traced - begun, time.perf_counter() - traced))
        return compiled

    @property
    def pending(self) -> int:
        """How many programs are being compiled, or wait for it."""
        return sum(not made.done() for made in list(self._made.values()))

    def seconds(self, programs: int) -> float:
        """Return what so many programs more are expected to take, as those so far did, several at once."""
        took = [done.trace + done.compile for done in list(self.compile_times)]
        return programs * sum(took) / len(took) / AT_ONCE if took else 0.0

    def settle(self) -> None:
        """Wait until nothing is being compiled, which would slow what is to be timed."""
        wait(list(self._made.values()))

    def close(self) -> None:
        """Wait for what is being compiled, and drop what is not yet; what was compiled stays in the cache."""
        self._threads.shutdown(cancel_futures=True)
        seal_cache()
