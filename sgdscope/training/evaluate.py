"""Evaluation: the mean loss and score of a whole split, whatever the batch size."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sgdscope.workloads.base import Batch, Parameters, Workload

# Examples per forward pass; a bound on memory alone, since every example counts once and equally.
CHUNK = 1024


def evaluate(workload: Workload, parameters: Parameters, split: Batch) -> tuple[jax.Array, jax.Array]:
    """Return the means over all N examples of a split of loss and score, without augmentation.

    The split is read in chunks of at most 1,024; the last one is filled up with repeats of the last example,
    which count for nothing.
    """
    examples = len(next(iter(split.values())))
    size = min(CHUNK, examples)

    def add_chunk(number: jax.Array, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        position = number * size + jnp.arange(size)
        batch = {key: array[jnp.minimum(position, examples - 1)] for key, array in split.items()}
        counts = position < examples
        loss, score = (
            jnp.where(counts, function(parameters, batch).astype(jnp.float32), 0.0).sum()
            for function in (workload.loss, workload.score)
        )
        return sums[0] + loss, sums[1] + score

    zero = jnp.float32(0)
    loss, score = jax.lax.fori_loop(0, -(-examples // size), add_chunk, (zero, zero))
    return loss / examples, score / examples
