"""Numbers of numpy and JAX where a field takes one of Python's own."""

from __future__ import annotations

from typing import Any


def plain(value: Any) -> Any:
    """Return a number of numpy or JAX as Python's own, and anything else as it is.

    >>> import numpy as np
    >>> plain(np.int64(4)), plain(np.float32(0.5)), plain("4")
    (4, 0.5, '4')
    """
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def make_plain(instance: Any, *names: str) -> None:
    """Replace fields of a frozen dataclass by Python's own numbers, where they are numpy's or JAX's."""
    for name in names:
        object.__setattr__(instance, name, plain(getattr(instance, name)))
