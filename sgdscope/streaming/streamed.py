"""One trial at a time on examples that data-loading workers read: see :class:`~sgdscope.workloads.base.Feed`.

A trial is what it is in a pack, microbatch by microbatch: the devices add up one gradient while the next microbatch is
read and handed over.
"""

from __future__ import annotations

import os
import pickle
import platform
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sgdscope.data.order import examples_at
from sgdscope.errors import InputError
from sgdscope.optimizers import Optimizer, Oracle
from sgdscope.records import SPLITS
from sgdscope.streaming.distributed import World
from sgdscope.streaming.workers import TASK, Request, WorkerDiedError, Workers, check_example
from sgdscope.study import NUMERICS_VERSION, Trial
from sgdscope.system import cores
from sgdscope.training.backend import Pack, check_devices
from sgdscope.training.compiler import Compiler
from sgdscope.training.evaluate import Evaluation, of_chunk, of_sums, tells_each
from sgdscope.training.jax_setup import device_name, machine, pinned
from sgdscope.training.sampling import training_keys, update_key
from sgdscope.training.step import (
    Kind,
    Recipe,
    Settings,
    State,
    descended,
    evaluated,
    goes_on,
    loss_and_gradient,
    start,
    zeros,
)  # fmt: skip
from sgdscope.training.traced import TracedWorkload
from sgdscope.workloads.base import Feed, Workload, examples_in

# So many microbatches may be on their way to the devices beside the one that is computed with.
AHEAD = 2
# What each worker reads to tell how fast the host reads.
PROBED = 2 * TASK
IDLE_DEVICES = "Using {0} of {1} devices. Pass --devices-per-trial {1} to use all."


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sums:
    """The sums over the microbatches of an update so far, and the model's state after them."""

    loss: Any
    gradient: Any
    model: Any


