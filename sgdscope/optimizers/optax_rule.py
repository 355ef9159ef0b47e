"""Any optimizer of optax."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from sgdscope.converters import function, several, shown, whole
from sgdscope.errors import InputError
from sgdscope.optimizers.base import Optimizer, Oracle, Tree, tree_map


@dataclass(frozen=True)
class Optax(Optimizer):
    """An ``optax.GradientTransformation`` that is built from the learning rate.

    Args:
        name: The optimizer's name in tables and its identity. Give another name to another ``build``.
        build: ``build(learning_rate) -> optax.GradientTransformation``, called with a traced scalar, so that one
            program serves every rate.
        first_window: log₂ of the lowest and the highest learning rate of a search's first round. Default: (-3, 1).

    Raises:
        InputError: If the name has one of the signs ``: = |``, or a field has a wrong type.

    >>> import optax
    >>> str(Optax("lion", optax.lion, first_window=(-15, -8)))
    'optax:lion'
    """

    name: str = field(metadata={"number": False})
    build: Callable[[Any], Any] | None = field(default=None, compare=False, repr=False, metadata={"number": False})
    first_window: tuple[int, int] = field(default=(-3, 1), compare=False, repr=False, metadata={"number": False})

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name.strip()) or any(c in self.name for c in ":=|"):
            raise InputError(f"optimizers: name: {shown(self.name)} is not a word without the signs : = and |.")
        function("optimizers: build", self.build, optional=True)
        window = tuple(whole("optimizers: first_window", end) for end in several(self.first_window))
        if len(window) != 2 or window[0] >= window[1]:
            raise InputError(
                f"optimizers: first_window: {shown(self.first_window)} is not a pair of whole numbers that rise, log₂ "
                f"of the lowest and of the highest learning rate."
            )
        object.__setattr__(self, "first_window", window)

    @property
    def family(self) -> str:
        """``optax:`` and the name."""
        return f"optax:{self.name}"

    @property
    def declared(self) -> str:
        """The name with the first window, from which a search is replayed."""
        return ":".join([self.family, *map(str, self.first_window)])

    @property
    def rule(self) -> Self:
        """The optimizer itself: its numbers are in ``build``."""
        return self

    @property
    def settling_updates(self) -> float | None:
        """None: it is unknown."""
        return None

    def init(self, parameters: Tree) -> Tree:
        """Return optax's state."""
        import jax.numpy as jnp

        return self._built(jnp.float32(0)).init(parameters)

    def update(
        self, gradient: Tree, state: Tree, parameters: Tree, learning_rate: Any, numbers: Mapping[str, Any], ask: Oracle
    ) -> tuple[Tree, Tree]:
        """Return the parameters and optax's state after one update."""
        updates, state = self._built(learning_rate).update(gradient, state, parameters)
        return tree_map(lambda p, u: p + u, parameters, updates), state

    def _built(self, learning_rate: Any) -> Any:
        if self.build is None:
            raise InputError(
                f"optimizers: {self} can be read but not trained here; declare it with its build function."
            )
        return self.build(learning_rate)
