"""Checkpoints of the trials that are being trained: a file a pack, seen whole or not at all, without pickle.

``checkpoints/PACK.CIRCUMSTANCES.SHA256.npz`` holds the trials of a pack between two updates, by their ids, with the
rows that each has measured so far, which enter the tables only when the trial is finished. A trial resumes from its
checkpoint in any pack. A damaged file is ignored. So is a file that was written by another version of JAX, on another
kind of device or by another method: there the trial begins anew. One thread writes, while training goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from sgdscope import atomic
from sgdscope.errors import InputError

OWN = re.compile(r"[0-9a-f]+\.[0-9a-f]{8}\.[0-9a-f]{16}\.npz")


@dataclass(frozen=True)
class Measurement:
    """One number: what came out of a trial at a step."""

    step: int
    split: str
    metric: str
    value: float


@dataclass(frozen=True)
class Checkpoint:
    """A trial between two updates: the leaves of its state, what it has measured, and the seconds it has taken."""

    leaves: Sequence[np.ndarray]
    step: int
    measurements: Sequence[Measurement]
    seconds: float


class Checkpoints:
    """The checkpoints in a study's folder; as a context it is left when what was saved is on the disk.

    Args:
        folder: the study's folder.
        circumstances: what the bits of a trial depend on beside its identity; others' checkpoints are passed over.
        writes: False where another process writes and deletes them.
    """

    def __init__(self, folder: Path, circumstances: str, writes: bool = True) -> None:
        self._writes = writes
        self._folder = folder / "checkpoints"
        self._circumstances = _digest(circumstances.encode())[:8]
        self._done = set[str]()
        self._ids = dict[Path, frozenset[str]]()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            self.settle()
        except InputError:
            if kind is None:  # else what ended the training is told
                raise

    def save(self, checkpoints: Mapping[str, Checkpoint]) -> None:
        """Begin to write the checkpoints of a pack's trials, by their ids, in place of the pack's last ones.

        Arrays must not be changed afterwards.

        Raises:
            InputError: where the write before this one failed.
        """
        if self._writes:
            self.settle()
            self._writing = self._thread.submit(self._write, dict(checkpoints))

    def settle(self) -> None:
        """Wait until what was saved is on the disk.

        Raises:
            InputError: where it could not be written.
        """
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def load(self, trial_ids: Iterable[str]) -> dict[str, Checkpoint]:
        """Return the checkpoints of those trials that have one, each the furthest of those that are whole."""
        self.settle()
        wanted, found = set(trial_ids), dict[str, Checkpoint]()
        for path in self._all():
            if path.name.split(".")[1] == self._circumstances and wanted & self._trials_of(path):
                for trial_id, checkpoint in _read(path).items():
                    if trial_id in wanted and (trial_id not in found or found[trial_id].step < checkpoint.step):
                        found[trial_id] = checkpoint
        return found

    def drop(self, trial_ids: Iterable[str]) -> None:
        """Delete the files that hold no trial but those whose rows are committed, now or before, and damaged files."""
        self._done |= set(trial_ids)
        if self._writes:
            self.settle()
            for path in self._all():
                if self._trials_of(path) <= self._done:
                    path.unlink(missing_ok=True)

    def trials(self) -> set[str]:
        """Return the ids of the trials that have a checkpoint, once what was saved is on the disk."""
        self.settle()
        return set[str]().union(*(self._trials_of(path) for path in self._all()))

    def _write(self, checkpoints: Mapping[str, Checkpoint]) -> None:
        ids = list(checkpoints)
        about = [
            {
                "trial": trial_id,
                "step": checkpoint.step,
                "seconds": checkpoint.seconds,
                "measurements": [astuple(m) for m in checkpoint.measurements],
            }
            for trial_id, checkpoint in checkpoints.items()
        ]
        buffer = io.BytesIO()
        leaves = [np.stack(of_each) for of_each in zip(*(c.leaves for c in checkpoints.values()), strict=True)]
        np.savez(buffer, np.array(json.dumps(about)), *leaves)
        content = buffer.getvalue()
        pack = f"{_digest(' '.join(sorted(ids)).encode())}.{self._circumstances}."
        path = self._folder / f"{pack}{_digest(content)}.npz"
        old = [other for other in self._all() if other.name.startswith(pack) and other != path]
        atomic.write(path, content)
        for other in old:
            other.unlink(missing_ok=True)

    def _trials_of(self, path: Path) -> frozenset[str]:
        """Return the ids of a file's trials, which are read once; none where it is damaged."""
        if path not in self._ids:
            self._ids[path] = frozenset(_ids(path))
        return self._ids[path]

    def _all(self) -> list[Path]:
        with contextlib.suppress(OSError):  # of a folder that cannot be read, the next write tells
            return sorted(path for path in self._folder.iterdir() if OWN.fullmatch(path.name))
        return []


UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)


def _ids(path: Path) -> list[str]:
    """Return the trials of a file: none where it is damaged, and its own name where it cannot be read now."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["arr_0"]))
            # The form of before held one trial a file, with its id in the name; it is passed over.
            one = isinstance(about, dict)
            return [path.name.split(".")[0]] if one else [str(entry["trial"]) for entry in about]
    except FileNotFoundError:
        return []
    except OSError:
        return [path.name]
    except UNREADABLE:
        return []


def _read(path: Path) -> dict[str, Checkpoint]:
    with contextlib.suppress(*UNREADABLE):
        content = path.read_bytes()
        if _digest(content) != path.name.split(".")[2]:
            return {}
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            about: list[dict[str, Any]] = json.loads(str(arrays["arr_0"]))
            leaves = [arrays[f"arr_{number}"] for number in range(1, len(arrays.files))]
        return {
            entry["trial"]: Checkpoint(
                [leaf[place] for leaf in leaves],
                entry["step"],
                [Measurement(*row) for row in entry["measurements"]],
                entry["seconds"],
            )
            for place, entry in enumerate(about)
        }
    return {}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
