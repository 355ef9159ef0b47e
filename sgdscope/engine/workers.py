"""The workers that train one study in one folder: who they are, which are alive, and which trials each has leased.

::

    FOLDER/
      workers/WORKER.json      what a worker is and does, with a count that it raises every few seconds
      workers/WORKER           its name, to which its leases are linked
      leases/TRIAL.NUMBER      the worker that trains a trial; the highest number counts

A worker creates the lease of a trial before it trains the trial. Of several workers that try, the file system lets one
create it. A lease is a hard link, which is faster than a new file; where there are no links it is a file.

A worker whose count stands still, while another counts :data:`BEATS_TO_DEATH` times, is taken for dead, and the others
take over its trials by leases of the next number. No clocks are compared, and no lock of the file system is used. A
worker that was only frozen goes on, and harms nothing: :meth:`sgdscope.store.Store.commit` leaves out what was
committed meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self, get_type_hints

from sgdscope import atomic
from sgdscope.errors import InputError
from sgdscope.store import Store

# A worker counts so often, and is dead for others when it has not while they counted so many times. The product is
# longer than the minute for which a network file system may show a file as it was.
BEAT_SECONDS = 5.0
BEATS_TO_DEATH = 24
# How long a worker that waits for others lets pass between two looks at the folder.
SHORTEST_WAIT, LONGEST_WAIT = 0.05, 5.0
# Workers are read one by one, so that of many a look takes time: a worker looks at so many a second at most.
LOOKS_A_SECOND = 10.0


@dataclass(frozen=True)
class WorkerInfo:
    """What a worker tells the others.

    Args:
        machine: the name of its machine, and its process.
        versions: of sgdscope and JAX.
        device: JAX's name of its devices, and how many they are.
        process: what tells on its own machine whether it lives; empty where the system has no such thing.
        beats: how often its heart has beaten.
        joined: whether it has checked the study.
        trials: how many it has trained.
        seconds: how long it has trained.
        training: what it trains now.
    """

    machine: str
    versions: str
    device: str
    process: str = ""
    beats: int = 0
    joined: bool = False
    trials: int = 0
    seconds: float = 0.0
    training: str = ""

    @property
    def speed(self) -> float:
        """Trials a second."""
        return self.trials / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        doing = f", {self.training}" if self.training else ""
        return f"{self.machine}, {self.device}: {self.trials} trials, {self.speed:.3g} trials/s{doing}"


def this_worker(device: str, versions: str) -> WorkerInfo:
    """Return what this process tells the others."""
    return WorkerInfo(f"{socket.gethostname()} {os.getpid()}", versions, device, _process(os.getpid()) or "")


def workers_of(folder: Path) -> dict[str, WorkerInfo]:
    """Return the workers that are registered in a study's folder, without those that are known to be dead."""
    found = {path.stem: _understood(_text(path)) for path in _registered(folder)}
    return {name: info for name, info in found.items() if info and not _is_gone(info)}


