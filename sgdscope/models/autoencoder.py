"""A deep fully connected autoencoder with logistic units and a linear code."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp

from sgdscope.models.layers import Dense, dense

CONNECTIONS = 15


def autoencoder_init(key: jax.Array, widths: Sequence[int]) -> list[Dense]:
    """Return the layers of input, widths and mirrored widths, sparsely initialized.

    Each unit gets 15 incoming weights from N(0, 1), from places drawn with replacement (of a place drawn twice
    one weight stays); all other weights and the biases are 0.

    Args:
        key: PRNG key.
        widths: the input's, those of the encoder's hidden layers and the code's.

    Source: Martens (2010), "Deep learning via Hessian-free optimization", and his published code.

    >>> [layer["weight"].shape for layer in autoencoder_init(jax.random.key(0), (784, 100, 30))]
    [(784, 100), (100, 30), (30, 100), (100, 784)]
    """
    mirrored = (*widths, *reversed(widths[:-1]))
    place_key, value_key = jax.random.split(key)
    # All layers' numbers in one draw each: a draw for each layer takes three times as long to compile.
    place = jax.random.uniform(place_key, (CONNECTIONS, sum(mirrored[1:])), jnp.float32)
    value = jax.random.normal(value_key, (CONNECTIONS, sum(mirrored[1:])), jnp.float32)
    layers, unit = [], 0
    for inputs, outputs in pairwise(mirrored):
        units = slice(unit, unit + outputs)
        row = (place[:, units] * inputs).astype(jnp.int32)
        # Which of two writes to one place stays is not defined on every device: the last, by leaving the others out.
        later = jnp.triu(jnp.ones((CONNECTIONS, CONNECTIONS), bool), k=1)[:, :, None]
        drawn_again = (later & (row[:, None] == row[None])).any(axis=1)
        last = jnp.where(drawn_again, 0.0, value[:, units])
        weight = jnp.zeros((inputs, outputs), jnp.float32).at[row, jnp.arange(outputs)].add(last)
        layers.append({"weight": weight, "bias": jnp.zeros(outputs, jnp.float32)})
        unit += outputs
    return layers


def autoencoder(layers: list[Dense], x: jax.Array) -> jax.Array:
    """Return the logits of the reconstruction, (n, inputs) to (n, inputs).

    Hidden units are logistic, 1/(1 + exp(−a)), but those of the code in the middle, which are linear.

    Source: Hinton and Salakhutdinov (2006), doi 10.1126/science.1127647.
    """
    code = len(layers) // 2
    for number, layer in enumerate(layers[:-1], start=1):
        x = dense(layer, x)
        if number != code:
            x = jax.nn.sigmoid(x)
    return dense(layers[-1], x)
