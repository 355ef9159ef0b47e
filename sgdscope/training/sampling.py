"""Which examples an update sees: a pure function of (seed, step), in parts as large as memory allows."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from sgdscope.data.order import example_at
from sgdscope.workloads.base import Batch, Workload, examples_in


def microbatch_at(
    workload: Workload, train_split: Batch, seed: jax.Array, step: jax.Array, number: jax.Array, sizes: tuple[int, int]
) -> tuple[Batch, Any]:
    """Return one part of the batch of an update, and a key for each of its examples or streams.

    Args:
        workload: says whether its examples are permuted and augmented, or read as streams.
        train_split: the arrays of the training split.
        seed: the trial's seed, an unsigned 32-bit scalar.
        step: t, the number of updates already made.
        number: which part, from 0.
        sizes: the batch size and the microbatch size.

    Returns:
        Arrays of shape (microbatch_size, ...), or (streams, unroll + 1, ...) where the workload has streams; and
        keys of shape (microbatch_size,) or (streams,), or None where nothing draws random numbers.
    """
    if workload.streams is not None:
        return _streams(workload, train_split, seed, step, number, sizes)
    batch_size, size = sizes
    examples = examples_in(train_split)
    first = step.astype(jnp.uint32) * jnp.uint32(batch_size) + number.astype(jnp.uint32) * jnp.uint32(size)
    position = first + jnp.arange(size, dtype=jnp.uint32)
    index = example_at(seed, position, examples)
    batch = {key: array[index] for key, array in train_split.items()}
    if workload.augment is not None:
        batch = jax.vmap(workload.augment)(_keys(augment_key(seed), position), batch)
    return batch, training_keys(workload, seed, position)


def training_keys(workload: Workload, seed: jax.Array, position: jax.Array) -> Any:
    """Return a key for each of these positions of a trial's stream; None where nothing draws random numbers."""
    return None if workload.training_loss is None else _keys(_training_key(seed), position)


def drawn_batch(
    workload: Workload, train_split: Batch, seed: jax.Array, step: jax.Array, number: jax.Array, size: int
) -> tuple[Batch, Any]:
    """Return a batch that is drawn beside training, as :func:`microbatch_at` does, from a key of its own.

    Examples are independent draws, with replacement; where batches have ghost batches, it is one of these, whose
    examples are distinct as in training. Batches of different numbers, steps and seeds are independent.

    Args:
        workload: one without streams.
        train_split: the arrays of the training split.
        seed: the trial's seed.
        step: how many updates the trial has made.
        number: which batch of this step, from 0.
        size: its examples; the ghost batch size where there is one.
    """
    order, *draws = jax.random.split(jax.random.fold_in(_noise_key(seed), step), 3)
    place = jnp.arange(size, dtype=jnp.uint32)
    visit = number.astype(jnp.uint32) * jnp.uint32(size) + place
    # A permutation of its own for each example, of which the first is taken, or for each ghost batch.
    drawn, position = (visit, jnp.zeros_like(place)) if workload.ghost_batch_size == 1 else (visit - place, place)
    index = example_at(jax.random.bits(order, dtype=jnp.uint32) + drawn, position, examples_in(train_split))
    batch = {key: array[index] for key, array in train_split.items()}
    if workload.augment is not None:
        batch = jax.vmap(workload.augment)(_keys(draws[0], visit), batch)
    return batch, None if workload.training_loss is None else _keys(draws[1], visit)


def updates_per_epoch(workload: Workload, batch_size: int) -> int:
    """Return how many updates read each stream once: ⌊⌊N/S⌋/unroll⌋ for S = batch_size/unroll streams.

    So at most one unroll of each stream is dropped an epoch; :func:`dropped` counts it.
    """
    return examples_in(workload.train) // (batch_size // workload.unroll) // workload.unroll


def dropped(workload: Workload, batch_size: int) -> int:
    """Return the examples that an epoch does not read: 0 unless a text is cut into streams."""
    if workload.streams is None:
        return 0
    return examples_in(workload.train) - updates_per_epoch(workload, batch_size) * batch_size


def init_key(seed: jax.Array) -> Any:
    """Return the key that the parameters are drawn with."""
    return jax.random.split(jax.random.key(seed))[0]


def augment_key(seed: jax.Array) -> Any:
    """Return the key that augmentation draws from, folded with each example's position in the trial's stream."""
    return jax.random.split(jax.random.key(seed))[1]


def _training_key(seed: jax.Array) -> Any:
    return jax.random.split(jax.random.key(seed), 3)[2]


def _noise_key(seed: jax.Array) -> Any:
    return jax.random.split(jax.random.key(seed), 4)[3]


def update_key(seed: jax.Array, step: jax.Array) -> Any:
    """Return the key of an update, which is the optimizer's own: nothing else draws from it."""
    return jax.random.fold_in(jax.random.split(jax.random.key(seed), 5)[4], step)


def sharpness_key(seed: jax.Array, step: jax.Array) -> Any:
    """Return the key that the first direction of an estimate of the sharpness is drawn with."""
    return jax.random.fold_in(jax.random.split(jax.random.key(seed), 6)[5], step)


def _keys(key: Any, positions: jax.Array) -> Any:
    return jax.vmap(partial(jax.random.fold_in, key))(positions)


def _streams(
    workload: Workload, train_split: Batch, seed: jax.Array, step: jax.Array, number: jax.Array, sizes: tuple[int, int]
) -> tuple[Batch, Any]:
    batch_size, size = sizes
    unroll, tokens = workload.unroll, examples_in(train_split)
    streams = batch_size // unroll
    per_epoch = updates_per_epoch(workload, batch_size)
    epoch, update = (part.astype(jnp.uint32) for part in (step // per_epoch, step % per_epoch))
    # Where the ring is cut: uniform over its tokens, drawn anew for each seed and epoch.
    cut = example_at(seed, epoch * jnp.uint32(tokens), tokens)
    stream = number.astype(jnp.uint32) * jnp.uint32(size // unroll) + jnp.arange(size // unroll, dtype=jnp.uint32)
    first = cut + stream * jnp.uint32(tokens // streams) + update * jnp.uint32(unroll)
    position = (first[:, None] + jnp.arange(unroll + 1, dtype=jnp.uint32)[None]) % jnp.uint32(tokens)
    batch = {key: array[position] for key, array in train_split.items()}
    return batch, _keys(jax.random.fold_in(_training_key(seed), step), stream)
