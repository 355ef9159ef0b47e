"""Many trials as one program: a pack of trials trained together on the devices of one machine."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sgdscope.errors import InputError
from sgdscope.records import SPLITS
from sgdscope.study import NUMERICS_VERSION, Trial
from sgdscope.training.compiler import Compiler, CompileTime
from sgdscope.training.evaluate import Evaluation
from sgdscope.training.jax_setup import device_name, machine, pinned
from sgdscope.training.loop import Pack
from sgdscope.training.noise_scale import Sums, gradient_noises, no_sums, small_batches
from sgdscope.training.programs import Devices, Evaluate, Noise, Start, Update
from sgdscope.training.step import CURVE_POINTS, Kind, Settings, State, evaluated, state_bytes
from sgdscope.training.traced import TracedWorkload

Batching = Literal["map", "vmap"]
Loop = Literal["inside", "outside"]

FEWEST_PROBED, MOST_PROBED = 4, 2**16
# What takes no longer is timed once more.
AGAIN_SECONDS = 1.0
PROBE_SECONDS = 0.1
SLOTS_PER_DEVICE = 32
# All states of a pack together: what a checkpoint has to write, and a bound on memory. By ``map``, every segment
# also copies them.
STATE_BYTES: dict[Batching, int] = {"map": 2**26, "vmap": 2**31}
# As the table of trials calls them.
METHODS = {
    ("map", "inside"): "map", ("vmap", "inside"): "vmap", ("map", "outside"): "step", ("vmap", "outside"): "vmap-step"
}  # fmt: skip
SLOW_CONVOLUTIONS = (
    "JAX's gradient of a convolution is many times slower inside a loop on a CPU than alone, so this workload is "
    "trained one update a call; with sgdscope.models.convolution.convolution in its model it is packed as others are."
)


@dataclass
class _PackOnDevices(Pack):
    """A pack and its arrays on the devices, whose first axis is that of the slots."""

    places: list[int]
    """The slot of each trial."""
    kind: Kind
    settings: Settings
    state: State
    length: int = 1
    """The updates of the next segment."""

    def note(self) -> None:
        """Take over how far each trial has come."""
        self.steps = np.asarray(self.state.step)[self.places].astype(np.int64)
        self.finite = np.array(np.asarray(self.state.finite)[self.places])


class PackedBackend:
    """Trains packs of one workload's trials.

    A program's shape is fixed: the number of slots and devices. A slot without a trial has no updates to make.
    The devices split the slots among them. Where several devices share a trial, each takes a part of every batch.

    Args:
        traced: the model and its data, which are copied to every device.
        devices_per_trial: how many devices share a trial.
        devices: JAX's devices. Default: all of the default platform.
        batching: whether a device trains its trials one after the other (``map``, which gives bit for bit what each
            trial gives alone) or all at once (``vmap``). Default: ``map`` on a CPU, else ``vmap``.
        loop: whether a call of the program makes many updates (``inside``) or one (``outside``, by ``map`` with one
            trial a device). Default: ``inside``, but for a workload whose convolutions are slow inside a loop on a CPU.
        slots: slots for each group of devices that share a trial. Default: as many as memory allows, at most 32.
        noise_scale: whether the gradient noise will be estimated, whose program is then compiled at once.
        compute_dtype: ``float32``, or ``bfloat16`` for the products of the gradients that train.

    Raises:
        InputError: where the devices cannot be shared so.
    """

    seconds_to_read = 0.0  # the host has no part in it

    def __init__(
        self,
        traced: TracedWorkload,
        devices_per_trial: int = 1,
        devices: Sequence[jax.Device] | None = None,
        batching: Batching | None = None,
        loop: Loop | None = None,
        slots: int | None = None,
        noise_scale: bool = False,
        compute_dtype: str = "float32",
    ) -> None:
        self.workload, self._traced, self._noise_scale = traced.workload, traced, noise_scale
        devices = tuple(devices or jax.devices())
        check_devices(devices_per_trial, len(devices))
        self._groups = len(devices) // devices_per_trial
        on_cpu = devices[0].platform == "cpu"
        batching = batching or ("map" if on_cpu else "vmap")
        slow = loop is None and on_cpu and traced.slow_convolutions > 0
        loop = loop or ("outside" if slow else "inside")
        self._one_each = batching == "map" and loop == "outside"
        self._per_group = 1 if self._one_each else slots or self._fitting(batching)
        self.capacity = self._groups * self._per_group
        self.concurrency = self.capacity if batching == "vmap" else self._groups
        mesh = jax.make_mesh(
            (self._groups, devices_per_trial),
            ("trial", "batch"),
            axis_types=(AxisType.Auto, AxisType.Auto),
            devices=devices,
        )
        copied = NamedSharding(mesh, PartitionSpec())
        with pinned():
            splits = {
                name: {
                    key: jax.device_put(np.asarray(array), copied) for key, array in traced.workload.split(name).items()
                }
                for name in SPLITS
            }
        self._devices = Devices(traced, splits, mesh, batching, loop, compute_dtype)
        self.compiler = Compiler(devices[0].platform)
        self.provenance: Mapping[str, Any] = {
            "method": METHODS[batching, loop],
            "device": device_name(devices[0]),
            "devices": len(devices),
            "jax_version": jax.__version__,
        }
        self.notices: tuple[str, ...] = (SLOW_CONVOLUTIONS,) if slow else ()
        self.prepare(Evaluate(self.capacity))

    @property
    def compile_times(self) -> list[CompileTime]:
        """What the programs so far took to compile."""
        return self.compiler.compile_times

    @property
    def circumstances(self) -> str:
        """What the bits of a trial depend on beside its identity."""
        device, method = self.provenance["device"], self.provenance["method"]
        return f"{NUMERICS_VERSION} {jax.__version__} {machine()} {device} {method}"

    def prepare(self, program: Start | Update | Evaluate | Noise) -> Future[Any]:
        """Begin to compile a program in the background, unless that has been done."""
        return self.compiler.prepare(program, lambda: program.lower(self._devices))

    def expect(self, kinds: Sequence[Kind]) -> None:
        """Begin to compile what packs of these kinds will need, in this order."""
        for kind in kinds:
            self._prepare_kind(kind)

    def close(self) -> None:
        """Wait for what is being compiled, and drop what is not yet."""
        self.compiler.close()

    # ── What the loop asks for ───────────────────────────────────────────────────────────────────────────

    def start(self, trials: Sequence[Trial]) -> _PackOnDevices:
        """Return a pack of trials before their first update."""
        kind, slots = Kind.of(trials[0]), self.capacity
        self._prepare_kind(kind)
        begin = self.prepare(Start(kind.optimizer, slots)).result()
        self.prepare(Update(kind, slots)).result()
        places = self._deal(trials)
        settings = self._settings(trials, places)
        state = self._with_carry(begin(settings), kind.batch_size)
        none, all_of_them = np.zeros(len(trials), np.int64), np.ones(len(trials), bool)
        return _PackOnDevices(trials, slots, none, all_of_them, places, kind, settings, state)

    def restore(self, pack: _PackOnDevices, saved: Mapping[int, Sequence[np.ndarray]]) -> set[int]:
        """Put trials where these leaves of their state left them; those of other shapes are passed over."""
        leaves, tree = jax.tree.flatten(pack.state)
        shapes = [(leaf.shape[1:], leaf.dtype) for leaf in leaves]
        fitting = {place: of for place, of in saved.items() if [(a.shape, a.dtype) for a in of] == shapes}
        if fitting:
            arrays = [np.array(leaf) for leaf in leaves]
            for place, of_trial in fitting.items():
                for array, leaf in zip(arrays, of_trial, strict=True):
                    array[pack.places[place]] = leaf
            pack.state = jax.tree.unflatten(tree, [self._placed(array) for array in arrays])
            pack.note()
        return set(fitting)

    def advance(self, pack: _PackOnDevices, until: int, seconds: float) -> None:
        """Make a segment of updates, which the last one tells how long to make."""
        begun, before = time.perf_counter(), pack.steps
        step = pack.next_step(until)
        end = min(step + pack.length, until)
        self._run(pack, self._ends(pack, range(len(pack.trials)), end), end - step)
        pack.note()
        made, took = int((pack.steps - before).max()), time.perf_counter() - begun
        pack.length = int(max(1, min(16 * pack.length, made * seconds / max(took, 1e-9))))

    def evaluate(self, pack: _PackOnDevices, places: Sequence[int]) -> list[Mapping[str, Evaluation]]:
        """Return the evaluation of each split for these trials."""
        program, slots = self.prepare(Evaluate(pack.slots)).result(), [pack.places[place] for place in places]
        wanted = np.zeros(pack.slots, bool)
        wanted[slots] = True
        model = evaluated(self.workload, pack.state.parameters, pack.state.model)
        values = program(self._devices.splits, model, self._placed(wanted))
        values = jax.tree.map(np.asarray, values)
        return [jax.tree.map(lambda a, slot=slot: a[slot], values) for slot in slots]

    def gradient_noise(self, pack: _PackOnDevices, places: Sequence[int]) -> list[tuple[float, float]]:
        """Return |G|² and tr Σ for these trials where they stand."""
        program = self.prepare(Noise(pack.kind.optimizer, pack.slots)).result()
        batches, size = small_batches(self.workload)
        zeros = lambda a: self._placed(np.zeros((pack.slots, *a.shape), a.dtype))
        sums: Sums = jax.tree.map(zeros, no_sums(self._traced.shapes.parameters))
        ends = self._ends(pack, places, batches)
        for _ in range(batches if self._devices.loop == "outside" else 1):
            sums = program(self._devices.splits["train"], pack.settings, pack.state, sums, ends)
        found = gradient_noises(sums, batches, size)
        return [found[pack.places[place]] for place in places]

    def curves(self, pack: _PackOnDevices) -> np.ndarray:
        """Return the sums of minibatch losses over each stretch of the budget, one row a trial."""
        return np.asarray(pack.state.curve)[pack.places]

    def export(self, pack: _PackOnDevices) -> list[np.ndarray]:
        """Return a copy of the leaves of the state, each with one row a trial."""
        return [np.asarray(leaf)[pack.places] for leaf in jax.tree.leaves(pack.state)]

    def seconds_per_update(self, kind: Kind) -> float:
        """Return the seconds that one update of one trial takes in a full pack, from a short timed run.

        Where the trials of a device come one after the other, one for each device tells.
        """
        begin, program = (
            self.prepare(program).result()
            for program in (Start(kind.optimizer, self.capacity), Update(kind, self.capacity))
        )
        self.compiler.settle()
        with pinned():
            settings, active = self._probed(kind)
            state = self._with_carry(begin(settings), kind.batch_size)
            places = [int(slot) for slot in np.flatnonzero(active)]
            none, all_of_them = np.zeros(len(places), np.int64), np.ones(len(places), bool)
            pack = _PackOnDevices([], self.capacity, none, all_of_them, places, kind, settings, state)
            done = 0

            def timed(steps: int) -> float:
                nonlocal done
                done += steps
                ends = self._placed(np.where(active, done, 0).astype(np.int32))
                begun = time.perf_counter()
                self._run(pack, ends, steps, program)
                return time.perf_counter() - begun

            steps, took = 1, timed(1)
            if took < AGAIN_SECONDS or self._devices.batching == "vmap":  # the first call does more than the others
                took = timed(1)
            # A call also copies the states, which few updates would be charged with. A loss that is never finite makes
            # no update, however many are asked for.
            while (took < PROBE_SECONDS or steps < FEWEST_PROBED) and took < AGAIN_SECONDS and steps < MOST_PROBED:
                steps *= 2
                took = timed(steps)
            if took < AGAIN_SECONDS:  # a machine that did something else for a moment must not be taken for a slow one
                took = min(took, timed(steps))
        return took / (steps * int(active.sum()))

    # ── Programs and arrays ──────────────────────────────────────────────────────────────────────────────

    def _prepare_kind(self, kind: Kind) -> None:
        slots = self.capacity
        self.prepare(Update(kind, slots))
        self.prepare(Start(kind.optimizer, slots))
        if self._noise_scale:
            self.prepare(Noise(kind.optimizer, slots))

    def _fitting(self, batching: Batching) -> int:
        """Return for how many trials a group of devices has room, taking an optimizer's state for the parameters'."""
        shapes = self._traced.shapes
        one = 2 * state_bytes(shapes.parameters) + state_bytes(shapes.model) + 4 * CURVE_POINTS
        return max(1, min(SLOTS_PER_DEVICE, STATE_BYTES[batching] // max(1, self._groups * one)))

    def _run(self, pack: _PackOnDevices, ends: Any, steps: int, program: Any = None) -> None:
        """Make updates up to these ends: one call, or one for each of them."""
        program = program or self.prepare(Update(pack.kind, pack.slots)).result()
        state = pack.state
        for _ in range(steps if self._devices.loop == "outside" else 1):
            state = program(self._devices.splits["train"], pack.settings, state, ends)
        pack.state = jax.block_until_ready(state)

    def _ends(self, pack: _PackOnDevices, places: Sequence[int], end: int) -> Any:
        """Return where these trials stop, and 0 for all other slots."""
        ends = np.zeros(pack.slots, np.int32)
        ends[[pack.places[place] for place in places]] = end
        return self._placed(ends)

    def _with_carry(self, state: State, batch_size: int) -> State:
        """Add room for what the streams carry, whose shape is the batch's."""
        streams = self.workload.streams
        if streams is None:
            return state
        slots, unroll = len(state.step), self.workload.unroll
        shapes = jax.eval_shape(lambda: streams.carry(batch_size // unroll))
        return replace(state, model=jax.tree.map(lambda a: self._placed(np.zeros((slots, *a.shape), a.dtype)), shapes))

    def _deal(self, trials: Sequence[Trial]) -> list[int]:
        """Give each trial a slot, neighbouring learning rates on different devices, so that diverging ones spread."""
        order = sorted(
            range(len(trials)), key=lambda i: (trials[i].seed, str(trials[i].optimizer), trials[i].learning_rate)
        )
        slot_of = [0] * len(trials)
        for place, i in enumerate(order):
            slot_of[i] = place % self._groups * self._per_group + place // self._groups
        return slot_of

    def _settings(self, trials: Sequence[Trial], places: Sequence[int]) -> Settings:
        def filled(values: list[Any], dtype: Any) -> np.ndarray:
            array = np.zeros(self.capacity, dtype)
            array[list(places)] = values
            return array

        numbers = [trial.optimizer.coefficients(trial.batch_size) for trial in trials]
        settings = Settings(
            learning_rate=filled([trial.learning_rate for trial in trials], np.float32),
            coefficients={name: filled([each[name] for each in numbers], np.float32) for name in numbers[0]},
            seed=filled([trial.seed for trial in trials], np.uint32),
            updates=filled([trial.updates for trial in trials], np.int32),
        )
        placed: Settings = self._placed(settings)
        return placed

    def _probed(self, kind: Kind) -> tuple[Settings, np.ndarray]:
        """Return settings of trials that are only timed, and which slots hold one."""
        active = np.ones(self.capacity, bool)
        if self._devices.batching == "map":
            active = np.arange(self.capacity) % self._per_group == 0
        zeros = np.zeros(self.capacity, np.float32)
        updates = np.where(active, MOST_PROBED * 4, 0).astype(np.int32)
        numbers = kind.optimizer.coefficients(kind.batch_size)  # at 0 some rules would divide by it, and stop
        coefficients = {name: np.full(self.capacity, number, np.float32) for name, number in numbers.items()}
        seeds = np.arange(self.capacity, dtype=np.uint32)
        settings: Settings = self._placed(Settings(zeros, coefficients, seeds, updates))
        return settings, active

    def _placed(self, tree: Any) -> Any:
        """Put arrays on the devices, each group's share of the slots on its own."""
        return jax.device_put(tree, self._devices.by_trial)


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
