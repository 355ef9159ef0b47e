"""Stochastic variance-reduced gradients, whole and damped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sgdscope.optimizers.base import Oracle, Tree, Values, sometimes, tree_map, zeros_like
from sgdscope.optimizers.sgd import HeavyBall, moved


@dataclass(frozen=True)
class SVRG(HeavyBall):
    """SVRG: the gradient of a batch is corrected by what the batch says of a snapshot θ̃ whose full gradient is known.

    ::

        g ← ∇L_B(θ) − α (∇L_B(θ̃) − ∇L(θ̃)),   α = 1
        v ← m v + g,   θ ← θ − ε v

    The snapshot is taken once an epoch: θ̃ ← θ, and ∇L(θ̃) is the mean over all N examples. Both passes at θ̃ see each
    example with the augmentation and the random numbers that it has in this epoch, so that over an epoch the
    corrections add up to 0. Batch normalization is in training mode in all passes, and its running statistics are
    those of the pass at θ alone.

    Args:
        momentum: m, at least 0 and below 1. Default: 0.9.

    Raises:
        InputError: If ``momentum`` is not a number in this range.

    Source: Johnson and Zhang (2013), "Accelerating stochastic gradient descent using predictive variance reduction";
    the settings for neural networks are those of Defazio and Bottou (2019), arXiv 1812.04529.

    >>> str(SVRG()), str(SVRG(momentum=0))
    ('svrg', 'svrg:momentum=0')
    >>> SVRG().gradients_per_update(batch_size=64)
    3
    """

    momentum: float | Values = 0.9

    asks = frozenset({"gradient", "full_gradient"})

    def __post_init__(self) -> None:
        self._check(momentum=(0, 1))

    @property
    def family(self) -> str:
        """``svrg``."""
        return "svrg"

    def init(self, parameters: Tree) -> Tree:
        """Return the velocity, 0, and room for the snapshot and its full gradient."""
        return {"velocity": zeros_like(parameters), "snapshot": parameters, "full": zeros_like(parameters)}

    def update(
        self, gradient: Tree, state: Tree, parameters: Tree, learning_rate: Any, numbers: Mapping[str, Any], ask: Oracle
    ) -> tuple[Tree, Tree]:
        """Return the parameters and the state after one update."""
        anew = lambda _: {"snapshot": parameters, "full": ask.full_gradient(parameters)}
        known = sometimes(ask.begins_epoch, anew, {"snapshot": state["snapshot"], "full": state["full"]})
        alpha = self._alpha(numbers, ask)
        corrected = tree_map(
            lambda g, there, full: g - alpha * (there - full), gradient, ask.gradient(known["snapshot"]), known["full"]
        )
        parameters, velocity = moved(corrected, state["velocity"], parameters, learning_rate, numbers["momentum"])
        return parameters, known | {"velocity": velocity}

    def gradients_per_update(self, batch_size: int) -> float:
        """Return 3: at θ, at θ̃, and an epoch's share of the full gradient."""
        return 3

    def _alpha(self, numbers: Mapping[str, Any], ask: Oracle) -> Any:
        """Return how much of the correction is applied."""
        return 1.0


@dataclass(frozen=True)
class AlphaSVRG(SVRG):
    """α-SVRG: :class:`SVRG` with a share α of the correction, which falls linearly to 0 along the budget.

    At update t of T, ``α = alpha (1 − t/T)``.

    Args:
        momentum: m, at least 0 and below 1. Default: 0.9.
        alpha: α at the first update, not negative. Default: 0.75.

    Raises:
        InputError: If a number is out of its range, or more than one has several values.

    Source: Yin et al. (2024), "A coefficient makes SVRG effective", arXiv 2311.05589.

    >>> str(AlphaSVRG()), str(AlphaSVRG(alpha=Values(0.5, 1)))
    ('alpha_svrg', 'alpha_svrg:alpha=0.5|1')
    """

    alpha: float | Values = 0.75

    def __post_init__(self) -> None:
        self._check(momentum=(0, 1), alpha=(0, float("inf")))

    @property
    def family(self) -> str:
        """``alpha_svrg``."""
        return "alpha_svrg"

    def _alpha(self, numbers: Mapping[str, Any], ask: Oracle) -> Any:
        return numbers["alpha"] * (1 - ask.progress)
