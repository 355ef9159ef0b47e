"""Run a study on the devices of this machine: train what the search wants next, commit it, and go on.

Under JAX's distributed runtime every process runs the same study on the same folder, and each trial is shared by the
devices of all. What to train next follows from the study and the trials so far, which all have from the first of them,
so all come to the same; each trial is compared nevertheless. The first alone writes.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from rich.console import Console

from sgdscope.data.pipeline import WorkerDiedError
from sgdscope.engine.plan import Costs, Plan, costs_of, expansion, packs, remaining
from sgdscope.engine.progress import RunProgress
from sgdscope.engine.search import search
from sgdscope.engine.standing import standing
from sgdscope.errors import InputError
from sgdscope.store import CORRECTNESS_SCHEMA, MEASUREMENTS_SCHEMA, TRIALS_SCHEMA, Store, ended, stopped_at_once
from sgdscope.study import Declaration, Study, Trial
from sgdscope.terminal import Terminal
from sgdscope.training.checkpoint import Checkpoints
from sgdscope.training.compiler import CompileTime
from sgdscope.training.pack import Outcome, Trainer
from sgdscope.workloads.base import SPLITS, Workload

if TYPE_CHECKING:
    from sgdscope.training.fed import FedTrainer

SLOW_CONVOLUTIONS = (
    "JAX's gradient of a convolution is many times slower inside a loop on a CPU than alone, so this workload is "
    "trained one update a call; with sgdscope.models.convolution.convolution in its model it is packed as others are."
)
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
SAME_SCRIPT = "all must run the same script, on the same data and with the same versions"
IDLE_DEVICES = "{} of {} devices train, one trial at a time: devices_per_trial shares each trial among more."


@dataclass(frozen=True)
class Ran:
    """What one run did."""

    trained: int
    failed: int
    compile_times: list[CompileTime]
    seconds: float


def train_study(
    study: Study, folder: str | Path, console: Console | None = None, command: Sequence[str] | None = None
) -> Ran:
    """Train what a folder lacks of a study; each pack is committed as soon as it is trained.

    Workloads come one after the other, and only one is on the devices at a time.

    Args:
        study: what is asked.
        folder: a new folder, or one that holds this study or a smaller one of its kind.
        console: where progress is shown; the standard error stream unless told otherwise.
        command: the words after ``sgdscope run`` that ask for this, which the folder keeps.

    Raises:
        InputError: for what the user can put right, before anything is trained, or where the disk fills up. Where one
            of several processes alone cannot go on, it says so and ends, and the others with it.
    """
    from sgdscope.training.processes import together
    from sgdscope.training.runtime import check_jax, pinned, use_all_cores

    begun = time.perf_counter()
    notice = use_all_cores()
    check_jax()
    with pinned(), together():
        return _train_study(study, folder, console or Terminal(stderr=True), command, notice, begun)


def _train_study(
    study: Study,
    folder: str | Path,
    console: Console,
    command: Sequence[str] | None,
    notice: str | None,
    begun: float,
) -> Ran:
    import jax

    from sgdscope.training.functions import fingerprint
    from sgdscope.training.pack import check_devices
    from sgdscope.training.processes import agree, meet, of_first, tell

    declaration = study.declaration()
    store = Store(folder)
    programs = {workload.name: fingerprint(workload) for workload in study.workloads}
    check_devices(declaration.devices_per_trial, jax.device_count())
    _check_processes(study)
    agree("the study", _told_apart(declaration, programs), SAME_SCRIPT)
    writes = jax.process_index() == 0
    trials, wrong = pl.DataFrame(schema=TRIALS_SCHEMA), None
    with (
        contextlib.ExitStack() as held,
        RunProgress(console if writes else Console(quiet=True), declaration.name) as progress,
    ):
        if notice:
            progress.say(notice)
        if writes:
            try:
                for cannot in held.enter_context(store.writing()):
                    progress.say(cannot)
                declaration = _united(store, declaration, progress.say)
                trials = _opened(store, declaration, programs, progress)
                if command is not None:
                    store.note_commands({workload.name: command for workload in study.workloads})
            except InputError as error:
                wrong = error
        tell(wrong)
        declaration = Declaration.from_json(of_first(declaration.to_json().encode()).decode())
        study = study.extended_to(declaration)
        if jax.process_count() > 1:  # another machine may see the folder as it was a moment ago
            trials = pl.read_parquet(io.BytesIO(of_first(_parquet(trials))))
        run = _Run(study, declaration, store, progress, trials)
        for workload in study.workloads:
            if run.pending(workload.name):
                run.train(workload)
        meet("trained")
    return Ran(run.trained, len(run.failed), run.compile_times, time.perf_counter() - begun)


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
        say(f"{store.folder} also holds {'; '.join(more)}. All is kept, and the study goes on with all of it.")
    return united


def _opened(store: Store, declaration: Declaration, programs: Mapping[str, str], progress: RunProgress) -> pl.DataFrame:
    """Return the trials of a folder that this process writes, which is the study's from now on."""
    import jax

    from sgdscope.training.fingerprint import FINGERPRINT_FORM
    from sgdscope.training.runtime import device_name

    store.check_declaration(declaration)
    form = f"form {FINGERPRINT_FORM}"
    if earlier := [name for name in programs if store.has_earlier_form(form, name)]:
        progress.say(EARLIER_FINGERPRINTS.format(store.folder, ", ".join(map(repr, earlier))))
    for name, program in programs.items():
        store.check_program(f"jax {jax.__version__}, {form}", name, program)
    store.declare(declaration)
    contents = store.read()
    if contents.damaged:
        store.set_aside(contents.damaged)
        for path in contents.damaged:
            progress.say(f"{path} is damaged: it was set aside, and its trials are trained again.")
    for notice in contents.notices("are trained again"):
        progress.say(notice)
    here = device_name(jax.devices()[0])
    if others := sorted(set(contents.trials["device"].drop_nulls()) - {here, jax.devices()[0].device_kind}):
        progress.say(OTHER_DEVICES.format(store.folder, " and on ".join(others), here))
    left_over = Checkpoints(store.folder, "")
    left_over.drop(left_over.trials() & set(ended(contents.trials)["trial_id"]))
    return contents.trials


