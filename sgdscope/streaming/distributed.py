"""The processes that train a study together under JAX's distributed runtime: what they tell each other.

Each finds out by itself what to train, and where two came to something else, their devices would add up the gradients
of two trials without a word. So they compare it. All processes call each method of their :class:`World`, in the same
order.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all, process_allgather, sync_global_devices

from sgdscope.errors import InputError


class ToldError(InputError):
    """A mistake that every process is told of, so that none waits for another."""


@dataclass(frozen=True)
class World:
    """One process or many, and what they tell each other.

    Args:
        index: which process this is, from 0.
        count: how many there are.

    >>> World().broadcast(b"alone"), World().gather("alone"), World().is_leader
    (b'alone', ['alone'], True)
    """

    index: int = 0
    count: int = 1

    @property
    def is_leader(self) -> bool:
        """Whether this is the first process, which alone writes."""
        return self.index == 0

    @property
    def is_shared(self) -> bool:
        """Whether there are other processes."""
        return self.count > 1

    def meet(self, where: str) -> None:
        """Wait for the other processes, where there are any."""
        if self.is_shared:
            sync_global_devices(where)

    def broadcast(self, content: bytes) -> bytes:
        """Return what the first process has."""
        if not self.is_shared:
            return content
        size = int(np.asarray(broadcast_one_to_all(np.int32(len(content)))))
        own = np.frombuffer(content.ljust(size)[:size], np.uint8)
        return bytes(np.asarray(broadcast_one_to_all(own)))

    def tell(self, error: InputError | None) -> None:
        """Raise the first process's error in all of them.

        Raises:
            InputError: where there is one; where there are several processes it is a ToldError.
        """
        if error is not None and not self.is_shared:
            raise error
        told = self.broadcast(str(error or "").encode()).decode()
        if told:
            raise ToldError(told) from error

    def gather(self, text: str) -> list[str]:
        """Return every process's text, in their order."""
        if not self.is_shared:
            return [text]
        content = text.encode()
        sizes = np.asarray(process_allgather(np.int32(len(content))))
        own = np.frombuffer(content.ljust(int(sizes.max())), np.uint8)
        rows = np.asarray(process_allgather(own))
        return [bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)]

    def agree(self, what: str, on: Mapping[str, str], remedy: str) -> None:
        """Do nothing where all processes have the same.

        Args:
            what: what they have, for the sentence.
            on: its parts, by what each is called.
            remedy: what would do.

        Raises:
            ToldError: where one has something else: it names where each differs first.
        """
        first, *others = (json.loads(text) for text in self.gather(json.dumps(dict(on))))
        said = []
        for number, own in enumerate(others, 1):
            parts = [part for part in first | own if first.get(part) != own.get(part)]
            if parts:
                said.append(f"process {number} has {parts[0]} {own.get(parts[0])}, the first {first.get(parts[0])}")
        if said:
            raise ToldError(f"the processes differ in {what}: {'; '.join(said)}; {remedy}.")

    def own(self, count: int) -> slice:
        """Return which of so many examples are this process's to read: those that its devices take."""
        each = count // self.count
        return slice(self.index * each, (self.index + 1) * each)


def the_world() -> World:
    """Return the processes of JAX's distributed runtime, of which this is one; without it, this process alone."""
    return World(jax.process_index(), jax.process_count())


@contextmanager
def exit_together() -> Iterator[None]:
    """End this process at once, with a word, where it alone cannot go on.

    The others wait for what it will never send them, and at its end JAX would wait five minutes for the others. When
    it is gone their waiting is ended. The command line uses it, and so may a script that is started in several
    processes; a single process is left as it is. Exit codes: 2 for an InputError, 130 for an interrupt, else 1.

    >>> import sgdscope as sg
    >>> with sg.exit_together():
    ...     pass  # sg.run(study, folder)
    """
    try:
        yield
    except ToldError:
        raise
    except BaseException as error:
        world = the_world()
        if not world.is_shared:
            raise
        who = f"process {world.index} of {world.count} ends, and the others with it"
        if isinstance(error, InputError | KeyboardInterrupt):
            text = str(error) or "it was interrupted."
        elif isinstance(error, jax.errors.JaxRuntimeError):  # so it is where another ended first
            text = str(error).splitlines()[0]
        else:
            text = "".join(traceback.format_exception(error))
        sys.stderr.write(f"{who}: {text}\n")
        sys.stderr.flush()
        os._exit(2 if isinstance(error, InputError) else 130 if isinstance(error, KeyboardInterrupt) else 1)
