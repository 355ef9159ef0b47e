"""One trial at a time on examples that processes of the host read: see :class:`~sgdscope.workloads.base.Feed`.

What a trial is, how it is updated and what is measured of it are those of a pack. Only the batch comes from elsewhere,
microbatch by microbatch: the devices add up the gradient of one while the next is read and handed over.
"""

from __future__ import annotations

import os
import pickle
import platform
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sgdscope.data.order import examples_at
from sgdscope.data.pipeline import TASK, Request, Workers, check_example, cores
from sgdscope.errors import InputError
from sgdscope.study import NUMERICS_VERSION, Trial
from sgdscope.training.batches import training_keys
from sgdscope.training.checkpoint import Checkpoint, Checkpoints, Measurement
from sgdscope.training.compiler import Compiler, CompileTime
from sgdscope.training.evaluate import Evaluation, of_chunk, of_sums, tells_each
from sgdscope.training.functions import check_functions
from sgdscope.training.pack import Outcome, check_devices, outcome_of, steps_at
from sgdscope.training.processes import agree, of_each, of_first
from sgdscope.training.runtime import device_name, machine, pinned
from sgdscope.training.state import Settings, State
from sgdscope.training.trial import descended, evaluated, goes_on, loss_and_gradient, start, zeros
from sgdscope.workloads.base import SPLITS, Feed, Workload, examples_in

# The state of a large network takes a second to write, which half a minute would feel.
CHECKPOINT_SECONDS = 60.0
# So many microbatches may be on their way to the devices beside the one that is computed with.
AHEAD = 2
# What each process reads to tell how fast the host reads.
PROBED = 2 * TASK


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sums:
    """The sums over the microbatches of an update so far, and the model's state after them."""

    loss: Any
    gradient: Any
    model: Any


