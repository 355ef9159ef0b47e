"""A fully connected network with rectified linear units."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from sgdscope.models.layers import Dense, dense, dense_init


def mlp_init(key: jax.Array, widths: Sequence[int]) -> list[Dense]:
    """Return the layers between successive widths, the first the input's and the last the output's.

    >>> [layer["weight"].shape for layer in mlp_init(jax.random.key(0), (64, 32, 10))]
    [(64, 32), (32, 10)]
    """
    keys = jax.random.split(key, len(widths) - 1)
    return [dense_init(*args) for args in zip(keys, widths, widths[1:], strict=False)]


def mlp(layers: list[Dense], x: jax.Array) -> jax.Array:
    """Return the last layer's output, (n, inputs) to (n, outputs), with rectified units between the layers."""
    for layer in layers[:-1]:
        x = jax.nn.relu(dense(layer, x))
    return dense(layers[-1], x)
