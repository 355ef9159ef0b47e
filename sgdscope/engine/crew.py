"""Packs on many devices, each in a process of its own: who trains which, and what becomes of those whose device ends.

A :class:`Pool` starts the processes; that of Ray is in :mod:`sgdscope.engine.ray_pool`. This process says what to
train, takes in the results of each pack by value, and alone commits them. A device that ends is started again, and its
pack is given out again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from sgdscope.engine.workers import WorkerInfo
from sgdscope.errors import InputError
from sgdscope.study import Declaration, Study, Trial
from sgdscope.training.compiler import Compiler, CompileTime
from sgdscope.training.outcome import Outcome
from sgdscope.training.step import Kind
from sgdscope.workloads.base import Workload

# A pack whose devices ended so often has failed; so have devices that ended so often one after the other.
MOST_LOST = 3
# How long to wait for a pack before progress is shown again.
WAIT_SECONDS = 1.0


class LostError(Exception):
    """A device ended before it answered."""


class Pool(Protocol):
    """What starts devices and asks them."""

    size: int
    """How many devices there are."""

    def start(self) -> Any:
        """Start a device, as soon as there is place for it."""

    def share(self, study: Study) -> Callable[[], Study]:
        """Return what gives every device the study, which is sent to each machine once."""

    def ask(self, device: Any, method: str, *arguments: Any) -> Any:
        """Begin a call of a device, which makes its calls one after the other, and return what is waited for."""

    def first(self, asked: Sequence[Any], seconds: float) -> Any | None:
        """Return one of the calls that has ended, or None where none has in so many seconds."""

    def answer(self, asked: Any) -> Any:
        """Return what a call returned, once it has ended.

        Raises:
            LostError: If the device ended before.
        """

    def stop(self, device: Any) -> None:
        """End a device."""


@dataclass(frozen=True)
class Joined:
    """What a device says of itself: of another version no more than that."""

    machine: str
    versions: str
    declaration: str = ""
    programs: Mapping[str, str] = field(default_factory=dict)
    circumstances: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    capacity: int = 0
    concurrency: int = 0
    notices: tuple[str, ...] = ()
    seconds_to_read: float = 0.0
    sees_folder: bool = False


@dataclass(frozen=True)
class Failure:
    """An error that a device met, and its traceback."""

    said: str
    traceback: str = ""

    def error(self) -> Exception:
        """Return it as an exception, which shows the device's traceback."""
        error = RuntimeError(self.said)
        if self.traceback:
            error.add_note(self.traceback)
        return error


@dataclass(frozen=True)
class Trained:
    """What became of a pack.

    Args:
        provenance: how it was trained.
        outcomes: of its trials, in their order; none where there was no time, or they failed.
        failure: why they failed.
        tells_time: whether the seconds of its trials tell how fast the device is.
        alone: whether nothing was compiled beside it.
        compile_times: of the programs that the device compiled since the last pack.
    """

    provenance: Mapping[str, Any]
    outcomes: Sequence[Outcome] = ()
    failure: Failure | None = None
    tells_time: bool = False
    alone: bool = False
    compile_times: Sequence[CompileTime] = ()