class FedTrainer:
    """Trains the trials of one workload whose examples are read by the host, one after the other.

    There is one program for each microbatch size, whatever the batch size. Where several devices share a trial, each
    takes a part of every microbatch; devices beyond those have nothing to do. Where several processes do, under
    JAX's distributed runtime, each reads what its own devices take.

    Args:
        workload: the model and its feed.
        evaluate_at: the fractions of the budget at which whole splits are evaluated.
        microbatch_sizes: the examples of a forward pass for each batch size that has microbatches.
        devices_per_trial: how many devices share a trial.
        devices: JAX's devices; all of the default backend unless told otherwise.
        workers: processes that read; one for each core unless told otherwise.
        compute_dtype: ``float32``, or ``bfloat16`` for the products of the gradients that train.

    Raises:
        InputError: where the workload's functions are not the contract's, or the devices cannot be shared so.
    """

    method: Literal["fed"] = "fed"
    slots = 1
    groups = 1

    def __init__(
        self,
        workload: Workload,
        evaluate_at: Sequence[float] = (1.0,),
        microbatch_sizes: dict[int, int] | None = None,
        devices_per_trial: int = 1,
        devices: Sequence[jax.Device] | None = None,
        workers: int | None = None,
        compute_dtype: str = "float32",
    ) -> None:
        assert workload.feed is not None  # noqa: S101 - others are trained in packs
        self.workload = workload
        self.evaluate_at = tuple(evaluate_at)
        # In the order of the processes, each of which reads a stretch of every microbatch.
        devices = tuple(devices or sorted(jax.devices(), key=lambda device: (device.process_index, device.id)))
        check_devices(devices_per_trial, len(devices))
        self.devices = devices[:devices_per_trial]
        self._compiler = Compiler(self.devices[0].platform)
        self._feed: Feed = workload.feed
        self._microbatch_sizes, self._compute_dtype = microbatch_sizes or {}, compute_dtype
        mesh = Mesh(np.asarray(self.devices), ("batch",), axis_types=(AxisType.Auto,))
        self._by_example = NamedSharding(mesh, PartitionSpec("batch"))
        self._copied = NamedSharding(mesh, PartitionSpec())
        most = max(examples_in(workload.split(name)) for name in SPLITS)
        chunk = min(workload.evaluation_batch_size, most)
        self._chunk = -(-chunk // devices_per_trial) * devices_per_trial
        self._told = tells_each(workload)
        with pinned():
            self._state = check_functions(workload)
        self._machine = of_first(machine().encode()).decode()
        _check_feed(workload)
        self._workers = Workers(self._feed.read, self._feed.layout, workers or _share_of_cores())

    @property
    def compile_times(self) -> list[CompileTime]:
        """What the programs so far took to compile."""
        return self._compiler.compile_times

    @property
    def compiler(self) -> Compiler:
        """What compiles its programs."""
        return self._compiler

    @property
    def circumstances(self) -> str:
        """What the bits of a trial depend on beside its identity."""
        device = device_name(self.devices[0])
        return f"{NUMERICS_VERSION} {jax.__version__} {self._machine} {device} {self.method} {self._feed.circumstances}"

    def expect(self, batch_sizes: Sequence[int]) -> None:
        """Begin to compile what these batch sizes will need, in this order."""
        for batch_size in batch_sizes:
            self.prepare(batch_size)

    def room(self, batch_size: int) -> int:
        """Return how many trials of a batch size are trained together: one."""
        return self.slots

    def size_for(self, trials: int) -> int:
        """Return the slots of the program that trains so many trials: one."""
        return self.slots

    def prepare(self, program: int | Literal["start", "update", "measure"]) -> Future[Any]:
        """Begin to compile the program of a batch size in the background, unless that has been done."""
        if isinstance(program, int):
            program = self._microbatch_sizes.get(program, program)
        return self._compiler.prepare(program, partial(self._compile, program))

    def close(self) -> None:
        """Wait for what is being compiled, drop what is not yet, and end the processes."""
        self._compiler.close()
        self._workers.close()

    def train(
        self,
        trials: Sequence[Trial],
        on_updates: Callable[[int], None] = lambda updates: None,
        checkpoints: Checkpoints | None = None,
    ) -> list[Outcome]:
        """Train one trial.

        Args:
            trials: it alone.
            on_updates: told the number of updates made or spared since it was last told.
            checkpoints: where it goes on from, and is kept every minute.

        Raises:
            InputError: where an example cannot be read.
            WorkerDiedError: where a process that reads has ended.
        """
        (trial,) = trials
        begun = saved = time.perf_counter()
        with pinned():
            settings = self._settings(trial)
            state: State = self.prepare("start").result()(settings)
            before, measurements = 0.0, list[Measurement]()
            correctness: dict[str, bytes] = {}
            kept = None if checkpoints is None else checkpoints.load(trial.id)
            kept = kept if kept is not None and self._fits(kept) else None
            begins = str(0 if kept is None else kept.step)
            alike = {"trial": trial.id, "a feed of": self._feed.circumstances, "a checkpoint of step": begins}
            agree("what they train", alike, "all must see the study's folder as it is, and have the same libraries")
            if kept is not None:
                state = self._put(jax.tree.unflatten(jax.tree.structure(state), kept.leaves))
                before, measurements = kept.seconds, list(kept.measurements)
            step, finite = int(state.step), bool(state.finite)
            made = step
            on_updates(made)
            stops = sorted(steps_at(self.evaluate_at, trial.updates))

            def keep_where_due(state: State, step: int) -> None:
                nonlocal saved
                now = time.perf_counter()
                # An evaluation may take long, so a long training is kept before and after it.
                due = now - saved > CHECKPOINT_SECONDS or (step in stops and now - begun > CHECKPOINT_SECONDS)
                if checkpoints is not None and due and bool(state.finite):
                    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
                    checkpoints.save(trial.id, Checkpoint(leaves, step, measurements, before + now - begun))
                    saved = time.perf_counter()

            def after_update(state: State, step: int) -> None:
                nonlocal made
                on_updates(1)
                made += 1
                keep_where_due(state, step)

            while True:
                if finite and step in stops and all(m.step < step for m in measurements):
                    values = self._measure(state)
                    measurements += [
                        Measurement(step, split, metric, float(value))
                        for split, found in values.items()
                        for metric, value in (("loss", found.loss), ("score", found.score))
                    ]
                    told = {split: found for split, found in values.items() if found.bits is not None}
                    correctness = {s: found.bits.tobytes() for s, found in told.items() if found.zero_or_one}
                    if step < trial.updates:
                        keep_where_due(state, step)
                if step == trial.updates or not finite:
                    break
                end = next(stop for stop in stops if stop > step)
                state = self._advance(trial, settings, state, step, end, after_update)
                step, finite = int(state.step), bool(state.finite)
            curve = np.asarray(state.curve)
        on_updates(trial.updates - made)
        seconds = before + time.perf_counter() - begun
        return [outcome_of(self.workload, trial, step, finite, seconds, curve, measurements, correctness, self.slots)]

    def time_updates(self, batch_size: int) -> float:
        """Return the seconds that an update takes: what the devices need or the host, whichever is longer.

        Timed is a microbatch of the fewest examples that the devices can share, and taken to be in proportion.
        """
        size = self.workload.ghost_batch_size * self.workload.unroll * len(self.devices)
        add = self.prepare(size).result()
        update = self.prepare("update").result()
        self._compiler.settle()
        with pinned():
            settings = self._put(Settings(np.float32(0), np.float32(0), np.uint32(0), np.int32(1)))
            state = self.prepare("start").result()(settings)
            sums = self._no_sums(state)
            placed = self._spread(
                {k: np.zeros((size, *shape), dtype) for k, (shape, dtype) in self._feed.layout.items()}
            )
            took = []
            for _ in range(2):  # the first call is slower
                begun = time.perf_counter()
                sums, loss = add(settings, state.parameters, sums, placed, self._put(np.uint32(0)))
                jax.block_until_ready(loss)
                took.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            jax.block_until_ready(update(settings, state, sums, self._put(np.float32(1))))
            updating = time.perf_counter() - begun
        return max(batch_size * min(took) / size + updating, batch_size * self.seconds_to_read)

    @cached_property
    def seconds_to_read(self) -> float:
        """The seconds an example that the host takes to read, all its processes together: timed when first asked."""
        self._compiler.settle()
        count = PROBED * self._workers.count
        indices = examples_at(0, np.arange(2 * count), examples_in(self.workload.train))
        requests = [(*self._feed.locate("train", int(i)), (0, 0, int(i))) for i in indices]
        list(self._workers.batches([requests[:count]]))  # processes begin
        begun = time.perf_counter()
        list(self._workers.batches([requests[count:]]))  # others, which have not been read just before
        return (time.perf_counter() - begun) / count

    # ── Updates ──────────────────────────────────────────────────────────────────────────────────────────

    def _advance(
        self,
        trial: Trial,
        settings: Settings,
        state: State,
        first: int,
        end: int,
        after_update: Callable[[State, int], None],
    ) -> State:
        """Return the trial after ``end`` updates, or where its loss stopped being finite."""
        add, update = self.prepare(trial.batch_size).result(), self.prepare("update").result()
        parts = trial.batch_size // trial.microbatch_size
        count = self._put(np.float32(parts))
        sums, finite = self._no_sums(state), state.finite
        on_the_way = deque[Any]()
        wanted = (
            self._requests(trial.seed, step * trial.batch_size + part * trial.microbatch_size, trial.microbatch_size)
            for step in range(first, end)
            for part in range(parts)
        )
        with closing(self._workers.batches(wanted)) as batches:
            for step in range(first, end):
                for part in range(parts):
                    position = step * trial.batch_size + part * trial.microbatch_size
                    batch = self._spread(next(batches))
                    sums, loss = add(settings, state.parameters, sums, batch, self._put(np.uint32(position)))
                    on_the_way.append(loss)
                    if len(on_the_way) > AHEAD:
                        jax.block_until_ready(on_the_way.popleft())
                # Whether the update before this was the last is asked only now, so that the devices need not wait.
                if not finite:
                    break
                state, sums, finite = update(settings, state, sums, count)
                after_update(state, step + 1)
        return state

    def _requests(self, seed: int, first: int, count: int) -> list[Request]:
        """Return what this process is to read for a stretch of a trial's stream of examples."""
        positions, examples = np.arange(first, first + count)[_own(count)], examples_in(self.workload.train)
        indices = examples_at(seed, positions, examples)
        return [
            (*self._feed.locate("train", int(index)), (seed, int(position) // examples, int(index)))
            for position, index in zip(positions, indices, strict=True)
        ]

    # ── Evaluation ───────────────────────────────────────────────────────────────────────────────────────

    def _measure(self, state: State) -> dict[str, Evaluation]:
        """Return the evaluation of each whole split, of the held-out ones by example too."""
        return {split: self._evaluate(split, evaluated(self.workload, state)) for split in SPLITS}

    def _evaluate(self, split: str, model: Any) -> Evaluation:
        program, examples = self.prepare("measure").result(), examples_in(self.workload.split(split))
        loss, score = self._put(np.float32(0)), self._put(np.float32(0))
        parts = list[Evaluation]()
        # The last chunk is filled up with repeats of the last example, which count for nothing.
        chunks = [np.arange(first, first + self._chunk)[_own(self._chunk)] for first in range(0, examples, self._chunk)]
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

    # ── Placing, and the programs ────────────────────────────────────────────────────────────────────────

    def _settings(self, trial: Trial) -> Settings:
        placed: Settings = self._put(
            Settings(
                learning_rate=np.float32(trial.learning_rate),
                momentum=np.float32(trial.optimizer.momentum),
                seed=np.uint32(trial.seed),
                updates=np.int32(trial.updates),
            )
        )
        return placed

    def _spread(self, tree: Any) -> Any:
        """Place what this process has read of each example on its devices, as a part of what all have read."""
        return jax.tree.map(lambda a: jax.make_array_from_process_local_data(self._by_example, a), tree)

    def _put(self, tree: Any) -> Any:
        """Place what all processes have alike. To ``device_put`` it would be compared among them each time."""
        return jax.tree.map(lambda a: jax.make_array_from_process_local_data(self._copied, np.asarray(a)), tree)

    def _no_sums(self, state: State) -> Sums:
        gradient = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), state.parameters)
        # A copy, since the sums are taken over by the next ones.
        model = jax.tree.map(np.array, state.model)
        sums: Sums = self._put(Sums(np.float32(0), gradient, model))
        return sums

    def _fits(self, kept: Checkpoint) -> bool:
        shapes = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(self._state)]
        return [(leaf.shape, leaf.dtype) for leaf in kept.leaves] == shapes

    def _compile(self, program: int | str) -> Any:
        settings = Settings(
            *(jax.ShapeDtypeStruct((), dtype) for dtype in (jnp.float32, jnp.float32, jnp.uint32, jnp.int32))
        )
        number = jax.ShapeDtypeStruct((), jnp.float32)
        sums = Sums(number, self._state.parameters, self._state.model)
        copied, split = self._copied, self._by_example
        # What is taken over by the next call rather than copied.
        donated: tuple[int, ...] = ()
        if program == "start":
            body: Callable[..., Any] = lambda settings: start(self.workload, settings)
            arguments: Any = (settings,)
            shardings: Any = (copied,)
        elif program == "update":
            body, donated = self._update, (1, 2)
            arguments = (settings, self._state, sums, number)
            shardings = (copied,) * 4
        elif program == "measure":
            body = self._add_chunk
            model = evaluated(self.workload, self._state)
            counts = jax.ShapeDtypeStruct((self._chunk,), jnp.bool_)
            arguments = (model, self._examples(self._chunk), counts, number, number)
            shardings = (copied, split, split, copied, copied)
        else:
            body, donated = self._add_microbatch, (2,)
            position = jax.ShapeDtypeStruct((), jnp.uint32)
            arguments = (settings, self._state.parameters, sums, self._examples(int(program)), position)
            shardings = (copied, copied, copied, split, copied)
        jitted = jax.jit(body, in_shardings=shardings, out_shardings=copied, donate_argnums=donated)
        name = f"microbatch size {program}" if isinstance(program, int) else program
        return self._compiler.compile(name, lambda: jitted.lower(*arguments), quickly=program == "start")

    def _examples(self, n: int) -> dict[str, jax.ShapeDtypeStruct]:
        return {key: jax.ShapeDtypeStruct((n, *shape), dtype) for key, (shape, dtype) in self._feed.layout.items()}

    def _add_microbatch(
        self, settings: Settings, parameters: Any, sums: Sums, batch: Any, first: jax.Array
    ) -> tuple[Sums, jax.Array]:
        count = len(next(iter(batch.values())))
        keys = training_keys(self.workload, settings.seed, first + jnp.arange(count, dtype=jnp.uint32))
        gradient_of = loss_and_gradient(self.workload, self._compute_dtype)
        (loss, model), gradient = gradient_of(parameters, sums.model, batch, keys)
        return Sums(sums.loss + loss, jax.tree.map(jnp.add, sums.gradient, gradient), model), loss

    def _update(self, settings: Settings, state: State, sums: Sums, parts: jax.Array) -> tuple[State, Sums, jax.Array]:
        gradient = jax.tree.map(lambda g: g / parts, sums.gradient)
        after = descended(self.workload, settings, state, sums.loss / parts, gradient, sums.model)
        more = goes_on(settings.updates, state)
        state = jax.tree.map(lambda new, old: jnp.where(more, new, old), after, state)
        return state, Sums(jnp.float32(0), zeros(gradient), state.model), state.finite

    def _add_chunk(self, model: Any, batch: Any, counts: jax.Array, loss: jax.Array, score: jax.Array) -> Evaluation:
        part = of_chunk(self.workload, model, batch, counts, self._told)
        return part._replace(loss=loss + part.loss, score=score + part.score)


def _check_feed(workload: Workload) -> None:
    """Do nothing.

    Raises:
        InputError: where the processes cannot be sent what reads the examples of a feed, or it gives something else
            than the layout says.
    """
    feed = workload.feed
    assert feed is not None  # noqa: S101 - it is asked of workloads with one
    try:
        pickle.dumps(feed.read)
    except Exception as error:  # whatever an object of the user's raises when it is asked
        raise InputError(
            f"workload {workload.name!r}: the feed's read cannot be sent to the processes that read ({error}); define "
            f"it at the top of a module of its own that can be imported."
        ) from error
    place = feed.locate("train", 0)
    for visit in ((0, 0, 0), None):
        check_example(feed.read(*place, visit), feed.layout)


def _share_of_cores() -> int:
    """Return how many processes may read here: those of JAX's that may use the same cores share them."""
    where = f"{platform.node()} {sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else ''}"
    return max(1, cores() // of_each(where).count(where))


def _own(count: int) -> slice:
    """Return which of so many examples are this process's to read: those that its devices take."""
    each = count // jax.process_count()
    return slice(jax.process_index() * each, (jax.process_index() + 1) * each)
