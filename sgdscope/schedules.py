"""The learning-rate schedule of the study: one hyperparameter, the initial learning rate."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def halving(step: jax.Array, updates: jax.Array) -> jax.Array:
    """Return the factor on the initial learning rate: held for half the budget, then halved ten times.

    With T updates in the budget and t the number of updates already made::

        factor(t) = 2^(-max(0, floor(20 t / T) - 9))

    so the first halving comes exactly at T/2, one more every T/20, and the last segment runs at 1/1024.

    Args:
        step: t, any shape, integers in [0, T).
        updates: T, broadcast against ``step``.

    Source: Smith, Elsen and De (2020), arXiv 2006.15081, as recalled; no warm-up.

    >>> [float(halving(jnp.int32(t), jnp.int32(40))) for t in (0, 19, 20, 22, 39)]
    [1.0, 1.0, 0.5, 0.25, 0.0009765625]
    """
    halvings = jnp.maximum(0, 20 * step // updates - 9)
    return jnp.exp2(-halvings.astype(jnp.float32))
