"""Losses and scores of outputs, one number for each example."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax


def cross_entropy(outputs: jax.Array, label: jax.Array) -> jax.Array:
    """Return the cross-entropy of each example in nats, (n, classes) and (n,) to (n,)."""
    # One-hot labels: for few classes the gather of integer labels takes longer to trace and has a scatter for its
    # gradient.
    loss: jax.Array = optax.softmax_cross_entropy(outputs, jax.nn.one_hot(label, outputs.shape[1]))
    return loss


def uniform_cross_entropy(outputs: jax.Array) -> jax.Array:
    """Return the cross-entropy of each example with equally likely classes, in nats, (n, classes) to (n,)."""
    return -jax.nn.log_softmax(outputs).mean(axis=1)


def accuracy(outputs: jax.Array, label: jax.Array) -> jax.Array:
    """Return 1 for each example whose largest output is its label's, else 0, (n, classes) and (n,) to (n,)."""
    return (outputs.argmax(axis=1) == label.astype(jnp.int32)).astype(jnp.float32)
