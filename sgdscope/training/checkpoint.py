"""Checkpoints of the trials that are being trained: keyed by trial, seen whole or not at all, without pickle.

``checkpoints/TRIAL.CIRCUMSTANCES.SHA256.npz`` holds a trial between two updates with the rows that it has measured
so far, which enter the tables only when the trial is finished. A trial goes on from its checkpoint in whichever pack
it comes to lie. One that is damaged is of no use, and one that was written by another version of JAX, on another kind
of device or by another method is left where it is: under these circumstances the trial begins anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from sgdscope import atomic

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

    leaves: list[np.ndarray]
    step: int
    measurements: list[Measurement]
    seconds: float


class Checkpoints:
    """The checkpoints in a study's folder.

    Args:
        folder: the study's folder.
        circumstances: what the bits of a trial depend on beside its identity; others' checkpoints are passed over.
        writes: False where another process writes and deletes them.
    """

    def __init__(self, folder: Path, circumstances: str, writes: bool = True) -> None:
        self._writes = writes
        self._folder = folder / "checkpoints"
        self._circumstances = _digest(circumstances.encode())[:8]

    def save(self, trial_id: str, checkpoint: Checkpoint) -> None:
        """Write a trial's checkpoint in place of its last one."""
        if not self._writes:
            return
        about = {
            "step": checkpoint.step,
            "seconds": checkpoint.seconds,
            "measurements": [astuple(m) for m in checkpoint.measurements],
        }
        buffer = io.BytesIO()
        np.savez(buffer, np.array(json.dumps(about)), *checkpoint.leaves)
        content = buffer.getvalue()
        path = self._folder / f"{trial_id}.{self._circumstances}.{_digest(content)}.npz"
        old = [other for other in self._mine(trial_id) if other != path]
        atomic.write(path, content)
        for other in old:
            other.unlink(missing_ok=True)

    def load(self, trial_id: str) -> Checkpoint | None:
        """Return a trial's checkpoint, the furthest of those that are whole, or None."""
        found = [checkpoint for path in self._mine(trial_id) if (checkpoint := self._read(path)) is not None]
        return max(found, key=lambda checkpoint: checkpoint.step, default=None)

    def drop(self, trial_ids: Iterable[str]) -> None:
        """Delete all checkpoints of trials whose rows are committed."""
        if not self._writes:
            return
        done = set(trial_ids)
        for path in self._all():
            if path.name.split(".")[0] in done:
                path.unlink(missing_ok=True)

    def trials(self) -> set[str]:
        """Return the ids of the trials that have a checkpoint."""
        return {path.name.split(".")[0] for path in self._all()}

    def _mine(self, trial_id: str) -> Sequence[Path]:
        return [path for path in self._all() if path.name.startswith(f"{trial_id}.{self._circumstances}.")]

    def _all(self) -> list[Path]:
        """Return every whole file; to look for each of many trials would take longer than to train some of them."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(path for path in self._folder.iterdir() if OWN.fullmatch(path.name))
        return []

    def _read(self, path: Path) -> Checkpoint | None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
            content = path.read_bytes()
            if _digest(content) != path.name.split(".")[2]:
                return None
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                about = json.loads(str(arrays["arr_0"]))
                leaves = [arrays[f"arr_{number}"] for number in range(1, len(arrays.files))]
            measurements = [Measurement(*row) for row in about["measurements"]]
            return Checkpoint(leaves, about["step"], measurements, about["seconds"])
        return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
