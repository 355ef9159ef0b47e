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

from sgdscope.records import SPLITS
from sgdscope.study import NUMERICS_VERSION, Trial
from sgdscope.training.backend import Pack, check_devices
from sgdscope.training.compiler import Compiler
from sgdscope.training.evaluate import Evaluation
from sgdscope.training.jax_setup import device_name, machine, pinned
from sgdscope.training.noise_scale import Sums, gradient_noises, small_batches
from sgdscope.training.programs import ESTIMATES, Devices, Estimate, Evaluate, Start, Update
from sgdscope.training.sharpness import Krylov, largest_eigenvalue, products_of
from sgdscope.training.step import CURVE_POINTS, Kind, Settings, State, evaluated, state_bytes
from sgdscope.training.traced import TracedWorkload
from sgdscope.workloads.base import examples_in

Batching = Literal["map", "vmap"]
Loop = Literal["inside", "outside"]

# A probe makes as many updates as take this long, and at least so many; what takes a second is not timed again.
PROBE_SECONDS, AGAIN_SECONDS = 0.1, 1.0
FEWEST_PROBED, MOST_PROBED = 4, 2**16
SLOTS_PER_DEVICE = 32
# All states of a pack together: what a checkpoint has to write, and a bound on memory.
STATE_BYTES: dict[Batching, int] = {"map": 2**26, "vmap": 2**31}
# As the table of trials calls them.
METHODS = {
    ("map", "inside"): "map", ("vmap", "inside"): "vmap", ("map", "outside"): "step", ("vmap", "outside"): "vmap-step"
}  # fmt: skip
SLOW_CONVOLUTIONS = (
    "JAX's gradient of a convolution is many times slower inside a loop on a CPU than alone, so this workload is "
    "trained one update a call. Use sgdscope.models.convolution.convolution in its model to train it in packs."
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
        sharpness: whether the sharpness will be estimated, likewise.
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
        sharpness: bool = False,
        compute_dtype: str = "float32",
    ) -> None:
        self.workload, self._traced = traced.workload, traced
        self._estimates = ("noise scale",) * noise_scale + ("sharpness",) * sharpness
        devices = tuple(devices or jax.devices())
        check_devices(devices_per_trial, len(devices))
        self._groups = len(devices) // devices_per_trial
        on_cpu = devices[0].platform == "cpu"
        batching = batching or ("map" if on_cpu else "vmap")
        slow = loop is None and on_cpu and traced.slow_convolutions > 0
        loop = loop or ("outside" if slow else "inside")
        one_each = batching == "map" and loop == "outside"
        self._per_group = 1 if one_each else slots or _slots(traced, STATE_BYTES[batching] // self._groups)
        self.capacity = self._groups * self._per_group
        self.concurrency = self.capacity if batching == "vmap" else self._groups
        kinds = (AxisType.Auto, AxisType.Auto)
        mesh = jax.make_mesh((self._groups, devices_per_trial), ("trial", "batch"), axis_types=kinds, devices=devices)
        copied = NamedSharding(mesh, PartitionSpec())
        with pinned():
            place = lambda array: jax.device_put(np.asarray(array), copied)
            splits = {name: jax.tree.map(place, dict(self.workload.split(name))) for name in SPLITS}
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
    def circumstances(self) -> str:
        """What the bits of a trial depend on beside its identity."""
        device, method = self.provenance["device"], self.provenance["method"]
        return f"{NUMERICS_VERSION} {jax.__version__} {machine()} {device} {method}"

    def prepare(self, program: Start | Update | Evaluate | Estimate) -> Future[Any]:
        """Begin to compile a program in the background, unless that has been done."""
        return self.compiler.prepare(program, lambda: program.lower(self._devices))

    def expect(self, kinds: Sequence[Kind]) -> None:
        """Begin to compile what packs of these kinds will need, in this order."""
        for kind in kinds:
            self.prepare(Update(kind, self.capacity))
            self.prepare(Start(kind.optimizer, self.capacity))
            for of in self._estimates:
                self.prepare(Estimate(of, kind.optimizer, self.capacity))

    def close(self) -> None:
        """Wait for what is being compiled, and drop what is not yet."""
        self.compiler.close()

    # ── What the loop asks for ───────────────────────────────────────────────────────────────────────────

    def start(self, trials: Sequence[Trial]) -> _PackOnDevices:
        """Return a pack of trials before their first update."""
        numbers = [trial.optimizer.coefficients(trial.batch_size) for trial in trials]
        rates, seeds, updates = zip(*((t.learning_rate, t.seed, t.updates) for t in trials), strict=True)
        return self._begun(Kind.of(trials[0]), trials, self._deal(trials), (rates, numbers, seeds, updates))

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
        batches, size = small_batches(self.workload)
        sums: Sums = self._estimated(pack, places, "noise scale", batches)
        found = gradient_noises(sums, batches, size)
        return [found[pack.places[place]] for place in places]

    def sharpness(self, pack: _PackOnDevices, places: Sequence[int]) -> list[tuple[float, float]]:
        """Return λ_max for these trials where they stand, and how far from it an eigenvalue may be."""
        found: Krylov = self._estimated(pack, places, "sharpness", products_of(self.workload))
        diagonal, beside = np.asarray(found.diagonal), np.asarray(found.beside)
        return [largest_eigenvalue(diagonal[slot], beside[slot]) for slot in (pack.places[place] for place in places)]

    def _estimated(self, pack: _PackOnDevices, places: Sequence[int], of: str, end: int) -> Any:
        """Return the sums of an estimate beside training after so many parts, for these trials."""
        program = self.prepare(Estimate(of, pack.kind.optimizer, pack.slots)).result()
        _, start = ESTIMATES[of]
        zeros = lambda a: self._placed(np.zeros((pack.slots, *a.shape), a.dtype))
        sums = jax.tree.map(zeros, start(self._traced.shapes.parameters))
        ends = self._ends(pack, places, end)
        for _ in range(end if self._devices.loop == "outside" else 1):
            sums = program(self._devices.splits["train"], pack.settings, pack.state, sums, ends)
        return sums

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
        self.expect([kind])
        self.compiler.settle()
        places = list(range(0, self.capacity, self._per_group if self._devices.batching == "map" else 1))
        number, numbers, most = len(places), kind.optimizer.coefficients(kind.batch_size), 4 * MOST_PROBED
        values = [0.0] * number, [numbers] * number, range(number), [most] * number
        done = 0
        with pinned():
            pack = self._begun(kind, [], places, values)

            def timed(steps: int) -> float:
                nonlocal done
                done += steps
                ends, begun = self._ends(pack, range(number), done), time.perf_counter()
                self._run(pack, ends, steps)
                return time.perf_counter() - begun

            # The first call does more than the others, and each copies the states, which few updates would be charged
            # with. A loss that is never finite makes no update, however many are asked for.
            steps, took = 1, timed(1)
            while (took < PROBE_SECONDS or steps < FEWEST_PROBED) and took < AGAIN_SECONDS and steps < MOST_PROBED:
                steps *= 2
                took = timed(steps)
            if took < AGAIN_SECONDS:  # a machine that did something else for a moment must not be taken for a slow one
                took = min(took, timed(steps))
        per_update, examples = took / (steps * number), examples_in(self.workload.train)
        if "full_gradient" in kind.optimizer.asks and steps * kind.batch_size < examples:
            # The full gradient of an epoch was in the first update alone, which is not timed.
            gradients = kind.optimizer.gradients_per_update(kind.batch_size)
            per_update *= gradients / (gradients - 1)
        return per_update

    # ── Programs and arrays ──────────────────────────────────────────────────────────────────────────────

    def _begun(self, kind: Kind, trials: Sequence[Trial], places: list[int], values: Any) -> _PackOnDevices:
        """Return a pack before its first update, from the settings of its trials, which lie in these slots."""
        self.expect([kind])
        begin = self.prepare(Start(kind.optimizer, self.capacity)).result()
        self.prepare(Update(kind, self.capacity)).result()
        settings = self._settings(places, *values)
        state = self._with_carry(begin(settings), kind.batch_size)
        none, all_of_them = np.zeros(len(places), np.int64), np.ones(len(places), bool)
        return _PackOnDevices(trials, self.capacity, none, all_of_them, places, kind, settings, state)

    def _settings(
        self, places: Sequence[int], rates: Any, numbers: Sequence[Any], seeds: Any, updates: Any
    ) -> Settings:
        """Return settings with these values in these slots, and 0 in all others."""

        def filled(values: Any, dtype: Any) -> np.ndarray:
            array = np.zeros(self.capacity, dtype)
            array[list(places)] = values
            return array

        settings: Settings = self._placed(
            Settings(
                learning_rate=filled(rates, np.float32),
                coefficients={name: filled([each[name] for each in numbers], np.float32) for name in numbers[0]},
                seed=filled(seeds, np.uint32),
                updates=filled(updates, np.int32),
            )
        )
        return settings

    def _run(self, pack: _PackOnDevices, ends: Any, steps: int) -> None:
        """Make updates up to these ends: one call, or one for each of them."""
        program, state = self.prepare(Update(pack.kind, pack.slots)).result(), pack.state
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
        key = lambda place: (trials[place].seed, str(trials[place].optimizer), trials[place].learning_rate)
        order = sorted(range(len(trials)), key=key)
        slots = [number % self._groups * self._per_group + number // self._groups for number in range(len(trials))]
        return [slot for _, slot in sorted(zip(order, slots, strict=True))]

    def _placed(self, tree: Any) -> Any:
        """Put arrays on the devices, each group's share of the slots on its own."""
        return jax.device_put(tree, self._devices.by_trial)


def _slots(traced: TracedWorkload, room: int) -> int:
    """Return how many trials fit in so many bytes, taking an optimizer's state for as large as the parameters."""
    one = 2 * state_bytes(traced.shapes.parameters) + state_bytes(traced.shapes.model) + 4 * CURVE_POINTS
    return max(1, min(SLOTS_PER_DEVICE, room // one))
