"""Evaluation: the mean loss and score of a whole split, whatever the batch size."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from sgdscope.workloads.base import Batch, Workload, examples_in


def evaluate(workload: Workload, model: Any, split: Batch) -> tuple[jax.Array, jax.Array]:
    """Return the mean loss over all N examples of a split, and its score, without augmentation.

    The split is read in chunks of ``evaluation_batch_size``; the last one is filled up with repeats of the last
    example, which count for nothing.

    Args:
        workload: whose ``loss`` and ``score`` are taken.
        model: its parameters, with its state where it has one.
        split: arrays of shape (N, ...).
    """
    examples = examples_in(split)
    size = min(workload.evaluation_batch_size, examples)

    def add_chunk(number: jax.Array, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        position = number * size + jnp.arange(size)
        batch = {key: array[jnp.minimum(position, examples - 1)] for key, array in split.items()}
        counts = position < examples

        def total(function: Any) -> jax.Array:
            return jnp.where(counts, function(model, batch).astype(jnp.float32), 0.0).sum()

        loss = total(workload.loss)
        score = loss if workload.score is workload.loss else total(workload.score)
        return sums[0] + loss, sums[1] + score

    zero = jnp.float32(0)
    loss, score = jax.lax.fori_loop(0, -(-examples // size), add_chunk, (zero, zero))
    mean = score / examples
    return loss / examples, mean if workload.score_of_mean is None else workload.score_of_mean(mean)
