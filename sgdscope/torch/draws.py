"""Random numbers inside a PyTorch graph: each example draws from its own key, so that no draw depends on the batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgdscope.errors import InputError


class SharedDrawError(Exception):
    """An operation draws random numbers for a whole batch at once."""


def pattern(shape: tuple[int, ...]) -> np.ndarray:
    """Return fixed numbers between 0 and 1 that stand for uniform draws where two frameworks are compared.

    >>> (100 * pattern((2, 2))).round().tolist()
    [[62.0, 24.0], [85.0, 47.0]]
    """
    return ((np.arange(1, math.prod(shape) + 1) * 0.6180339887498949) % 1).astype(np.float32).reshape(shape)


@dataclass(frozen=True)
class ChannelsLast:
    """Images whose channels come last, (n, h, w, c), as a result that is (n, c, h, w) in PyTorch.

    On a CPU, convolutions take them so. To transpose them after each layer and back before the next costs a third of
    the time of a small network, and XLA does not remove it.
    """

    array: Any


@dataclass
class Context:
    """What the operations of one pass over a graph share.

    Args:
        examples: n, the number of examples.
        ghost: the ghost batch size.
        keys: a key for each example, shape (n,); None where :func:`pattern` stands for random numbers.
        piece: examples that share a pattern, where it stands for random numbers. Default: there are no draws.
        axis: of the present operation's result, which axis counts examples, and how many numbers each example has
            along it; None where no axis does.
        draws: how many operations have drawn.
        last: images that are known with their channels last as well, by the identity of the array: both arrays.
    """

    examples: int
    ghost: int
    keys: Any
    piece: int | None = None
    axis: tuple[int, int] | None = None
    draws: int = 0
    last: dict[int, tuple[Any, Any]] = field(default_factory=dict)

    def channels_last(self, x: Any) -> Any:
        """Return images (n, h, w, c) where these, (n, c, h, w), are known as such too; else None."""
        return self.last.get(id(x), (None, None))[1]

    def uniform(self, shape: tuple[int, ...], axis: tuple[int, int] | None = None) -> Any:
        """Return uniform numbers from 0 to 1."""
        return self._draw(shape, axis, lambda key, shape: jax.random.uniform(key, shape), lambda u: u)

    def normal(self, shape: tuple[int, ...]) -> Any:
        """Return standard normal numbers."""
        return self._draw(shape, None, lambda key, shape: jax.random.normal(key, shape), lambda u: 2 * u - 1)

    def dropout(self, x: Any, rate: float, axis: tuple[int, int] | None = None) -> Any:
        """Return x with a share of its numbers set to 0 and the others divided by what is left."""
        if rate >= 1:
            return jnp.zeros_like(x)
        kept = self._draw(
            x.shape, axis, lambda key, shape: jax.random.bernoulli(key, 1 - rate, shape), lambda u: u < 1 - rate
        )
        return jnp.where(kept, x / (1 - rate), 0.0)

    def _draw(
        self,
        shape: tuple[int, ...],
        axis: tuple[int, int] | None,
        sample: Callable[[Any, tuple[int, ...]], Any],
        of_uniform: Callable[[Any], Any],
    ) -> Any:
        place = axis or self.axis
        if place is None:
            raise SharedDrawError
        at, own = place
        number, self.draws = self.draws, self.draws + 1
        rest = (*shape[:at], own, *shape[at + 1 :])
        if self.keys is None:
            if self.piece is None:
                raise InputError(
                    "the module draws random numbers in evaluation mode, so that its score would be one of many. Draw "
                    "them only where self.training is true."
                )
            fixed = pattern((*shape[:at], own * self.piece, *shape[at + 1 :]))
            return of_uniform(jnp.asarray(np.concatenate([fixed] * (self.examples // self.piece), at)))
        drawn = jax.vmap(lambda key: sample(jax.random.fold_in(key, number), rest), out_axes=at)(self.keys)
        return drawn.reshape(shape)
