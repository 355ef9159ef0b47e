"""The processes that train a study together under JAX's distributed runtime: what they tell each other.

Each finds out by itself what to train, and where two came to something else, their devices would add up the gradients
of two trials without a word. So they compare it. All processes call each function here, in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all, process_allgather, sync_global_devices

from sgdscope.errors import InputError


def meet(where: str) -> None:
    """Wait for the other processes, where there are any."""
    if jax.process_count() > 1:
        sync_global_devices(where)


def of_first(content: bytes) -> bytes:
    """Return what the first process has.

    >>> of_first(b"alone")
    b'alone'
    """
    if jax.process_count() == 1:
        return content
    size = int(np.asarray(broadcast_one_to_all(np.int32(len(content)))))
    own = np.frombuffer(content.ljust(size)[:size], np.uint8)
    return bytes(np.asarray(broadcast_one_to_all(own)))


def of_each(text: str) -> list[str]:
    """Return every process's text, in their order.

    >>> of_each("alone")
    ['alone']
    """
    if jax.process_count() == 1:
        return [text]
    content = text.encode()
    sizes = np.asarray(process_allgather(np.int32(len(content))))
    own = np.frombuffer(content.ljust(int(sizes.max())), np.uint8)
    rows = np.asarray(process_allgather(own))
    return [bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)]


def agree(what: str, on: Mapping[str, str], remedy: str) -> None:
    """Do nothing where all processes have the same.

    Args:
        what: what they have, for the sentence.
        on: its parts, by what each is called.
        remedy: what would do.

    Raises:
        InputError: in all of them, where one has something else: it names where each differs first.
    """
    first, *others = (json.loads(text) for text in of_each(json.dumps(dict(on))))
    said = []
    for number, own in enumerate(others, 1):
        parts = [part for part in first | own if first.get(part) != own.get(part)]
        if parts:
            said.append(f"process {number} has {parts[0]} {own.get(parts[0])}, the first {first.get(parts[0])}")
    if said:
        raise InputError(f"the processes differ in {what}: {'; '.join(said)}; {remedy}.")
