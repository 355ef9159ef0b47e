"""The training loop: a pack of trials trained together as one program on the devices of one machine."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sgdscope.data.order import example_at
from sgdscope.errors import InputError
from sgdscope.optimizers import update
from sgdscope.schedules import halving
from sgdscope.study import Trial
from sgdscope.training.evaluate import evaluate
from sgdscope.training.runtime import COMPILER_OPTIONS, QUICKLY_COMPILED, pinned
from sgdscope.training.state import Settings, State
from sgdscope.workloads.base import SPLITS, Batch, Workload

Method = Literal["map", "vmap"]

# A segment is one call of the program: long enough to cost nothing, short enough that progress shows and that
# an interrupt is heard.
SEGMENT_SECONDS = 0.5
FIRST_SEGMENT_STEPS = 16
MOST_PROBED = 2**16
SLOTS_PER_DEVICE = 32
STATE_BYTES = 2**30


# ── One trial ────────────────────────────────────────────────────────────────────────────────────────────


def start(workload: Workload, settings: Settings) -> State:
    """Return a trial before its first update; zeros in a slot without one."""
    init_key, _ = jax.random.split(jax.random.key(settings.seed))
    nothing = _zeros(jax.eval_shape(workload.init, init_key))
    parameters = jax.lax.cond(settings.updates > 0, workload.init, lambda _: nothing, init_key)
    return State(parameters, jax.tree.map(jnp.zeros_like, parameters), jnp.int32(0), jnp.bool_(True))


def train(
    workload: Workload, batch_size: int, train_split: Batch, settings: Settings, state: State, end: jax.Array
) -> State:
    """Return the trial after ``end`` updates, or where its loss stopped being finite.

    The update whose loss is not finite is not made: ``step`` is then the number of updates that were.
    """
    examples = len(next(iter(train_split.values())))
    augment_key: Any = None if workload.augment is None else jax.random.split(jax.random.key(settings.seed))[1]

    def batch_at(step: jax.Array) -> Batch:
        position = step.astype(jnp.uint32) * jnp.uint32(batch_size) + jnp.arange(batch_size, dtype=jnp.uint32)
        index = example_at(settings.seed, position, examples)
        batch = {key: array[index] for key, array in train_split.items()}
        if workload.augment is None:
            return batch
        keys = jax.vmap(partial(jax.random.fold_in, augment_key))(position)
        augmented: Batch = jax.vmap(workload.augment)(keys, batch)
        return augmented

    def mean_loss(parameters: Any, batch: Batch) -> jax.Array:
        mean: jax.Array = workload.loss(parameters, batch).astype(jnp.float32).mean()
        return mean

    def one_update(state: State) -> State:
        loss, gradient = jax.value_and_grad(mean_loss)(state.parameters, batch_at(state.step))
        finite = jnp.isfinite(loss)
        # A rate of 0 would leave NaN where the gradient is NaN, so the old tree is kept by choice.
        rate = settings.learning_rate * halving(state.step, settings.updates)
        parameters, velocity = update(state.parameters, state.velocity, gradient, rate, settings.momentum)
        return State(parameters, velocity, state.step + finite.astype(jnp.int32), finite)

    return jax.lax.while_loop(lambda state: (state.step < end) & state.finite, one_update, state)


def measure(workload: Workload, splits: dict[str, Batch], state: State, wanted: jax.Array) -> dict[str, Any]:
    """Return (loss, score) on each whole split; zeros where nothing is wanted."""

    def measured(parameters: Any) -> dict[str, Any]:
        return {name: evaluate(workload, parameters, split) for name, split in splits.items()}

    nothing = _zeros(jax.eval_shape(measured, state.parameters))
    values: dict[str, Any] = jax.lax.cond(wanted, measured, lambda _: nothing, state.parameters)
    return values


def _zeros(shapes: Any) -> Any:
    return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)


# ── Many trials ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Measurement:
    """One number: what came out of a trial at a step."""

    step: int
    split: str
    metric: str
    value: float


@dataclass(frozen=True)
class Outcome:
    """What became of one trial of a pack."""

    trial: Trial
    steps: int
    diverged: bool
    seconds: float
    measurements: list[Measurement]


@dataclass(frozen=True)
class CompileTime:
    """The seconds that one program took to be traced, and to be compiled or loaded from the cache."""

    program: str
    trace: float
    compile: float


class Trainer:
    """Trains packs of one workload's trials, and keeps the compiled programs: one for each batch size.

    A program's shape is fixed: the number of slots and devices. A slot without a trial has no updates to make.
    The devices split the slots among them; each runs its own one after the other (``map``, which gives bit
    for bit what each trial gives alone), or all at once (``vmap``, for a GPU).

    Args:
        workload: the model and its data, which are copied to every device.
        evaluate_at: the fractions of the budget at which whole splits are evaluated.
        devices: JAX's devices; all of the default backend unless told otherwise.
        method: ``map`` or ``vmap``; by the kind of device unless told otherwise.
        slots: slots per device; as many as memory allows, at most 32, unless told otherwise.
    """

    def __init__(
        self,
        workload: Workload,
        evaluate_at: Sequence[float] = (1.0,),
        devices: Sequence[jax.Device] | None = None,
        method: Method | None = None,
        slots: int | None = None,
    ) -> None:
        self.workload = workload
        self.evaluate_at = tuple(evaluate_at)
        self.devices = tuple(devices or jax.devices())
        self.platform = self.devices[0].platform
        self.method: Method = method or ("map" if self.platform == "cpu" else "vmap")
        self.compile_times: list[CompileTime] = []
        self._mesh = jax.make_mesh((len(self.devices),), ("trial",), axis_types=(AxisType.Auto,), devices=self.devices)
        self._by_trial = NamedSharding(self._mesh, PartitionSpec("trial"))
        self._copied = NamedSharding(self._mesh, PartitionSpec())
        self._programs: dict[int | str, Future[Any]] = {}
        self._lock = threading.Lock()
        self._compiler = ThreadPoolExecutor(max_workers=1, thread_name_prefix="compile")
        with pinned():
            self._state = check_functions(workload)
            bytes_a_trial = 2 * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self._state))
            self._slots = len(self.devices) * (
                slots or max(1, min(SLOTS_PER_DEVICE, STATE_BYTES // max(1, bytes_a_trial * len(self.devices))))
            )
            self._splits = {
                name: {
                    key: jax.device_put(np.asarray(array), self._copied) for key, array in workload.split(name).items()
                }
                for name in SPLITS
            }
        self.prepare("start")
        self.prepare("measure")

    @property
    def slots(self) -> int:
        """The number of trials that fit in one pack."""
        return self._slots

    def prepare(self, program: int | Literal["start", "measure"]) -> Future[Any]:
        """Begin to compile the program of a batch size in the background, unless that has been done."""
        with self._lock:
            if program not in self._programs:
                self._programs[program] = self._compiler.submit(self._compile, program)
            return self._programs[program]

    def close(self) -> None:
        """Wait for what is being compiled, and drop what is not yet."""
        self._compiler.shutdown(cancel_futures=True)

    def train(self, trials: Sequence[Trial], on_updates: Callable[[int], None] = lambda updates: None) -> list[Outcome]:
        """Train trials of one batch size and budget, at most as many as there are slots.

        Args:
            trials: in any order; which of them share a device does not change their numbers.
            on_updates: told the number of updates made or spared since it was last told.
        """
        batch_size, updates = trials[0].batch_size, trials[0].updates
        if len(trials) > self.slots or any((t.batch_size, t.updates) != (batch_size, updates) for t in trials):
            raise ValueError("a pack holds trials of one batch size and number of updates, and no more than its slots")
        program, begin, measure_all = (self.prepare(name).result() for name in (batch_size, "start", "measure"))
        begun = time.perf_counter()
        slot_of = self._deal(trials)
        with pinned():
            settings = self._settings(trials, slot_of)
            active = np.asarray(settings.updates) > 0
            state: State = begin(settings)
            measured: list[tuple[int, Any]] = []
            for end in self._segments(updates):
                before = np.asarray(state.step).sum()
                ends = jax.device_put(np.where(active, end, 0).astype(np.int32), self._by_trial)
                state = jax.block_until_ready(program(self._splits["train"], settings, state, ends))
                on_updates(int(np.asarray(state.step).sum() - before))
                if end in self._evaluation_steps(updates):
                    wanted = jax.device_put(active & np.asarray(state.finite), self._by_trial)
                    values = measure_all(self._splits, state, wanted)
                    measured.append((end, jax.tree.map(np.asarray, values)))
                if not np.asarray(state.finite)[active].any():
                    break
        steps, finite = np.asarray(state.step), np.asarray(state.finite)
        on_updates(sum(updates - int(steps[slot]) for slot in slot_of))
        total = max(1, int(steps[slot_of].sum()))
        seconds = time.perf_counter() - begun
        return [
            _outcome(trial, slot, int(steps[slot]), bool(finite[slot]), seconds * int(steps[slot]) / total, measured)
            for trial, slot in zip(trials, slot_of, strict=True)
        ]

    def time_updates(self, batch_size: int, seconds: float = 0.15) -> float:
        """Return the seconds that one update of one trial takes in a full pack, from a short timed run."""
        program = self.prepare(batch_size).result()
        with pinned():
            zeros = np.zeros(self.slots, np.float32)
            many = np.full(self.slots, 2**26, np.int32)
            settings = jax.device_put(
                Settings(zeros, zeros, np.arange(self.slots, dtype=np.uint32), many), self._by_trial
            )
            state = self.prepare("start").result()(settings)
            done, steps, took = 0, 1, 0.0
            # A loss that is never finite makes no update, however many are asked for.
            while took < seconds and steps <= MOST_PROBED:
                done += steps
                ends = jax.device_put(np.full(self.slots, done, np.int32), self._by_trial)
                begun = time.perf_counter()
                state = jax.block_until_ready(program(self._splits["train"], settings, state, ends))
                took = time.perf_counter() - begun
                per_update = took / (steps * self.slots)
                steps *= 2
        return per_update

    def _segments(self, updates: int) -> Iterator[int]:
        """Yield the steps at which control comes back: at each evaluation, and every half second."""
        stops = self._evaluation_steps(updates)
        step, length, told = 0, FIRST_SEGMENT_STEPS, time.perf_counter()
        while step < updates:
            end = min(step + length, next(stop for stop in stops if stop > step))
            yield end
            now = time.perf_counter()
            speed = (end - step) / max(now - told, 1e-9)
            length = int(max(FIRST_SEGMENT_STEPS, min(8 * length, speed * SEGMENT_SECONDS)))
            step, told = end, now

    def _evaluation_steps(self, updates: int) -> list[int]:
        return sorted({max(1, round(fraction * updates)) for fraction in self.evaluate_at})

    def _deal(self, trials: Sequence[Trial]) -> list[int]:
        """Give each trial a slot, neighbouring learning rates on different devices, so that diverging ones spread."""
        order = sorted(
            range(len(trials)), key=lambda i: (trials[i].seed, trials[i].optimizer.momentum, trials[i].learning_rate)
        )
        per_device = self.slots // len(self.devices)
        slot_of = [0] * len(trials)
        for place, i in enumerate(order):
            slot_of[i] = place % len(self.devices) * per_device + place // len(self.devices)
        return slot_of

    def _settings(self, trials: Sequence[Trial], slot_of: Sequence[int]) -> Settings:
        def filled(values: list[Any], dtype: Any) -> np.ndarray:
            array = np.zeros(self.slots, dtype)
            array[list(slot_of)] = values
            return array

        settings = Settings(
            learning_rate=filled([trial.learning_rate for trial in trials], np.float32),
            momentum=filled([trial.optimizer.momentum for trial in trials], np.float32),
            seed=filled([trial.seed for trial in trials], np.uint32),
            updates=filled([trial.updates for trial in trials], np.int32),
        )
        placed: Settings = jax.device_put(settings, self._by_trial)
        return placed

    def _compile(self, program: int | str) -> Any:
        def each(function: Callable[..., Any]) -> Callable[..., Any]:
            return (
                jax.vmap(function) if self.method == "vmap" else lambda *args: jax.lax.map(lambda a: function(*a), args)
            )

        train_split, trial, copied = self._splits["train"], PartitionSpec("trial"), PartitionSpec()
        state = jax.tree.map(lambda a: self._shape(a.shape, a.dtype), self._state)
        settings = Settings(*(self._shape((), dtype) for dtype in (np.float32, np.float32, np.uint32, np.int32)))
        if program == "start":
            body: Callable[..., Any] = lambda settings: each(partial(start, self.workload))(settings)
            specs: Any = (trial,)
            arguments: Any = (settings,)
        elif program == "measure":
            body = lambda splits, state, wanted: each(partial(measure, self.workload, splits))(state, wanted)
            specs = (copied, trial, trial)
            arguments = (self._splits, state, self._shape((), np.bool_))
        else:
            body = lambda split, settings, state, end: each(partial(train, self.workload, int(program), split))(
                settings, state, end
            )
            specs = (copied, trial, trial, trial)
            arguments = (train_split, settings, state, self._shape((), np.int32))
        # The state of a pack is taken over by the next segment rather than copied.
        donated = (2,) if isinstance(program, int) else ()
        begun = time.perf_counter()
        with pinned():
            sharded = jax.shard_map(body, mesh=self._mesh, in_specs=specs, out_specs=trial, check_vma=False)
            lowered = jax.jit(sharded, donate_argnums=donated).lower(*arguments)
            traced = time.perf_counter()
            options = dict(COMPILER_OPTIONS[self.platform])
            if self.platform == "cpu" and not isinstance(program, int):
                options |= QUICKLY_COMPILED
            compiled = lowered.compile(compiler_options=options)
        name = f"batch size {program}" if isinstance(program, int) else program
        self.compile_times.append(CompileTime(name, traced - begun, time.perf_counter() - traced))
        return compiled

    def _shape(self, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((self.slots, *shape), dtype, sharding=self._by_trial)


def _outcome(
    trial: Trial, slot: int, steps: int, finite: bool, seconds: float, measured: list[tuple[int, Any]]
) -> Outcome:
    measurements = [
        Measurement(step, split, metric, float(value[slot]))
        for step, values in measured
        if step <= steps
        for split, pair in values.items()
        for metric, value in zip(("loss", "score"), pair, strict=True)
    ]
    # A last update may overflow what the loss before it did not show.
    bad = next((m.step for m in measurements if not np.isfinite(m.value)), None)
    if bad is not None:
        return Outcome(trial, bad, True, seconds, [m for m in measurements if m.step < bad])
    return Outcome(trial, steps, not finite, seconds, measurements)


# ── The user's functions ─────────────────────────────────────────────────────────────────────────────────


def check_functions(workload: Workload) -> State:
    """Return the shapes of a trial's state, and refuse functions whose shapes are not the contract's.

    Raises:
        InputError: where ``init``, ``loss``, ``score`` or ``augment`` fails or returns another shape.
    """
    zero = Settings(jnp.float32(0), jnp.float32(0), jnp.uint32(0), jnp.int32(0))
    state: State = _traced(workload, "init", partial(start, workload), zero)
    leaves = jax.tree.leaves(state.parameters)
    if not leaves or any(leaf.dtype != jnp.float32 for leaf in leaves):
        raise InputError(f"workload {workload.name!r}: init must return a tree of float32 arrays.")
    batch = _batch_shape(workload, 7)
    if workload.augment is not None:
        example = {key: jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for key, a in batch.items()}
        augmented = _traced(workload, "augment", workload.augment, jax.random.key(0), example)
        if jax.tree.map(lambda a: a.shape, augmented) != jax.tree.map(lambda a: a.shape, example):
            raise InputError(f"workload {workload.name!r}: augment must return an example of the same shapes.")
    for name, function in (("loss", workload.loss), ("score", workload.score)):
        value = _traced(workload, name, function, state.parameters, batch)
        if getattr(value, "shape", None) != (7,):
            raise InputError(
                f"workload {workload.name!r}: {name} must return one number for each example, shape (n,), but "
                f"returns shape {getattr(value, 'shape', type(value).__name__)} for a batch of n = 7."
            )
    return state


def fingerprint(workload: Workload) -> str:
    """Return a hash of the traced functions of a workload and of the loss's gradient, constants included.

    It tells whether a workload of the same name and version still computes the same; it depends on the version
    of JAX, which writes the same function down differently.
    """
    digest = hashlib.sha256()

    def mean_loss(parameters: Any, batch: Batch) -> jax.Array:
        mean: jax.Array = workload.loss(parameters, batch).mean()
        return mean

    with pinned():
        key, state = jax.random.key(0), check_functions(workload)
        calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [(workload.init, (key,))]
        for n in (2, 7):
            batch = _batch_shape(workload, n)
            calls += [(function, (state.parameters, batch)) for function in (jax.grad(mean_loss), workload.loss)]
            calls.append((workload.score, (state.parameters, batch)))
        if workload.augment is not None:
            calls.append(
                (workload.augment, (key, {k: jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for k, a in batch.items()}))
            )
        for function, arguments in calls:
            traced = jax.make_jaxpr(function)(*arguments)
            digest.update(re.sub(r"0x[0-9a-f]+", "0x", str(traced)).encode())
            for constant in _constants(traced):
                digest.update(np.asarray(constant).tobytes())
    return digest.hexdigest()[:16]


def _constants(traced: Any) -> Iterator[Any]:
    """Yield the constants of a traced function and of all the functions traced inside it."""
    yield from getattr(traced, "consts", ())
    for equation in getattr(traced, "jaxpr", traced).eqns:
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            if hasattr(value, "eqns"):
                yield from _constants(value)


def _batch_shape(workload: Workload, n: int) -> dict[str, jax.ShapeDtypeStruct]:
    return {
        key: jax.ShapeDtypeStruct((n, *np.shape(array)[1:]), jax.dtypes.canonicalize_dtype(np.asarray(array).dtype))
        for key, array in workload.train.items()
    }


def _traced(workload: Workload, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return jax.eval_shape(function, *arguments)
    except Exception as error:
        first_line = (str(error).strip() or repr(error)).splitlines()[0]
        raise InputError(
            f"workload {workload.name!r}: {name} cannot be traced by JAX: {type(error).__name__}: {first_line}"
        ) from error
