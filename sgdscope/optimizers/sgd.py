"""Stochastic gradient descent, with and without momentum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sgdscope.formatting import exact
from sgdscope.optimizers.base import Optimizer, Oracle, Tree, Values, tree_map, zeros_like

# Momentum's velocity settles over 1/(1 − m) updates; after so many times that it moves as ε/(1 − m) says.
SETTLING_TIMES = 20


class HeavyBall(Optimizer):
    """What rules share that move by heavy-ball momentum m: ``v ← m v + d``, then ``θ ← θ − ε v``."""

    momentum: float | Values

    def init(self, parameters: Tree) -> Tree:
        """Return the velocity, 0."""
        return zeros_like(parameters)

    def effective_learning_rate(self, learning_rate: float) -> float | None:
        """Return ε/(1 − m)."""
        return None if isinstance(self.momentum, Values) else learning_rate / (1 - self.momentum)

    @property
    def settling_updates(self) -> float | None:
        """20/(1 − m) updates, below which ε/(1 − m) does not compare with SGD's ε; 0 without momentum."""
        largest = max(self.momentum.values) if isinstance(self.momentum, Values) else self.momentum
        return SETTLING_TIMES / (1 - largest) if largest else 0.0


def moved(direction: Tree, velocity: Tree, parameters: Tree, learning_rate: Any, momentum: Any) -> tuple[Tree, Tree]:
    """Return the parameters and the velocity after a step with heavy-ball momentum."""
    velocity = tree_map(lambda v, d: momentum * v + d, velocity, direction)
    return tree_map(lambda p, v: p - learning_rate * v, parameters, velocity), velocity


@dataclass(frozen=True)
class SGD(HeavyBall):
    """Stochastic gradient descent with heavy-ball momentum m; m = 0 is plain SGD.

    ``v ← m v + g``, then ``θ ← θ − ε v``, with g the mean gradient of the batch and v starting at 0. Near a
    slowly varying gradient a momentum step moves as far as a plain one at the effective rate ε/(1 − m).

    Args:
        momentum: m, at least 0 and below 1, or several :class:`Values`. Default: 0.

    Raises:
        InputError: If ``momentum`` is not a number in this range.

    >>> str(SGD()), str(SGD(momentum=0.9))
    ('sgd', 'momentum:0.9')
    """

    momentum: float | Values = 0.0

    def __post_init__(self) -> None:
        self._check(momentum=(0, 1))

    @property
    def family(self) -> str:
        """``sgd``, with and without momentum: one program trains both."""
        return "sgd"

    def update(
        self, gradient: Tree, state: Tree, parameters: Tree, learning_rate: Any, numbers: Mapping[str, Any], ask: Oracle
    ) -> tuple[Tree, Tree]:
        """Return the parameters and the velocity after one update."""
        return moved(gradient, state, parameters, learning_rate, numbers["momentum"])

    def __str__(self) -> str:
        if isinstance(self.momentum, Values):
            return f"momentum:{self.momentum}"
        return f"momentum:{exact(self.momentum)}" if self.momentum else "sgd"
