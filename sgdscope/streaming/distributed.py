"""The processes that train a study together under JAX's distributed runtime: what they tell each other.

Each process finds out by itself what to train. The processes compare it, since else their devices would add up the
gradients of two trials. All call each method of their :class:`World`, in the same order.
"""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import jax
import numpy as np
import polars as pl
from jax.experimental.multihost_utils import broadcast_one_to_all, process_allgather, sync_global_devices

from sgdscope.errors import InputError, Terminated
from sgdscope.study import Declaration, Study
from sgdscope.version import __version__


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

    def broadcast_table(self, table: pl.DataFrame) -> pl.DataFrame:
        """Return the first process's table."""
        buffer = io.BytesIO()
        table.write_parquet(buffer)
        return pl.read_parquet(io.BytesIO(self.broadcast(buffer.getvalue())))

    def agree_on(self, study: Study, declaration: Declaration, programs: Mapping[str, str]) -> None:
        """Refuse a study that processes cannot train together, or that is another in one of them.

        Args:
            study: as this process declares it.
            declaration: its declaration.
            programs: a fingerprint of each workload and optimizer that is traced, by its name.

        Raises:
            InputError: If they have other numbers of devices, or a workload has its data on the devices.
            ToldError: If the study differs; it names what.
        """
        if not self.is_shared:
            return
        counts = Counter(device.process_index for device in jax.devices())
        if len(set(counts.values())) > 1:
            raise InputError(
                f"the processes have {', '.join(str(count) for _, count in sorted(counts.items()))} devices. Each "
                f"trial is shared in equal parts, so give all of them as many."
            )
        if study.devices_per_trial != jax.device_count():
            raise InputError(
                f"devices_per_trial: {study.devices_per_trial} is not {jax.device_count()}, the devices of all "
                f"{self.count} processes, which train each trial together."
            )
        for workload in study.workloads:
            if workload.feed is None:
                raise InputError(
                    f"workload {workload.name!r} has its data on the devices, which processes do not share. Run it in "
                    f"one process."
                )
        parts = json.loads(declaration.to_json())
        for record in parts.pop("workloads"):
            parts |= {f"{field} of workload {record['name']}": value for field, value in record.items()}
        parts |= {f"functions of {name}, as a hash,": program for name, program in programs.items()}
        parts = {"versions": f"sgdscope {__version__}, JAX {jax.__version__}"} | parts
        told = {part: str(value) for part, value in parts.items()}
        self.agree("the study", told, "all must run the same script, on the same data and with the same versions")

    def own(self, count: int) -> slice:
        """Return which of so many examples are this process's to read: those that its devices take."""
        each = count // self.count
        return slice(self.index * each, (self.index + 1) * each)


def the_world() -> World:
    """Return the processes of JAX's distributed runtime, of which this is one; without it, this process alone."""
    return World(jax.process_index(), jax.process_count())


@contextmanager
def exit_together() -> Iterator[None]:
    """End this process at once, with a message, where it alone cannot go on.

    The other processes would wait for it; when it is gone their waiting is ended. A single process is left as it is.
    Exit codes: 2 for an InputError, 130 for an interrupt, 143 for SIGTERM that the command line received, else 1.

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
        codes = {InputError: 2, KeyboardInterrupt: 130, Terminated: 143}
        code = next((code for kind, code in codes.items() if isinstance(error, kind)), 1)
        if code != 1:
            text = str(error) or "it was interrupted."
        elif isinstance(error, jax.errors.JaxRuntimeError):  # so it is where another ended first
            text = str(error).splitlines()[0]
        else:
            text = "".join(traceback.format_exception(error))
        sys.stderr.write(f"{who}: {text}\n")
        sys.stderr.flush()
        os._exit(code)
