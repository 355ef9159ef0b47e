"""Layers as plain functions on parameter trees."""

from __future__ import annotations

import jax
import jax.numpy as jnp

Dense = dict[str, jax.Array]


def dense_init(key: jax.Array, inputs: int, outputs: int) -> Dense:
    """Return a fully connected layer: normal weights of variance 2/inputs, biases 0.

    Source: He et al. (2015), arXiv 1502.01852, equation 10.

    >>> {name: array.shape for name, array in dense_init(jax.random.key(0), 3, 2).items()}
    {'weight': (3, 2), 'bias': (2,)}
    """
    weight = jax.random.normal(key, (inputs, outputs), jnp.float32) * jnp.sqrt(2.0 / inputs)
    return {"weight": weight, "bias": jnp.zeros(outputs, jnp.float32)}


def dense(layer: Dense, x: jax.Array) -> jax.Array:
    """Return ``x W + b``: (n, inputs) to (n, outputs)."""
    return x @ layer["weight"] + jnp.expand_dims(layer["bias"], 0)
