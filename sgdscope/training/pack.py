"""Many trials as one program: a pack of trials trained together on the devices of one machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sgdscope.errors import InputError
from sgdscope.study import NUMERICS_VERSION, Trial
from sgdscope.training.batches import dropped
from sgdscope.training.checkpoint import Checkpoint, Checkpoints, Measurement
from sgdscope.training.evaluate import Evaluation
from sgdscope.training.functions import check_functions, slow_convolutions
from sgdscope.training.noise import (
    NOISE_METRICS,
    Sums,
    add_small_batch,
    add_small_batches,
    gradient_noises,
    no_sums,
    small_batches,
)
from sgdscope.training.runtime import COMPILER_OPTIONS, QUICKLY_COMPILED, machine, pinned
from sgdscope.training.state import Settings, State
from sgdscope.training.trial import evaluated, measure, one_update, start, state_bytes, stretches, train, train_once
from sgdscope.workloads.base import SPLITS, Workload

Method = Literal["map", "vmap", "step"]

# A segment is one call of the program: long enough to cost nothing, short enough that progress shows and that
# an interrupt is heard.
SEGMENT_SECONDS = 0.5
MOST_PROBED = 2**16
SLOTS_PER_DEVICE = 32
# All states of a pack together: what a checkpoint has to write, and a bound on memory. By ``map``, every segment
# also copies them, and more trials a device would gain nothing.
STATE_BYTES: dict[Method, int] = {"map": 2**26, "vmap": 2**29}
CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True)
class Outcome:
    """What became of one trial of a pack.

    ``correctness`` tells for the validation and the test split which examples scored 1 at the end of the budget, one
    bit each; it is empty where a score is neither 0 nor 1, and where the trial diverged.
    """

    trial: Trial
    steps: int
    diverged: bool
    seconds: float
    measurements: list[Measurement]
    correctness: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class CompileTime:
    """The seconds that one program took to be traced, and to be compiled or loaded from the cache."""

    program: str
    trace: float
    compile: float


@dataclass
class _Slot:
    """A trial in its place in a pack: what it brought along, and what is measured of it.

    A checkpoint has no room for ``correctness``: it is of the last evaluation, which no checkpoint comes after.
    """

    trial: Trial
    number: int
    begun_at: int
    seconds: float
    measurements: list[Measurement]
    correctness: dict[str, bytes] = field(default_factory=dict)


class Trainer:
    """Trains packs of one workload's trials, and keeps the compiled programs: one for each batch size.

    A program's shape is fixed: the number of slots and devices. A slot without a trial has no updates to make.
    The devices split the slots among them; each runs its own one after the other (``map``, which gives bit
    for bit what each trial gives alone), or all at once (``vmap``, for a GPU). A workload whose convolutions are
    slow inside a loop on a CPU is trained one trial a device, one update a call (``step``). Where several devices
    share a trial, each takes a part of every batch.

    Args:
        workload: the model and its data, which are copied to every device.
        evaluate_at: the fractions of the budget at which whole splits are evaluated.
        microbatch_sizes: the examples of a forward pass for each batch size that has microbatches.
        devices_per_trial: how many devices share a trial.
        devices: JAX's devices; all of the default backend unless told otherwise.
        method: ``map``, ``vmap`` or ``step``; by the kind of device and the workload unless told otherwise.
        slots: slots for each group of devices that share a trial; as many as memory allows, at most 32, unless
            told otherwise.
        noise_scale_at: the fractions of the budget at which the gradient noise is estimated.

    Raises:
        InputError: where the workload's functions are not the contract's, or the devices cannot be shared so.
    """

    def __init__(
        self,
        workload: Workload,
        evaluate_at: Sequence[float] = (1.0,),
        microbatch_sizes: dict[int, int] | None = None,
        devices_per_trial: int = 1,
        devices: Sequence[jax.Device] | None = None,
        method: Method | None = None,
        slots: int | None = None,
        noise_scale_at: Sequence[float] = (),
    ) -> None:
        self.workload = workload
        self.evaluate_at = tuple(evaluate_at)
        self.noise_scale_at = tuple(noise_scale_at)
        self.devices = tuple(devices or jax.devices())
        self.platform = self.devices[0].platform
        self.compile_times: list[CompileTime] = []
        self._microbatch_sizes = microbatch_sizes or {}
        check_devices(devices_per_trial, len(self.devices))
        self._groups = len(self.devices) // devices_per_trial
        self._shared = devices_per_trial > 1
        self._mesh = jax.make_mesh(
            (self._groups, devices_per_trial),
            ("trial", "batch"),
            axis_types=(AxisType.Auto, AxisType.Auto),
            devices=self.devices,
        )
        self._by_trial = NamedSharding(self._mesh, PartitionSpec("trial"))
        self._copied = NamedSharding(self._mesh, PartitionSpec())
        self._programs: dict[int | str, Future[Any]] = {}
        self._lock = threading.Lock()
        self._compiler = ThreadPoolExecutor(max_workers=2, thread_name_prefix="compile")
        with pinned():
            self._state = check_functions(workload)
            self.method: Method = method or self._fastest()
            self._slots = self._groups * (1 if self.method == "step" else slots or self._fitting())
            self._splits = {
                name: {
                    key: jax.device_put(np.asarray(array), self._copied) for key, array in workload.split(name).items()
                }
                for name in SPLITS
            }
        self.prepare("start")
        self.prepare("measure")
        if self.noise_scale_at:
            self.prepare("noise")

    @property
    def slots(self) -> int:
        """The number of trials that fit in one pack."""
        return self._slots

    @property
    def groups(self) -> int:
        """The number of trials that are trained at the same time by ``map``: one for each group of devices."""
        return self._groups

    @property
    def circumstances(self) -> str:
        """What the bits of a trial depend on beside its identity."""
        return f"{NUMERICS_VERSION} {jax.__version__} {machine()} {self.devices[0].device_kind} {self.method}"

    def prepare(self, program: int | Literal["start", "measure", "noise"]) -> Future[Any]:
        """Begin to compile the program of a batch size in the background, unless that has been done."""
        with self._lock:
            if program not in self._programs:
                self._programs[program] = self._compiler.submit(self._compile, program)
            return self._programs[program]

    def close(self) -> None:
        """Wait for what is being compiled, and drop what is not yet."""
        self._compiler.shutdown(cancel_futures=True)

    def train(
        self,
        trials: Sequence[Trial],
        on_updates: Callable[[int], None] = lambda updates: None,
        checkpoints: Checkpoints | None = None,
    ) -> list[Outcome]:
        """Train trials of one batch size and budget, at most as many as there are slots.

        Args:
            trials: in any order; which of them share a device does not change their numbers.
            on_updates: told the number of updates made or spared since it was last told.
            checkpoints: where trials go on from, and are kept every half minute.
        """
        batch_size, updates = trials[0].batch_size, trials[0].updates
        if len(trials) > self.slots or any((t.batch_size, t.updates) != (batch_size, updates) for t in trials):
            raise ValueError("a pack holds trials of one batch size and number of updates, and no more than its slots")
        program, begin, measure_all = (self.prepare(name).result() for name in (batch_size, "start", "measure"))
        begun = saved = time.perf_counter()
        slots = [_Slot(trial, number, 0, 0.0, []) for trial, number in zip(trials, self._deal(trials), strict=True)]
        with pinned():
            settings = self._settings(slots)
            active = np.asarray(settings.updates) > 0
            state = self._begun(begin(settings), batch_size)
            if checkpoints is not None:
                state = self._resumed(state, slots, checkpoints)
            done = np.zeros(self.slots, np.int32)
            done[[slot.number for slot in slots]] = [slot.begun_at for slot in slots]
            on_updates(int(done.sum()))
            evaluations, noises = (steps_at(parts, updates) for parts in (self.evaluate_at, self.noise_scale_at))
            stops, length = sorted(evaluations | noises), 1
            live = active & np.asarray(state.finite)
            step = int(done[live].min(initial=updates))
            while True:
                if step in stops:
                    wanted = live & (done == step) & self._unmeasured(slots, step)
                    if wanted.any() and step in noises:
                        _take_noise(slots, wanted, step, self._noise(settings, state, wanted))
                    if wanted.any() and step in evaluations:
                        model = evaluated(self.workload, state)
                        values = measure_all(self._splits, model, jax.device_put(wanted, self._by_trial))
                        _take(slots, wanted, step, jax.tree.map(np.asarray, values))
                if step == updates or not live.any():
                    break
                called = time.perf_counter()
                end = min(step + length, next(stop for stop in stops if stop > step))
                ends = jax.device_put(np.where(active, end, 0).astype(np.int32), self._by_trial)
                state = self._run(program, settings, state, ends, end - step)
                before, done, step = done, np.asarray(state.step), end
                live = active & np.asarray(state.finite)
                on_updates(int((done - before).sum()))
                now = time.perf_counter()
                made = int((done - before).max())
                length = int(max(1, min(16 * length, made * SEGMENT_SECONDS / max(now - called, 1e-9))))
                # An evaluation may take long, so a long training is kept before it.
                due = now - saved > CHECKPOINT_SECONDS or (end in stops and now - begun > CHECKPOINT_SECONDS)
                if checkpoints is not None and due:
                    self._save(state, slots, checkpoints, now - begun)
                    saved = time.perf_counter()
            curves = np.asarray(state.curve)
        on_updates(sum(updates - int(done[slot.number]) for slot in slots))
        finite = np.asarray(state.finite)
        seconds = self._shares(slots, done, time.perf_counter() - begun)
        return [
            self._outcome(slot, int(done[slot.number]), bool(finite[slot.number]), taken, curves[slot.number])
            for slot, taken in zip(slots, seconds, strict=True)
        ]

    def time_updates(self, batch_size: int, seconds: float = 0.1) -> float:
        """Return the seconds that one update of one trial takes in a full pack, from a short timed run.

        Where the trials of a device come one after the other, one for each device tells.
        """
        program = self.prepare(batch_size).result()
        with pinned():
            settings, active = self._probed()
            state = self._begun(self.prepare("start").result()(settings), batch_size)
            done, steps, took = 0, 1, 0.0
            # A loss that is never finite makes no update, however many are asked for.
            while took < seconds and steps <= MOST_PROBED:
                done += steps
                ends = jax.device_put(np.where(active, done, 0).astype(np.int32), self._by_trial)
                begun = time.perf_counter()
                state = self._run(program, settings, state, ends, steps)
                took = time.perf_counter() - begun
                per_update = took / (steps * int(active.sum()))
                steps *= 2
        return per_update

    def _run(self, program: Any, settings: Settings, state: State, ends: Any, steps: int) -> State:
        """Return the pack after as many updates: one call, or one for each of them."""
        for _ in range(steps if self.method == "step" else 1):
            state = program(self._splits["train"], settings, state, ends)
        done: State = jax.block_until_ready(state)
        return done

    def _noise(self, settings: Settings, state: State, wanted: np.ndarray) -> list[tuple[float, float]]:
        """Return |G|² and tr Σ of each slot's trial where it stands; what is not wanted has none that mean anything."""
        program, (batches, size) = self.prepare("noise").result(), small_batches(self.workload)
        zeros = lambda a: jax.device_put(np.zeros((self.slots, *a.shape), a.dtype), self._by_trial)
        sums: Sums = jax.tree.map(zeros, no_sums(self._state.parameters))
        ends = jax.device_put(np.where(wanted, batches, 0).astype(np.int32), self._by_trial)
        for _ in range(batches if self.method == "step" else 1):
            sums = program(self._splits["train"], settings, state, sums, ends)
        return gradient_noises(sums, batches, size)

    def _fastest(self) -> Method:
        if self.platform != "cpu":
            return "vmap"
        return "step" if slow_convolutions(self.workload) else "map"

    def _fitting(self) -> int:
        fitting = STATE_BYTES[self.method] // max(1, self._groups * state_bytes(self._state))
        return max(1, min(SLOTS_PER_DEVICE, fitting))

    # ── A pack's state ───────────────────────────────────────────────────────────────────────────────────

    def _begun(self, state: State, batch_size: int) -> State:
        """Add room for what the streams carry, whose shape is the batch's."""
        shapes = self._state_shapes(batch_size).model
        if self.workload.streams is None:
            return state
        carried = jax.tree.map(lambda a: jax.device_put(np.zeros(a.shape, a.dtype), self._by_trial), shapes)
        return replace(state, model=carried)

    def _resumed(self, state: State, slots: Sequence[_Slot], checkpoints: Checkpoints) -> State:
        """Put each trial where its checkpoint left it."""
        leaves, tree = jax.tree.flatten(state)
        shapes = [(leaf.shape[1:], leaf.dtype) for leaf in leaves]
        found = [(slot, checkpoints.load(slot.trial.id)) for slot in slots]
        kept = [(s, c) for s, c in found if c is not None and [(a.shape, a.dtype) for a in c.leaves] == shapes]
        if not kept:
            return state
        arrays = [np.array(leaf) for leaf in leaves]
        for slot, checkpoint in kept:
            for array, leaf in zip(arrays, checkpoint.leaves, strict=True):
                array[slot.number] = leaf
            slot.begun_at, slot.seconds = checkpoint.step, checkpoint.seconds
            slot.measurements = list(checkpoint.measurements)
        resumed: State = jax.tree.unflatten(tree, [jax.device_put(array, self._by_trial) for array in arrays])
        return resumed

    def _save(self, state: State, slots: Sequence[_Slot], checkpoints: Checkpoints, elapsed: float) -> None:
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
        steps = np.asarray(state.step)
        for slot, seconds in zip(slots, self._shares(slots, steps, elapsed), strict=True):
            of_trial = [leaf[slot.number] for leaf in leaves]
            checkpoints.save(slot.trial.id, Checkpoint(of_trial, int(steps[slot.number]), slot.measurements, seconds))

    def _shares(self, slots: Sequence[_Slot], steps: np.ndarray, elapsed: float) -> list[float]:
        """Return the seconds of each trial: the pack's, by the updates made, and what it had taken before."""
        made = [int(steps[slot.number]) - slot.begun_at for slot in slots]
        return [slot.seconds + elapsed * own / max(1, sum(made)) for slot, own in zip(slots, made, strict=True)]

    def _outcome(self, slot: _Slot, steps: int, finite: bool, seconds: float, curve: np.ndarray) -> Outcome:
        found = slot.measurements, slot.correctness
        return outcome_of(self.workload, slot.trial, steps, finite, seconds, curve, *found)

    def _unmeasured(self, slots: Sequence[_Slot], step: int) -> np.ndarray:
        """Return which slots hold a trial whose evaluation at a step is still to be made."""
        unmeasured = np.zeros(self.slots, bool)
        for slot in slots:
            unmeasured[slot.number] = all(m.step < step for m in slot.measurements)
        return unmeasured

    def _deal(self, trials: Sequence[Trial]) -> list[int]:
        """Give each trial a slot, neighbouring learning rates on different devices, so that diverging ones spread."""
        order = sorted(
            range(len(trials)), key=lambda i: (trials[i].seed, trials[i].optimizer.momentum, trials[i].learning_rate)
        )
        per_group = self.slots // self._groups
        slot_of = [0] * len(trials)
        for place, i in enumerate(order):
            slot_of[i] = place % self._groups * per_group + place // self._groups
        return slot_of

    def _settings(self, slots: Sequence[_Slot]) -> Settings:
        def filled(values: list[Any], dtype: Any) -> np.ndarray:
            array = np.zeros(self.slots, dtype)
            array[[slot.number for slot in slots]] = values
            return array

        settings = Settings(
            learning_rate=filled([slot.trial.learning_rate for slot in slots], np.float32),
            momentum=filled([slot.trial.optimizer.momentum for slot in slots], np.float32),
            seed=filled([slot.trial.seed for slot in slots], np.uint32),
            updates=filled([slot.trial.updates for slot in slots], np.int32),
        )
        placed: Settings = jax.device_put(settings, self._by_trial)
        return placed

    def _probed(self) -> tuple[Settings, np.ndarray]:
        """Return settings of trials that are only timed, and which slots hold one."""
        active = np.ones(self.slots, bool)
        if self.method != "vmap":
            active = np.arange(self.slots) % (self.slots // self._groups) == 0
        zeros = np.zeros(self.slots, np.float32)
        updates = np.where(active, MOST_PROBED * 4, 0).astype(np.int32)
        settings = Settings(zeros, zeros, np.arange(self.slots, dtype=np.uint32), updates)
        placed: Settings = jax.device_put(settings, self._by_trial)
        return placed, active

    # ── The programs ─────────────────────────────────────────────────────────────────────────────────────

    def _compile(self, program: int | str) -> Any:
        settings = Settings(*(self._shape((), dtype) for dtype in (np.float32, np.float32, np.uint32, np.int32)))
        trial, copied = PartitionSpec("trial"), PartitionSpec()
        if program == "start":
            body: Callable[..., Any] = lambda settings: self._each(partial(start, self.workload))(settings)
            specs: Any = (trial,)
            arguments: Any = (settings,)
        elif program == "measure":
            model = evaluated(self.workload, self._state_shapes(None))
            body = lambda splits, model, wanted: self._each(partial(measure, self.workload, splits))(model, wanted)
            specs = (copied, trial, trial)
            arguments = (self._splits, model, self._shape((), np.bool_))
        elif program == "noise":
            add = partial(add_small_batch if self.method == "step" else add_small_batches, self.workload)
            body = lambda split, *of_trial: self._each(partial(add, split))(*of_trial)
            specs = (copied, trial, trial, trial, trial)
            sums = jax.tree.map(lambda a: self._shape(a.shape, a.dtype), no_sums(self._state.parameters))
            arguments = (self._splits["train"], settings, self._state_shapes(None), sums, self._shape((), np.int32))
        else:
            batch_size = int(program)
            sizes = (batch_size, self._microbatch_sizes.get(batch_size, batch_size))
            advance = train_once if self.method == "step" else train

            def trained(split: Any, settings: Settings, state: State, end: Any) -> State:
                return advance(one_update(self.workload, sizes, split, settings, self._spread), state, end)

            body = lambda split, *of_trial: self._each(partial(trained, split))(*of_trial)
            specs = (copied, trial, trial, trial)
            state = self._state_shapes(batch_size)
            arguments = (self._splits["train"], settings, state, self._shape((), np.int32))
        # The state of a pack is taken over by the next segment rather than copied.
        donated = (2,) if isinstance(program, int) else ()
        begun = time.perf_counter()
        with pinned():
            sharded = jax.shard_map(
                body, mesh=self._mesh, in_specs=specs, out_specs=trial, axis_names={"trial"}, check_vma=False
            )
            lowered = jax.jit(sharded, donate_argnums=donated).lower(*arguments)
            traced = time.perf_counter()
            options = dict(COMPILER_OPTIONS[self.platform])
            if self.platform == "cpu" and not isinstance(program, int):
                options |= QUICKLY_COMPILED
            compiled = lowered.compile(compiler_options=options)
        name = f"batch size {program}" if isinstance(program, int) else program
        self.compile_times.append(CompileTime(name, traced - begun, time.perf_counter() - traced))
        return compiled

    def _each(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if self.method == "vmap":
            return jax.vmap(function)
        if self.method == "step":  # one trial a device, and no loop around it
            return lambda *args: jax.tree.map(lambda a: a[None], function(*jax.tree.map(lambda a: a[0], args)))
        return lambda *args: jax.lax.map(lambda each: function(*each), args)

    def _spread(self, tree: Any) -> Any:
        """Split arrays by their first axis among the devices that share a trial."""
        if not self._shared:
            return tree
        return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a, PartitionSpec("batch")), tree)

    def _state_shapes(self, batch_size: int | None) -> State:
        """Return the shapes of a pack's state, with what its streams carry at a batch size."""
        state = self._state
        if self.workload.streams is not None and batch_size is not None:
            carry = partial(self.workload.streams.carry, batch_size // self.workload.unroll)
            state = replace(state, model=jax.eval_shape(carry))
        shapes: State = jax.tree.map(lambda a: self._shape(a.shape, a.dtype), state)
        return shapes

    def _shape(self, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((self.slots, *shape), dtype, sharding=self._by_trial)


def check_devices(devices_per_trial: int, devices: int) -> None:
    """Refuse to share trials among devices that cannot be shared so.

    Raises:
        InputError: where one number does not divide the other.
    """
    if devices % devices_per_trial:
        raise InputError(
            f"devices_per_trial: {devices_per_trial} does not divide the {devices} devices that JAX has here; "
            f"give a number that does."
        )


def outcome_of(
    workload: Workload,
    trial: Trial,
    steps: int,
    finite: bool,
    seconds: float,
    curve: np.ndarray,
    measurements: Sequence[Measurement],
    correctness: dict[str, bytes],
) -> Outcome:
    """Return what became of a trial that made so many updates, was finite until then, and measured this."""
    # A last update may overflow what the loss before it did not show.
    bad = next((m.step for m in measurements if not np.isfinite(m.value)), None)
    if bad is not None:
        steps, finite = bad, False
    measurements = [m for m in measurements if bad is None or m.step < bad]
    for (first, stop), total in zip(stretches(trial.updates), curve, strict=False):
        if stop <= steps and np.isfinite(total):
            measurements.append(Measurement(stop, "train", "minibatch_loss", float(total) / (stop - first)))
    if workload.streams is not None:
        count = dropped(workload, trial.batch_size)
        measurements.append(Measurement(steps, "train", "dropped_per_epoch", float(count)))
    return Outcome(trial, steps, not finite, seconds, measurements, correctness if finite else {})


def steps_at(fractions: Sequence[float], updates: int) -> set[int]:
    """Return after how many updates fractions of a budget come: of any but 0, at least one."""
    return {max(1, round(fraction * updates)) if fraction else 0 for fraction in fractions}


def _take_noise(slots: Sequence[_Slot], wanted: np.ndarray, step: int, noises: list[tuple[float, float]]) -> None:
    """Keep what is finite: a gradient that is not has no noise, and whether the trial diverged is not for it to say."""
    for slot in slots:
        if wanted[slot.number] and np.isfinite(noises[slot.number]).all():
            numbers = zip(NOISE_METRICS, noises[slot.number], strict=True)
            slot.measurements += [Measurement(step, "train", metric, value) for metric, value in numbers]


def _take(slots: Sequence[_Slot], wanted: np.ndarray, step: int, values: dict[str, Evaluation]) -> None:
    for slot in slots:
        if wanted[slot.number]:
            slot.measurements += [
                Measurement(step, split, metric, float(value[slot.number]))
                for split, found in values.items()
                for metric, value in (("loss", found.loss), ("score", found.score))
            ]
            slot.correctness = {
                split: found.bits[slot.number].tobytes()
                for split, found in values.items()
                if found.bits is not None and found.zero_or_one[slot.number]
            }
