"""Clocks that are far ahead: a function that reads one while JAX traces it gives another trace then."""

from __future__ import annotations

import contextlib
import datetime
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

# Times within two minutes are one number in float32; more than a year later every part of a date differs as well.
AHEAD = datetime.timedelta(days=400, hours=5, minutes=7, seconds=11)
# Modules that read clocks for purposes of their own, also in threads.
UNTOUCHED = sys.stdlib_module_names | {"jax", "jaxlib", "numpy", "polars"}
# The parts of a time as tuples or text, by the place of the argument that stands for now where it is not given.
OF_NOW = {"localtime": 0, "gmtime": 0, "ctime": 0, "strftime": 1, "asctime": 0}


class _Later(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> _Later:
        return super().now(tz) + AHEAD

    @classmethod
    def utcnow(cls) -> _Later:
        return cls.now(datetime.UTC).replace(tzinfo=None)


@contextlib.contextmanager
def clocks_ahead() -> Iterator[None]:
    """Set Python's clocks ahead, also where a module has imported them by name; those of durations stay."""
    now, now_ns = time.time, time.time_ns
    later: dict[str, Any] = {
        "time": lambda: now() + AHEAD.total_seconds(),
        "time_ns": lambda: now_ns() + round(AHEAD.total_seconds()) * 1_000_000_000,
    }
    later |= {name: _at(getattr(time, name), place, name) for name, place in OF_NOW.items()}
    replaced = {id(getattr(time, name)): other for name, other in later.items()} | {id(datetime.datetime): _Later}
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.multiple(time, **later))
        stack.enter_context(mock.patch.object(datetime, "datetime", _Later))
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] in UNTOUCHED:
                continue
            named = dict(getattr(module, "__dict__", {}))
            for key in [key for key, value in named.items() if id(value) in replaced]:
                stack.enter_context(mock.patch.object(module, key, replaced[id(named[key])]))
        yield


def _at(function: Callable[..., Any], place: int, name: str) -> Callable[..., Any]:
    """Return a function of time's that takes the time ahead where it would take now."""
    local = time.localtime

    def later(*arguments: Any) -> Any:
        if len(arguments) > place:
            return function(*arguments)
        seconds = time.time()  # ahead already
        return function(*arguments, local(seconds) if name in ("strftime", "asctime") else seconds)

    return later
