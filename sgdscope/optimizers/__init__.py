"""Optimizers: one rule a file, each a few lines under its equation."""

from __future__ import annotations

from sgdscope.converters import shown
from sgdscope.errors import InputError, did_you_mean
from sgdscope.optimizers.adam import Adam, AdamW
from sgdscope.optimizers.base import Optimizer, Oracle, Values
from sgdscope.optimizers.optax_rule import Optax
from sgdscope.optimizers.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optax", "Optimizer", "Oracle", "Values", "parse_optimizer"]


def parse_optimizer(text: str) -> Optimizer:
    """Read an optimizer as it is written on the command line and in tables.

    >>> parse_optimizer("sgd"), parse_optimizer("momentum"), parse_optimizer("momentum:0.5")
    (SGD(momentum=0.0), SGD(momentum=0.9), SGD(momentum=0.5))
    >>> str(parse_optimizer("adamw:beta2=0.95:weight_decay=0|0.01"))
    'adamw:beta2=0.95:weight_decay=0|0.01'

    Raises:
        InputError: where the text names no optimizer.
    """
    kind, *parts = text.split(":")
    try:
        if kind == "sgd" and not parts:
            return SGD()
        if kind == "momentum" and len(parts) < 2:
            return SGD(momentum=_number(parts[0]) if parts else 0.9)
        if kind == "optax" and len(parts) == 1:
            return Optax(parts[0])
        if kind == "optax" and len(parts) == 3:
            return Optax(parts[0], first_window=(int(parts[1]), int(parts[2])))
        if kind in ("adam", "adamw"):
            numbers = dict(part.split("=") for part in parts)
            return (Adam if kind == "adam" else AdamW)(**{name: _number(value) for name, value in numbers.items()})
    except InputError:
        raise
    except (TypeError, ValueError):
        pass
    raise InputError(
        f"optimizers: {shown(text)} is not an optimizer; there are sgd, momentum, momentum:M, adam and adamw, the last "
        f"two with numbers as in adam:beta2=0.99.{did_you_mean(kind, ['sgd', 'momentum', 'adam', 'adamw'])}"
    )


def _number(text: str) -> float | Values:
    numbers = [float(part) for part in text.split("|")]
    return numbers[0] if len(numbers) == 1 else Values(*numbers)
