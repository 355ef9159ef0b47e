"""The optimizer's contract: a pair of pure functions on a state that is a tree, its numbers array arguments."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

from sgdscope.converters import real, shown
from sgdscope.errors import InputError
from sgdscope.formatting import exact

Tree = Any


@dataclass(frozen=True)
class Layer:
    """A dense layer that is found in a workload's loss: ``x W + b``, at one place in each forward pass.

    Args:
        weight: which leaf of the parameters is W, whose shape is (inputs, outputs).
        bias: which leaf is b, or None.
        inputs: the width of x, and 1 more where there is a bias.
        outputs: the width of the layer's output.
    """

    weight: int
    bias: int | None
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Oracle:
    """What an update may ask for beside the gradient that it is given.

    The batch, its random numbers and the model's state stay the same within an update, however often it asks.

    Args:
        gradient: ``gradient(parameters)``, the gradient of this update's batch at any parameters, penalty included.
        full_gradient: ``full_gradient(parameters)``, the mean gradient over all N training examples, penalty included.
            Each example has the augmentation and the random numbers that it has in the current epoch.
        over_blocks: ``over_blocks(size, function)``, the mean of ``function(gradient)`` over equal blocks of the batch
            of at most ``size`` examples. ``gradient(parameters)`` is then a block's gradient without the penalty's.
        curvature: ``curvature(parameters)``, for each dense layer the Kronecker factors of the batch's Fisher matrix.
        uniform_gradient: ``uniform_gradient(parameters)``, the gradient of the batch's loss against targets that are
            equally likely.
        key: a random key of this trial and update.
        step: t, the number of updates already made, int32.
        updates: T, the number of updates of the budget, int32.
        batch_size: B.
        examples: N.
    """

    gradient: Callable[[Tree], Tree]
    full_gradient: Callable[[Tree], Tree]
    over_blocks: Callable[[int, Callable[[Callable[[Tree], Tree]], Tree]], Tree]
    curvature: Callable[[Tree], list[tuple[Any, Any]]]
    uniform_gradient: Callable[[Tree], Tree]
    key: Any
    step: Any
    updates: Any
    batch_size: int
    examples: int

    @property
    def progress(self) -> Any:
        """t/T, how much of the budget is spent."""
        import jax.numpy as jnp

        return self.step.astype(jnp.float32) / self.updates.astype(jnp.float32)

    @property
    def begins_epoch(self) -> Any:
        """Whether the update is the first whose batch begins in its epoch."""
        import jax.numpy as jnp

        first = self.step.astype(jnp.uint32) * jnp.uint32(self.batch_size)
        return first % jnp.uint32(self.examples) < self.batch_size


@dataclass(frozen=True, init=False)
class Values:
    """Values of one coefficient, searched together with the learning rate and chosen on the validation split.

    Args:
        *values: At least two different numbers.

    Raises:
        InputError: If there are fewer than two different numbers.

    >>> str(Values(0, 1e-4, 1e-3))
    '0|0.0001|0.001'
    """

    values: tuple[float, ...]

    def __init__(self, *values: float) -> None:
        numbers = [real("optimizers: Values", value) for value in values]
        if len(numbers) < 2 or len(set(numbers)) != len(numbers):
            raise InputError(f"optimizers: {shown(values)} must name at least two different values.")
        object.__setattr__(self, "values", tuple(sorted(numbers)))

    def __str__(self) -> str:
        return "|".join(exact(value) for value in self.values)


class Optimizer(ABC):
    """An update rule.

    A rule is a frozen dataclass whose fields are its numbers. One compiled program serves all values of these numbers
    and of the learning rate. ``str(optimizer)`` is the optimizer's name in tables and part of a trial's identity.
    """

    asks: ClassVar[frozenset[str]] = frozenset()
    """Which functions of the oracle the rule calls: ``gradient``, ``full_gradient``, ``over_blocks``, ``curvature`` and
    ``uniform_gradient``."""
    first_window: tuple[int, int] = (-3, 1)
    """The first learning rates of a search, log₂ of the lowest and the highest, where nothing is known yet."""

    @property
    @abstractmethod
    def family(self) -> str:
        """The name of the rule without its numbers."""

    @abstractmethod
    def init(self, parameters: Tree) -> Tree:
        """Return the optimizer's state before the first update."""

    @abstractmethod
    def update(
        self, gradient: Tree, state: Tree, parameters: Tree, learning_rate: Any, numbers: Mapping[str, Any], ask: Oracle
    ) -> tuple[Tree, Tree]:
        """Return the parameters and the optimizer's state after one update.

        Args:
            gradient: the batch's gradient at ``parameters``. The loop computes it once, with the loss that it records,
                so that what is recorded does not depend on what a rule asks for.
            state: the optimizer's state.
            parameters: a tree of float32 arrays.
            learning_rate: ε after the schedule, a float32 scalar.
            numbers: :meth:`coefficients` as float32 scalars.
            ask: answers further questions.
        """

    def coefficients(self, batch_size: int) -> dict[str, float]:
        """Return the rule's numbers at a batch size, by name; by default the numeric fields."""
        return {f.name: float(value) for f in _numbers(self) if (value := getattr(self, f.name)) is not None}

    @property
    def rule(self) -> Self:
        """The rule without its numbers: rules that are equal share a program."""
        return replace(self, **{f.name: f.default for f in _numbers(self)})  # type: ignore[type-var]

    def prepared(self, layers: Callable[[], tuple[Layer, ...]]) -> Self:
        """Return the rule for one workload, of which ``layers()`` finds the dense layers; the rule itself by default.

        Raises:
            InputError: If the rule needs dense layers and there are none.
        """
        return self

    def gradients_per_update(self, batch_size: int) -> float:
        """Return how many times the gradient of a batch one update evaluates; a Hessian-vector product counts as two.

        >>> from sgdscope.optimizers import SGD
        >>> SGD().gradients_per_update(batch_size=64)
        1
        """
        return 1

    def operations_per_update(self, batch_size: int, of_gradient: float) -> float:
        """Return the floating-point operations of the products of one update.

        Args:
            batch_size: B.
            of_gradient: those of the gradient of one example.
        """
        return self.gradients_per_update(batch_size) * batch_size * of_gradient

    def effective_learning_rate(self, learning_rate: float) -> float | None:
        """Return the rate at which plain SGD would move as far; None where the rule has no such rate."""
        return None

    @property
    def settling_updates(self) -> float | None:
        """The updates after which the rule moves as in its steady state; 0 where it has no memory, None if unknown."""
        return 0.0

    @property
    def declared(self) -> str:
        """The text from which a study's folder reads the optimizer."""
        return str(self)

    # ── A second searched number ─────────────────────────────────────────────────────────────────────────

    @property
    def searched(self) -> str | None:
        """The name of the coefficient that has several values, or None."""
        return next((f.name for f in fields(self) if isinstance(getattr(self, f.name), Values)), None)  # type: ignore[arg-type]

    @property
    def variants(self) -> tuple[Self, ...]:
        """The optimizers of single values: one for each searched value, or the optimizer itself."""
        if self.searched is None:
            return (self,)
        values: Values = getattr(self, self.searched)
        return tuple(replace(self, **{self.searched: value}) for value in values.values)  # type: ignore[type-var]

    def __str__(self) -> str:
        changed = [f for f in _numbers(self) if getattr(self, f.name) != f.default]
        return ":".join([self.family, *(f"{f.name}={_written(getattr(self, f.name))}" for f in changed)])

    def _check(self, **ranges: tuple[float, float]) -> None:
        """Refuse numbers outside of half-open ranges, and more than one searched coefficient."""
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            numbers = value.values if isinstance(value, Values) else (real(f"optimizers: {name}", value),)
            for number in numbers:
                # Training rounds numbers to 24 binary digits, where one nearer to 1 than this is 1.
                below = high - 2**-25 if high == 1 else high
                if not low <= number < below:
                    limit = f" and below {exact(high)}" if math.isfinite(high) else " and finite"
                    raise InputError(f"optimizers: {name} must be at least {exact(low)}{limit}, not {shown(number)}.")
            if not isinstance(value, Values):
                object.__setattr__(self, name, numbers[0])
        several = [name for name in ranges if isinstance(getattr(self, name), Values)]
        if len(several) > 1:
            raise InputError(f"optimizers: {' and '.join(several)} have several values; search one coefficient.")


