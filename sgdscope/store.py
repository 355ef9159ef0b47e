"""The study's folder: what is declared, what is done, what was measured.

::

    FOLDER/
      study.json                              the declaration
      programs.json                           fingerprints of the traced workload, by version of JAX
      commands.json                           the words after ``sgdscope run`` that train each workload
      trials/COMMIT.SHA256.parquet            one row for each finished trial of a commit
      measurements/COMMIT.SHA256.parquet      its measurements
      correctness/COMMIT.SHA256.parquet       which examples each of its trials scored 1 on, one bit an example
      checkpoints/PACK.*.npz                  trials that are being trained
      damaged/                                files that failed their check, set aside
      workers/WORKER.json, leases/TRIAL.N     who trains, and which trials (:mod:`sgdscope.engine.workers`)

COMMIT and SHA256 are 16 hexadecimal digits. Other files in these folders, such as the copies that synchronisation
leaves, are named, and never read, moved or deleted. What is there and cannot be read is an error, never missing.

Every file is written aside, synchronised and renamed, so a reader sees it whole or not at all. A commit is its file in
``trials``: the others are written first, and ignored without it. The first digits of its SHA-256 stand in each file's
name, so damage is found. Any number of processes may write: of a trial that two have trained, the first commit counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from sgdscope import atomic
from sgdscope.errors import InputError, did_you_mean
from sgdscope.frames import Column, Columns, Dtype, schema
from sgdscope.study import Declaration

TRIALS_COLUMNS: Columns = {
    "trial_id": Column(pl.String, "Hash of all that can change the trial's numbers."),
    "workload": Column(pl.String, "Name of the workload."),
    "optimizer": Column(pl.String, "Optimizer with its coefficients, such as momentum:0.9."),
    "batch_size": Column(pl.Int64, "Batch size B: examples per parameter update.", "examples"),
    "learning_rate": Column(pl.Float64, "Learning rate ε: its value before the schedule lowers it."),
    "effective_learning_rate": Column(
        pl.Float64, "ε/(1 − m) with momentum m; missing if the optimizer has no effective learning rate."
    ),
    "budget": Column(pl.String, "Compute budget, such as epochs:30 or steps:480."),
    "seed": Column(pl.Int64, "Seed of initialization, order of examples and augmentation."),
    "status": Column(pl.String, "`complete`, `diverged` or `failed`."),
    "steps": Column(pl.Int64, "Updates made.", "updates"),
    "examples": Column(pl.Int64, "Training examples seen, with repetitions.", "examples"),
    "train_loss": Column(pl.Float64, "Loss on the whole training split at the end.", "loss"),
    "train_score": Column(pl.Float64, "Score on the whole training split at the end.", "score"),
    "validation_loss": Column(pl.Float64, "Loss on the validation split at the end.", "loss"),
    "validation_score": Column(pl.Float64, "Score on the validation split at the end.", "score"),
    "test_loss": Column(pl.Float64, "Loss on the test split at the end.", "loss"),
    "test_score": Column(pl.Float64, "Score on the test split at the end.", "score"),
    "diverged_at_step": Column(pl.Int64, "Updates made before the loss was not finite.", "updates"),
    "seconds": Column(pl.Float64, "The trial's share of the time of its pack, without compiling.", "s"),
    "method": Column(pl.String, "How the trials of a pack were trained together, such as map or vmap."),
    "pack_size": Column(pl.Int64, "Trials that were trained as one program.", "trials"),
    "device": Column(pl.String, "Kind of device."),
    "devices": Column(pl.Int64, "Number of devices.", "devices"),
    "jax_version": Column(pl.String, "Version of JAX."),
    "error": Column(pl.String, "Why a failed trial failed."),
}
TRIALS_SCHEMA = schema(TRIALS_COLUMNS)
MEASUREMENTS_COLUMNS: Columns = {
    "trial_id": TRIALS_COLUMNS["trial_id"],
    "step": Column(pl.Int64, "Updates made before the measurement.", "updates"),
    "examples": Column(pl.Int64, "Training examples seen before the measurement.", "examples"),
    "split": Column(pl.String, "`train`, `validation` or `test`."),
    "metric": Column(pl.String, "What was measured, such as loss, score or minibatch_loss."),
    "value": Column(pl.Float64, "The measured number.", "see `metric`"),
}
MEASUREMENTS_SCHEMA = schema(MEASUREMENTS_COLUMNS)
CORRECTNESS_COLUMNS: Columns = {
    "trial_id": TRIALS_COLUMNS["trial_id"],
    "split": Column(pl.String, "`validation` or `test`."),
    "examples": Column(pl.Int64, "Number of examples of the split.", "examples"),
    "bits": Column(pl.Binary, "One bit an example, packed: 1 where the score is 1."),
}
CORRECTNESS_SCHEMA = schema(CORRECTNESS_COLUMNS)
# Columns that describe how a trial was run, not what came out of it.
CIRCUMSTANCES = ("seconds", "method", "pack_size", "device", "devices", "jax_version")

SCHEMAS = {"measurements": MEASUREMENTS_SCHEMA, "correctness": CORRECTNESS_SCHEMA, "trials": TRIALS_SCHEMA}
COMMIT = re.compile(r"[0-9a-f]{16}\.[0-9a-f]{16}\.parquet")
CHECKPOINT = re.compile(r"[0-9a-f]+(\.[0-9a-f]+)*\.npz")
# Our own names: of files beside study.json, of those that a start which was cut short leaves, and in each folder.
BESIDE = re.compile(r"(study|programs|commands)\.json|(report|live)\.html")
BEGUN = re.compile(r"(study|programs)\.json")
OWN_FOLDERS = dict.fromkeys(SCHEMAS, COMMIT) | {
    "checkpoints": CHECKPOINT,
    "workers": re.compile(r"[0-9a-f]{16}(\.json)?"),
    "leases": re.compile(r"[0-9a-f]{16}\.[0-9]+"),
}
# What a system puts into folders by itself: no sign that a folder is used for something else.
OF_THE_SYSTEM = re.compile(
    r"\..*|Thumbs\.db|[Dd]esktop\.ini|Icon\r|lost\+found|System Volume Information|\$RECYCLE\.BIN"
)
# What a file manager leaves in every folder that it shows.
NOISE = (".DS_Store", "Thumbs.db", "desktop.ini")
# How many files a notice names.
MOST_NAMED = 3


@dataclass(frozen=True)
class Contents:
    """What a folder holds.

    Args:
        trials: the trials of all valid commits, one a row.
        measurements: of these trials.
        correctness: of these trials.
        damaged: files of commits that are not what was written.
        foreign: files in the folders of commits that are not the study's.
        incomplete: names of commits that lack a file, with how many of their trials are nowhere else.
        commits: names of the files of trials that were read.
    """

    trials: pl.DataFrame
    measurements: pl.DataFrame
    correctness: pl.DataFrame
    damaged: list[Path] = field(default_factory=list)
    foreign: list[Path] = field(default_factory=list)
    incomplete: dict[str, int] = field(default_factory=dict)
    commits: frozenset[str] = frozenset()

    def notices(self, again: str) -> list[str]:
        """Say what was found besides whole and damaged commits, and what becomes of missing trials."""
        said = [
            f"Commit {name} lacks a file, because it was deleted or its writing was cut short: {count} trials {again}."
            for name, count in self.incomplete.items()
        ]
        if self.foreign:
            named = ", ".join(str(path) for path in self.foreign[:MOST_NAMED])
            more = f" and {len(self.foreign) - MOST_NAMED} more" if len(self.foreign) > MOST_NAMED else ""
            said.append(f"Not a file of this study, and ignored: {named}{more}.")
        return said


class Store:
    """A study's folder.

    Raises:
        InputError: where the folder is no study's, cannot be written, or the disk is full; one sentence.
    """

    def __init__(self, folder: str | Path) -> None:
        if not str(folder).strip() or "\0" in str(folder):
            raise InputError(f"folder: {str(folder)!r} names no folder; the current folder is '.'.")
        self.folder = Path(folder)
        self._looked_at, self._ended, self._failed = set[str](), set[str](), set[str]()
        self._news: list[pl.DataFrame] = []

    @property
    def exists(self) -> bool:
        """Whether the folder holds a study."""
        try:
            return stat.S_ISREG((self.folder / "study.json").stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise InputError(f"{self.folder} cannot be read: {atomic.why(error)}.") from error

    def declaration(self) -> Declaration:
        """Return the declared study."""
        path = self.folder / "study.json"
        if not self.exists:
            raise InputError(f"{self.folder} holds no study: {self._why_none()}")
        content = atomic.read(path)
        try:
            return Declaration.from_json(content.decode())
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise InputError(
                f"{path} is damaged ({type(error).__name__}); move it away and run the study again, "
                f"which keeps all that was measured."
            ) from error

    def _why_none(self) -> str:
        if self.folder.is_file():
            return "it is a file; name the folder of a study."
        if not self.folder.is_dir():
            beside = self.folder.parent.glob("*/study.json") if self.folder.parent.is_dir() else ()
            return f"there is no such folder.{did_you_mean(self.folder.name, [path.parent.name for path in beside])}"
        if any((self.folder / "trials").glob("*.parquet")):
            return "it has trials but no study.json; the command that began it writes that again and keeps the trials."
        return "it has no study.json."

    def note_commands(self, commands: Mapping[str, Sequence[str]]) -> None:
        """Keep the words after ``sgdscope run`` that train each workload, by its name."""
        known = self.commands()
        if known != (both := known | {name: list(words) for name, words in commands.items()}):
            atomic.write(self.folder / "commands.json", (json.dumps(both, indent=2) + "\n").encode())

    def commands(self) -> dict[str, list[str]]:
        """Return what :meth:`note_commands` kept; nothing of a folder that Python trained, or an older version."""
        try:
            kept = json.loads((self.folder / "commands.json").read_text())
            return {str(name): [str(word) for word in words] for name, words in kept.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}

    @contextmanager
    def writing(self) -> Iterator[list[str]]:
        """Prepare the folder for writing.

        Yields:
            What the file system cannot do, in sentences.

        Raises:
            InputError: where the folder is in use for something else, which is found before anything is written.
        """
        self._check_ours()
        self._check_no_earlier_version()
        notices = []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.folder} cannot be written: {atomic.why(error)}; choose another folder.") from error
        if cannot := atomic.synchronise_folder(self.folder):
            notices.append(
                f"{self.folder} cannot be synchronised ({cannot}): after a power failure the last trials may be "
                f"missing, and are then trained again."
            )
        yield notices

    def _check_ours(self) -> None:
        """Refuse a folder that is used for something else."""
        if not (self.exists or self.folder.is_dir()):
            return
        if not self.exists and (other := self._not_ours()):
            raise InputError(
                f"{self.folder} holds no study but other files, such as {other!r}; name a new folder, "
                f"for example {self.folder / 'study'}."
            )
        for name in (*OWN_FOLDERS, "damaged"):
            atomic.names(self.folder / name)
        for name in atomic.names(self.folder / "checkpoints"):
            # One that cannot be read would be begun anew; its worker may have replaced it since it was listed.
            with contextlib.suppress(FileNotFoundError):
                if CHECKPOINT.fullmatch(name):
                    with atomic.opened(self.folder / "checkpoints" / name):
                        pass

    def _check_no_earlier_version(self) -> None:
        """Refuse a folder that sgdscope 0.2 or earlier is training, which knows no workers and holds a lock."""
        with contextlib.suppress(ImportError, OSError):  # a system, a folder or a file system without locks
            import fcntl

            lock = os.open(self.folder / "lock", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"{self.folder} is being trained by an earlier version of sgdscope, which no other process can "
                    f"join. Wait until it ends, or stop it and run this command again."
                ) from error
            finally:
                os.close(lock)

    def _not_ours(self) -> str | None:
        """Return what a folder without study.json and without commits holds that no study made."""
        folders = [self.folder / name for name in SCHEMAS if (self.folder / name).is_dir()]
        if any(COMMIT.fullmatch(name) for folder in folders for name in atomic.names(folder)):
            return None
        begun = (self.folder / "workers").is_dir() or (self.folder / "lock").is_file()  # of an earlier version
        for name in atomic.names(self.folder):
            path = self.folder / name
            if OF_THE_SYSTEM.fullmatch(name):
                continue
            if path.is_dir():
                ours = OWN_FOLDERS.get(name)
                within = [other for other in atomic.names(path) if not OF_THE_SYSTEM.fullmatch(other)]
                if ours is None or not all(ours.fullmatch(_finished(other)) for other in within):
                    return name
            elif name not in ("lock", "live.html") and not (begun and BEGUN.fullmatch(_finished(name))):
                return name
        return None

    def unfinished(self) -> list[Path]:
        """Return the files that are being written, or that a killed process had not finished: of exactly our names."""
        return [
            self.folder / folder / name
            for folder, ours in {".": BESIDE, **OWN_FOLDERS}.items()
            for name in atomic.names(self.folder / folder)
            if name != _finished(name) and ours.fullmatch(_finished(name))
        ]

    def clear(self, unfinished: Sequence[Path]) -> None:
        """Delete files that a killed process had not finished."""
        for path in unfinished:
            with contextlib.suppress(OSError):  # another user's, say: it costs room, and no result
                if path.is_file():
                    path.unlink(missing_ok=True)

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
        """Keep the fingerprint of a workload's or an optimizer's functions, such as ``workload digits``, for a version.

        Raises:
            InputError: If another fingerprint is known under the same name.
        """
        key, known = f"{version}, {what}", self.programs()
        if known.get(key, fingerprint) != fingerprint:
            kind, _, name = what.partition(" ")
            raise InputError(
                f"{kind} {name!r}: its functions compute something else than when {self.folder} was begun; "
                f"give the {kind} another {'version' if kind == 'workload' else 'name'} and the study another folder. "
                f"If nothing was changed, the likely cause is a value that differs from process to process: a random "
                f"number without a seed, the time, or the order of a set."
            )
        if key not in known:
            atomic.write(self.folder / "programs.json", json.dumps(known | {key: fingerprint}, indent=2).encode())

    def declared(self) -> bytes:
        """Return what tells that the declaration or a fingerprint has changed."""
        found = b""
        for name in ("study.json", "programs.json"):
            with contextlib.suppress(OSError):
                found += (self.folder / name).read_bytes()
        return found

    def has_earlier_form(self, form: str, workload: str) -> bool:
        """Return whether all fingerprints kept of a workload are of an earlier form, which compares with no other."""
        of_workload = [key for key in self.programs() if key.endswith(f", workload {workload}")]
        return bool(of_workload) and not any(f", {form}, " in key for key in of_workload)

    def programs(self) -> dict[str, str]:
        """Return the fingerprints of functions that the folder keeps, by version of JAX and what they are of."""
        path = self.folder / "programs.json"
        try:
            known = json.loads(atomic.read(path))
            if not isinstance(known, dict):
                raise TypeError
            return known
        except FileNotFoundError:
            return {}
        except InputError:
            raise
        except (ValueError, TypeError) as error:
            raise InputError(f"{path} is damaged; delete it if the workload's functions are what they were.") from error

    def read(self) -> Contents:
        """Return all that is committed, checked; changes nothing in the folder.

        Raises:
            InputError: where a file or folder is there and cannot be read.
        """
        damaged, foreign = list[Path](), list[Path]()
        tables: dict[str, dict[str, pl.DataFrame]] = {kind: {} for kind in SCHEMAS}
        read = set[str]()
        # Trials first: a commit whose trials are there has its other files.
        for kind, commits in reversed(tables.items()):
            for path in self._files(kind, foreign):
                read |= {path.name} if kind == "trials" else set()
                try:
                    content = atomic.read(path)
                except FileNotFoundError:  # replaced since it was listed
                    continue
                except atomic.NotAFileError:
                    foreign.append(path)
                    continue
                commit, digest, _ = path.name.split(".")
                if hashlib.sha256(content).hexdigest()[:16] != digest:
                    damaged.append(path)
                elif (table := _table(content, SCHEMAS[kind])) is None:
                    foreign.append(path)
                elif commit not in commits or _rows(table) > _rows(commits[commit]):
                    commits[commit] = table
        torn = {path.name.split(".")[0] for path in damaged if path.parent.name == "correctness"}
        torn -= tables["correctness"].keys()
        begun = sorted(tables["trials"].keys() | tables["measurements"].keys())
        whole = [name for name in begun if all(name in tables[kind] for kind in ("trials", "measurements"))]
        whole = [name for name in whole if name not in torn]
        of_trial = _owners({name: tables["trials"][name] for name in whole})
        kept = {
            kind: [_of_trials(commits[name], name, of_trial) for name in whole if name in commits]
            for kind, commits in tables.items()
        }
        known_damaged = {path.name.split(".")[0] for path in damaged}
        lost = {
            name: ids - of_trial.keys()
            for name in begun
            if name not in whole and name not in known_damaged
            for ids in [{trial for of in tables.values() if name in of for trial in of[name]["trial_id"]}]
        }
        return Contents(
            trials=_concatenated(kept["trials"], TRIALS_SCHEMA).pipe(_sorted),
            measurements=_concatenated(kept["measurements"], MEASUREMENTS_SCHEMA),
            correctness=_concatenated(kept["correctness"], CORRECTNESS_SCHEMA),
            damaged=sorted(damaged),
            foreign=sorted(foreign),
            commits=frozenset(read),
            incomplete={name: len(ids) for name, ids in lost.items() if ids},
        )

    def _files(self, kind: str, foreign: list[Path]) -> list[Path]:
        """Return the files of commits in a folder, and add to ``foreign`` what else is in it."""
        found = atomic.names(self.folder / kind)
        foreign += [
            self.folder / kind / name for name in found if not COMMIT.fullmatch(_finished(name)) and name not in NOISE
        ]
        return [self.folder / kind / name for name in found if COMMIT.fullmatch(name)]

    def set_aside(self, damaged: Sequence[Path]) -> None:
        """Move damaged files out of the way, so that their trials count as missing.

        Raises:
            InputError: where they cannot be moved.
        """
        # Their commits' trials go first: without a damaged file of correctness alone, one would read as from before.
        moved = []
        for path in damaged:
            commit = path.name.split(".")[0]
            others = [other for other in self._of_commit(path.parent.name, commit) if other not in damaged]
            if not others:
                moved += self._of_commit("trials", commit)
        aside = self.folder / "damaged"
        for path in dict.fromkeys([*moved, *damaged]):
            try:
                aside.mkdir(exist_ok=True)
                path.replace(aside / path.name)
            except FileNotFoundError:  # another process has done it
                continue
            except OSError as error:
                raise InputError(
                    f"{path} is damaged and cannot be moved to {aside}: {atomic.why(error)}; move it away."
                ) from error

    def follow(self, contents: Contents) -> None:
        """Take what was read as known, so that :meth:`news` are what is committed afterwards."""
        self._looked_at, self._ended, self._failed = set(contents.commits), set(), set()
        self._take_in(contents.trials)

    def news(self) -> pl.DataFrame:
        """Return the trials that other processes have committed since this was called last.

        A trial that had ended before is not among them, so that its first commit counts.
        """
        self._look()
        news, self._news = self._news, []
        return _concatenated(news, TRIALS_SCHEMA)

    def _look(self, skip_unreadable: bool = False) -> None:
        """Read the trials of commits that were not there before."""
        for name in atomic.names(self.folder / "trials"):
            if name in self._looked_at or not COMMIT.fullmatch(name):
                continue
            try:
                content = atomic.read(self.folder / "trials" / name)
            except FileNotFoundError:  # replaced since it was listed
                continue
            except InputError:
                if skip_unreadable:
                    continue
                raise
            self._looked_at.add(name)
            table = _table(content, TRIALS_SCHEMA)
            if table is not None and hashlib.sha256(content).hexdigest()[:16] == name.split(".")[1]:
                self._news.append(self._not_ended(table, table))
                self._take_in(table)

    def _not_ended(self, table: pl.DataFrame, trials: pl.DataFrame) -> pl.DataFrame:
        """Return a table without those of these trials whose outcome was committed before."""
        return table.filter(~pl.col("trial_id").is_in(list(self._ended.intersection(trials["trial_id"]))))

    def commit(self, trials: pl.DataFrame, measurements: pl.DataFrame, correctness: pl.DataFrame) -> pl.DataFrame:
        """Add finished trials, their measurements and what they are right about, all or nothing.

        Trials that another process has committed with their outcome are left out: their first commit counts.

        Returns:
            The rows of ``trials`` that were committed.
        """
        self._look(skip_unreadable=True)  # what was trained must not be lost for another's file
        trials, measurements, correctness = (
            self._not_ended(table, trials) for table in (trials, measurements, correctness)
        )
        if trials.is_empty():
            return trials
        tables = {"measurements": measurements, "correctness": correctness, "trials": trials}
        contents = {kind: _written(kind, table) for kind, table in tables.items()}
        name = _commit_of(trials, contents)
        for kind, content in contents.items():  # trials last: with them the commit stands
            written = self._write_table(kind, name, content)
        self._looked_at.add(written)
        if self._failed.intersection(trials["trial_id"]):
            self._delete_failure(trials)
        self._take_in(trials)
        return trials

    def _take_in(self, trials: pl.DataFrame) -> None:
        """Note which trials have an outcome, and which have failed."""
        self._ended.update(ended(trials)["trial_id"])
        self._failed.update(trials.filter(pl.col("status") == "failed")["trial_id"])

    def _write_table(self, kind: str, name: str, content: bytes) -> str:
        """Write one file of a commit in place of earlier ones of the same commit, and return its name."""
        path = self.folder / kind / f"{name}.{hashlib.sha256(content).hexdigest()[:16]}.parquet"
        old = [other for other in self._of_commit(kind, name) if other != path]
        atomic.write(path, content)
        for other in old:
            with contextlib.suppress(OSError):
                other.unlink()
        return path.name

    def _delete_failure(self, trials: pl.DataFrame) -> None:
        """Delete the commit in which the same trials failed, where all of them now have an outcome."""
        if len(ended(trials)) < len(trials):
            return
        nothing = {kind: _written(kind, pl.DataFrame(schema=SCHEMAS[kind])) for kind in SCHEMAS}
        failure = _commit_of(trials.with_columns(status=pl.lit("failed")), nothing)
        for kind in SCHEMAS:
            for path in self._of_commit(kind, failure):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _of_commit(self, kind: str, commit: str) -> list[Path]:
        """Return a commit's files in one folder."""
        found = atomic.names(self.folder / kind)
        return [self.folder / kind / name for name in found if COMMIT.fullmatch(name) and name.startswith(f"{commit}.")]


