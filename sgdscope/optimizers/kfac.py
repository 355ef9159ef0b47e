"""K-FAC: natural gradients of dense layers by Kronecker-factored curvature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from sgdscope.errors import InputError
from sgdscope.optimizers.base import Layer, Optimizer, Oracle, Tree, Values, sometimes, tree_map, zeros_like
from sgdscope.optimizers.sgd import SETTLING_TIMES, moved

# Factors are inverted in every so many updates; the first so many updates estimate them and move nothing.
INVERT_EVERY, BURN_IN = 5, 5


@dataclass(frozen=True)
class KFAC(Optimizer):
    """K-FAC: the gradient of each dense layer is divided by a Kronecker-factored estimate of its Fisher matrix.

    ::

        A ← β A + (1 − β) E[ā āᵀ],   G ← β G + (1 − β) E[g gᵀ]
        D[W; b] = (A + π √γ I)⁻¹ ∇[W; b] (G + √γ/π I)⁻¹,   π² = (tr A/dim A)/(tr G/dim G)
        v ← m v + D,   θ ← θ − ε v

    ā are a layer's inputs, with a 1 for its bias, and g the gradients of examples' losses before its nonlinearity,
    with targets drawn from the model. Both averages are corrected for their start. Factors are inverted in every fifth
    update. The first five updates estimate the curvature and move nothing, and count as updates. Parameters that
    belong to no dense layer, or to one that is used several times, descend along their plain gradient.

    The damping γ matters as much as the learning rate, so search both together.

    Args:
        damping: γ, above 0. Default: 0.1.
        momentum: m, at least 0 and below 1. Default: 0.9.
        decay: β, the share of the curvature that is kept in each update, at least 0 and below 1. Default: 0.95.

    Raises:
        InputError: If a number is out of its range, or more than one has several values.

    Source: Martens and Grosse (2015), arXiv 1503.05671, sections 3 and 6.3.

    >>> str(KFAC()), str(KFAC(damping=Values(0.1, 1, 10)))
    ('kfac', 'kfac:damping=0.1|1|10')
    """

    damping: float | Values = 0.1
    momentum: float | Values = 0.9
    decay: float | Values = 0.95
    layers: tuple[Layer, ...] = field(default=(), compare=False, repr=False, metadata={"number": False})

    asks = frozenset({"curvature"})
    first_window = (-6, -2)

    def __post_init__(self) -> None:
        self._check(damping=(1e-30, float("inf")), momentum=(0, 1), decay=(0, 1))

    @property
    def family(self) -> str:
        """``kfac``."""
        return "kfac"

    def prepared(self, layers: Callable[[], tuple[Layer, ...]]) -> Self:
        """Return the rule for the dense layers of a workload."""
        found = layers()
        if not found:
            raise InputError(
                f"optimizers: {self} needs a dense layer, a product x @ W with a parameter W, and the workload has "
                f"none that K-FAC can use. Use another optimizer."
            )
        return replace(self, layers=found)

    def init(self, parameters: Tree) -> Tree:
        """Return the velocity and the factors, 0, with inverses that change nothing, and the count of updates."""
        import jax.numpy as jnp

        square: Callable[[int], Any] = lambda n: jnp.zeros((n, n), jnp.float32)
        return {
            "velocity": zeros_like(parameters),
            "factors": [(square(layer.inputs), square(layer.outputs)) for layer in self.layers],
            "inverses": [(jnp.eye(layer.inputs), jnp.eye(layer.outputs)) for layer in self.layers],
            "count": jnp.int32(0),
        }

    def update(
        self, gradient: Tree, state: Tree, parameters: Tree, learning_rate: Any, numbers: Mapping[str, Any], ask: Oracle
    ) -> tuple[Tree, Tree]:
        """Return the parameters and the state after one update."""
        import jax
        import jax.numpy as jnp

        decay, count = numbers["decay"], state["count"]
        average = lambda old, new: decay * old + (1 - decay) * new
        factors = tree_map(average, state["factors"], ask.curvature(parameters))
        known = 1 - decay ** (count + 1).astype(jnp.float32)
        damped = lambda _: [_inverses(a / known, g / known, numbers["damping"]) for a, g in factors]
        inverses = sometimes(count % INVERT_EVERY == 0, damped, state["inverses"])
        leaves, structure = jax.tree.flatten(gradient)
        for layer, (of_a, of_g) in zip(self.layers, inverses, strict=True):
            whole = leaves[layer.weight]
            if layer.bias is not None:
                whole = jnp.concatenate([whole, leaves[layer.bias][None]])
            whole = of_a @ whole @ of_g
            if layer.bias is not None:
                whole, leaves[layer.bias] = whole[:-1], whole[-1]
            leaves[layer.weight] = whole
        moves = (count >= BURN_IN).astype(jnp.float32)
        direction = tree_map(lambda d: moves * d, jax.tree.unflatten(structure, leaves))
        parameters, velocity = moved(direction, state["velocity"], parameters, learning_rate, numbers["momentum"])
        return parameters, {"velocity": velocity, "factors": factors, "inverses": inverses, "count": count + 1}

    @property
    def settling_updates(self) -> float | None:
        """20/(1 − m) updates."""
        largest = max(self.momentum.values) if isinstance(self.momentum, Values) else self.momentum
        return SETTLING_TIMES / (1 - largest) if largest else 0.0

    def gradients_per_update(self, batch_size: int) -> float:
        """Return 2: the gradient, and a pass for the curvature."""
        return 2

    def operations_per_update(self, batch_size: int, of_gradient: float) -> float:
        """Return the operations of two passes, of the factors, of their inverses and of dividing by them."""
        # The curvature's pass has no products for the gradients of weights: two thirds of a gradient.
        passes = batch_size * of_gradient * (1 + 2 / 3)
        sizes = [(layer.inputs, layer.outputs) for layer in self.layers]
        factors = sum(2 * batch_size * (n**2 + m**2) for n, m in sizes)
        inverses = sum(2 * (n**3 + m**3) for n, m in sizes) / INVERT_EVERY
        return passes + factors + inverses + sum(2 * n * m * (n + m) for n, m in sizes)


def _inverses(a: Any, g: Any, damping: Any) -> tuple[Any, Any]:
    """Return the inverses of both factors with their shares of the damping."""
    import jax.numpy as jnp

    mean: Callable[[Any], Any] = lambda m: jnp.maximum(jnp.trace(m) / len(m), 1e-12)
    pi, root = jnp.sqrt(mean(a) / mean(g)), jnp.sqrt(damping)
    return inverse(a + pi * root * jnp.eye(len(a))), inverse(g + root / pi * jnp.eye(len(g)))


def inverse(matrix: Any) -> Any:
    """Return the inverse of a symmetric positive definite matrix, by Gauss and Jordan's elimination in blocks.

    LAPACK's threads would make a small factor twenty times slower beside a training, and its bits depend on the cores.

    >>> import jax.numpy as jnp
    >>> inverse(jnp.array([[2.0, 1.0], [1.0, 1.0]])).tolist()
    [[1.0, -1.0], [-1.0, 2.0]]
    """
    import jax
    import jax.numpy as jnp

    n = len(matrix)
    if n == 1:
        return 1 / matrix
    block = 1 if n <= 16 else 16 if n <= 512 else 64
    size = -(-n // block) * block
    added = jnp.arange(n, size)
    whole = jnp.pad(matrix, (0, size - n)).at[added, added].set(1.0)

    def eliminate(number: Any, whole: Any) -> Any:
        first, none = number * block, jnp.zeros_like(number)
        columns = jax.lax.dynamic_slice(whole, (none, first), (size, block))
        rows = jax.lax.dynamic_slice(whole, (first, none), (block, size))
        pivot = inverse(jax.lax.dynamic_slice(whole, (first, first), (block, block)))
        rows = pivot @ rows
        rest = jax.lax.dynamic_update_slice(whole - columns @ rows, -(columns @ pivot), (none, first))
        rows = jax.lax.dynamic_update_slice(rows, pivot, (none, first))
        return jax.lax.dynamic_update_slice(rest, rows, (first, none))

    return jax.lax.fori_loop(0, size // block, eliminate, whole)[:n, :n]
