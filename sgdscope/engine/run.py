"""Run a study on the devices of this machine: train what the search wants next, commit it, and go on.

Any number of processes may do so on one folder, each a worker (:mod:`sgdscope.engine.workers`): a worker leases the
trials of its next pack, trains and commits them, and takes in what the others have committed. The search is a function
of complete rounds, so all want the same trials, whoever is faster. A process alone is the case of one worker.

Under JAX's distributed runtime every process runs the same study on the same folder, and each trial is shared by the
devices of all. What to train next follows from the study and the trials so far, which all have from the first of them,
so all come to the same; each trial is compared nevertheless. The first alone writes.

With Ray this process trains nothing itself: it gives packs to a :class:`~sgdscope.engine.crew.Crew` and commits them.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import polars as pl
from rich.console import Console

from sgdscope.converters import shown
from sgdscope.engine.crew import Crew, Pool
from sgdscope.engine.plan import Costs, Plan, costs_of, expansion, microbatch_proposal, packs, remaining
from sgdscope.engine.progress import RunProgress
from sgdscope.engine.search import search
from sgdscope.engine.standing import standing
from sgdscope.engine.workers import Worker, this_worker
from sgdscope.errors import InputError, is_defect, keep_traceback
from sgdscope.optimizers import Optax
from sgdscope.records import SPLITS
from sgdscope.store import CORRECTNESS_SCHEMA, MEASUREMENTS_SCHEMA, TRIALS_SCHEMA, Store, ended, stopped_at_once
from sgdscope.study import Declaration, Study, Trial
from sgdscope.terminal import Terminal
from sgdscope.training.checkpoint import Checkpoints
from sgdscope.training.compiler import CompileTime

if TYPE_CHECKING:
    from sgdscope.streaming.distributed import World
    from sgdscope.training.backend import Backend, Trainer
    from sgdscope.training.outcome import Outcome
    from sgdscope.training.step import Kind
    from sgdscope.training.traced import TracedWorkload

# The rows of a pack's trials, of their measurements and of their correctness.
Tables = tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]
Engine = Literal["local", "ray"]

# A pack whose trials come one after the other is committed about so often.
PACK_SECONDS = 60.0
EARLIER_FINGERPRINTS = (
    "An earlier version of sgdscope began {}, so this version cannot check that the functions of workload {} are still "
    "the same. It records their fingerprint now and compares it from the next run on."
)
OTHER_DEVICES = (
    "{} has trials that were trained on {}, and this run trains on {}. Sums are taken in another order there, so "
    "results can differ from those of one device alone. The table of trials names the device of each."
)


@dataclass(frozen=True)
class Ran:
    """What one run did; ``out_of_time`` where it stopped at the time that it was given."""

    trained: int
    failed: int
    compile_times: list[CompileTime]
    seconds: float
    out_of_time: bool = False

    def then(self, later: Ran) -> Ran:
        """Return what this run and a later one on the same folder did together."""
        trained, times = self.trained + later.trained, self.compile_times + later.compile_times
        return Ran(trained, later.failed, times, self.seconds + later.seconds, later.out_of_time)


class OutOfTime(Exception):  # noqa: N818 - no error: a long pack stops, and its checkpoint stays
    """The time that a run was given is over."""


def train_study(
    study: Study,
    folder: str | Path,
    console: Console | None = None,
    command: Sequence[str] | None = None,
    world: World | None = None,
    seconds: float | None = None,
    debug: bool = False,
    engine: Engine = "local",
) -> Ran:
    """Train what a folder lacks of a study; each pack is committed as soon as it is trained.

    Workloads come one after the other, and only one is on the devices at a time.

    Args:
        study: what is asked.
        folder: a new folder, or one that holds this study or a smaller one of its kind.
        console: where progress is shown. Default: the standard error stream.
        command: the words after ``sgdscope run`` that ask for this, which the folder keeps.
        world: the processes that run the study together. Default: those of JAX's distributed runtime.
        seconds: After how many seconds to stop. Packs are made as small as the time left, so that they are committed
            before; a pack whose trials take longer goes on from its checkpoint in the next run. Default: never.
        debug: raise what makes a trial fail. Default: the trial is recorded as failed, and its traceback kept in
            the folder's ``errors``.
        engine: ``local`` trains on the devices of this process, ``ray`` on those of a Ray cluster.

    Raises:
        InputError: for what the user can put right, before anything is trained, or where the disk fills up.
    """
    from sgdscope.streaming.distributed import the_world
    from sgdscope.training.jax_setup import check_jax, pinned

    begun = time.perf_counter()
    if engine not in get_args(Engine):
        raise InputError(f"engine: {shown(engine)} is neither local nor ray.")
    if engine == "ray":
        from sgdscope.engine.ray_pool import check_installed

        check_installed()
    check_jax()
    with pinned():
        ends_at = None if seconds is None else begun + seconds
        output = console or Terminal(stderr=True)
        return _train_study(study, folder, output, command, world or the_world(), begun, ends_at, debug, engine)


def _train_study(
    study: Study,
    folder: str | Path,
    console: Console,
    command: Sequence[str] | None,
    world: World,
    begun: float,
    ends_at: float | None,
    debug: bool,
    engine: Engine,
) -> Ran:
    import jax

    from sgdscope.training.backend import check_devices
    from sgdscope.training.jax_setup import idle_cores
    from sgdscope.training.traced import trace

    declaration = study.declaration()
    store = Store(folder)
    traced = {workload.name: trace(workload) for workload in study.workloads}
    programs = fingerprints_of(study, traced)
    local = engine == "local"
    if local:
        check_devices(declaration.devices_per_trial, jax.device_count())
    elif world.is_shared:
        raise InputError("engine: ray does not go together with JAX's distributed runtime. Leave one of them out.")
    world.agree_on(study, declaration, programs)
    if world.is_shared and ends_at is not None:
        raise InputError("for: several processes have no clock in common, so a time cannot stop them. Leave it out.")
    trials, wrong, worker = pl.DataFrame(schema=TRIALS_SCHEMA), None, None
    with (
        contextlib.ExitStack() as held,
        RunProgress(console if world.is_leader else Console(quiet=True), declaration.name) as progress,
    ):
        if local and (notice := idle_cores()):
            progress.say(notice)
        if world.is_leader:
            try:
                for cannot in held.enter_context(store.writing()):
                    progress.say(cannot)
                _declare(store, declaration, {}, lambda said: None, writes=False)  # another study's is refused at once
                device, versions = circumstances()
                worker = held.enter_context(Worker(store, this_worker(device if local else "Ray", versions)))
                declaration, trials = _opened(store, declaration, programs, progress, alone=not worker.others())
                worker.sweep(ended(trials)["trial_id"])
                worker.tell(trials=0, training="")
                if command is not None:
                    store.note_commands({workload.name: command for workload in study.workloads})
            except InputError as error:
                wrong = error
        world.tell(wrong)
        if world.is_shared:  # another machine may see the folder as it was a moment ago
            known = Declaration.from_json(world.broadcast(declaration.to_json().encode()).decode())
            declaration = known.united(study.declaration())
            trials = world.broadcast_table(trials)
        study = study.extended_to(declaration)
        run = _Run(study, declaration, programs, store, worker, progress, trials, traced, world, ends_at, debug)
        if not local and any(map(run.pending, traced)):
            from sgdscope.engine.ray_pool import ray_pool

            run.pool = held.enter_context(ray_pool(study.devices_per_trial))
        while unfinished := [name for name in traced if run.pending(name) and not run.out_of_time]:
            run.train(run.first_free(unfinished))
        world.meet("trained")
    return Ran(run.trained, len(run.failed), run.compile_times, time.perf_counter() - begun, run.out_of_time)


def _declare(
    store: Store, declaration: Declaration, programs: Mapping[str, str], say: Callable[[str], None], writes: bool
) -> Declaration:
    """Declare a study and its functions in a folder, and return it with what the folder holds beside it.

    Another process may declare more at the same moment. What was refused for that alone is tried again; what was
    overwritten is found missing with the next news (:meth:`_Run._take_in_news`).
    """
    while True:
        before = store.declared()
        try:
            united = _united(store, declaration, say)
            _check_programs(store, programs)
            if writes:
                store.declare(united)
        except InputError:
            if store.declared() == before:
                raise
        else:
            return united


def _united(store: Store, declaration: Declaration, say: Callable[[str], None]) -> Declaration:
    """Return a study with what its folder holds beside it, and say what that is."""
    if not store.exists:
        return declaration
    known = store.declaration()
    if known.name != declaration.name:
        store.check_declaration(declaration)
    try:
        united = known.united(declaration)
    except InputError as error:
        raise InputError(f"{store.folder} holds a study that does not go together with this one: {error}") from error
    store.check_declaration(united)
    if more := known.beyond(declaration):
        say(f"{store.folder} also holds {'; '.join(more.values())}. All is kept, and the study goes on with all of it.")
    if known.score_margin != united.score_margin:
        before = "not declared" if known.score_margin is None else f"{known.score_margin:g}"
        say(
            f"{store.folder}: the score margin was {before} and is {united.score_margin:g} from now on. Verdicts "
            f"depend on it; training runs do not."
        )
    return united


def fingerprints_of(study: Study, traced: Mapping[str, TracedWorkload]) -> dict[str, str]:
    """Return a hash of what each workload computes, with drawn or even targets, and each optimizer of the user's."""
    (first, *_) = traced.values()
    built = [optimizer for optimizer in study.optimizers if isinstance(optimizer, Optax)]
    workloads = {f"workload {name}": each.fingerprint for name, each in traced.items()}
    if any("curvature" in optimizer.asks for optimizer in study.optimizers):
        workloads |= {f"workload {name} with its targets": each.targets_fingerprint for name, each in traced.items()}
    if any("uniform_gradient" in optimizer.asks for optimizer in study.optimizers):
        workloads |= {f"workload {name} with even targets": each.uniform_fingerprint for name, each in traced.items()}
    return workloads | {
        f"optimizer {optimizer} with workload {first.workload.name}": first.optimizer_fingerprint(optimizer)
        for optimizer in built
    }