class Worker:
    """One worker of a study's folder. As a context it is registered, and has no leases any more when it is left.

    Args:
        store: the study's folder, which can be written.
        info: what it tells the others.
    """

    def __init__(self, store: Store, info: WorkerInfo) -> None:
        self.name = secrets.token_hex(8)
        self._store, self._info = store, info
        self._workers, self._leases = store.folder / "workers", store.folder / "leases"
        self._held = dict[str, int]()
        self._heard = dict[str, tuple[str | None, int]]()
        self._others, self._look_at = dict[str, WorkerInfo](), 0.0
        self._unfinished = list[Path]()
        self._wait = SHORTEST_WAIT
        self._begun = time.monotonic()
        self._stopped, self._lock = threading.Event(), threading.Lock()
        self._heart = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        # What is unfinished now and belongs to no worker that is registered afterwards was left by one that was killed.
        unfinished = self._store.unfinished()
        try:
            for folder in (self._workers, self._leases):
                folder.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"{self._store.folder} cannot be written: {atomic.why(error)}.") from error
        # In this order, so that whoever finds it dead deletes both.
        atomic.write(self._path(self.name), json.dumps(asdict(self._info)).encode())
        atomic.create(self._workers / self.name, self.name.encode())
        self._heart.start()
        try:
            if not self.others():
                self._store.clear(unfinished)
            self._unfinished = unfinished
            self._check_versions()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._heart.join()
        with contextlib.suppress(OSError):
            self.release(list(self._held))
            self._unregister(self.name)

    @property
    def info(self) -> WorkerInfo:
        """What this worker tells the others."""
        return self._info

    @property
    def count(self) -> int:
        """How many workers there are, this one included."""
        return 1 + len(self.others())

    @property
    def rank(self) -> int:
        """This worker's place among all of them, so that each may begin elsewhere."""
        return sorted([self.name, *self.others()]).index(self.name)

    # ── Leases ───────────────────────────────────────────────────────────────────────────────────────────

    def free(self, trial_ids: Sequence[str]) -> dict[str, int]:
        """Return those of some trials that no worker trains, or else those whose workers are dead.

        Returns:
            By trial, the number that its next lease has.
        """
        leased = self._leased()
        free = {trial_id: 0 for trial_id in trial_ids if trial_id not in leased}
        if free:
            return free
        dead = dict[str, bool]()
        return {
            trial_id: leased[trial_id] + 1 for trial_id in trial_ids if self._is_left(trial_id, leased[trial_id], dead)
        }

    def take(self, free: Mapping[str, int]) -> list[str]:
        """Lease trials that were :meth:`free`, and return those that no other worker has leased since."""
        taken = []
        for trial_id, number in free.items():
            if self._create(self._lease(trial_id, number)):
                self._held[trial_id] = number
                taken.append(trial_id)
        self._wait = SHORTEST_WAIT
        return taken

    def _create(self, path: Path) -> bool:
        """Create a lease, which of several workers one alone can."""
        try:
            os.link(self._workers / self.name, path)
        except FileExistsError:  # a network file system may also answer so to the worker that created it
            return _text(path) == self.name
        except OSError:  # a network file system may say so of a link that it has made
            return atomic.create(path, self.name.encode()) or _text(path) == self.name
        return True

    def release(self, trial_ids: Iterable[str], ended: bool = False) -> None:
        """Give up leases; where the trials have ended also those of workers that trained them before."""
        for trial_id in trial_ids:
            number = self._held.pop(trial_id, None)
            if number is not None:  # without the earlier ones a trial that has not ended would seem to be free
                self._delete(trial_id, range(0 if ended else number, number + 1))

    def sweep(self, ended: Iterable[str]) -> None:
        """Delete the leases of trials that have ended: their workers died between the commit and the release."""
        leased = self._leased()
        for trial_id in leased.keys() & set(ended):
            self._delete(trial_id, range(leased[trial_id] + 1))

    def _delete(self, trial_id: str, numbers: range) -> None:
        for number in reversed(numbers):
            with contextlib.suppress(OSError):  # what is left over costs others a moment, and no result
                self._lease(trial_id, number).unlink(missing_ok=True)

    def _lease(self, trial_id: str, number: int) -> Path:
        return self._leases / f"{trial_id}.{number}"

    def _leased(self) -> dict[str, int]:
        """Return the trials that have a lease, and the number of the one that counts."""
        found = dict[str, int]()
        for name in atomic.names(self._leases):
            trial_id, _, number = name.partition(".")
            if number.isdecimal() and int(number) >= found.get(trial_id, 0):
                found[trial_id] = int(number)
        return found

    def _is_left(self, trial_id: str, number: int, dead: dict[str, bool]) -> bool:
        """Whether the worker that holds a lease is dead, which is looked up once for each."""
        path = self._lease(trial_id, number)
        owner = _text(path)
        if owner is None:  # given up since it was listed
            return False
        if not owner:  # the moment between the file and its content, in which a worker may have died
            return self._stands_still(path.name, None)
        if owner not in dead:
            dead[owner] = owner != self.name and self._is_dead(owner)
        return dead[owner]

    # ── Who is alive ─────────────────────────────────────────────────────────────────────────────────────

    def others(self) -> dict[str, WorkerInfo]:
        """Return the other workers that are alive, as far as that is known; looks no more often than is needed."""
        if time.monotonic() >= self._look_at:
            names = [path.stem for path in _registered(self._store.folder) if path.stem != self.name]
            alive = {name: _understood(_text(self._path(name))) for name in names if not self._is_dead(name)}
            self._others = {name: info for name, info in alive.items() if info}
            self._look_at = time.monotonic() + max(BEAT_SECONDS, len(names) / LOOKS_A_SECOND)
            if self._unfinished and self._info.beats >= BEATS_TO_DEATH:  # no write takes a living worker so long
                self._store.clear(self._unfinished)
                self._unfinished = []
        return self._others

    def _is_dead(self, name: str) -> bool:
        """Whether a worker is not registered, has ended, or has not counted for long; it is then registered no more."""
        told = _text(self._path(name))
        if told is None:
            return True
        info = _understood(told)
        dead = self._stands_still(name, told) or (info is not None and _is_gone(info))
        if dead:
            self._unregister(name)
        return dead

    def _stands_still(self, what: str, told: str | None) -> bool:
        """Whether a text is what it was so many beats of this worker ago, which cannot count while it is frozen."""
        if what not in self._heard or self._heard[what][0] != told:
            self._heard[what] = told, self._info.beats
        return self._info.beats - self._heard[what][1] >= BEATS_TO_DEATH

    def _check_versions(self) -> None:
        """Refuse to join workers that have other versions of what decides a trial's bits."""
        for path in _registered(self._store.folder):
            name, told = path.stem, _text(path)
            info = _understood(told)
            if name == self.name or info is None or not (info.joined or name < self.name):
                continue
            while info.versions != self._info.versions and not self._is_dead(name):
                if self._heard[name][0] != told:  # alive beyond doubt
                    raise InputError(
                        f"{self._store.folder} is being trained by {info.machine} with {info.versions}, and this "
                        f"process has {self._info.versions}. Install the same versions for all workers."
                    )
                self._stopped.wait(SHORTEST_WAIT)

    # ── What the others see ──────────────────────────────────────────────────────────────────────────────

    def tell(self, trials: int, training: str) -> None:
        """Tell the others how many trials this worker trained and what it does, and that it has joined."""
        seconds = time.monotonic() - self._begun
        self._write(lambda info: replace(info, joined=True, trials=trials, seconds=seconds, training=training))

    def wait(self) -> None:
        """Let a moment pass, longer from one to the next until a lease is taken."""
        self._stopped.wait(self._wait)
        self._wait = min(2 * self._wait, LONGEST_WAIT)

    def _beat_on(self) -> None:
        while not self._stopped.wait(BEAT_SECONDS):
            self._write(lambda info: replace(info, beats=info.beats + 1))

    def _write(self, changed: Callable[[WorkerInfo], WorkerInfo]) -> None:
        with self._lock, contextlib.suppress(OSError):  # the next beat may come through
            told = changed(self._info)
            atomic.replace(self._path(self.name), json.dumps(asdict(told)).encode(), synchronised=False)
            self._info = told  # while it cannot be told, this worker must count no other's silence

    def _path(self, name: str) -> Path:
        return self._workers / f"{name}.json"

    def _unregister(self, name: str) -> None:
        for path in (self._workers / name, self._path(name)):
            with contextlib.suppress(OSError):  # another user's, say: it is then found to be dead again
                path.unlink(missing_ok=True)


