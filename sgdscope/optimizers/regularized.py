"""Explicit regularization: rules that add to the loss what large batches lose of the gradient's noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sgdscope.converters import whole
from sgdscope.optimizers.base import Oracle, Tree, Values, tree_map
from sgdscope.optimizers.sgd import HeavyBall, moved

UNLIMITED = float("inf")


@dataclass(frozen=True)
class GradientPenalty(HeavyBall):
    """SGD on the loss with a penalty on the squared norm of the gradients of blocks, as SGD's steps imply it.

    ::

        d ← ∇L_B(θ) + ∇ mean_k (λ/4) ε |∇L_k(θ)|² = ∇L_B(θ) + (λ/2) ε mean_k H_k ∇L_k(θ)
        v ← m v + d,   θ ← θ − ε v

    L_k is the loss of block k of the batch, H_k its Hessian, by an exact product, and ε the current learning rate. With
    λ = 1 the penalty is the one that SGD's finite steps over blocks imply to first order.

    Args:
        strength: λ, not negative. Default: 0.5.
        momentum: m, at least 0 and below 1. Default: 0.9.
        block: The examples of a block. A batch is cut into the largest equal blocks of at most so many examples, which
            hold whole ghost batches. Default: 128.

    Raises:
        InputError: If a number is out of its range, or more than one has several values.

    Source: Barrett and Dherin (2021), arXiv 2009.11162; Smith, Dherin, Barrett and De (2021), arXiv 2101.12176; blocks
    as in Geiping et al. (2022), arXiv 2109.14119.

    >>> str(GradientPenalty()), str(GradientPenalty(strength=Values(0, 0.5), block=32))
    ('gradient_penalty', 'gradient_penalty:block=32:strength=0|0.5')
    """

    strength: float | Values = 0.5
    momentum: float | Values = 0.9
    block: int = field(default=128, metadata={"number": False})

    asks = frozenset({"over_blocks"})

    def __post_init__(self) -> None:
        self._check(strength=(0, UNLIMITED), momentum=(0, 1))
        object.__setattr__(self, "block", whole("optimizers: block", self.block, least=1))

    @property
    def family(self) -> str:
        """``gradient_penalty``, with the block size where it is another: each size is a program."""
        return "gradient_penalty" if self.block == 128 else f"gradient_penalty:block={self.block}"

    def update(
        self, gradient: Tree, state: Tree, parameters: Tree, learning_rate: Any, numbers: Mapping[str, Any], ask: Oracle
    ) -> tuple[Tree, Tree]:
        """Return the parameters and the velocity after one update."""
        import jax

        def curved(gradient_of: Callable[[Tree], Tree]) -> Tree:
            """Return H_k ∇L_k."""
            gradient, product = jax.linearize(gradient_of, parameters)
            return product(gradient)

        scale = numbers["strength"] / 2 * learning_rate
        direction = tree_map(lambda g, h: g + scale * h, gradient, ask.over_blocks(self.block, curved))
        return moved(direction, state, parameters, learning_rate, numbers["momentum"])

    def gradients_per_update(self, batch_size: int) -> float:
        """Return 3 for a batch of one block, whose gradient is shared, and 4 for several."""
        return 3 if batch_size <= self.block else 4


@dataclass(frozen=True)
class L2(HeavyBall):
    """SGD on the loss with a penalty ``λ/2 |θ|²`` on all parameters: ``v ← m v + g + λ θ``, then ``θ ← θ − ε v``.

    Args:
        weight_decay: λ, not negative. Default: 1e-4.
        momentum: m, at least 0 and below 1. Default: 0.9.

    Raises:
        InputError: If a number is out of its range, or more than one has several values.

    Source: Krogh and Hertz (1991), "A simple weight decay can improve generalization".

    >>> str(L2(weight_decay=Values(0, 1e-3)))
    'l2:weight_decay=0|0.001'
    """

    weight_decay: float | Values = 1e-4
    momentum: float | Values = 0.9

    def __post_init__(self) -> None:
        self._check(weight_decay=(0, UNLIMITED), momentum=(0, 1))

    @property
    def family(self) -> str:
        """``l2``."""
        return "l2"

    def update(
        self, gradient: Tree, state: Tree, parameters: Tree, learning_rate: Any, numbers: Mapping[str, Any], ask: Oracle
    ) -> tuple[Tree, Tree]:
        """Return the parameters and the velocity after one update."""
        direction = tree_map(lambda g, p: g + numbers["weight_decay"] * p, gradient, parameters)
        return moved(direction, state, parameters, learning_rate, numbers["momentum"])


@dataclass(frozen=True)
class LabelSmoothing(HeavyBall):
    """SGD on the loss against smoothed targets: a share s of each target is spread evenly over all classes.

    ::

        d ← (1 − s) ∇L_B(θ) + s ∇U_B(θ),   v ← m v + d,   θ ← θ − ε v

    U is the loss against targets that are equally likely, :class:`~sgdscope.Workload`'s ``uniform_loss``. The training
    loss that is recorded is L.

    Args:
        smoothing: s, at least 0 and below 1. Default: 0.1.
        momentum: m, at least 0 and below 1. Default: 0.9.

    Raises:
        InputError: If a number is out of its range, or more than one has several values.

    Source: Szegedy et al. (2016), arXiv 1512.00567, section 7.

    >>> str(LabelSmoothing(smoothing=Values(0, 0.1)))
    'label_smoothing:smoothing=0|0.1'
    """

    smoothing: float | Values = 0.1
    momentum: float | Values = 0.9

    asks = frozenset({"uniform_gradient"})

    def __post_init__(self) -> None:
        self._check(smoothing=(0, 1), momentum=(0, 1))

    @property
    def family(self) -> str:
        """``label_smoothing``."""
        return "label_smoothing"

    def update(
        self, gradient: Tree, state: Tree, parameters: Tree, learning_rate: Any, numbers: Mapping[str, Any], ask: Oracle
    ) -> tuple[Tree, Tree]:
        """Return the parameters and the velocity after one update."""
        share, uniform = numbers["smoothing"], ask.uniform_gradient(parameters)
        direction = tree_map(lambda g, u: (1 - share) * g + share * u, gradient, uniform)
        return moved(direction, state, parameters, learning_rate, numbers["momentum"])

    def gradients_per_update(self, batch_size: int) -> float:
        """Return 2: of the loss and of the loss against even targets."""
        return 2


@dataclass(frozen=True)
class SAM(HeavyBall):
    """Sharpness-aware minimization: the gradient is taken a step uphill, ``g ← ∇L_B(θ + ρ ∇L_B(θ)/|∇L_B(θ)|)``.

    Args:
        radius: ρ, not negative. Default: 0.05.
        momentum: m, at least 0 and below 1. Default: 0.9.

    Raises:
        InputError: If a number is out of its range, or more than one has several values.

    Source: Foret et al. (2021), arXiv 2010.01412.

    >>> str(SAM(radius=0.1))
    'sam:radius=0.1'
    """

    radius: float | Values = 0.05
    momentum: float | Values = 0.9

    asks = frozenset({"gradient"})

    def __post_init__(self) -> None:
        self._check(radius=(0, UNLIMITED), momentum=(0, 1))

    @property
    def family(self) -> str:
        """``sam``."""
        return "sam"

    def update(
        self, gradient: Tree, state: Tree, parameters: Tree, learning_rate: Any, numbers: Mapping[str, Any], ask: Oracle
    ) -> tuple[Tree, Tree]:
        """Return the parameters and the velocity after one update."""
        import jax
        import jax.numpy as jnp

        norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradient)))
        scale = numbers["radius"] / jnp.maximum(norm, 1e-12)
        uphill = ask.gradient(tree_map(lambda p, g: p + scale * g, parameters, gradient))
        return moved(uphill, state, parameters, learning_rate, numbers["momentum"])

    def gradients_per_update(self, batch_size: int) -> float:
        """Return 2: at θ and uphill."""
        return 2