def _check_processes(study: Study) -> None:
    import jax

    if jax.process_count() == 1:
        return
    counts = Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        raise InputError(
            f"the processes have {', '.join(str(count) for _, count in sorted(counts.items()))} devices; each trial is "
            f"shared in equal parts, so give all of them as many."
        )
    if study.devices_per_trial != jax.device_count():
        raise InputError(
            f"devices_per_trial: {study.devices_per_trial} is not {jax.device_count()}, the devices of all "
            f"{jax.process_count()} processes, which train each trial together."
        )
    for workload in study.workloads:
        if workload.feed is None:
            raise InputError(
                f"workload {workload.name!r} has its data on the devices, which processes do not share; run it in "
                f"one process."
            )


def _told_apart(declaration: Declaration, programs: Mapping[str, str]) -> dict[str, str]:
    """Return all that decides what a study trains, part by part."""
    import jax

    import sgdscope

    fields = json.loads(declaration.to_json())
    workloads = {
        f"{field} of workload {record['name']}": value
        for record in fields.pop("workloads")
        for field, value in record.items()
    }
    functions = {f"functions of workload {name}, as a hash,": program for name, program in programs.items()}
    versions = {"versions": f"sgdscope {sgdscope.__version__}, JAX {jax.__version__}"}
    return {part: str(value) for part, value in (versions | fields | workloads | functions).items()}


