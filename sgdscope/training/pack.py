"""Many trials as one program: a pack of trials trained together on the devices of one machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sgdscope.errors import InputError
from sgdscope.study import NUMERICS_VERSION, Trial
from sgdscope.training.batches import dropped
from sgdscope.training.checkpoint import Checkpoint, Checkpoints, Measurement
from sgdscope.training.compiler import Compiler, CompileTime
from sgdscope.training.evaluate import Evaluation
from sgdscope.training.functions import check_functions, fingerprint, slow_convolutions
from sgdscope.training.noise import NOISE_METRICS, Sums, gradient_noises, no_sums, small_batches
from sgdscope.training.pack_size import Remembered, fastest, powers_of_two
from sgdscope.training.programs import Method, Program, Programs
from sgdscope.training.runtime import device_name, machine, pinned
from sgdscope.training.state import Settings, State
from sgdscope.training.trial import evaluated, state_bytes, stretches
from sgdscope.workloads.base import SPLITS, Workload

# A segment is one call of the program: long enough to cost nothing, short enough that progress shows and that
# an interrupt is heard.
SEGMENT_SECONDS = 0.5
FEWEST_PROBED, MOST_PROBED = 4, 2**16
# What takes no longer is timed once more.
AGAIN_SECONDS = 1.0
# By ``map`` more trials a device gain nothing; by ``vmap`` how many do is timed, in steps of four.
SLOTS_PER_DEVICE: dict[Method, int] = {"map": 32, "vmap": 256, "step": 1}
TIMED_SIZES = (1, 4, 16, 64, 256)
# All states of a pack together: what a checkpoint has to write, and a bound on memory. By ``map``, every segment
# also copies them.
STATE_BYTES: dict[Method, int] = {"map": 2**26, "vmap": 2**31, "step": 2**26}
# What of a device's memory a pack may be expected to take.
MEMORY_SHARE = 0.8
CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True)
class Outcome:
    """What became of one trial of a pack.

    ``correctness`` tells for the validation and the test split which examples scored 1 at the end of the budget, one
    bit each; it is empty where a score is neither 0 nor 1, and where the trial diverged. ``pack_size`` is the number of
    slots of the program that it began in.
    """

    trial: Trial
    steps: int
    diverged: bool
    seconds: float
    measurements: list[Measurement]
    correctness: dict[str, bytes]
    pack_size: int


@dataclass(eq=False)
class _Slot:
    """A trial in its place in a pack: what it brought along, how far it has come, and what is measured of it.

    A checkpoint has no room for ``correctness``: it is of the last evaluation, which no checkpoint comes after.
    """

    trial: Trial
    number: int
    begun_at: int = 0
    seconds: float = 0.0
    measurements: list[Measurement] = field(default_factory=list)
    correctness: dict[str, bytes] = field(default_factory=dict)
    steps: int = 0
    finite: bool = True
    curve: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))


@dataclass
class _Pack:
    """The trials that are being trained, and their arrays on the devices, whose first axis is as long as ``size``."""

    size: int
    slots: list[_Slot]
    settings: Settings
    state: State

    def note(self) -> int:
        """Take over how far each trial has come, and return the most updates that one has made since."""
        steps, finite = np.asarray(self.state.step), np.asarray(self.state.finite)
        made = max(int(steps[slot.number]) - slot.steps for slot in self.slots)
        for slot in self.slots:
            slot.steps, slot.finite = int(steps[slot.number]), bool(finite[slot.number])
        return made

    def take_curves(self) -> None:
        """Take over the sums of minibatch losses."""
        curves = np.asarray(self.state.curve)
        for slot in self.slots:
            slot.curve = curves[slot.number]

    @property
    def steps(self) -> int:
        """The updates that all of them have made."""
        return sum(slot.steps for slot in self.slots)

    @property
    def live(self) -> list[_Slot]:
        """The slots whose trial has not diverged."""
        return [slot for slot in self.slots if slot.finite]

    def chosen(self, slots: Sequence[_Slot]) -> np.ndarray:
        """Return which of all places these slots are."""
        mask = np.zeros(self.size, bool)
        mask[[slot.number for slot in slots]] = True
        return mask


class Trainer:
    """Trains packs of one workload's trials.

    A program's shape is fixed: the number of slots and devices. A slot without a trial has no updates to make.
    The devices split the slots among them; each runs its own one after the other (``map``, which gives bit
    for bit what each trial gives alone), or all at once (``vmap``, for a GPU). A workload whose convolutions are
    slow inside a loop on a CPU is trained one trial a device, one update a call (``step``). Where several devices
    share a trial, each takes a part of every batch.

    By ``vmap`` all trials of a pack take as long as their number of slots, so there are programs of 1, 2, 4, … slots:
    a pack takes the smallest that holds it, and is moved to a smaller one when half of its trials have diverged.

    Args:
        workload: the model and its data, which are copied to every device.
        evaluate_at: the fractions of the budget at which whole splits are evaluated.
        microbatch_sizes: the examples of a forward pass for each batch size that has microbatches.
        devices_per_trial: how many devices share a trial.
        devices: JAX's devices; all of the default backend unless told otherwise.
        method: ``map``, ``vmap`` or ``step``; by the kind of device and the workload unless told otherwise.
        slots: slots for each group of devices that share a trial; unless told otherwise as many as memory allows, at
            most 32, and by ``vmap`` as many as a timed probe finds worth it at each batch size.
        noise_scale_at: the fractions of the budget at which the gradient noise is estimated.
        compute_dtype: ``float32``, or ``bfloat16`` for the products of the gradients that train.

    Raises:
        InputError: where the workload's functions are not the contract's, or the devices cannot be shared so.
    """

    seconds_to_read = 0.0  # what an example takes the host, which has no part in it

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
        compute_dtype: str = "float32",
    ) -> None:
        self.workload = workload
        self.evaluate_at = tuple(evaluate_at)
        self.noise_scale_at = tuple(noise_scale_at)
        self.devices = tuple(devices or jax.devices())
        check_devices(devices_per_trial, len(self.devices))
        self._groups = len(self.devices) // devices_per_trial
        mesh = jax.make_mesh(
            (self._groups, devices_per_trial),
            ("trial", "batch"),
            axis_types=(AxisType.Auto, AxisType.Auto),
            devices=self.devices,
        )
        self._by_trial = NamedSharding(mesh, PartitionSpec("trial"))
        copied = NamedSharding(mesh, PartitionSpec())
        with pinned():
            self._state = check_functions(workload)
            self.method: Method = method or self._fastest_method()
            self._slots = self._groups * (1 if self.method == "step" else slots or self._fitting())
            self._splits = {
                name: {key: jax.device_put(np.asarray(array), copied) for key, array in workload.split(name).items()}
                for name in SPLITS
            }
            self._programs = Programs(workload, self._splits, mesh, self.method, microbatch_sizes or {}, compute_dtype)
        self._timed = self.method == "vmap" and slots is None
        self._rooms: dict[int, int] = {}
        self._sharing = (
            f"{devices_per_trial} of {len(self.devices)}, microbatches {microbatch_sizes or {}}, {compute_dtype}"
        )
        if not self._timed:
            for name in self._beside_training:
                self.prepare(name)

    @property
    def slots(self) -> int:
        """The number of trials that fit in one pack."""
        return self._slots

    @property
    def groups(self) -> int:
        """The number of trials that are trained at the same time by ``map``: one for each group of devices."""
        return self._groups

    @property
    def compile_times(self) -> list[CompileTime]:
        """What the programs so far took to compile."""
        return self._programs.compiler.compile_times

    @property
    def compiler(self) -> Compiler:
        """What compiles its programs."""
        return self._programs.compiler

    @property
    def circumstances(self) -> str:
        """What the bits of a trial depend on beside its identity."""
        return f"{NUMERICS_VERSION} {jax.__version__} {machine()} {device_name(self.devices[0])} {self.method}"

    def room(self, batch_size: int) -> int:
        """Return how many trials of a batch size are best trained together: at most as many as there are slots.

        By ``vmap`` it is found by timing packs of 1, 4, 16, … slots, as far as they fit in memory, until four times
        the trials are hardly faster each. What was found is remembered for this machine.
        """
        if not self._timed:
            return self.slots
        if batch_size not in self._rooms:
            remembered = self._remembered.get(batch_size)
            if remembered is None:
                sizes = [size for size in TIMED_SIZES if size * self._groups <= self.slots]
                failed = list[int]()
                remembered = self._groups * fastest(partial(self._seconds_each, batch_size, failed), sizes)
                if not failed:
                    self._remembered.put(batch_size, remembered)
            self._rooms[batch_size] = min(remembered, self.slots)
        return self._rooms[batch_size]

    def size_for(self, trials: int) -> int:
        """Return the slots of the program that trains so many trials."""
        if self.method != "vmap":
            return self.slots
        sizes = powers_of_two(self.slots // self._groups)
        return self._groups * next(size for size in sizes if size * self._groups >= trials)

    def prepare(self, program: Program, slots: int | None = None) -> Future[Any]:
        """Begin to compile a program in the background, unless that has been done.

        Args:
            program: the batch size that it trains at, or what else it does.
            slots: of packs of how many slots; of the largest unless told otherwise.
        """
        return self._programs.prepare(program, slots or self.slots)

    def expect(self, batch_sizes: Sequence[int]) -> None:
        """Begin to compile what packs of these batch sizes will need first, in this order.

        Where it must be timed how many trials that are, nothing is compiled beside that.
        """
        for batch_size in batch_sizes:
            size = self._remembered.get(batch_size) if self._timed else self.slots
            if size is not None:
                self.prepare(batch_size, min(size, self.slots))

    def close(self) -> None:
        """Wait for what is being compiled, and drop what is not yet."""
        self._programs.compiler.close()

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
        size = self.size_for(len(trials))
        for program in (batch_size, *self._beside_training):
            self.prepare(program, size)
        begin = self.prepare("start", size).result()
        self.prepare(batch_size, size).result()
        begun = saved = time.perf_counter()
        slots = [_Slot(trial, number) for trial, number in zip(trials, self._deal(trials, size), strict=True)]
        with pinned():
            settings = self._settings(slots, size)
            pack = _Pack(size, slots, settings, self._begun(begin(settings), batch_size))
            if checkpoints is not None:
                self._resume(pack, checkpoints)
            on_updates(pack.steps)
            evaluations, noises = (steps_at(parts, updates) for parts in (self.evaluate_at, self.noise_scale_at))
            stops, length = sorted(evaluations | noises), 1
            step = min((slot.steps for slot in pack.live), default=updates)
            while True:
                if step in stops:
                    due = [slot for slot in pack.live if slot.steps == step and _unmeasured(slot, step)]
                    if due and step in noises:
                        self._estimate_noise(pack, due, step)
                    if due and step in evaluations:
                        self._measure(pack, due, step)
                if step == updates or not pack.live:
                    break
                self._compact(pack, batch_size)
                called, before = time.perf_counter(), pack.steps
                end = min(step + length, next(stop for stop in stops if stop > step))
                ends = self._placed(np.where(pack.chosen(pack.slots), end, 0).astype(np.int32))
                pack.state = self._run(self.prepare(batch_size, pack.size).result(), pack, ends, end - step)
                made, step = pack.note(), end
                on_updates(pack.steps - before)
                now = time.perf_counter()
                length = int(max(1, min(16 * length, made * SEGMENT_SECONDS / max(now - called, 1e-9))))
                # An evaluation may take long, so a long training is kept before it.
                late = now - saved > CHECKPOINT_SECONDS or (end in stops and now - begun > CHECKPOINT_SECONDS)
                if checkpoints is not None and late:
                    self._save(pack, slots, checkpoints, now - begun)
                    saved = time.perf_counter()
            pack.take_curves()
        on_updates(sum(updates - slot.steps for slot in slots))
        seconds = _shares(slots, time.perf_counter() - begun)
        return [self._outcome(slot, taken, size) for slot, taken in zip(slots, seconds, strict=True)]

    def time_updates(self, batch_size: int, seconds: float = 0.1) -> float:
        """Return the seconds that one update of one trial takes in a full pack, from a short timed run.

        Where the trials of a device come one after the other, one for each device tells.
        """
        return self._time_updates(batch_size, self.room(batch_size), seconds)

    # ── How many at once ─────────────────────────────────────────────────────────────────────────────────

    def _fastest_method(self) -> Method:
        if self.devices[0].platform != "cpu":
            return "vmap"
        return "step" if slow_convolutions(self.workload) else "map"

    def _fitting(self) -> int:
        fitting = STATE_BYTES[self.method] // max(1, self._groups * state_bytes(self._state))
        return max(1, min(SLOTS_PER_DEVICE[self.method], fitting))

    @cached_property
    def _remembered(self) -> Remembered:
        of = self.circumstances, self._sharing, self._memory, fingerprint(self.workload)
        return Remembered(", ".join(map(str, of)))

    @property
    def _memory(self) -> int | None:
        """The bytes of a device that JAX may use, where it tells."""
        limit: int | None = (self.devices[0].memory_stats() or {}).get("bytes_limit")
        return limit

    def _seconds_each(self, batch_size: int, failed: list[int], size: int) -> float | None:
        """Return the seconds of an update by its trials, of packs of a size.

        None where a pack does not fit in memory, in training or beside it, or where it cannot be compiled or run, which
        is noted: that it was so once must not be remembered, and if even the smallest cannot, its trials will say why.
        """
        slots = size * self._groups
        try:
            for program in (batch_size, *self._beside_training):
                needed = self.prepare(program, slots).result().memory_analysis()
                used = needed.argument_size_in_bytes + needed.temp_size_in_bytes
                if self._memory is not None and used > MEMORY_SHARE * self._memory:
                    return None
            return self._time_updates(batch_size, slots, 0.1)
        except Exception:
            failed.append(size)
            return None

    def _time_updates(self, batch_size: int, slots: int, seconds: float) -> float:
        begin, program = (self.prepare(name, slots).result() for name in ("start", batch_size))
        self._programs.compiler.settle()
        with pinned():
            settings, active = self._probed(slots)
            pack = _Pack(slots, [], settings, self._begun(begin(settings), batch_size))
            done = 0

            def timed(steps: int) -> float:
                nonlocal done
                done += steps
                ends = self._placed(np.where(active, done, 0).astype(np.int32))
                begun = time.perf_counter()
                pack.state = self._run(program, pack, ends, steps)
                return time.perf_counter() - begun

            steps, took = 1, timed(1)
            if took < AGAIN_SECONDS or self.method == "vmap":  # the first call does more than the others
                took = timed(1)
            # A call also copies the states, which few updates would be charged with. A loss that is never finite makes
            # no update, however many are asked for.
            while (took < seconds or steps < FEWEST_PROBED) and took < AGAIN_SECONDS and steps < MOST_PROBED:
                steps *= 2
                took = timed(steps)
            if took < AGAIN_SECONDS:  # a machine that did something else for a moment must not be taken for a slow one
                took = min(took, timed(steps))
        return took / (steps * int(active.sum()))

    def _compact(self, pack: _Pack, batch_size: int) -> None:
        """Move a pack whose trials have mostly diverged to a program of fewer slots, as soon as that is compiled.

        By ``vmap`` alone, where those that have stopped cost as much as those that go on.
        """
        size = self.size_for(len(pack.live))
        if size == pack.size:
            return
        programs = [self.prepare(program, size) for program in (batch_size, *self._beside_training)]
        if not all(program.done() and program.exception() is None for program in programs):
            return
        pack.take_curves()
        pack.slots = pack.live
        old = [slot.number for slot in pack.slots]
        for slot, number in zip(pack.slots, self._deal([slot.trial for slot in pack.slots], size), strict=True):
            slot.number = number
        taken = np.zeros(size, np.int64)
        taken[[slot.number for slot in pack.slots]] = old
        pack.state = jax.tree.map(lambda leaf: self._placed(np.asarray(leaf)[taken]), pack.state)
        pack.settings, pack.size = self._settings(pack.slots, size), size

    # ── What a pack does ─────────────────────────────────────────────────────────────────────────────────

    def _run(self, program: Any, pack: _Pack, ends: Any, steps: int) -> State:
        """Return the state after as many updates: one call, or one for each of them."""
        state = pack.state
        for _ in range(steps if self.method == "step" else 1):
            state = program(self._splits["train"], pack.settings, state, ends)
        done: State = jax.block_until_ready(state)
        return done

    def _estimate_noise(self, pack: _Pack, due: Sequence[_Slot], step: int) -> None:
        """Estimate |G|² and tr Σ of these trials where they stand."""
        program, (batches, size) = self.prepare("noise", pack.size).result(), small_batches(self.workload)
        zeros = lambda a: self._placed(np.zeros((pack.size, *a.shape), a.dtype))
        sums: Sums = jax.tree.map(zeros, no_sums(self._state.parameters))
        ends = self._placed(np.where(pack.chosen(due), batches, 0).astype(np.int32))
        for _ in range(batches if self.method == "step" else 1):
            sums = program(self._splits["train"], pack.settings, pack.state, sums, ends)
        found = gradient_noises(sums, batches, size)
        for slot in due:
            # A gradient that is not finite has no noise, and whether the trial diverged is not for it to say.
            if np.isfinite(found[slot.number]).all():
                numbers = zip(NOISE_METRICS, found[slot.number], strict=True)
                slot.measurements += [Measurement(step, "train", metric, value) for metric, value in numbers]

    def _measure(self, pack: _Pack, due: Sequence[_Slot], step: int) -> None:
        """Evaluate these trials on all splits."""
        program, model = self.prepare("measure", pack.size).result(), evaluated(self.workload, pack.state)
        values = program(self._splits, model, self._placed(pack.chosen(due)))
        found: dict[str, Evaluation] = jax.tree.map(np.asarray, values)
        for slot in due:
            slot.measurements += [
                Measurement(step, split, metric, float(value[slot.number]))
                for split, of_split in found.items()
                for metric, value in (("loss", of_split.loss), ("score", of_split.score))
            ]
            slot.correctness = {
                split: of_split.bits[slot.number].tobytes()
                for split, of_split in found.items()
                if of_split.bits is not None and of_split.zero_or_one[slot.number]
            }

    @property
    def _beside_training(self) -> tuple[Program, ...]:
        """The programs that a pack needs beside that of its batch size."""
        return ("start", "measure", "noise") if self.noise_scale_at else ("start", "measure")

    # ── A pack's state ───────────────────────────────────────────────────────────────────────────────────

    def _begun(self, state: State, batch_size: int) -> State:
        """Add room for what the streams carry, whose shape is the batch's."""
        if self.workload.streams is None:
            return state
        shapes = self._programs.state_shapes(len(state.step), batch_size).model
        carried = jax.tree.map(lambda a: self._placed(np.zeros(a.shape, a.dtype)), shapes)
        return replace(state, model=carried)

    def _resume(self, pack: _Pack, checkpoints: Checkpoints) -> None:
        """Put each trial where its checkpoint left it."""
        leaves, tree = jax.tree.flatten(pack.state)
        shapes = [(leaf.shape[1:], leaf.dtype) for leaf in leaves]
        found = [(slot, checkpoints.load(slot.trial.id)) for slot in pack.slots]
        kept = [(s, c) for s, c in found if c is not None and [(a.shape, a.dtype) for a in c.leaves] == shapes]
        if not kept:
            return
        arrays = [np.array(leaf) for leaf in leaves]
        for slot, checkpoint in kept:
            for array, leaf in zip(arrays, checkpoint.leaves, strict=True):
                array[slot.number] = leaf
            slot.begun_at, slot.seconds = checkpoint.step, checkpoint.seconds
            slot.measurements = list(checkpoint.measurements)
        pack.state = jax.tree.unflatten(tree, [self._placed(array) for array in arrays])
        pack.note()

    def _save(self, pack: _Pack, slots: Sequence[_Slot], checkpoints: Checkpoints, elapsed: float) -> None:
        """Keep the trials that are in a pack; the time was spent on all that have been."""
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(pack.state)]
        for slot, seconds in zip(slots, _shares(slots, elapsed), strict=True):
            if slot in pack.slots:
                of_trial = [leaf[slot.number] for leaf in leaves]
                checkpoints.save(slot.trial.id, Checkpoint(of_trial, slot.steps, slot.measurements, seconds))

    def _outcome(self, slot: _Slot, seconds: float, pack_size: int) -> Outcome:
        found = slot.measurements, slot.correctness, pack_size
        return outcome_of(self.workload, slot.trial, slot.steps, slot.finite, seconds, slot.curve, *found)

    def _deal(self, trials: Sequence[Trial], size: int) -> list[int]:
        """Give each trial a slot, neighbouring learning rates on different devices, so that diverging ones spread."""
        order = sorted(
            range(len(trials)), key=lambda i: (trials[i].seed, trials[i].optimizer.momentum, trials[i].learning_rate)
        )
        per_group = size // self._groups
        slot_of = [0] * len(trials)
        for place, i in enumerate(order):
            slot_of[i] = place % self._groups * per_group + place // self._groups
        return slot_of

    def _settings(self, slots: Sequence[_Slot], size: int) -> Settings:
        def filled(values: list[Any], dtype: Any) -> np.ndarray:
            array = np.zeros(size, dtype)
            array[[slot.number for slot in slots]] = values
            return array

        settings = Settings(
            learning_rate=filled([slot.trial.learning_rate for slot in slots], np.float32),
            momentum=filled([slot.trial.optimizer.momentum for slot in slots], np.float32),
            seed=filled([slot.trial.seed for slot in slots], np.uint32),
            updates=filled([slot.trial.updates for slot in slots], np.int32),
        )
        placed: Settings = self._placed(settings)
        return placed

    def _probed(self, size: int) -> tuple[Settings, np.ndarray]:
        """Return settings of trials that are only timed, and which slots hold one."""
        active = np.ones(size, bool)
        if self.method != "vmap":
            active = np.arange(size) % (size // self._groups) == 0
        zeros = np.zeros(size, np.float32)
        updates = np.where(active, MOST_PROBED * 4, 0).astype(np.int32)
        settings: Settings = self._placed(Settings(zeros, zeros, np.arange(size, dtype=np.uint32), updates))
        return settings, active

    def _placed(self, tree: Any) -> Any:
        """Put arrays on the devices, each group's share of the slots on its own."""
        return jax.device_put(tree, self._by_trial)


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
    pack_size: int,
) -> Outcome:
    """Return what became of a trial that made so many updates, was finite until then, and measured this."""
    # A last update may overflow what the loss before it did not show.
    bad = next((m.step for m in measurements if not np.isfinite(m.value) and _tells_divergence(workload, m)), None)
    if bad is not None:
        steps, finite = bad, False
    measurements = [m for m in measurements if bad is None or m.step < bad]
    for (first, stop), total in zip(stretches(trial.updates), curve, strict=False):
        if stop <= steps and np.isfinite(total):
            measurements.append(Measurement(stop, "train", "minibatch_loss", float(total) / (stop - first)))
    if workload.streams is not None:
        count = dropped(workload, trial.batch_size)
        measurements.append(Measurement(steps, "train", "dropped_per_epoch", float(count)))
    return Outcome(trial, steps, not finite, seconds, measurements, correctness if finite else {}, pack_size)


def _tells_divergence(workload: Workload, measurement: Measurement) -> bool:
    """Return whether a value that is not finite is the loss's doing: a score may be NaN by itself.

    A score that is made of the loss overflows with it, such as a perplexity.
    """
    of_loss = workload.score is workload.loss and np.isinf(measurement.value)
    return measurement.metric != "score" or bool(of_loss)


def steps_at(fractions: Sequence[float], updates: int) -> set[int]:
    """Return after how many updates fractions of a budget come: of any but 0, at least one."""
    return {max(1, round(fraction * updates)) if fraction else 0 for fraction in fractions}


def _unmeasured(slot: _Slot, step: int) -> bool:
    """Return whether the evaluation of a trial at a step is still to be made."""
    return all(m.step < step for m in slot.measurements)


def _shares(slots: Sequence[_Slot], elapsed: float) -> list[float]:
    """Return the seconds of each trial: the pack's, by the updates made, and what it had taken before."""
    made = [slot.steps - slot.begun_at for slot in slots]
    return [slot.seconds + elapsed * own / max(1, sum(made)) for slot, own in zip(slots, made, strict=True)]
