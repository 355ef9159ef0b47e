"""The order of examples: an arithmetic permutation of (seed, epoch, index), without a sort and without memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Each round changes one half of the index; three are known to fail a test on pairs at N = 1,024.
ROUNDS = 8


def example_at(seed: jax.Array, position: jax.Array, examples: int) -> jax.Array:
    """Return which example a trial sees at a position of its endless stream of examples.

    The stream runs through epochs: position q belongs to epoch ⌊q/N⌋, and within each epoch a keyed Feistel
    network with cycle walking permutes the N indices. Batches are consecutive stretches of the stream, so every
    example comes once an epoch also where the batch size does not divide N.

    Args:
        seed: the trial's seed, an unsigned 32-bit scalar.
        position: any shape, unsigned 32-bit.
        examples: N, at least 1.

    Source: Black and Rogaway (2002), "Ciphers with arbitrary finite domains", the cycle-walking construction.

    >>> sorted(int(i) for i in example_at(jnp.uint32(0), jnp.arange(5, dtype=jnp.uint32), 5))
    [0, 1, 2, 3, 4]
    """
    size = jnp.uint32(examples)
    epoch, index = position // size, position % size
    bits = max(2, (examples - 1).bit_length())
    key = _mix(seed * jnp.uint32(0x9E3779B9) ^ _mix(epoch + jnp.uint32(0x7F4A7C15)))

    def walk(index: jax.Array) -> jax.Array:
        return jnp.where(index < size, index, _feistel(key, index, bits, _mix))

    index = _feistel(key, index, bits, _mix)
    if examples == 1 << bits:
        whole: jax.Array = index
        return whole
    walked: jax.Array = jax.lax.while_loop(lambda index: jnp.any(index >= size), walk, index)
    return walked


def examples_at(seed: int, positions: np.ndarray, examples: int) -> np.ndarray:
    """Return what :func:`example_at` does, in numpy: for the host, where no device need be asked.

    Args:
        seed: the trial's seed.
        positions: of the trial's stream, whole numbers below 2³² of shape (n,).
        examples: N, at least 1.

    >>> sorted(examples_at(0, np.arange(5), 5).tolist())
    [0, 1, 2, 3, 4]
    """
    positions = positions.astype(np.uint32)
    size = np.uint32(examples)
    epoch, index = positions // size, positions % size
    bits = max(2, (examples - 1).bit_length())
    # An array, since numpy warns of scalars that wrap around.
    key = _hash(np.full(1, seed, np.uint32) * np.uint32(0x9E3779B9) ^ _hash(epoch + np.uint32(0x7F4A7C15)))
    index = _feistel(key, index, bits, _hash)
    while (outside := index >= size).any():
        index = np.where(outside, _feistel(key, index, bits, _hash), index)
    places: np.ndarray = index.astype(np.int64)
    return places


def _feistel(key: Any, index: Any, bits: int, mix: Callable[[Any], Any]) -> Any:
    """Permute [0, 2^bits): the two parts of the index, as equal as they can be, change each other in turn."""
    low_bits = bits // 2
    low_mask, high_mask = np.uint32((1 << low_bits) - 1), np.uint32((1 << (bits - low_bits)) - 1)
    high, low = index >> low_bits, index & low_mask
    for number in range(ROUNDS):
        round_key = key + np.uint32((number + 1) * 0x9E3779B9 & 0xFFFFFFFF)
        if number % 2:
            high = high ^ (mix(round_key ^ low) & high_mask)
        else:
            low = low ^ (mix(round_key ^ high) & low_mask)
    return high << low_bits | low


def _hash(x: Any) -> Any:
    """Hash 32 bits to 32 bits, one to one (the finalizer of MurmurHash3, A. Appleby, public domain)."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


_mix = jax.jit(_hash)  # traced once for each shape, not once a call
