"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sgdscope.errors import InputError
from sgdscope.optimizers.base import Optimizer, Oracle, Tree, Values, tree_map, zeros_like
from sgdscope.optimizers.sgd import SETTLING_TIMES

_BETA2 = 0.999


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam: the gradient's running mean, divided by the root of the running mean of its square.

    ::

        m ← β₁ m + (1 − β₁) g,   s ← β₂ s + (1 − β₂) g²
        θ ← θ − ε m̂ / (√ŝ + δ),   m̂ = m/(1 − β₁ᵗ),   ŝ = s/(1 − β₂ᵗ)

    Args:
        beta1: β₁, at least 0 and below 1. Default: 0.9.
        beta2: β₂, at least 0 and below 1. Default: 0.999.
        epsilon: δ, not negative. Default: 1e-8.
        weight_decay: λ of an L2 penalty, whose gradient λθ is added to g. Default: 0.
        half_life: the examples after which a squared gradient counts half; given in place of β₂, which is then
            2^(−B/half_life) at batch size B. Default: none.

    Source: Kingma and Ba (2015), arXiv 1412.6980, algorithm 1.

    >>> str(Adam()), str(Adam(beta2=0.99, weight_decay=Values(0, 1e-4)))
    ('adam', 'adam:beta2=0.99:weight_decay=0|0.0001')
    >>> Adam(half_life=1000).coefficients(batch_size=1000)["beta2"]
    0.5
    """

    beta1: float | Values = 0.9
    beta2: float | Values = _BETA2
    epsilon: float | Values = 1e-8
    weight_decay: float | Values = 0.0
    half_life: float | Values | None = None

    first_window = (-12, -8)

    def __post_init__(self) -> None:
        unlimited = float("inf")
        ranges = {"beta1": (0.0, 1.0), "beta2": (0.0, 1.0), "epsilon": (0, unlimited), "weight_decay": (0, unlimited)}
        if self.half_life is not None:
            ranges["half_life"] = (1, unlimited)
            if self.beta2 != _BETA2:
                raise InputError("optimizers: give beta2 or half_life, not both.")
        self._check(**ranges)

    @property
    def family(self) -> str:
        """``adam``."""
        return "adam"

    def coefficients(self, batch_size: int) -> dict[str, float]:
        """Return the numbers at a batch size: a half-life in examples becomes β₂."""
        numbers = super().coefficients(batch_size)
        half_life = numbers.pop("half_life", None)
        return numbers if half_life is None else numbers | {"beta2": 2 ** (-batch_size / half_life)}

    def init(self, parameters: Tree) -> Tree:
        """Return both running means, 0, and the count of updates."""
        import jax.numpy as jnp

        return {"mean": zeros_like(parameters), "square": zeros_like(parameters), "count": jnp.int32(0)}

    def update(
        self, gradient: Tree, state: Tree, parameters: Tree, learning_rate: Any, numbers: Mapping[str, Any], ask: Oracle
    ) -> tuple[Tree, Tree]:
        """Return the parameters and the running means after one update."""
        decayed = tree_map(lambda g, p: g + numbers["weight_decay"] * p, gradient, parameters)
        step, state = _adam(decayed, state, numbers)
        return tree_map(lambda p, s: p - learning_rate * s, parameters, step), state

    @property
    def settling_updates(self) -> float | None:
        """20/(1 − β₁) updates; the means are corrected for their start, so that β₂ needs no more."""
        largest = max(self.beta1.values) if isinstance(self.beta1, Values) else self.beta1
        return SETTLING_TIMES / (1 - largest) if largest else 0.0


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with weight decay beside the gradient: ``θ ← θ − ε (m̂/(√ŝ + δ) + λ θ)``.

    Args:
        beta1: β₁, at least 0 and below 1. Default: 0.9.
        beta2: β₂, at least 0 and below 1. Default: 0.999.
        epsilon: δ, not negative. Default: 1e-8.
        weight_decay: λ, not negative. Default: 1e-4.
        half_life: as in :class:`Adam`.

    Source: Loshchilov and Hutter (2019), arXiv 1711.05101; λ is multiplied by the learning rate, as in optax.

    >>> str(AdamW()), str(AdamW(weight_decay=0.1))
    ('adamw', 'adamw:weight_decay=0.1')
    """

    weight_decay: float | Values = 1e-4

    @property
    def family(self) -> str:
        """``adamw``."""
        return "adamw"

    def update(
        self, gradient: Tree, state: Tree, parameters: Tree, learning_rate: Any, numbers: Mapping[str, Any], ask: Oracle
    ) -> tuple[Tree, Tree]:
        """Return the parameters and the running means after one update."""
        step, state = _adam(gradient, state, numbers)
        step = tree_map(lambda s, p: s + numbers["weight_decay"] * p, step, parameters)
        return tree_map(lambda p, s: p - learning_rate * s, parameters, step), state


def _adam(gradient: Tree, state: Tree, numbers: Mapping[str, Any]) -> tuple[Tree, Tree]:
    """Return m̂/(√ŝ + δ), and the state after it."""
    import jax.numpy as jnp

    beta1, beta2, count = numbers["beta1"], numbers["beta2"], state["count"] + 1
    mean = tree_map(lambda m, g: beta1 * m + (1 - beta1) * g, state["mean"], gradient)
    square = tree_map(lambda s, g: beta2 * s + (1 - beta2) * g**2, state["square"], gradient)
    of_mean, of_square = (1 - beta ** count.astype(beta.dtype) for beta in (beta1, beta2))
    step = tree_map(lambda m, s: (m / of_mean) / (jnp.sqrt(s / of_square) + numbers["epsilon"]), mean, square)
    return step, {"mean": mean, "square": square, "count": count}
