"""The processes that train a study together under JAX's distributed runtime: what they tell each other.

Each finds out by itself what to train, and where two came to something else, their devices would add up the gradients
of two trials without a word. So they compare it. All processes call each function here, in the same order.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import jax
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all, process_allgather, sync_global_devices

from sgdscope.errors import InputError


class ToldError(InputError):
    """A mistake that every process is told of, so that none waits for another."""


@contextmanager
def together() -> Iterator[None]:
    """End this process at once, with a word, where it alone cannot go on.

    The others wait for what it will never send them, and at its end JAX would wait five minutes for the others. When
    it is gone their waiting is ended. Exit codes are the command line's: 2 for an InputError, 130 for an interrupt,
    else 1.
    """
    try:
        yield
    except ToldError:
        raise
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        who = f"process {jax.process_index()} of {jax.process_count()} ends, and the others with it"
        if isinstance(error, InputError | KeyboardInterrupt):
            text = str(error) or "it was interrupted."
        elif isinstance(error, jax.errors.JaxRuntimeError):  # so it is where another ended first
            text = str(error).splitlines()[0]
        else:
            text = "".join(traceback.format_exception(error))
        sys.stderr.write(f"{who}: {text}\n")
        sys.stderr.flush()
        os._exit(2 if isinstance(error, InputError) else 130 if isinstance(error, KeyboardInterrupt) else 1)


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


def tell(error: InputError | None) -> None:
    """Raise the first process's error in all of them.

    Raises:
        InputError: where there is one; where there are several processes it is a ToldError.
    """
    if error is not None and jax.process_count() == 1:
        raise error
    told = of_first(str(error or "").encode()).decode()
    if told:
        raise ToldError(told) from error


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
        ToldError: where one has something else: it names where each differs first.
    """
    first, *others = (json.loads(text) for text in of_each(json.dumps(dict(on))))
    said = []
    for number, own in enumerate(others, 1):
        parts = [part for part in first | own if first.get(part) != own.get(part)]
        if parts:
            said.append(f"process {number} has {parts[0]} {own.get(parts[0])}, the first {first.get(parts[0])}")
    if said:
        raise ToldError(f"the processes differ in {what}: {'; '.join(said)}; {remedy}.")
