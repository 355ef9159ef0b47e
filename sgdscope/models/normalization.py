"""Ghost batch normalization as plain functions on parameter trees.

Source: Hoffer, Hubara and Soudry (2017), arXiv 1705.08741, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Norm = dict[str, jax.Array]
Running = dict[str, jax.Array]

# Torch's defaults (its "momentum" is 1 − m), and with it the released code of arXiv 1605.07146.
EPSILON = 1e-5
MOMENTUM = 0.9


def norm_init(channels: int) -> Norm:
    """Return the learnable part of a normalization: scales 1 and shifts 0.

    >>> {name: array.shape for name, array in norm_init(3).items()}
    {'scale': (3,), 'shift': (3,)}
    """
    return {"scale": jnp.ones(channels, jnp.float32), "shift": jnp.zeros(channels, jnp.float32)}


def running_init(channels: int) -> Running:
    """Return the running statistics before any example: means 0 and variances 1.

    >>> {name: array.shape for name, array in running_init(3).items()}
    {'mean': (3,), 'variance': (3,)}
    """
    return {"mean": jnp.zeros(channels, jnp.float32), "variance": jnp.ones(channels, jnp.float32)}


def ghost_batch_norm(norm: Norm, running: Running, x: jax.Array, ghost_batch_size: int) -> tuple[jax.Array, Running]:
    """Normalize each ghost batch by its own statistics, and move the running ones on once for each of them.

    Within each run of g successive examples, over all pixels, μ and σ² are the mean and the (biased) variance
    of a channel, and y = scale · (x − μ)/√(σ² + ε) + shift. The running statistics then take up the G = n/g
    ghost batches in their order, r ← m r + (1 − m) μ_i, in closed form

        r ← m^G r + (1 − m) Σ_i m^(G−1−i) μ_i,

    so their window is the same number of examples at every batch size, and a batch may be cut into pieces at ghost
    batches. The running variance takes up the σ² that normalized, without Bessel's correction.

    Args:
        norm: scale and shift, shape (c,).
        running: mean and variance, shape (c,); no gradient is taken of them.
        x: shape (n, h, w, c), n a multiple of ``ghost_batch_size``.
        ghost_batch_size: g, examples for each statistic.
    """
    ghosts = x.reshape(-1, ghost_batch_size, *x.shape[1:])
    mean = ghosts.mean(axis=(1, 2, 3), keepdims=True)
    centred = ghosts - mean
    variance = (centred**2).mean(axis=(1, 2, 3), keepdims=True)
    y = centred * (lax.rsqrt(variance + EPSILON) * channels(norm["scale"], 5)) + channels(norm["shift"], 5)

    weight = MOMENTUM ** jnp.arange(len(ghosts) - 1, -1, -1, dtype=x.dtype)

    def advanced(old: jax.Array, statistic: jax.Array) -> jax.Array:
        seen = (1 - MOMENTUM) * weight @ lax.stop_gradient(statistic).reshape(len(ghosts), -1)
        return MOMENTUM ** len(ghosts) * old + seen

    moved = {"mean": advanced(running["mean"], mean), "variance": advanced(running["variance"], variance)}
    return y.reshape(x.shape), moved


def running_norm(norm: Norm, running: Running, x: jax.Array) -> tuple[jax.Array, Running]:
    """Normalize by the running statistics, for evaluation: each example by itself; they stay as they are.

    >>> running_norm(norm_init(2), running_init(2), jnp.ones((1, 1, 1, 2)))[0].round(3).tolist()
    [[[[1.0, 1.0]]]]
    """
    scale = lax.rsqrt(running["variance"] + EPSILON) * norm["scale"]
    return (x - channels(running["mean"], 4)) * channels(scale, 4) + channels(norm["shift"], 4), running


def cuts_ghosts(training_loss: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a training loss that cuts its batch into ghost batches by itself, so that it is not compiled to find out.

    >>> cuts_ghosts(lambda parameters, state, batch, keys: (batch["x"], state)).cuts_ghosts
    True
    """
    training_loss.cuts_ghosts = True  # type: ignore[attr-defined]
    return training_loss


def channels(numbers: jax.Array, axes: int) -> jax.Array:
    """Return one number for each channel, as an array of so many axes whose last is that of the channels."""
    return jnp.expand_dims(numbers, tuple(range(axes - 1)))
