"""Converters of what a user gives: one value or several, numpy's numbers to Python's, and errors that name a field."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from sgdscope.errors import InputError

# Longer values are cut in a message: an error is a sentence that can be read.
LONGEST_SHOWN = 60


def several(values: Any) -> tuple[Any, ...]:
    """Return one value or several as a tuple; text and arrays without axes are one value.

    >>> several(3), several([1, 2]), several("sgd")
    ((3,), (1, 2), ('sgd',))
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable) or _has_no_axes(values):
        return (values,)
    return tuple(values)


def whole(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """Return a whole number as Python's ``int``.

    Args:
        name: The name of the field, for the message.
        value: A whole number of Python, numpy or JAX. Truth values, text and fractions are refused.
        least: The smallest number that is allowed. Default: any.
        most: The largest number that is allowed. Default: any.

    Raises:
        InputError: If ``value`` is not a whole number within the bounds.
    """
    try:
        if _is_truth_value(value):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        at_least = "" if least is None else f" of at least {least}"
        raise InputError(f"{name}: {shown(value)} is not a whole number{at_least}.") from None
    if least is not None and number < least:
        raise InputError(f"{name}: {shown(number)} is not a whole number of at least {least}.")
    if most is not None and number > most:
        raise InputError(f"{name}: {shown(number)} is too large; use at most {most:,}.")
    return number


def real(name: str, value: Any) -> float:
    """Return a number, finite or not, as Python's ``float``.

    Args:
        name: The name of the field, for the message.
        value: A number of Python, numpy or JAX. Truth values, text and complex numbers are refused.

    Raises:
        InputError: If ``value`` is not a number, or is too large for a float.
    """
    value = python_value(value)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(f"{name}: {shown(value)} is not a number.")
    try:
        return float(value)
    except OverflowError:
        raise InputError(f"{name}: {shown(value)} is too large.") from None


def positive(name: str, value: Any, what: str = "") -> float:
    """Return a number that is positive and finite as Python's ``float``.

    Raises:
        InputError: If ``value`` is not such a number.
    """
    number = real(name, value)
    if not (math.isfinite(number) and number > 0):
        raise InputError(f"{name}: {what}{shown(value)} is not positive and finite.")
    return number


def function(name: str, value: Any, optional: bool = False) -> Any:
    """Return a function as it is.

    Args:
        name: The name of the field, for the message.
        value: A function, or any object that can be called.
        optional: Whether None is allowed. Default: False.

    Raises:
        InputError: If ``value`` cannot be called.
    """
    if not (callable(value) or (optional and value is None)):
        raise InputError(f"{name}: {shown(value)} is not a function.")
    return value


def mapping(name: str, value: Any, of: str) -> Mapping[Any, Any]:
    """Return a mapping as it is.

    Args:
        name: The name of the field, for the message.
        value: A dictionary, or another mapping.
        of: What the mapping holds, for the message.

    Raises:
        InputError: If ``value`` is not a mapping.
    """
    if not isinstance(value, Mapping):
        raise InputError(f"{name}: {shown(value)} is not a dictionary of {of}.")
    return value


def word(name: str, value: Any) -> str:
    """Return text that is not empty as it is.

    Args:
        name: The name of the field, for the message.
        value: The text.

    Raises:
        InputError: If ``value`` is not text, or is empty.
    """
    if not (isinstance(value, str) and value.strip()):
        raise InputError(f"{name} must be a word, not {shown(value)}.")
    return value


def python_value(value: Any) -> Any:
    """Return a number of numpy or JAX as Python's; everything else as it is."""
    return value.item() if hasattr(value, "item") and _has_no_axes(value) else value


def shown(value: Any) -> str:
    """Return a value as a message shows it: numpy's numbers as they are read, and nothing that is too long.

    >>> shown("5"), shown(2.5), shown(10**70)
    ("'5'", '2.5', 'a number of over 60 digits')
    """
    value = python_value(value)
    if isinstance(value, int) and abs(value) >= 10**LONGEST_SHOWN:
        return f"a number of over {LONGEST_SHOWN} digits"
    return shortened(repr(value))


def shortened(text: str) -> str:
    """Return text on one line, cut where it is too long for a message."""
    line = " ".join(text.split())
    more = len(line) - LONGEST_SHOWN
    return line if more <= 0 else f"{line[:LONGEST_SHOWN]} (and {more:,} more characters)"


def _has_no_axes(value: Any) -> bool:
    return getattr(value, "shape", None) == ()


def _is_truth_value(value: Any) -> bool:
    return isinstance(value, bool) or getattr(getattr(value, "dtype", None), "kind", "") == "b"
