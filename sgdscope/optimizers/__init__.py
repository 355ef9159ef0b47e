"""Optimizers: one rule a file, each a few lines under its equation."""

from __future__ import annotations

from dataclasses import fields

from sgdscope.converters import shown
from sgdscope.errors import InputError, did_you_mean
from sgdscope.optimizers.adam import Adam, AdamW
from sgdscope.optimizers.base import Layer, Optimizer, Oracle, Values
from sgdscope.optimizers.kfac import KFAC
from sgdscope.optimizers.optax_rule import Optax
from sgdscope.optimizers.regularized import L2, SAM, GradientPenalty, LabelSmoothing
from sgdscope.optimizers.sgd import SGD
from sgdscope.optimizers.svrg import SVRG, AlphaSVRG

__all__ = [
    "KFAC",
    "L2",
    "SAM",
    "SGD",
    "SVRG",
    "Adam",
    "AdamW",
    "AlphaSVRG",
    "GradientPenalty",
    "LabelSmoothing",
    "Layer",
    "Optax",
    "Optimizer",
    "Oracle",
    "Values",
    "parse_optimizer",
]

# Rules that are written as their name and numbers, such as ``adam:beta2=0.99``.
BY_NAME: dict[str, type[Optimizer]] = {
    "adam": Adam,
    "adamw": AdamW,
    "kfac": KFAC,
    "svrg": SVRG,
    "alpha_svrg": AlphaSVRG,
    "gradient_penalty": GradientPenalty,
    "l2": L2,
    "label_smoothing": LabelSmoothing,
    "sam": SAM,
}


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
            return SGD(momentum=_number("momentum", parts[0]) if parts else 0.9)
        if kind == "optax" and len(parts) == 1:
            return Optax(parts[0])
        if kind == "optax" and len(parts) == 3:
            return Optax(parts[0], first_window=(int(parts[1]), int(parts[2])))
        if kind in BY_NAME:
            numbers = dict(part.split("=") for part in parts)
            if numbers.keys() <= set(_names(kind)):
                return BY_NAME[kind](**{name: _number(name, value) for name, value in numbers.items()})
    except InputError:
        raise
    except (TypeError, ValueError):
        pass
    if kind in BY_NAME:
        raise InputError(
            f"optimizers: {shown(text)}: give {kind} numbers as in {kind}:{_names(kind)[0]}=0.5; it has "
            f"{', '.join(_names(kind))}."
        )
    known = ["sgd", "momentum", *BY_NAME]
    raise InputError(
        f"optimizers: {shown(text)} is not an optimizer; there are sgd, momentum, momentum:M and {', '.join(BY_NAME)}, "
        f"the last ones with numbers as in adam:beta2=0.99.{did_you_mean(kind, known)}"
    )


def _names(kind: str) -> list[str]:
    return [f.name for f in fields(BY_NAME[kind]) if f.name != "layers"]  # type: ignore[arg-type]


def _number(name: str, text: str) -> float | Values:
    if name == "block":
        return int(text)
    numbers = [float(part) for part in text.split("|")]
    return numbers[0] if len(numbers) == 1 else Values(*numbers)