# ── Programs ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class Devices:
    """How a trial lies on the devices that share it.

    Args:
        traced: the workload.
        feed: how its examples come.
        mesh: the devices, with the axis ``batch``.
        compute_dtype: of the products of gradients.
    """

    traced: TracedWorkload
    feed: Feed
    mesh: Mesh
    compute_dtype: str

    @property
    def by_example(self) -> NamedSharding:
        """Where an array lies whose first axis is that of the examples."""
        return NamedSharding(self.mesh, PartitionSpec("batch"))

    @property
    def copied(self) -> NamedSharding:
        """Where an array lies that every device has."""
        return NamedSharding(self.mesh, PartitionSpec())

    def examples(self, n: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Return the shapes of n examples."""
        return {key: jax.ShapeDtypeStruct((n, *shape), dtype) for key, (shape, dtype) in self.feed.layout.items()}

    def settings(self, optimizer: Optimizer) -> Settings:
        """Return the shapes of a trial's settings."""
        number = jax.ShapeDtypeStruct((), jnp.float32)
        coefficients = dict.fromkeys(optimizer.coefficients(1), number)
        return Settings(number, coefficients, jax.ShapeDtypeStruct((), jnp.uint32), jax.ShapeDtypeStruct((), jnp.int32))

    def state(self, optimizer: Optimizer) -> State:
        """Return the shapes of a trial's state."""
        begin = partial(start, self.traced.workload, optimizer)
        state: State = jax.eval_shape(begin, self.settings(optimizer))
        return state

    @property
    def sums(self) -> Sums:
        """The shapes of the sums over microbatches."""
        return Sums(jax.ShapeDtypeStruct((), jnp.float32), self.traced.shapes.parameters, self.traced.shapes.model)

    def lowered(self, body: Callable[..., Any], arguments: Any, shardings: Any, donated: tuple[int, ...] = ()) -> Any:
        """Return a function, lowered for these arguments; what is donated is taken over rather than copied."""
        jitted = jax.jit(body, in_shardings=shardings, out_shardings=self.copied, donate_argnums=donated)
        return jitted.lower(*arguments)


@dataclass(frozen=True)
class Start:
    """Begin a trial."""

    optimizer: Optimizer
    runs_once = True

    def lower(self, on: Devices) -> Any:
        """Return the program, traced and lowered."""
        body = lambda settings: start(on.traced.workload, self.optimizer, settings)
        return on.lowered(body, (on.settings(self.optimizer),), (on.copied,))

    def __str__(self) -> str:
        return f"start {self.optimizer.family}"


@dataclass(frozen=True)
class AddMicrobatch:
    """Add the loss and the gradient of a microbatch to the sums; whatever the batch size and the optimizer."""

    microbatch_size: int
    runs_once = False

    def lower(self, on: Devices) -> Any:
        """Return the program, traced and lowered."""
        number = jax.ShapeDtypeStruct((), jnp.uint32)
        arguments = (number, on.traced.shapes.parameters, on.sums, on.examples(self.microbatch_size), number)
        shardings = (on.copied, on.copied, on.copied, on.by_example, on.copied)
        return on.lowered(partial(self._add, on), arguments, shardings, donated=(2,))

    def _add(
        self, on: Devices, seed: jax.Array, parameters: Any, sums: Sums, batch: Any, first: jax.Array
    ) -> tuple[Sums, jax.Array]:
        workload = on.traced.workload
        keys = training_keys(workload, seed, first + jnp.arange(self.microbatch_size, dtype=jnp.uint32))
        gradient_of = loss_and_gradient(workload, on.compute_dtype)
        (loss, model), gradient = gradient_of(parameters, sums.model, batch, keys)
        return Sums(sums.loss + loss, jax.tree.map(jnp.add, sums.gradient, gradient), model), loss

    def __str__(self) -> str:
        return f"microbatch size {self.microbatch_size}"


@dataclass(frozen=True)
class Update:
    """Update a trial by the sums over the microbatches, and begin new ones."""

    kind: Kind
    runs_once = False

    def lower(self, on: Devices) -> Any:
        """Return the program, traced and lowered."""
        optimizer = self.kind.optimizer
        number = jax.ShapeDtypeStruct((), jnp.float32)
        arguments = (on.settings(optimizer), on.state(optimizer), on.sums, number)
        return on.lowered(partial(self._update, on), arguments, (on.copied,) * 4, donated=(1, 2))

    def _update(
        self, on: Devices, settings: Settings, state: State, sums: Sums, parts: jax.Array
    ) -> tuple[State, Sums, jax.Array]:
        def unanswered(*of_anything: Any) -> Any:
            raise AssertionError("the examples of this update are gone; such an optimizer is refused before")

        recipe = Recipe(on.traced.workload, self.kind, on.compute_dtype)
        gradient = jax.tree.map(lambda g: g / parts, sums.gradient)
        ask = Oracle(
            gradient=unanswered,
            full_gradient=unanswered,
            over_blocks=unanswered,
            curvature=unanswered,
            uniform_gradient=unanswered,
            key=update_key(settings.seed, state.step),
            step=state.step,
            updates=settings.updates,
            batch_size=self.kind.batch_size,
            examples=examples_in(on.traced.workload.train),
        )
        after = descended(recipe, settings, state, sums.loss / parts, gradient, sums.model, ask)
        more = goes_on(settings.updates, state)
        state = jax.tree.map(lambda new, old: jnp.where(more, new, old), after, state)
        return state, Sums(jnp.float32(0), zeros(gradient), state.model), state.finite

    def __str__(self) -> str:
        return f"update {self.kind.optimizer.family}"


@dataclass(frozen=True)
class AddChunk:
    """Add the losses and scores of a chunk of a split to the sums."""

    examples: int
    told: bool
    runs_once = False

    def lower(self, on: Devices) -> Any:
        """Return the program, traced and lowered."""
        model = evaluated(on.traced.workload, on.traced.shapes.parameters, on.traced.shapes.model)
        counts, number = jax.ShapeDtypeStruct((self.examples,), jnp.bool_), jax.ShapeDtypeStruct((), jnp.float32)
        arguments = (model, on.examples(self.examples), counts, number, number)
        shardings = (on.copied, on.by_example, on.by_example, on.copied, on.copied)
        return on.lowered(partial(self._add, on), arguments, shardings)

    def _add(self, on: Devices, model: Any, batch: Any, counts: Any, loss: jax.Array, score: jax.Array) -> Evaluation:
        part = of_chunk(on.traced.workload, model, batch, counts, self.told)
        return part._replace(loss=loss + part.loss, score=score + part.score)

    def __str__(self) -> str:
        return f"evaluate {self.examples} examples"


# ── The backend ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _TrialOnDevices(Pack):
    """A trial, its arrays on the devices, and the examples that are being read for it."""

    kind: Kind
    settings: Settings
    state: State
    reading: Generator[Any, None, None] | None = None
    read_until: int = 0

    def note(self) -> None:
        """Take over how far the trial has come."""
        self.steps = np.array([int(self.state.step)])
        self.finite = np.array([bool(self.state.finite)])

    def close(self) -> None:
        """Drop what was read ahead."""
        if self.reading is not None:
            self.reading.close()
            self.reading = None


class StreamedBackend:
    """Trains the trials of a workload with a feed, one after the other.

    One program serves each microbatch size, whatever the batch size. Devices that share a trial take a part of every
    microbatch each, and processes read what their own devices take.

    Args:
        traced: the model and its feed.
        devices_per_trial: how many devices, of all processes, share a trial.
        devices: JAX's devices. Default: all of the default platform.
        workers: data-loading workers. Default: one for each core.
        compute_dtype: ``float32``, or ``bfloat16`` for the products of the gradients that train.
        world: the processes that share each trial.

    Raises:
        InputError: If the devices cannot be shared so, or the feed cannot be sent to the workers.
    """

    capacity = 1
    concurrency = 1

    def __init__(
        self,
        traced: TracedWorkload,
        devices_per_trial: int = 1,
        devices: Sequence[jax.Device] | None = None,
        workers: int | None = None,
        compute_dtype: str = "float32",
        world: World = World(),  # noqa: B008 - a frozen value
    ) -> None:
        assert traced.workload.feed is not None  # noqa: S101 - others are trained in packs
        self.workload, self._world, self._feed = traced.workload, world, traced.workload.feed
        # In the order of the processes, each of which reads a stretch of every microbatch.
        there = tuple(devices or sorted(jax.devices(), key=lambda device: (device.process_index, device.id)))
        check_devices(devices_per_trial, len(there))
        self.devices = there[:devices_per_trial]
        if world.is_shared and {device.process_index for device in self.devices} != set(range(world.count)):
            raise ValueError("processes that train together share each trial among the devices of all of them")
        self.compiler = Compiler(self.devices[0].platform)
        mesh = Mesh(np.asarray(self.devices), ("batch",), axis_types=(AxisType.Auto,))
        self._devices = Devices(traced, self._feed, mesh, compute_dtype)
        most = max(examples_in(self.workload.split(name)) for name in SPLITS)
        chunk = min(self.workload.evaluation_batch_size, most)
        self._chunk = -(-chunk // devices_per_trial) * devices_per_trial
        self._told = tells_each(self.workload)
        self._machine = world.broadcast(machine().encode()).decode()
        self.provenance: Mapping[str, Any] = {
            "method": "streamed",
            "device": device_name(self.devices[0]),
            "devices": len(self.devices),
            "jax_version": jax.__version__,
        }
        idle = len(self.devices) < jax.device_count()
        self.notices: tuple[str, ...] = (IDLE_DEVICES.format(len(self.devices), jax.device_count()),) if idle else ()
        _check_feed(self.workload)
        self._workers = Workers(self._feed.read, self._feed.layout, workers or _share_of_cores(world))

    @property
    def circumstances(self) -> str:
        """What the bits of a trial depend on beside its identity."""
        device = self.provenance["device"]
        return f"{NUMERICS_VERSION} {jax.__version__} {self._machine} {device} streamed {self._feed.circumstances}"

    def prepare(self, program: Start | AddMicrobatch | Update | AddChunk) -> Future[Any]:
        """Begin to compile a program in the background, unless that has been done."""
        return self.compiler.prepare(program, lambda: program.lower(self._devices))

    def expect(self, kinds: Sequence[Kind]) -> None:
        """Begin to compile what these kinds of trials will need, in this order."""
        for kind in kinds:
            for program in (AddMicrobatch(kind.microbatch_size), Update(_anonymous(kind)), Start(kind.optimizer)):
                self.prepare(program)

    def close(self) -> None:
        """Wait for what is being compiled, drop what is not yet, and end the workers."""
        self.compiler.close()
        self._workers.close()

    # ── What the loop asks for ───────────────────────────────────────────────────────────────────────────

    def start(self, trials: Sequence[Trial]) -> _TrialOnDevices:
        """Return a trial before its first update."""
        (trial,) = trials
        kind = Kind.of(trial)
        self.expect([kind])
        self.prepare(AddChunk(self._chunk, self._told))
        numbers = trial.optimizer.coefficients(trial.batch_size)
        settings = self._settings(trial.learning_rate, numbers, trial.seed, trial.updates)
        state = self.prepare(Start(kind.optimizer)).result()(settings)
        return _TrialOnDevices(trials, 1, np.zeros(1, np.int64), np.ones(1, bool), kind, settings, state)

    def restore(self, pack: _TrialOnDevices, saved: Mapping[int, Sequence[np.ndarray]]) -> set[int]:
        """Put a trial where these leaves of its state left it; those of other shapes are passed over.

        Raises:
            InputError: where processes train something else, or go on from another checkpoint.
        """
        leaves, tree = jax.tree.flatten(pack.state)
        shapes = [(leaf.shape, leaf.dtype) for leaf in leaves]
        fitting = {place: of for place, of in saved.items() if [(a.shape, a.dtype) for a in of] == shapes}
        if fitting:
            pack.state = self._put(jax.tree.unflatten(tree, fitting[0]))
            pack.note()
        alike = {
            "trial": pack.trials[0].id,
            "a feed of": self._feed.circumstances,
            "a checkpoint of step": str(pack.steps[0]),
        }
        self._world.agree(
            "what they train", alike, "all must see the study's folder as it is, and have the same libraries"
        )
        return set(fitting)

    def advance(self, pack: _TrialOnDevices, until: int, seconds: float) -> None:
        """Make updates for about so many seconds, or until the loss stopped being finite."""
        kind, first = pack.kind, int(pack.steps[0])
        if pack.reading is None or pack.read_until != until:
            pack.close()
            pack.reading, pack.read_until = self._reading(pack.trials[0], first, until), until
        add = self.prepare(AddMicrobatch(kind.microbatch_size)).result()
        update = self.prepare(Update(_anonymous(kind))).result()
        parts = kind.batch_size // kind.microbatch_size
        count, seed = self._put(np.float32(parts)), pack.settings.seed
        state, sums, finite = pack.state, self._no_sums(pack.state), pack.state.finite
        on_the_way, begun = deque[Any](), time.perf_counter()
        for step in range(first, until):
            for part in range(parts):
                position = step * kind.batch_size + part * kind.microbatch_size
                batch = self._spread(next(pack.reading))
                sums, loss = add(seed, state.parameters, sums, batch, self._put(np.uint32(position)))
                on_the_way.append(loss)
                if len(on_the_way) > AHEAD:
                    jax.block_until_ready(on_the_way.popleft())
            # Whether the update before this was the last is asked only now, so that the devices need not wait.
            if not finite:
                break
            state, sums, finite = update(pack.settings, state, sums, count)
            if time.perf_counter() - begun > seconds:
                break
        pack.state = state
        pack.note()
        if not pack.finite[0] or pack.steps[0] == until:
            pack.close()

    def evaluate(self, pack: _TrialOnDevices, places: Sequence[int]) -> list[Mapping[str, Evaluation]]:
        """Return the evaluation of each whole split, of the held-out ones by example too."""
        model = evaluated(self.workload, pack.state.parameters, pack.state.model)
        return [{split: self._evaluate(split, model) for split in SPLITS}]

    def gradient_noise(self, pack: _TrialOnDevices, places: Sequence[int]) -> list[tuple[float, float]]:
        """Refuse: a study with such a workload declares no noise scale."""
        raise NotImplementedError("the gradient noise of examples that the host reads is not estimated")

    def sharpness(self, pack: _TrialOnDevices, places: Sequence[int]) -> list[tuple[float, float]]:
        """Refuse: a study with such a workload declares no sharpness."""
        raise NotImplementedError("the sharpness of examples that the host reads is not estimated")

    def curves(self, pack: _TrialOnDevices) -> np.ndarray:
        """Return the sums of minibatch losses over each stretch of the budget."""
        return np.asarray(pack.state.curve)[None]

    def export(self, pack: _TrialOnDevices) -> list[np.ndarray]:
        """Return a copy of the leaves of the state."""
        return [np.array(leaf)[None] for leaf in jax.tree.leaves(pack.state)]

    def seconds_per_update(self, kind: Kind) -> float:
        """Return the seconds that an update takes: what the devices need or the host, whichever is longer.

        Timed is a microbatch of the fewest examples that the devices can share, and taken to be in proportion.
        """
        size = self.workload.ghost_batch_size * self.workload.unroll * len(self.devices)
        programs = AddMicrobatch(size), Update(_anonymous(kind)), Start(kind.optimizer)
        add, update, begin = (self.prepare(program).result() for program in programs)
        self.compiler.settle()
        with pinned():
            settings = self._settings(0.0, kind.optimizer.coefficients(kind.batch_size), 0, 1)
            state = begin(settings)
            sums = self._no_sums(state)
            placed = self._spread(
                {k: np.zeros((size, *shape), dtype) for k, (shape, dtype) in self._feed.layout.items()}
            )
            took = []
            for _ in range(2):  # the first call is slower
                begun = time.perf_counter()
                sums, loss = add(settings.seed, state.parameters, sums, placed, self._put(np.uint32(0)))
                jax.block_until_ready(loss)
                took.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            jax.block_until_ready(update(settings, state, sums, self._put(np.float32(1))))
            updating = time.perf_counter() - begun
        return max(kind.batch_size * min(took) / size + updating, kind.batch_size * self.seconds_to_read)

    @cached_property
    def seconds_to_read(self) -> float:
        """The seconds an example that the host takes to read, all its workers together: timed when first asked."""
        self.compiler.settle()
        count = PROBED * self._workers.count
        indices = examples_at(0, np.arange(2 * count), examples_in(self.workload.train))
        requests = [(*self._feed.locate("train", int(i)), (0, 0, int(i))) for i in indices]
        try:
            list(self._workers.batches([requests[:count]]))  # workers begin
            begun = time.perf_counter()
            list(self._workers.batches([requests[count:]]))  # others, which have not been read just before
        except WorkerDiedError as error:
            raise InputError(f"workload {self.workload.name!r}: {error}") from error
        return (time.perf_counter() - begun) / count

    # ── Reading and placing ──────────────────────────────────────────────────────────────────────────────

    def _reading(self, trial: Trial, first: int, end: int) -> Generator[Any, None, None]:
        """Return the microbatches of these updates, of which some are read ahead."""
        wanted = (
            self._requests(trial.seed, step * trial.batch_size + part * trial.microbatch_size, trial.microbatch_size)
            for step in range(first, end)
            for part in range(trial.batch_size // trial.microbatch_size)
        )
        return self._workers.batches(wanted)

    def _requests(self, seed: int, first: int, count: int) -> list[Request]:
        """Return what this process is to read for a stretch of a trial's stream of examples."""
        positions, examples = np.arange(first, first + count)[self._world.own(count)], examples_in(self.workload.train)
        indices = examples_at(seed, positions, examples)
        return [
            (*self._feed.locate("train", int(index)), (seed, int(position) // examples, int(index)))
            for position, index in zip(positions, indices, strict=True)
        ]

    def _evaluate(self, split: str, model: Any) -> Evaluation:
        program = self.prepare(AddChunk(self._chunk, self._told)).result()
        examples, own = examples_in(self.workload.split(split)), self._world.own(self._chunk)
        loss, score = self._put(np.float32(0)), self._put(np.float32(0))
        parts = list[Evaluation]()
        # The last chunk is filled up with repeats of the last example, which count for nothing.
        chunks = [np.arange(first, first + self._chunk)[own] for first in range(0, examples, self._chunk)]
        wanted = ([(*self._feed.locate(split, min(int(i), examples - 1)), None) for i in chunk] for chunk in chunks)
        for batch, chunk in zip(self._workers.batches(wanted), chunks, strict=True):
            parts.append(program(model, *self._spread((batch, chunk < examples)), loss, score))
            loss, score = parts[-1].loss, parts[-1].score
            if len(parts) > AHEAD:
                jax.block_until_ready(parts[-1 - AHEAD].loss)
        sums = Evaluation(loss, score)
        if self._told and split != "train":
            each = [np.unpackbits(np.asarray(part.bits))[: self._chunk] for part in parts]
            one_each = all(bool(part.zero_or_one) for part in parts)
            sums = Evaluation(loss, score, np.packbits(np.concatenate(each)[:examples]), one_each)
        return of_sums(self.workload, sums, examples)

    def _spread(self, tree: Any) -> Any:
        """Place what this process has read of each example on its devices, as a part of what all have read."""
        return jax.tree.map(lambda a: jax.make_array_from_process_local_data(self._devices.by_example, a), tree)

    def _put(self, tree: Any) -> Any:
        """Place what all processes have alike. To ``device_put`` it would be compared among them each time."""
        place = self._devices.copied
        return jax.tree.map(lambda a: jax.make_array_from_process_local_data(place, np.asarray(a)), tree)

    def _settings(self, rate: float, numbers: Mapping[str, float], seed: int, updates: int) -> Settings:
        coefficients = {name: np.float32(number) for name, number in numbers.items()}
        settings = Settings(np.float32(rate), coefficients, np.uint32(seed), np.int32(updates))
        placed: Settings = self._put(settings)
        return placed

    def _no_sums(self, state: State) -> Sums:
        gradient = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), state.parameters)
        # A copy, since the sums are taken over by the next ones.
        model = jax.tree.map(np.array, state.model)
        sums: Sums = self._put(Sums(np.float32(0), gradient, model))
        return sums


def _anonymous(kind: Kind) -> Kind:
    """Return a kind without its batch size, on which the program that updates does not depend."""
    return Kind(0, 0, kind.optimizer, kind.schedule)


def _check_feed(workload: Workload) -> None:
    """Refuse a feed that cannot be sent to the workers, or whose examples are not those of its layout."""
    feed = workload.feed
    assert feed is not None  # noqa: S101 - it is asked of workloads with one
    try:
        pickle.dumps(feed.read)
    except Exception as error:  # whatever an object of the user's raises when it is asked
        raise InputError(
            f"workload {workload.name!r}: the feed's read cannot be sent to the data-loading workers ({error}). Define "
            f"it at the top of a module that can be imported."
        ) from error
    place = feed.locate("train", 0)
    for visit in ((0, 0, 0), None):
        check_example(feed.read(*place, visit), feed.layout)


def _share_of_cores(world: World) -> int:
    """Return how many workers may read here: those of JAX's processes that may use the same cores share them."""
    where = f"{platform.node()} {sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else ''}"
    return max(1, cores() // world.gather(where).count(where))
