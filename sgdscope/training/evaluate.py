"""Evaluation: the mean loss and score of a whole split, whatever the batch size."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sgdscope.workloads.base import Batch, Workload, examples_in


class Evaluation(NamedTuple):
    """What an evaluation of a split gives: two means, and where they are asked for which examples scored 1."""

    loss: Any
    score: Any
    bits: Any = None  # bit j, from the highest of byte 0, is set where example j scored 1; uint8 (⌈N/8⌉,)
    zero_or_one: Any = None  # whether every example scored 0 or 1; the bits mean nothing where it is False


def evaluate(workload: Workload, model: tuple[Any, Any], split: Batch, each_example: bool = False) -> Evaluation:
    """Return the mean loss over all N examples of a split, and its score, without augmentation.

    The split is read in chunks of ``evaluation_batch_size``; the last one is filled up with repeats of the last
    example, which count for nothing.

    Args:
        workload: whose ``loss`` and ``score`` are taken.
        model: its parameters and its state, ``()`` where it has none.
        split: arrays of shape (N, ...).
        each_example: whether to tell as well which examples scored 1, where a score is right or wrong.
    """
    examples = examples_in(split)
    size = min(workload.evaluation_batch_size, examples)
    chunks = -(-examples // size)
    told = each_example and tells_each(workload)

    def add_chunk(number: jax.Array, sums: Evaluation) -> Evaluation:
        position = number * size + jnp.arange(size)
        batch = {key: array[jnp.minimum(position, examples - 1)] for key, array in split.items()}
        part = of_chunk(workload, model, batch, position < examples, told)
        sums = sums._replace(loss=sums.loss + part.loss, score=sums.score + part.score)
        if not told:
            return sums
        bits = jax.lax.dynamic_update_index_in_dim(sums.bits, part.bits, number, 0)
        return sums._replace(bits=bits, zero_or_one=sums.zero_or_one & part.zero_or_one)

    zero = jnp.float32(0)
    sums = Evaluation(zero, zero)
    if told:
        sums = Evaluation(zero, zero, jnp.zeros((chunks, -(-size // 8)), jnp.uint8), jnp.bool_(True))
    sums = jax.lax.fori_loop(0, chunks, add_chunk, sums)
    whole = of_sums(workload, sums, examples)
    if not told:
        return whole
    bits = sums.bits
    if chunks > 1 and size % 8:  # each chunk begins a byte of its own
        bits = jnp.packbits(jnp.unpackbits(bits, axis=1)[:, :size].reshape(-1))
    return whole._replace(bits=bits.reshape(-1)[: -(-examples // 8)])


def tells_each(workload: Workload) -> bool:
    """Return whether it can be told which examples scored 1."""
    return workload.score is not workload.loss and workload.score_of_mean is None


def of_chunk(workload: Workload, model: tuple[Any, Any], batch: Batch, counts: jax.Array, told: bool) -> Evaluation:
    """Return the sums of losses and scores over the examples of a batch that count; their bits where they are told."""

    def counted(function: Any) -> jax.Array:
        return jnp.where(counts, function(*model, batch).astype(jnp.float32), 0.0)

    losses = counted(workload.loss)
    scores = losses if workload.score is workload.loss else counted(workload.score)
    if not told:
        return Evaluation(losses.sum(), scores.sum())
    one = scores == 1
    return Evaluation(losses.sum(), scores.sum(), jnp.packbits(one), (one | (scores == 0)).all())


def of_sums(workload: Workload, sums: Evaluation, examples: int) -> Evaluation:
    """Return the means of a split of so many examples; its bits are as they are."""
    mean = sums.score / examples
    score = mean if workload.score_of_mean is None else workload.score_of_mean(mean)
    return sums._replace(loss=sums.loss / examples, score=score)
