"""The study's folder: what is declared, what is done, what was measured.

::

    FOLDER/
      study.json                              the declaration
      programs.json                           fingerprints of the traced workload, by version of JAX
      trials/COMMIT.SHA256.parquet            one row for each finished trial of a commit
      measurements/COMMIT.SHA256.parquet      its measurements
      correctness/COMMIT.SHA256.parquet       which examples each of its trials scored 1 on, one bit an example
      checkpoints/PACK.*.npz                  trials that are being trained
      damaged/                                files that failed their check, set aside
      lock                                    held by the process that writes

Every file is written aside, synchronised and renamed, so a reader sees it whole or not at all. A commit is its
file in ``trials``: the others are written first, and those without their trials are not read. Folders from before
``correctness`` was kept lack it. The first 16 digits of its SHA-256 stand in each file's name, so damage anywhere in
it is found. That nothing is torn never needs the lock; it only tells a second writer that there is a first.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from sgdscope import atomic
from sgdscope.errors import InputError
from sgdscope.study import Declaration

TRIALS_SCHEMA: dict[str, type[pl.DataType]] = {
    "trial_id": pl.String,
    "workload": pl.String,
    "optimizer": pl.String,
    "batch_size": pl.Int64,
    "learning_rate": pl.Float64,
    "effective_learning_rate": pl.Float64,
    "budget": pl.String,
    "seed": pl.Int64,
    "status": pl.String,
    "steps": pl.Int64,
    "examples": pl.Int64,
    "train_loss": pl.Float64,
    "train_score": pl.Float64,
    "validation_loss": pl.Float64,
    "validation_score": pl.Float64,
    "test_loss": pl.Float64,
    "test_score": pl.Float64,
    "diverged_at_step": pl.Int64,
    "seconds": pl.Float64,
    "method": pl.String,
    "pack_size": pl.Int64,
    "device": pl.String,
    "devices": pl.Int64,
    "jax_version": pl.String,
    "error": pl.String,
}
MEASUREMENTS_SCHEMA: dict[str, type[pl.DataType]] = {
    "trial_id": pl.String,
    "step": pl.Int64,
    "examples": pl.Int64,
    "split": pl.String,
    "metric": pl.String,
    "value": pl.Float64,
}
CORRECTNESS_SCHEMA: dict[str, type[pl.DataType]] = {
    "trial_id": pl.String,
    "split": pl.String,
    "examples": pl.Int64,
    "bits": pl.Binary,
}
# Columns that describe how a trial was run, not what came out of it.
CIRCUMSTANCES = ("seconds", "method", "pack_size", "device", "devices", "jax_version")


@dataclass(frozen=True)
class Contents:
    """What a folder holds: the tables of all valid commits, and the names of the files that are damaged."""

    trials: pl.DataFrame
    measurements: pl.DataFrame
    correctness: pl.DataFrame
    damaged: list[Path] = field(default_factory=list)


class Store:
    """A study's folder.

    Raises:
        InputError: where the folder is no study's, cannot be written, or the disk is full; one sentence.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @property
    def exists(self) -> bool:
        """Whether the folder holds a study."""
        return (self.folder / "study.json").is_file()

    def declaration(self) -> Declaration:
        """Return the declared study."""
        path = self.folder / "study.json"
        if not self.exists:
            raise InputError(f"{self.folder} holds no study: it has no study.json.")
        try:
            return Declaration.from_json(path.read_text())
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} is damaged ({type(error).__name__}); move it away and run the study again, "
                f"which keeps all that was measured."
            ) from error

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the folder for writing; a second process is refused."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / "lock").open("a")
        except OSError as error:
            raise InputError(f"{self.folder} cannot be written: {error.strerror}; choose another folder.") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"{self.folder} is being written by another process; wait for it or choose another folder."
                ) from error
            for part in self.folder.rglob("*.part"):  # what a killed process was writing
                part.unlink(missing_ok=True)
            yield

    def declare(self, declaration: Declaration) -> None:
        """Write the declaration, or extend the one that is there; refuse another study's."""
        self.check_declaration(declaration)
        atomic.write(self.folder / "study.json", declaration.to_json().encode())

    def check_declaration(self, declaration: Declaration) -> None:
        """Refuse a study that is neither the folder's nor an extension of it."""
        if self.exists:
            known = self.declaration()
            differences = known.differences(declaration)
            if differences:  # perhaps in nothing that a trial depends on
                trained = ended(self.read().trials).select("workload", "batch_size").unique().iter_rows()
                differences = known.differences(declaration, {(name, size) for name, size in trained})
            if differences:
                raise InputError(
                    f"{self.folder} holds another study, which differs in {'; '.join(differences)}; "
                    f"choose another folder."
                )

    def check_program(self, version: str, what: str, fingerprint: str) -> None:
        """Refuse a workload or an optimizer whose traced functions changed under the same name and version."""
        path = self.folder / "programs.json"
        key = f"{version}, {what}"
        try:
            known = json.loads(path.read_text()) if path.is_file() else {}
        except ValueError as error:
            raise InputError(f"{path} is damaged; delete it if the workload's functions are what they were.") from error
        if known.get(key, fingerprint) != fingerprint:
            kind, _, name = what.partition(" ")
            raise InputError(
                f"{kind} {name!r}: its functions compute something else than when {self.folder} was begun; "
                f"give the {kind} another {'version' if kind == 'workload' else 'name'} and the study another folder."
            )
        if key not in known:
            atomic.write(path, json.dumps(known | {key: fingerprint}, indent=2).encode())

    def commit(self, trials: pl.DataFrame, measurements: pl.DataFrame, correctness: pl.DataFrame) -> None:
        """Add finished trials, their measurements and what they are right about, all or nothing."""
        ids = sorted(trials["trial_id"])
        name = hashlib.sha256(",".join(ids).encode()).hexdigest()[:16]
        self._write_table("measurements", name, measurements.select(MEASUREMENTS_SCHEMA.keys()))
        self._write_table("correctness", name, correctness.select(CORRECTNESS_SCHEMA.keys()))
        self._write_table("trials", name, trials.select(TRIALS_SCHEMA.keys()))

    def read(self) -> Contents:
        """Return all that is committed, checked; changes nothing in the folder."""
        damaged: list[Path] = []
        tables: dict[str, dict[str, pl.DataFrame]] = {"measurements": {}, "correctness": {}, "trials": {}}
        for kind, commits in tables.items():
            for path in sorted((self.folder / kind).glob("*.parquet")):
                content = path.read_bytes()
                if hashlib.sha256(content).hexdigest()[:16] == path.name.split(".")[1]:
                    commits[path.name.split(".")[0]] = pl.read_parquet(io.BytesIO(content))
                else:
                    damaged.append(path)
        torn = {path.name.split(".")[0] for path in damaged} - tables["correctness"].keys()
        whole = sorted((tables["trials"].keys() & tables["measurements"].keys()) - torn)
        correctness = [tables["correctness"][name] for name in whole if name in tables["correctness"]]
        return Contents(
            trials=_concatenated([tables["trials"][name] for name in whole], TRIALS_SCHEMA).pipe(_latest),
            measurements=_concatenated([tables["measurements"][name] for name in whole], MEASUREMENTS_SCHEMA),
            correctness=_concatenated(correctness, CORRECTNESS_SCHEMA),
            damaged=damaged,
        )

    def set_aside(self, damaged: Sequence[Path]) -> None:
        """Move damaged files out of the way, so that their trials count as missing."""
        (self.folder / "damaged").mkdir(exist_ok=True)
        # Their commits' trials go first: without a damaged file of correctness alone, one would read as from before.
        commits = [path.name.split(".")[0] for path in damaged]
        trials = [path for name in commits for path in (self.folder / "trials").glob(f"{name}.*.parquet")]
        for path in dict.fromkeys([*trials, *damaged]):
            path.rename(self.folder / "damaged" / path.name)

    def _write_table(self, kind: str, name: str, table: pl.DataFrame) -> None:
        buffer = io.BytesIO()
        table.write_parquet(buffer, compression="zstd")
        content = buffer.getvalue()
        for old in (self.folder / kind).glob(f"{name}.*.parquet"):
            old.unlink()
        atomic.write(self.folder / kind / f"{name}.{hashlib.sha256(content).hexdigest()[:16]}.parquet", content)


def ended(trials: pl.DataFrame) -> pl.DataFrame:
    """Return the trials that have an outcome: complete or diverged."""
    return trials.filter(pl.col("status").is_in(["complete", "diverged"]))


def _concatenated(tables: list[pl.DataFrame], schema: dict[str, type[pl.DataType]]) -> pl.DataFrame:
    return pl.concat(tables) if tables else pl.DataFrame(schema=schema)


def _latest(trials: pl.DataFrame) -> pl.DataFrame:
    """Keep one row a trial: a failure gives way to an outcome."""
    return (
        trials.sort(pl.col("status") == "failed", maintain_order=True)
        .unique("trial_id", keep="first", maintain_order=True)
        .sort("workload", "budget", "optimizer", "batch_size", "learning_rate", "seed")
    )