class Crew:
    """The devices that train one workload, each in a process of its own.

    Args:
        pool: what starts them.
        study: the study, with this workload alone.
        programs: the fingerprints that every device must find.
        versions: of sgdscope and JAX, which every device must have.
        folder: the study's folder, where a device that sees it keeps checkpoints.
        worker: the name of this worker, by which a device knows the folder.
        say: is told what the user should know.
        show: is called whenever a moment has passed.

    Raises:
        InputError: If a device has another version, other data or other functions, or none can be started.
    """

    def __init__(
        self,
        pool: Pool,
        study: Study,
        programs: Mapping[str, str],
        versions: str,
        folder: Path,
        worker: str,
        say: Callable[[str], None],
        show: Callable[[], object],
    ) -> None:
        (self.workload,) = study.workloads
        self.compiler = Compiler("cpu")  # compiles nothing, and has the times of the devices
        self._pool, self._say, self._show = pool, say, show
        self._own = Joined("", versions, study.declaration().to_json(), programs)
        self._arguments = versions, pool.share(study), str(folder), worker
        self._asked = dict[Any, tuple[Any, list[Trial]]]()
        self._idle, self._again = list[Any](), list[list[Trial]]()
        self._infos = dict[Any, WorkerInfo]()
        self._kinds: Sequence[Kind] = ()
        self._lost, self._lost_in_a_row = Counter[str](), 0
        self._joined: Joined | None = None
        self._said = set[str]()
        try:
            for _ in range(pool.size):
                self._start()
            while self._joined is None:
                self.next()
        except BaseException:
            self.close()
            raise

    # ── What the engine asks of what trains ──────────────────────────────────────────────────────────────

    workload: Workload
    compiler: Compiler

    @property
    def _first(self) -> Joined:
        assert self._joined  # noqa: S101 - there is no crew without
        return self._joined

    @property
    def capacity(self) -> int:
        """The most trials of a pack."""
        return self._first.capacity

    @property
    def concurrency(self) -> int:
        """How many trials of a pack advance at the same time."""
        return self._first.concurrency

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How trials are trained on the device that joined first."""
        return self._first.provenance

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences for the user."""
        return self._first.notices

    @property
    def seconds_to_read(self) -> float:
        """The seconds that an example takes a device's host."""
        return self._first.seconds_to_read

    @property
    def circumstances(self) -> str:
        """What the bits of a trial depend on beside its identity, on the device that joined first."""
        return self._first.circumstances

    def expect(self, kinds: Sequence[Kind]) -> None:
        """Let all devices begin to compile what packs of these kinds will need, in this order."""
        self._kinds = kinds
        for device in self._infos:
            self._pool.ask(device, "expect", kinds)

    def seconds_per_update(self, kind: Kind) -> float:
        """Return the seconds that one update of one trial takes in a full pack on one device."""
        while True:
            while not self._idle:
                self.next()
            device = self._idle[0]
            asked = self._pool.ask(device, "seconds_per_update", kind)
            while self._pool.first([asked], WAIT_SECONDS) is None:
                self._show()
            try:
                found = self._pool.answer(asked)
            except LostError as lost:
                self._idle.remove(device)
                self._replace(device, lost)
                continue
            if isinstance(found, Failure):
                raise found.error()
            return float(found)

    def close(self) -> None:
        """End all devices."""
        for device in [*self._idle, *(device for device, _ in self._asked.values())]:
            self._pool.stop(device)
        self._idle, self._asked, self._infos = [], {}, {}

    # ── Packs ────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def count(self) -> int:
        """How many devices share the work: those that have joined, or one where all are started again."""
        return max(1, len(self._infos))

    @property
    def is_free(self) -> bool:
        """Whether a device waits for a pack."""
        return bool(self._idle) and not self._again

    @property
    def is_busy(self) -> bool:
        """Whether packs are being trained, or wait for a device that is started again."""
        return bool(self._again) or any(pack for _, pack in self._asked.values())

    @property
    def told(self) -> list[str]:
        """Each device, with what it trains."""
        return [str(info) for info in self._infos.values()]

    def begin(self, pack: list[Trial], seconds: float | None = None) -> None:
        """Give a pack to a device that is free.

        Args:
            pack: the trials.
            seconds: After how many seconds to stop and leave a checkpoint. Default: never.
        """
        device = self._idle.pop(0)
        self._tell(device, training=f"trains {len(pack)} at batch size {pack[0].batch_size}")
        self._asked[self._pool.ask(device, "train", pack, seconds)] = device, pack

    def next(self) -> tuple[list[Trial], Trained] | None:
        """Return a pack that has ended, or None where a moment has passed, or a device has joined or was lost.

        Raises:
            InputError: If a device that joins has another version, other data or other functions, if devices end as
                soon as they are started, or if a device cannot write a checkpoint.
        """
        asked = self._pool.first(list(self._asked), WAIT_SECONDS)
        if asked is None:
            self._show()
            return None
        device, pack = self._asked.pop(asked)
        try:
            answer = self._pool.answer(asked)
        except LostError as lost:
            self._replace(device, lost)
            return self._given_again(pack, lost) if pack else None
        self._idle.append(device)
        self._lost_in_a_row = 0
        if isinstance(answer, Joined):
            self._take_in(device, answer)
            return None
        if isinstance(answer, InputError):
            raise answer
        self._tell(device, training="", trials=len(answer.outcomes), outcomes=answer.outcomes)
        self.compiler.compile_times += answer.compile_times
        if self._again:
            self.begin(self._again.pop(0))
        return pack, replace(
            answer, outcomes=[replace(of, trial=trial) for of, trial in zip(answer.outcomes, pack, strict=False)]
        )

    def _given_again(self, pack: list[Trial], lost: LostError) -> tuple[list[Trial], Trained] | None:
        """Give a pack out again, unless it has been lost too often to be another's fault."""
        self._lost.update(trial.id for trial in pack)
        if max(self._lost[trial.id] for trial in pack) >= MOST_LOST:
            said = f"{MOST_LOST} devices ended while they trained it, the last with: {lost}"
            return pack, Trained(self.provenance, failure=Failure(said))
        if self._idle:
            self.begin(pack)
        else:
            self._again.append(pack)
        return None

    # ── Devices ──────────────────────────────────────────────────────────────────────────────────────────

    def _start(self) -> None:
        device = self._pool.start()
        self._asked[self._pool.ask(device, "join", *self._arguments)] = device, []

    def _replace(self, device: Any, lost: LostError) -> None:
        """Start another device in place of one that ended."""
        self._pool.stop(device)
        info = self._infos.pop(device, None)
        self._lost_in_a_row += 1
        if self._lost_in_a_row >= MOST_LOST * self._pool.size and not self._infos:
            raise InputError(f"engine: the devices end as soon as they are started: {lost}")
        if info:
            self._say(f"{info.machine} was lost. What it trained is trained again, on another device.")
        self._start()

    def _take_in(self, device: Any, joined: Joined) -> None:
        """Take in a device that has the study's version, data and functions, and refuse any other."""
        check(self._own, joined)
        provenance, machine = joined.provenance, joined.machine.split()[0]
        name = f"{provenance['device']} × {provenance['devices']}"
        self._infos[device] = WorkerInfo(joined.machine, joined.versions, name)
        if self._joined is None:
            self._joined = joined
        elif joined.circumstances != self._first.circumstances:
            self._say_once(
                f"The devices differ ({self.provenance['device']}, and {provenance['device']} on "
                f"{machine}). Sums are taken in another order there, so results can differ in the last digits. "
                f"The table of trials names the device of each."
            )
        if not joined.sees_folder:
            self._say_once(
                f"{machine} does not see the study's folder, so no checkpoints are kept there. A trial that is "
                f"interrupted begins anew."
            )
        if self._kinds:
            self._pool.ask(device, "expect", self._kinds)
        if self._again:
            self.begin(self._again.pop(0))

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)

    def _tell(self, device: Any, training: str, trials: int = 0, outcomes: Sequence[Outcome] = ()) -> None:
        info, seconds = self._infos[device], sum(outcome.seconds for outcome in outcomes)
        self._infos[device] = replace(
            info, training=training, trials=info.trials + trials, seconds=info.seconds + seconds
        )


def check(own: Joined, joined: Joined) -> None:
    """Refuse a device that has another version, other data or other functions than this process.

    Raises:
        InputError: It names the machine, and what differs.
    """
    if joined.versions != own.versions:
        raise InputError(
            f"engine: {joined.machine} has {joined.versions}, and this process has {own.versions}. Install the same "
            f"versions on all machines."
        )
    there, here = Declaration.from_json(joined.declaration), Declaration.from_json(own.declaration)
    if differences := there.differences(here):
        remedy = "Give all machines the same data"
        if any("microbatch" in said for said in differences):
            remedy = "Set microbatch_size, whose default depends on the device"
        raise InputError(f"engine: {joined.machine} has another study, in {'; '.join(differences)}. {remedy}.")
    if differ := [name for name, program in own.programs.items() if joined.programs.get(name) != program]:
        raise InputError(
            f"engine: the functions of {' and of '.join(differ)} compute something else on {joined.machine} than in "
            f"this process. Give all machines the same code, and write no function whose value differs from process "
            f"to process."
        )
