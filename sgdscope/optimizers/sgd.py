"""Stochastic gradient descent, with and without momentum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sgdscope.formatting import exact
from sgdscope.optimizers.base import Optimizer, Oracle, Tree, Values, tree_map, zeros_like

# Momentum's velocity settles over 1/(1 − m) updates; after so many times that it moves as ε/(1 − m) says.
SETTLING_TIMES = 20


@dataclass(frozen=True)
class SGD(Optimizer):
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

    def init(self, parameters: Tree) -> Tree:
        """Return the velocity, 0."""
        return zeros_like(parameters)

    def update(
        self, gradient: Tree, state: Tree, parameters: Tree, learning_rate: Any, numbers: Mapping[str, Any], ask: Oracle
    ) -> tuple[Tree, Tree]:
        """Return the parameters and the velocity after one update."""
        velocity = tree_map(lambda v, g: numbers["momentum"] * v + g, state, gradient)
        parameters = tree_map(lambda p, v: p - learning_rate * v, parameters, velocity)
        return parameters, velocity

    def effective_learning_rate(self, learning_rate: float) -> float | None:
        """Return ε/(1 − m)."""
        return None if isinstance(self.momentum, Values) else learning_rate / (1 - self.momentum)

    @property
    def settling_updates(self) -> float | None:
        """20/(1 − m) updates, below which ε/(1 − m) does not compare with SGD's ε; 0 without momentum."""
        largest = max(self.momentum.values) if isinstance(self.momentum, Values) else self.momentum
        return SETTLING_TIMES / (1 - largest) if largest else 0.0

    def __str__(self) -> str:
        if isinstance(self.momentum, Values):
            return f"momentum:{self.momentum}"
        return f"momentum:{exact(self.momentum)}" if self.momentum else "sgd"