def circumstances() -> tuple[str, str]:
    """Return this process's devices, and its versions of what decides bits, as other workers are told of them."""
    import jax

    from sgdscope.training.jax_setup import device_name
    from sgdscope.version import __version__

    devices = f"{device_name(jax.devices()[0])} × {jax.device_count()}"
    return devices, f"sgdscope {__version__} and JAX {jax.__version__}"


def _opened(
    store: Store, declaration: Declaration, programs: Mapping[str, str], progress: RunProgress, alone: bool
) -> tuple[Declaration, pl.DataFrame]:
    """Declare a study, and return it with all that its folder holds, and the trials that are there.

    Others may be writing a commit where this process is not alone, so one that lacks a file is no news.
    """
    import jax

    from sgdscope.training.fingerprint import FINGERPRINT_FORM
    from sgdscope.training.jax_setup import device_name

    form = f"form {FINGERPRINT_FORM}"
    workloads = [name.removeprefix("workload ") for name in programs if name.startswith("workload ")]
    if earlier := [name for name in workloads if store.has_earlier_form(form, name)]:
        progress.say(EARLIER_FINGERPRINTS.format(store.folder, ", ".join(map(repr, earlier))))
    declaration = _declare(store, declaration, programs, progress.say, writes=True)
    contents = store.read()
    store.follow(contents)
    if contents.damaged:
        store.set_aside(contents.damaged)
        for path in contents.damaged:
            progress.say(f"{path} is damaged: it was set aside, and its trials are trained again.")
    for notice in (contents if alone else replace(contents, incomplete={})).notices("are trained again"):
        progress.say(notice)
    here = device_name(jax.devices()[0])
    if others := sorted(set(contents.trials["device"].drop_nulls()) - {here, jax.devices()[0].device_kind}):
        progress.say(OTHER_DEVICES.format(store.folder, " and on ".join(others), here))
    Checkpoints(store.folder, "").drop(ended(contents.trials)["trial_id"])
    return declaration, contents.trials


