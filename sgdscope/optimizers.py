"""Optimizers: each rule a few lines under its equation, its coefficients array arguments of one program."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sgdscope.budget import exact
from sgdscope.converters import real, shown
from sgdscope.errors import InputError, did_you_mean


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with heavy-ball momentum m; m = 0 is plain SGD.

    ``v ← m v + g``, then ``θ ← θ − ε v``, with g the mean gradient of the batch and v starting at 0. Near a
    slowly varying gradient a momentum step moves as far as a plain one at the effective rate ε/(1 − m).

    >>> str(SGD()), str(SGD(momentum=0.9))
    ('sgd', 'momentum:0.9')
    """

    momentum: float = 0.0

    def __post_init__(self) -> None:
        momentum = real("optimizers: momentum", self.momentum)
        # Training rounds it to 24 binary digits, where a number nearer to 1 than this is 1.
        if not (math.isfinite(momentum) and 0 <= momentum < 1 - 2**-25):
            raise InputError(f"optimizers: momentum must be at least 0 and below 1, not {shown(self.momentum)}.")
        object.__setattr__(self, "momentum", momentum)

    def effective_learning_rate(self, learning_rate: float) -> float:
        """Return ε/(1 − m)."""
        return learning_rate / (1 - self.momentum)

    def __str__(self) -> str:
        return f"momentum:{exact(self.momentum)}" if self.momentum else "sgd"


def Momentum(momentum: float = 0.9) -> SGD:  # noqa: N802 - it is read as the name of an optimizer
    """Return SGD with momentum, 0.9 unless told otherwise.

    >>> Momentum()
    SGD(momentum=0.9)
    """
    return SGD(momentum=momentum)


def update(parameters: Any, velocity: Any, gradient: Any, learning_rate: Any, momentum: Any) -> tuple[Any, Any]:
    """Return the parameters and velocity after one step of :class:`SGD`.

    Args:
        parameters: a tree of arrays.
        velocity: a tree of the same shapes.
        gradient: a tree of the same shapes.
        learning_rate: ε, a scalar array.
        momentum: m, a scalar array.
    """
    import jax  # here, since naming an optimizer must not load JAX

    velocity = jax.tree.map(lambda v, g: momentum * v + g, velocity, gradient)
    parameters = jax.tree.map(lambda p, v: p - learning_rate * v, parameters, velocity)
    return parameters, velocity


def parse_optimizer(text: str) -> SGD:
    """Read an optimizer as it is written on the command line and in tables.

    >>> parse_optimizer("sgd"), parse_optimizer("momentum"), parse_optimizer("momentum:0.5")
    (SGD(momentum=0.0), SGD(momentum=0.9), SGD(momentum=0.5))

    Raises:
        InputError: where the text names no optimizer.
    """
    kind, _, number = text.partition(":")
    try:
        if kind == "sgd" and not number:
            return SGD()
        if kind == "momentum":
            return Momentum(float(number)) if number else Momentum()
    except InputError:
        raise
    except ValueError:
        pass
    raise InputError(
        f"optimizers: {shown(text)} is not an optimizer; there are sgd, momentum and momentum:M."
        f"{did_you_mean(kind, ['sgd', 'momentum'])}"
    )