def tree_map(function: Callable[..., Any], *trees: Tree) -> Tree:
    """Apply a function to the leaves of trees, as ``jax.tree.map`` does."""
    import jax  # here, since naming an optimizer must not load JAX

    return jax.tree.map(function, *trees)


def zeros_like(tree: Tree) -> Tree:
    """Return zeros of a tree's shapes."""
    import jax.numpy as jnp

    return tree_map(jnp.zeros_like, tree)


def sometimes(wanted: Any, function: Callable[[Tree], Tree], tree: Tree) -> Tree:
    """Return ``function(tree)`` where a flag of the trial is set, else the tree, which has the same shapes.

    Where trials are trained all at once (``vmap``), a plain ``cond`` would compute the function in every update. Here
    it is computed in those in which a trial's flag is set.
    """
    import jax
    import jax.numpy as jnp
    from jax.custom_batching import custom_vmap

    # What the function closes over is batched too, and so becomes an argument.
    traced = jax.make_jaxpr(function)(tree)
    structure = jax.tree.structure(tree)

    def computed(constants: Any, leaves: Any) -> Any:
        return jax.core.eval_jaxpr(traced.jaxpr, constants, *leaves)

    @custom_vmap
    def chosen(wanted: Any, constants: Any, leaves: Any) -> Any:
        return jax.lax.cond(wanted, computed, lambda _, leaves: list(leaves), constants, leaves)

    @chosen.def_vmap
    def _(size: int, batched: Any, wanted: Any, constants: Any, leaves: Any) -> Any:
        of_wanted, of_constants, of_leaves = batched
        every: Callable[[Any, bool], Any] = lambda value, has: (
            value if has else jnp.broadcast_to(value, (size, *jnp.shape(value)))
        )
        wanted = every(wanted, of_wanted)
        leaves = jax.tree.map(every, leaves, of_leaves)
        axes = jax.tree.map(lambda has: 0 if has else None, of_constants)

        def some(constants: Any, leaves: Any) -> Any:
            new = jax.vmap(computed, in_axes=(axes, 0))(constants, leaves)
            pick: Callable[[Any, Any], Any] = lambda new, old: jnp.where(
                wanted.reshape(-1, *[1] * (old.ndim - 1)), new, old
            )
            return [pick(*pair) for pair in zip(new, leaves, strict=True)]

        found = jax.lax.cond(wanted.any(), some, lambda _, leaves: list(leaves), constants, leaves)
        return found, [True] * len(found)

    return jax.tree.unflatten(structure, chosen(wanted, list(traced.consts), jax.tree.leaves(tree)))


def _numbers(optimizer: Any) -> list[Any]:
    return [f for f in fields(optimizer) if f.metadata.get("number", True)]


def _written(value: Any) -> str:
    return str(value) if isinstance(value, Values) else exact(value)