def _check_programs(store: Store, programs: Mapping[str, str]) -> None:
    """Keep the fingerprints of functions in a folder, and refuse others than it has."""
    import jax

    from sgdscope.training.fingerprint import FINGERPRINT_FORM

    for name, program in programs.items():
        store.check_program(f"jax {jax.__version__}, form {FINGERPRINT_FORM}", name, program)


class _Run:
    """One run of a study: what its folder holds by now, and where its search stands."""

    def __init__(
        self,
        study: Study,
        declaration: Declaration,
        programs: Mapping[str, str],
        store: Store,
        worker: Worker | None,
        progress: RunProgress,
        trials: pl.DataFrame,
        traced: Mapping[str, TracedWorkload],
        world: World,
        ends_at: float | None,
        debug: bool,
    ) -> None:
        self._debug = debug
        self._ends_at, self.out_of_time = ends_at, False
        self._study, self._declaration, self._programs = study, declaration, programs
        self._store, self._worker, self._progress = store, worker, progress
        self._trials, self._traced, self._world = trials, traced, world
        self._found = search(declaration, trials)
        self._declared = b""
        self.failed = set[str]()
        self._ended, self._just_ended = set[str](ended(trials)["trial_id"]), set[str]()
        self._by_others = 0
        self.trained = 0
        self.compile_times: list[CompileTime] = []
        self.pool: Pool | None = None
        self._crew: Crew | None = None

    def pending(self, workload: str) -> list[Trial]:
        """Return the trials of a workload that can be trained now and have not failed in this run."""
        return [t for t in self._found.pending if t.workload.name == workload and t.id not in self.failed]

    def train(self, workload: str) -> None:
        """Train all of a workload's trials, with its data on the devices for no longer than that."""
        backend: Trainer
        if self.pool:
            backend = self._crew = self._crew_of(self.pool, workload)
        else:
            backend = backend_of(self._study, self._traced[workload], self._world)
        try:
            self._train(backend)
        finally:
            backend.close()
            self._crew = None

    def _crew_of(self, pool: Pool, workload: str) -> Crew:
        """Return the devices of a pool, which have what this process has of a workload."""
        assert self._worker  # noqa: S101 - a process that has a pool writes
        traced = {workload: self._traced[workload]}
        study = self._study.changed({"workloads": traced[workload].workload})
        programs, (_, versions), say = fingerprints_of(study, traced), circumstances(), self._progress.say
        return Crew(pool, study, programs, versions, self._store.folder, self._worker.name, say, self._show_workers)

    def _train(self, backend: Trainer) -> None:
        """Train pack by pack, as the search asks for them."""
        from sgdscope.training.contract import check_start

        name = backend.workload.name
        kinds, costs = _kinds(self._declaration, name), self._costs[name]
        checkpoints = Checkpoints(self._store.folder, backend.circumstances, self._world.is_leader)
        checkpoints.drop(ended(self._trials)["trial_id"])
        first = [kind for kind in kinds if kind.optimizer == kinds[0].optimizer]  # which stands for all rules
        backend.expect([first[-1], first[0]])  # those that are probed
        self._show()
        for notice in backend.notices:
            self._progress.say(notice)
        if not self._world.is_shared:  # what is probed follows from the time, which is another for each process
            try:
                costs.probe(backend, first)
            except Exception as failure:  # a program that fails is told of when its trials fail
                self._keep(failure)
        backend.expect(kinds[::-1])  # in the order of the search
        self._show(backend)
        for pack, (rows, *rest) in self._trained(backend, costs, checkpoints):
            if self._worker:
                rows = self._store.commit(rows, *rest)
            if self._world.is_shared:
                rows = self._world.broadcast_table(rows)
            if backend.workload.feed is None and stopped_at_once(rows):
                check_start(backend.workload, pack[0])
            failures = rows.filter(pl.col("status") == "failed")
            for error in failures["error"].unique():
                self._progress.say(f"{len(failures)} trials at batch size {pack[0].batch_size} failed: {error}")
            self.trained += len(rows)
            self._take_in(rows)
            self._release(pack)
            checkpoints.drop(self._just_ended)
            self._just_ended.clear()
            self._show_cells()
        self.compile_times += backend.compiler.compile_times

    def _trained(
        self, backend: Trainer, costs: Costs, checkpoints: Checkpoints
    ) -> Iterator[tuple[list[Trial], Tables]]:
        """Yield each pack with its tables as soon as it is trained."""
        if isinstance(backend, Crew):
            yield from self._trained_by(backend, costs)
            return
        while pack := self._next_pack(backend, costs):
            try:
                tables = self._train_pack(cast("Backend", backend), pack, self._remaining(backend), costs, checkpoints)
            except OutOfTime:
                self.out_of_time = True
                return
            yield pack, tables

    def _trained_by(self, crew: Crew, costs: Costs) -> Iterator[tuple[list[Trial], Tables]]:
        """Keep all devices of a crew busy, and yield each pack with its tables as soon as it is trained."""
        while True:
            while crew.is_free and not self.out_of_time and (pack := self._next_pack(crew, costs)):
                one = costs.per_trial(pack[0].updates, pack[0].batch_size, pack[0].optimizer)
                long = one is None or one * crew.concurrency >= PACK_SECONDS
                left = None if self._ends_at is None else max(0.0, self._ends_at - time.perf_counter())
                crew.begin(pack, left if long else None)
            if crew.is_free and not crew.is_busy:
                return
            self._show(crew)
            if (ended := crew.next()) is None:
                continue
            pack, trained = ended
            if trained.failure is not None:
                error = trained.failure.error()
                yield pack, _failed(trained.provenance, crew.capacity, pack, error, self._keep(error))
            elif trained.outcomes:
                if trained.tells_time:
                    self._take_timing(crew, pack, trained.outcomes, costs, trained.alone)
                yield pack, _tables(trained.provenance, trained.outcomes)
            else:
                self.out_of_time = True
                self._release(pack)

    # ── What is next, beside other workers ───────────────────────────────────────────────────────────────

    def first_free(self, workloads: Sequence[str]) -> str:
        """Return the first of some workloads of which trials are left that no worker trains, or else the first."""
        free = lambda name: self._worker and self._worker.free([trial.id for trial in self.pending(name)])
        name = next(filter(free, workloads), workloads[0]) if len(workloads) > 1 else workloads[0]
        return self._world.broadcast(name.encode()).decode()

    def _next_pack(self, backend: Trainer, costs: Costs) -> list[Trial]:
        """Return the next pack, which this worker has leased; none where it has nothing more to do here, or no time."""
        name = backend.workload.name
        self._take_in_news()
        while pending := self.pending(name):
            ids = self._leased(backend, costs, pending) if self._worker else []
            ids = json.loads(self._world.broadcast(json.dumps(ids).encode()))
            if ids is None:
                break
            self._take_in_news()  # with what was committed before it could be leased
            leased = [trial for trial in pending if trial.id in ids]
            pack = [trial for trial in leased if trial.id not in self._ended]
            self._release([trial for trial in leased if trial.id in self._ended])
            if pack:
                if self._worker:
                    self._worker.tell(self.trained, f"trains {len(pack)} at batch size {pack[0].batch_size}")
                return pack
        return []

    def _leased(self, backend: Trainer, costs: Costs, pending: Sequence[Trial]) -> list[str] | None:
        """Lease a pack, each worker another; wait a moment where others train all that is left; None to do no more."""
        assert self._worker  # noqa: S101 - who has none does not ask
        left = math.inf if self._ends_at is None else self._ends_at - time.perf_counter()
        crew = backend if isinstance(backend, Crew) else None
        free = self._worker.free([trial.id for trial in pending])
        if not free:
            self.out_of_time = left <= 0
            others = [name for name in self._traced if name != backend.workload.name and self.pending(name)]
            if (
                self.out_of_time
                or (crew and crew.is_busy)
                or any(self._worker.free([t.id for t in self.pending(name)]) for name in others)
            ):
                return None
            self._worker.tell(self.trained, "waits for others")
            self._show(backend)
            self._worker.wait()
            return []
        share = max(backend.concurrency, -(-len(free) // (self._worker.count * (crew.count if crew else 1))))
        room = lambda trial: min(share, _room(backend, costs, min(PACK_SECONDS, left), trial))
        several = list(islice(packs([trial for trial in pending if trial.id in free], room), self._worker.count))
        pack = several[self._worker.rank % len(several)]
        one = costs.per_trial(pack[0].updates, pack[0].batch_size, pack[0].optimizer)
        # One that has checkpoints on its way is begun, and goes on in the next run.
        self.out_of_time = left <= 0 or (one is not None and left < one * backend.concurrency < PACK_SECONDS)
        return None if self.out_of_time else self._worker.take({trial.id: free[trial.id] for trial in pack})

    def _release(self, trials: Sequence[Trial]) -> None:
        """Give up the leases of trials that were trained, here or elsewhere."""
        if self._worker:
            done = [trial.id for trial in trials if trial.id in self._ended]
            self._worker.release(done, ended=True)
            self._worker.release([trial.id for trial in trials])

    def _take_in(self, rows: pl.DataFrame) -> None:
        """Take in the rows of trials that were committed, here or by another worker."""
        if not rows.is_empty():
            self.failed.update(rows.filter(pl.col("status") == "failed")["trial_id"])
            self._trials = pl.concat([self._trials, rows])
            self._found = search(self._declaration, self._trials)
            self._just_ended.update(ended(rows)["trial_id"])
            self._ended.update(self._just_ended)

    def _take_in_news(self) -> None:
        """Take in what other workers have committed and declared since."""
        news = self._store.news() if self._worker else pl.DataFrame(schema=TRIALS_SCHEMA)
        news = self._world.broadcast_table(news) if self._world.is_shared else news
        self._by_others += len(news)
        self._take_in(news)
        if self._worker and not self._world.is_shared and (declared := self._store.declared()) != self._declared:
            # Another may have declared what it wants at the same time, in place of what this one wants.
            lacks = bool(self._declaration.beyond(self._store.declaration()))
            declaration = _declare(self._store, self._declaration, self._programs, self._progress.say, lacks)
            self._declared = declared  # as it was before, so that what is declared meanwhile is found
            self._study, self._declaration = self._study.extended_to(declaration), declaration
            self._found = search(declaration, self._trials)

    def _train_pack(
        self, backend: Backend, pack: Sequence[Trial], plan: Plan, costs: Costs, checkpoints: Checkpoints
    ) -> Tables:
        """Return the rows of a pack's trials, of their measurements and of their correctness."""
        from sgdscope.training.loop import CHECKPOINT_SECONDS, Milestones, train

        batch_size, optimizer, total = pack[0].batch_size, pack[0].optimizer, sum(trial.updates for trial in pack)
        # Of a pack's time, what its updates take: the evaluation after the last of them is still to come.
        expected = (costs.per_update(batch_size, optimizer) or 0.0) * total
        one = costs.per_trial(pack[0].updates, batch_size, optimizer)
        long = one is None or one * backend.concurrency >= PACK_SECONDS
        # However little time there is, a long pack leaves a checkpoint, so that it comes to its end in the end.
        kept_by = time.perf_counter() + 1.2 * CHECKPOINT_SECONDS
        made, resumed = 0, checkpoints.trials().intersection(trial.id for trial in pack)

        def on_progress(updates: int) -> None:
            nonlocal made
            made += updates
            if self._ends_at is not None and long and time.perf_counter() > max(self._ends_at, kept_by):
                raise OutOfTime
            left = None if plan.seconds is None else max(0.0, plan.seconds - expected * made / total)
            self._show_plan(plan, len(pack) * made // total, left)

        milestones = Milestones(self._study.evaluate_at, self._study.noise_scale_at, self._study.sharpness_at)
        alone = not backend.compiler.pending
        try:
            outcomes = train(backend, pack, milestones, checkpoints, on_progress)
        except (InputError, OutOfTime):  # a checkpoint that cannot be written, or is all there is time for
            raise
        except Exception as error:  # whatever it is, it is these trials' outcome, and the others go on
            if self._world.is_shared:  # the other processes know nothing of it
                raise
            return _failed(backend.provenance, backend.capacity, pack, error, self._keep(error))
        if not resumed:  # a pack that went on from checkpoints tells little of what an update takes
            self._take_timing(backend, pack, outcomes, costs, alone)
        return _tables(backend.provenance, outcomes)

    def _take_timing(
        self, backend: Trainer, pack: Sequence[Trial], outcomes: Sequence[Outcome], costs: Costs, alone: bool
    ) -> None:
        """Take in what a pack tells of what an update takes; ``alone`` where nothing was compiled beside it."""
        batch_size, optimizer, total = pack[0].batch_size, pack[0].optimizer, sum(trial.updates for trial in pack)
        if not any(outcome.diverged for outcome in outcomes):  # whose trials stopped early
            rounds = len(pack) / backend.concurrency
            seconds = sum(outcome.seconds for outcome in outcomes) * rounds / math.ceil(rounds)
            per_update = costs.training_seconds(seconds, len(pack), total, batch_size, optimizer) / total
            # Beside programs that are compiled on the same cores it can only have been slower than it is.
            if alone or per_update < (costs.per_update(batch_size, optimizer) or 0.0):
                costs.note(batch_size, per_update, optimizer)

    def _keep(self, error: Exception) -> str:
        """Keep the traceback of what a program raised, and say where; raise what is no outcome of a trial."""
        if self._debug or is_defect(error):
            raise error
        kept = keep_traceback(error, [self._store.folder / "errors"])
        return f" (traceback: {kept.relative_to(self._store.folder)})" if kept else ""

    @cached_property
    def _costs(self) -> dict[str, Costs]:
        return costs_of(
            self._study, self._traced
        )  # operations take a while to count, and only what is trained needs them

    def _show(self, backend: Trainer | None = None) -> None:
        """Show what remains, and the cells; how long it takes where the devices have been timed."""
        plan = self._remaining(backend)
        self._show_plan(plan, 0, plan.seconds if backend else None)
        self._show_cells()

    def _show_plan(self, plan: Plan, trained: int, seconds: float | None) -> None:
        done, sharing = self.trained + self._by_others, self._show_workers()
        self._progress.show(done + trained, done + plan.trials, seconds and seconds / sharing)

    def _show_workers(self) -> int:
        """Show the workers, and return how many share what is left."""
        others = self._worker.others() if self._worker else {}
        own = self._crew.told if self._crew else [str(self._worker.info)] if self._worker and others else []
        self._progress.show_workers([*own, *map(str, others.values())])
        return (self._crew.count if self._crew else 1) + len(others)

    def _show_cells(self) -> None:
        if self._progress.is_redrawn:
            self._progress.show_cells(standing(self._declaration, self._found.trials, self._trials))

    def _remaining(self, backend: Trainer | None = None) -> Plan:
        compiling = backend.compiler.seconds(backend.compiler.pending) if backend else 0.0
        return remaining(self._declaration, self._found, self._costs, compiling)


def plan_study(study: Study, folder: str | Path | None = None, say: Callable[[str], None] = lambda text: None) -> Plan:
    """Return what a study will cost, or what remains of it in a folder, from a timed probe of a few seconds.

    Where nothing remains, nothing is traced or timed. What the probe itself takes, a run will take too before its first
    update: the same programs and the same timings.

    Args:
        study: what is asked.
        folder: a folder that holds part of the study, or another part of it.
        say: is told what the folder holds beside the study.

    Raises:
        InputError: where the folder holds another study, or the workload's functions are not the contract's.
    """
    from sgdscope.training.jax_setup import check_jax, pinned

    check_jax()
    with pinned():
        return _plan_study(study, folder, say)


def _plan_study(study: Study, folder: str | Path | None, say: Callable[[str], None]) -> Plan:
    from sgdscope.streaming.distributed import the_world
    from sgdscope.training.traced import trace

    world = the_world()
    if world.is_shared:  # each would find other times, and so time other things
        raise InputError("a plan is made by one process; make it for a machine, and divide.")
    declaration, trials = study.declaration(), pl.DataFrame(schema=TRIALS_SCHEMA)
    if folder is not None and Store(folder).exists:
        declaration = _united(Store(folder), declaration, say)
        study = study.extended_to(declaration)
        trials = Store(folder).read().trials
    found = search(declaration, trials)
    unfinished = {cell.workload.name for cell in found.unfinished}
    begun = time.perf_counter()
    costs = costs_of(study, {w.name: trace(w) for w in study.workloads if w.name in unfinished})
    written = expansion(declaration, costs)
    probes = [_probe(study, declaration, cost, world) for cost in costs.values()]
    ready = time.perf_counter() - begun
    plan = remaining(declaration, found, costs, sum(compiling for compiling, _ in probes))
    plan = replace(plan, expansion=written, proposals=tuple(said for _, said in probes if said))
    return replace(plan, seconds=plan.seconds + ready) if plan.trials and plan.seconds is not None else plan


def _probe(study: Study, declaration: Declaration, costs: Costs, world: World) -> tuple[float, str]:
    """Time updates of a workload; return how long the other programs take to compile, and what would be faster."""
    import jax

    workload, backend = costs.traced.workload, backend_of(study, costs.traced, world)
    kinds = _kinds(declaration, workload.name)
    try:
        costs.probe(backend, kinds)
        compiling = backend.compiler.seconds(len(kinds) - costs.programs_timed)
        is_whole = study.microbatch_size is None and workload.feed is None and jax.default_backend() == "cpu"
        multiple = workload.ghost_batch_size * workload.unroll * study.devices_per_trial
        proposal = microbatch_proposal(backend, kinds, costs, multiple) if is_whole else ""
    finally:
        backend.close()
    return compiling, proposal


def backend_of(study: Study, traced: TracedWorkload, world: World) -> Backend:
    """Return what trains a workload: by packs, or from a stream where the host reads its examples."""
    from sgdscope.streaming.streamed import StreamedBackend
    from sgdscope.training.packed import PackedBackend

    if traced.workload.feed is not None:
        return StreamedBackend(traced, study.devices_per_trial, compute_dtype=study.compute_dtype, world=world)
    return PackedBackend(
        traced,
        study.devices_per_trial,
        noise_scale=bool(study.noise_scale_at),
        sharpness=bool(study.sharpness_at),
        compute_dtype=study.compute_dtype,
    )


def _kinds(declaration: Declaration, workload: str) -> list[Kind]:
    """Return the kinds of a workload's trials, batch size by batch size."""
    from sgdscope.training.step import Kind

    (record,) = (record for record in declaration.workloads if record.name == workload)
    kinds = (
        Kind.of(declaration.trial(optimizer, size, 1.0, 0, record))
        for size in declaration.batch_sizes
        for optimizer in declaration.trial_optimizers
    )
    return list(dict.fromkeys(kinds))


def _room(backend: Trainer, costs: Costs, most_seconds: float, trial: Trial) -> int:
    """Return how many trials a pack may hold: as many as there is room for, or as can be committed in so many seconds.

    Where the trials of a device come one after the other, a longer pack saves nothing.
    """
    seconds = costs.per_trial(trial.updates, trial.batch_size, trial.optimizer)
    if seconds is None:
        return backend.capacity
    rounds = int(most_seconds / max(seconds * backend.concurrency, 1e-9))
    return min(backend.capacity, backend.concurrency * max(1, rounds))


def _tables(provenance: Mapping[str, Any], outcomes: Sequence[Outcome]) -> Tables:
    """Return the rows of a pack's trials, of their measurements and of their correctness."""
    rows = pl.DataFrame([_row(provenance, outcome) for outcome in outcomes], schema=TRIALS_SCHEMA)
    measurements = [
        {
            "trial_id": outcome.trial.id,
            "step": m.step,
            "examples": m.step * outcome.trial.batch_size,
            "split": m.split,
            "metric": m.metric,
            "value": m.value,
        }
        for outcome in outcomes
        for m in outcome.measurements
    ]
    correctness = [
        {
            "trial_id": outcome.trial.id,
            "split": split,
            "examples": outcome.trial.workload.examples[SPLITS.index(split)],
            "bits": bits,
        }
        for outcome in outcomes
        for split, bits in outcome.correctness.items()
    ]
    return (
        rows,
        pl.DataFrame(measurements, schema=MEASUREMENTS_SCHEMA),
        pl.DataFrame(correctness, schema=CORRECTNESS_SCHEMA),
    )


def _row(provenance: Mapping[str, Any], outcome: Outcome) -> dict[str, object]:
    last = {
        f"{m.split}_{m.metric}": m.value if math.isfinite(m.value) else None
        for m in outcome.measurements
        if m.step == outcome.steps and not outcome.diverged
    }
    without = [split for split in SPLITS if last.get(f"{split}_score", 0.0) is None]
    return (
        _fields(provenance, outcome.trial, outcome.pack_size)
        | {f"{split}_{metric}": last.get(f"{split}_{metric}") for split in SPLITS for metric in ("loss", "score")}
        | {
            "status": "diverged" if outcome.diverged else "complete",
            "steps": outcome.steps,
            "examples": outcome.steps * outcome.trial.batch_size,
            "diverged_at_step": outcome.steps if outcome.diverged else None,
            "seconds": outcome.seconds,
            "error": f"the score is not finite on: {', '.join(without)}" if without else None,
        }
    )


def _failed(
    provenance: Mapping[str, Any], pack_size: int, pack: Sequence[Trial], error: Exception, kept: str
) -> Tables:
    lines = (str(error).strip() or type(error).__name__).splitlines()
    # The first line says what kind of error, and the last what it was, where a callback's traceback lies between.
    text = " … ".join(dict.fromkeys([lines[0], lines[-1].strip()]))
    if "RESOURCE_EXHAUSTED" in text:
        text += "; a smaller microbatch_size takes a large batch in parts"
    rows = [_fields(provenance, trial, pack_size) | {"status": "failed", "error": text + kept} for trial in pack]
    nothing = pl.DataFrame(schema=MEASUREMENTS_SCHEMA), pl.DataFrame(schema=CORRECTNESS_SCHEMA)
    return pl.DataFrame(rows, schema=TRIALS_SCHEMA), *nothing


def _fields(provenance: Mapping[str, Any], trial: Trial, pack_size: int) -> dict[str, object]:
    return {
        "trial_id": trial.id,
        "workload": trial.workload.name,
        "optimizer": str(trial.optimizer),
        "batch_size": trial.batch_size,
        "learning_rate": trial.learning_rate,
        "effective_learning_rate": trial.optimizer.effective_learning_rate(trial.learning_rate),
        "budget": str(trial.budget),
        "seed": trial.seed,
        "pack_size": pack_size,
        **provenance,
    }