def _parquet(table: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()


class _Run:
    """One run of a study: what its folder holds by now, and where its search stands."""

    def __init__(
        self, study: Study, declaration: Declaration, store: Store, progress: RunProgress, trials: pl.DataFrame
    ) -> None:
        self._study, self._declaration, self._store, self._progress = study, declaration, store, progress
        self._trials = trials
        self._found = search(declaration, trials)
        self.failed = set[str]()
        self.trained = 0
        self.compile_times: list[CompileTime] = []

    def pending(self, workload: str) -> list[Trial]:
        """Return the trials of a workload that can be trained now and have not failed in this run."""
        return [t for t in self._found.pending if t.workload.name == workload and t.id not in self.failed]

    def train(self, workload: Workload) -> None:
        """Train all of a workload's trials, with its data on the devices for no longer than that."""
        with _trainer(self._study, workload, self._declaration) as trainer:
            self._train(trainer)

    def _train(self, trainer: Trainer | FedTrainer) -> None:
        """Train pack by pack, as the search asks for them."""
        import jax

        from sgdscope.training.contract import check_start

        name, sizes = trainer.workload.name, self._declaration.batch_sizes
        costs, writes = self._costs[name], jax.process_index() == 0
        checkpoints = Checkpoints(self._store.folder, trainer.circumstances, writes)
        trainer.expect([sizes[-1], sizes[0]])  # those that are probed
        self._progress.show(self.trained, self.trained + self._remaining().trials, None)
        if trainer.method == "step":
            self._progress.say(SLOW_CONVOLUTIONS)
        if trainer.method == "fed" and (training := len(trainer.devices)) < (there := jax.device_count()):
            self._progress.say(IDLE_DEVICES.format(training, there))
        if jax.process_count() == 1:  # what is probed follows from the time, which is another for each process
            with contextlib.suppress(Exception):  # a program that fails is told of when its trials fail
                costs.probe(trainer, sizes)
        trainer.expect(sizes[::-1])  # in the order of the search
        expected = self._remaining(trainer)
        self._progress.show(self.trained, self.trained + expected.trials, expected.seconds)
        self._show_cells()
        while pending := self.pending(name):
            plan = self._remaining(trainer)
            pack = next(packs(pending, partial(_room, trainer, costs)))
            rows, *rest = _train_pack(trainer, pack, plan, costs, self._progress, self.trained, checkpoints)
            if writes:
                self._store.commit(rows, *rest)
            checkpoints.drop(ended(rows)["trial_id"])
            if trainer.workload.feed is None and stopped_at_once(rows):
                check_start(trainer.workload, pack[0])
            failures = rows.filter(pl.col("status") == "failed")
            self.failed.update(failures["trial_id"])
            for error in failures["error"].unique():
                self._progress.say(f"{len(failures)} trials at batch size {pack[0].batch_size} failed: {error}")
            self.trained += len(rows)
            self._trials = pl.concat([self._trials, rows])
            self._found = search(self._declaration, self._trials)
            self._show_cells()
        self.compile_times += trainer.compile_times

    @cached_property
    def _costs(self) -> dict[str, Costs]:
        return costs_of(self._study)  # operations take a while to count, and only what is trained needs them

    def _show_cells(self) -> None:
        if self._progress.is_redrawn:
            self._progress.show_cells(standing(self._declaration, self._found.trials, self._trials))

    def _remaining(self, trainer: Trainer | FedTrainer | None = None) -> Plan:
        compiling = trainer.compiler.seconds(trainer.compiler.pending) if trainer else 0.0
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
    from sgdscope.training.runtime import check_jax, pinned, use_all_cores

    use_all_cores()
    check_jax()
    with pinned():
        return _plan_study(study, folder, say)


def _plan_study(study: Study, folder: str | Path | None, say: Callable[[str], None]) -> Plan:
    import jax

    if jax.process_count() > 1:  # each would find other times, and so time other things
        raise InputError("a plan is made by one process; make it for a machine, and divide.")
    declaration, trials = study.declaration(), pl.DataFrame(schema=TRIALS_SCHEMA)
    if folder is not None and Store(folder).exists:
        declaration = _united(Store(folder), declaration, say)
        study = study.extended_to(declaration)
        trials = Store(folder).read().trials
    found = search(declaration, trials)
    begun, costs = time.perf_counter(), costs_of(study, {cell.workload.name for cell in found.unfinished})
    written = expansion(declaration, costs)
    probed = [workload for workload in study.workloads if workload.name in costs]
    compiling = sum(_probe(study, workload, declaration, costs[workload.name]) for workload in probed)
    ready = time.perf_counter() - begun
    plan = replace(remaining(declaration, found, costs, compiling), expansion=written)
    return replace(plan, seconds=plan.seconds + ready) if plan.trials and plan.seconds is not None else plan


def _probe(study: Study, workload: Workload, declaration: Declaration, costs: Costs) -> float:
    """Time updates of a workload, and return the seconds that the programs of other batch sizes take to compile."""
    with _trainer(study, workload, declaration) as trainer:
        try:
            costs.probe(trainer, declaration.batch_sizes)
        except WorkerDiedError as error:
            raise InputError(f"workload {workload.name!r}: {error}") from error
        return trainer.compiler.seconds(len(declaration.batch_sizes) - costs.batch_sizes_timed)


@contextmanager
def _trainer(study: Study, workload: Workload, declaration: Declaration) -> Iterator[Trainer | FedTrainer]:
    """Train with the compilation cache, which keeps what was compiled also where the training is interrupted."""
    from sgdscope.training.fed import FedTrainer
    from sgdscope.training.pack import Trainer
    from sgdscope.training.runtime import CompilationCache

    cache = CompilationCache()
    cache.open()
    (record,) = (record for record in declaration.workloads if record.name == workload.name)
    how = workload, study.evaluate_at, declaration.microbatch_sizes(record), study.devices_per_trial
    trainer = (
        Trainer(*how, noise_scale_at=study.noise_scale_at, compute_dtype=study.compute_dtype)
        if workload.feed is None
        else FedTrainer(*how, compute_dtype=study.compute_dtype)
    )
    try:
        yield trainer
    finally:
        trainer.close()
        cache.seal()


def _room(trainer: Trainer | FedTrainer, costs: Costs, trial: Trial) -> int:
    """Return how many trials a pack may hold: as many as there is room for, or as can be committed soon.

    Where the trials of a device come one after the other, a longer pack saves nothing.
    """
    room, seconds = trainer.room(trial.batch_size), costs.per_trial(trial.updates, trial.batch_size)
    if trainer.method == "vmap" or seconds is None:
        return room
    rounds_of_devices = int(PACK_SECONDS / max(seconds * trainer.groups, 1e-9))
    return min(room, trainer.groups * max(1, rounds_of_devices))


def _train_pack(
    trainer: Trainer | FedTrainer,
    pack: Sequence[Trial],
    plan: Plan,
    costs: Costs,
    progress: RunProgress,
    trained: int,
    checkpoints: Checkpoints,
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Return the rows of a pack's trials, of their measurements and of their correctness."""
    import jax

    batch_size, total = pack[0].batch_size, sum(trial.updates for trial in pack)
    # Of a pack's time, what its updates take: the evaluation after the last of them is still to come.
    expected = (costs.per_update(batch_size) or 0.0) * total
    made, resumed = 0, checkpoints.trials().intersection(trial.id for trial in pack)

    def on_updates(updates: int) -> None:
        nonlocal made
        made += updates
        left = None if plan.seconds is None else max(0.0, plan.seconds - expected * made / total)
        progress.show(trained + len(pack) * made // total, trained + plan.trials, left)

    alone = not trainer.compiler.pending
    try:
        outcomes = trainer.train(pack, on_updates, checkpoints)
    except InputError:  # a checkpoint that cannot be written
        raise
    except Exception as error:  # whatever it is, it is these trials' outcome, and the others go on
        if jax.process_count() > 1:  # the other processes know nothing of it, and are ended with this one
            raise
        return _failed(trainer, pack, error)
    # A pack that went on from checkpoints, or whose trials stopped early, tells little of what an update takes.
    if not resumed and not any(outcome.diverged for outcome in outcomes):
        at_once = outcomes[0].pack_size if trainer.method == "vmap" else trainer.groups
        rounds_of_devices = len(pack) / at_once
        seconds = sum(outcome.seconds for outcome in outcomes) * rounds_of_devices / math.ceil(rounds_of_devices)
        per_update = costs.training_seconds(seconds, len(pack), total, batch_size) / total
        # Beside programs that are compiled on the same cores it can only have been slower than it is.
        if alone or per_update < (costs.per_update(batch_size) or 0.0):
            costs.note(batch_size, per_update)
    rows = pl.DataFrame([_row(trainer, outcome) for outcome in outcomes], schema=TRIALS_SCHEMA)
    measurements = [
        {
            "trial_id": outcome.trial.id,
            "step": m.step,
            "examples": m.step * batch_size,
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


def _row(trainer: Trainer | FedTrainer, outcome: Outcome) -> dict[str, object]:
    last = {
        f"{m.split}_{m.metric}": m.value if math.isfinite(m.value) else None
        for m in outcome.measurements
        if m.step == outcome.steps and not outcome.diverged
    }
    without = [split for split in SPLITS if last.get(f"{split}_score", 0.0) is None]
    return (
        _fields(trainer, outcome.trial, outcome.pack_size)
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
    trainer: Trainer | FedTrainer, pack: Sequence[Trial], error: Exception
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    lines = (str(error).strip() or type(error).__name__).splitlines()
    # The first line says what kind of error, and the last what it was, where a callback's traceback lies between.
    text = " … ".join(dict.fromkeys([lines[0], lines[-1].strip()]))
    if "RESOURCE_EXHAUSTED" in text:
        text += "; a smaller microbatch_size takes a large batch in parts"
    rows = [
        _fields(trainer, trial, trainer.size_for(len(pack))) | {"status": "failed", "error": text} for trial in pack
    ]
    nothing = pl.DataFrame(schema=MEASUREMENTS_SCHEMA), pl.DataFrame(schema=CORRECTNESS_SCHEMA)
    return pl.DataFrame(rows, schema=TRIALS_SCHEMA), *nothing


def _fields(trainer: Trainer | FedTrainer, trial: Trial, pack_size: int) -> dict[str, object]:
    import jax

    from sgdscope.training.runtime import device_name

    return {
        "trial_id": trial.id,
        "workload": trial.workload.name,
        "optimizer": str(trial.optimizer),
        "batch_size": trial.batch_size,
        "learning_rate": trial.learning_rate,
        "effective_learning_rate": trial.optimizer.effective_learning_rate(trial.learning_rate),
        "budget": str(trial.budget),
        "seed": trial.seed,
        "method": trainer.method,
        "pack_size": pack_size,
        "device": device_name(trainer.devices[0]),
        "devices": len(trainer.devices),
        "jax_version": jax.__version__,
    }