def _registered(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(path for path in (folder / "workers").iterdir() if path.suffix == ".json")
    return []


def _text(path: Path) -> str | None:
    """Return what a file holds; None where it is gone, and nothing where it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return None
    except OSError:
        return ""


def _understood(told: str | None) -> WorkerInfo | None:
    """Return what a worker tells, of another version what this one knows of it; None where that is too little."""
    try:
        words, kinds = json.loads(told or ""), get_type_hints(WorkerInfo)
        return WorkerInfo(**{name: kind(words[name]) for name, kind in kinds.items() if name in words})
    except (ValueError, TypeError, OverflowError):
        return None


def _is_gone(info: WorkerInfo) -> bool:
    """Whether a worker of this machine has ended, as the system knows at once. Of other machines it is not known."""
    here, there = (_process(os.getpid()) or "").split(), info.process.split()
    if not here or here[:-2] != there[:-2] or not there[-2].isdecimal():
        return False
    now = _process(int(there[-2]))
    return now != "" and now != info.process


def _process(number: int) -> str | None:
    """Return what tells a process from all others: machine since it started, name space, user, number and its start.

    None where it has ended, and nothing where the system does not tell, as of a process in another name space.
    """
    try:
        if Path("/proc/self").readlink().name != str(os.getpid()):  # the numbers there are of another name space
            return ""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = Path("/proc/self/ns/pid").readlink().name
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            stat = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
            return None if stat[0] in "ZX" else f"{boot} {space} {os.getuid()} {number} {stat[19]}"
    except (OSError, IndexError):
        return ""
    return None