def _commit_of(trials: pl.DataFrame, contents: Mapping[str, bytes]) -> str:
    """Return a commit's name, by its trials, how they ended and what was measured.

    Two workers that trained the same trials share a commit only where they found the same, to the bit, so that neither
    can take the place of what the other found. Made anew after a kill, a commit has the same name.
    """
    told = hashlib.sha256(repr(trials.select("trial_id", "status").sort("trial_id").rows()).encode())
    for kind in ("measurements", "correctness"):
        told.update(hashlib.sha256(contents[kind]).digest())
    return told.hexdigest()[:16]


def _written(kind: str, table: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.select(SCHEMAS[kind].keys()).write_parquet(buffer, compression="zstd")
    return buffer.getvalue()


def check_not_of_a_study(path: Path) -> None:
    """Refuse to write a page or a table in place of a file in which a study keeps what it measured, or who trains."""
    place = Path(os.path.realpath(path))
    ours = any(place.parent.name == folder and names.fullmatch(place.name) for folder, names in OWN_FOLDERS.items())
    if COMMIT.fullmatch(place.name) or (ours and (place.parent.parent / "study.json").is_file()):
        raise InputError(f"{path} is a file of a study's own, and holds its results or its workers. Name another file.")


def ended(trials: pl.DataFrame) -> pl.DataFrame:
    """Return the trials that have an outcome: complete or diverged."""
    return trials.filter(pl.col("status").is_in(["complete", "diverged"]))


def stopped_at_once(trials: pl.DataFrame) -> bool:
    """Return whether all trials diverged with their first update or before it, as no learning rate explains."""
    at_once = (pl.col("status") == "diverged") & (pl.col("diverged_at_step") <= 1)
    return bool(trials.select(at_once.all()).item()) and not trials.is_empty()


def _concatenated(tables: list[pl.DataFrame], schema: Mapping[str, Dtype]) -> pl.DataFrame:
    return pl.concat(tables) if tables else pl.DataFrame(schema=schema)


def _sorted(trials: pl.DataFrame) -> pl.DataFrame:
    return trials.sort("workload", "budget", "optimizer", "batch_size", "learning_rate", "seed")


def _table(content: bytes, schema: Mapping[str, Dtype]) -> pl.DataFrame | None:
    """Return a table of the wanted columns, or None where it is another."""
    try:
        table = pl.read_parquet(io.BytesIO(content))
    except (OSError, pl.exceptions.PolarsError):
        return None
    return table if table.schema == pl.Schema(schema) else None


def _owners(commits: Mapping[str, pl.DataFrame]) -> dict[str, str]:
    """Return for each trial the commit that counts: the first with its outcome, or else the first with its failure."""
    owners: dict[str, str] = {}
    for of in (ended, lambda trials: trials):
        for name, trials in commits.items():
            for trial in of(trials)["trial_id"]:
                owners.setdefault(trial, name)
    return owners


def _of_trials(table: pl.DataFrame, commit: str, owners: Mapping[str, str]) -> pl.DataFrame:
    """Return the rows of the trials for which this commit counts."""
    others = [trial for trial in table["trial_id"].unique() if owners.get(trial) != commit]
    return table.filter(~pl.col("trial_id").is_in(others)) if others else table


def _rows(table: pl.DataFrame) -> int:
    """Return how much a table holds: of trials, those that did not fail."""
    return len(ended(table)) if "status" in table.columns else len(table)


def _finished(name: str) -> str:
    """Return the name that a file gets when it is written to its end."""
    match = atomic.UNFINISHED.fullmatch(name)
    return match["name"] if match else name
