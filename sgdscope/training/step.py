"""One trial as pure functions: how it starts, how it is updated, and what is measured of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from sgdscope.optimizers import Optimizer, Oracle
from sgdscope.schedules import Schedule
from sgdscope.study import Trial
from sgdscope.training.curvature import dense_layers, kronecker_factors
from sgdscope.training.evaluate import Evaluation, evaluate
from sgdscope.training.precision import products_in_bfloat16
from sgdscope.training.sampling import init_key, microbatch_at, update_key, updates_per_epoch
from sgdscope.workloads.base import Batch, Workload, examples_in

# A training curve is the mean minibatch loss of each fiftieth of the budget.
CURVE_POINTS = 50


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Settings:
    """The array arguments of a trial, or of a pack: one program serves every value of them."""

    learning_rate: Any  # ε, float32
    coefficients: Any  # the optimizer's numbers by name, float32
    seed: Any  # uint32
    updates: Any  # T, int32; 0 for a slot without a trial


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """A trial between two updates.

    Where a loss was not finite the trial ends: ``step`` counts the updates before it, and the parameters are useless.
    """

    parameters: Any
    optimizer: Any  # the optimizer's state
    model: Any  # the workload's state, or what its streams carry; () where there is neither
    curve: Any  # sums of minibatch losses over each stretch of the budget, float32 (CURVE_POINTS,)
    step: Any  # updates made, int32
    finite: Any  # False once a loss was not finite: the trial has diverged


@dataclass(frozen=True)
class Kind:
    """What trials have in common that one program trains."""

    batch_size: int
    microbatch_size: int
    optimizer: Optimizer  # the rule, whose numbers are arguments
    schedule: Schedule

    @classmethod
    def of(cls, trial: Trial) -> Kind:
        """Return the kind of a trial."""
        return cls(trial.batch_size, trial.microbatch_size, trial.optimizer.rule, trial.schedule)


@dataclass(frozen=True)
class Recipe:
    """What makes an update of a workload, whatever the trial."""

    workload: Workload
    kind: Kind
    compute_dtype: str = "float32"


def start(workload: Workload, optimizer: Optimizer, settings: Settings) -> State:
    """Return a trial before its first update; zeros in a slot without one.

    What streams carry is left out: its shape is the batch's, and it begins anew with the first update.
    """

    def begin(key: Any) -> tuple[Any, Any]:
        return workload.init(key), () if workload.init_state is None else workload.init_state()

    key = init_key(settings.seed)
    nothing = zeros(jax.eval_shape(begin, key))
    parameters, model = jax.lax.cond(settings.updates > 0, begin, lambda _: nothing, key)
    curve = jnp.zeros(CURVE_POINTS, jnp.float32)
    rule = prepared(workload, optimizer)
    return State(parameters, rule.init(parameters), model, curve, jnp.int32(0), jnp.bool_(True))


def prepared(workload: Workload, optimizer: Optimizer) -> Optimizer:
    """Return an optimizer with what it must know of a workload."""
    return optimizer.prepared(partial(dense_layers, workload))


Advance = Callable[[State], State]
T = TypeVar("T")


def repeated(advance: Callable[[T], T], goes_on: Callable[[T], Any], state: T) -> T:
    """Return a state, of a trial or of an estimate beside training, advanced for as long as it goes on."""
    advanced: T = jax.lax.while_loop(goes_on, advance, state)
    return advanced


def once(advance: Callable[[T], T], goes_on: Callable[[T], Any], state: T) -> T:
    """Return a state advanced by one step if it goes on: without a loop around the gradient."""
    advanced: T = jax.tree.map(partial(jnp.where, goes_on(state)), advance(state), state)
    return advanced


def goes_on(end: Any, state: State) -> Any:
    """Return whether a trial makes another update."""
    return (state.step < end) & state.finite


def one_update(
    recipe: Recipe, train_split: Batch, settings: Settings, spread: Callable[[Any], Any] = lambda tree: tree
) -> Advance:
    """Return the function that makes one update of a trial.

    Args:
        recipe: the workload, its batch size, optimizer and schedule. The gradient of a batch is the mean of those of
            its microbatches, which come one after the other.
        train_split: the arrays of the training split.
        settings: what makes it this trial.
        spread: places a tree of arrays, by their first axis, on the devices that share the trial.
    """
    workload, batch_size, size = recipe.workload, recipe.kind.batch_size, recipe.kind.microbatch_size
    gradient_of = loss_and_gradient(workload, recipe.compute_dtype)

    def of_microbatch(parameters: Any, model: Any, step: Any, number: jax.Array) -> tuple[Any, Any, Any]:
        batch, keys = microbatch_at(workload, train_split, settings.seed, step, number, (batch_size, size))
        (loss, model), gradient = gradient_of(parameters, model, spread(batch), keys)
        return loss, gradient, model

    def add_microbatch(parameters: Any, step: Any, number: jax.Array, sums: tuple[Any, Any, Any]) -> Any:
        loss, gradient, model = sums
        # Each microbatch moves its own streams on, but all of them the one state of a model, in turn.
        part, place = model, jnp.int32(0)
        if workload.streams is not None:
            streams = size // workload.unroll
            place = number * streams
            part = jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, place, streams), model)
        more_loss, more_gradient, part = of_microbatch(parameters, part, step, number)
        if workload.streams is not None:
            part = jax.tree.map(lambda a, b: jax.lax.dynamic_update_slice_in_dim(a, b, place, axis=0), model, part)
        return loss + more_loss, jax.tree.map(jnp.add, gradient, more_gradient), part

    def of_batch(state: State, parameters: Any) -> tuple[Any, Any, Any]:
        """Return the loss, the gradient and the model's next state at any parameters."""
        model = state.model
        if workload.streams is not None:
            first = state.step % updates_per_epoch(workload, batch_size) == 0
            fresh = workload.streams.carry(batch_size // workload.unroll)
            model = spread(jax.tree.map(lambda a, b: jnp.where(first, a, b), fresh, model))
        if size == batch_size:
            return of_microbatch(parameters, model, state.step, jnp.int32(0))
        parts = batch_size // size
        sums = (jnp.float32(0), jax.tree.map(jnp.zeros_like, parameters), model)
        add = lambda number, sums: add_microbatch(parameters, state.step, number, sums)
        loss, gradient, model = jax.lax.fori_loop(0, parts, add, sums)
        return loss / parts, jax.tree.map(lambda g: g / parts, gradient), model

    def over_parts(state: State, most: int, function: Callable[..., Any]) -> Any:
        """Return the mean of ``function(model, batch, keys)`` over equal parts of the batch."""
        size = part_of(batch_size, most, workload.ghost_batch_size * workload.unroll)

        def of_part(number: jax.Array) -> Any:
            batch, keys = microbatch_at(workload, train_split, settings.seed, state.step, number, (batch_size, size))
            return function(state.model, spread(batch), keys)

        if size == batch_size:
            return of_part(jnp.int32(0))
        nothing = zeros(jax.eval_shape(of_part, jnp.int32(0)))
        add = lambda number, total: jax.tree.map(jnp.add, total, of_part(number))
        total = jax.lax.fori_loop(0, batch_size // size, add, nothing)
        return jax.tree.map(lambda a: a / (batch_size // size), total)

    def over_blocks(state: State, most: int, function: Callable[[Callable[[Any], Any]], Any]) -> Any:
        def of_block(model: Any, batch: Batch, keys: Any) -> Any:
            return function(lambda p: jax.grad(mean_loss(workload), has_aux=True)(p, model, batch, keys)[0])

        return over_parts(state, most, in_dtype(of_block, recipe.compute_dtype))

    def curvature(state: State, key: Any, parameters: Any) -> Any:
        return over_parts(state, size, partial(kronecker_factors, workload, key, parameters))

    def uniform_gradient(state: State, parameters: Any) -> Any:
        def of_part(model: Any, batch: Batch, keys: Any) -> Any:
            uniform: Callable[..., Any] = workload.uniform_loss  # type: ignore[assignment]
            return jax.grad(lambda p: uniform(p, model, batch).astype(jnp.float32).mean())(parameters)

        return over_parts(state, size, in_dtype(of_part, recipe.compute_dtype))

    def advance(state: State) -> State:
        loss, gradient, model = of_batch(state, state.parameters)
        key = update_key(settings.seed, state.step)
        ask = Oracle(
            gradient=lambda parameters: penalized(workload, parameters, of_batch(state, parameters)[1]),
            full_gradient=partial(full_gradient, recipe, train_split, settings.seed, state),
            over_blocks=partial(over_blocks, state),
            curvature=partial(curvature, state, key),
            uniform_gradient=partial(uniform_gradient, state),
            key=key,
            step=state.step,
            updates=settings.updates,
            batch_size=batch_size,
            examples=examples_in(train_split),
        )
        return descended(recipe, settings, state, loss, gradient, model, ask)

    return advance


def part_of(batch_size: int, most: int, multiple: int) -> int:
    """Return the size of the largest equal parts of a batch of at most so many examples, in whole multiples.

    Where there are none, it is the multiple itself, or the whole batch where that is no multiple.

    >>> part_of(256, 128, 1), part_of(96, 40, 1), part_of(64, 16, 32)
    (128, 32, 32)
    """
    sizes = [size for size in range(multiple, batch_size + 1, multiple) if batch_size % size == 0]
    return max((size for size in sizes if size <= most), default=sizes[0] if sizes else batch_size)


def descended(
    recipe: Recipe, settings: Settings, state: State, loss: Any, gradient: Any, model: Any, ask: Oracle
) -> State:
    """Return a trial after an update by its batch's loss, gradient without the penalty's, and next model state."""
    kind = recipe.kind
    gradient = penalized(recipe.workload, state.parameters, gradient)
    finite = jnp.isfinite(loss)
    rate = settings.learning_rate * kind.schedule.factor(state.step, settings.updates)
    parameters, optimizer = prepared(recipe.workload, kind.optimizer).update(
        gradient, state.optimizer, state.parameters, rate, settings.coefficients, ask
    )
    stretch = state.step * jnp.minimum(CURVE_POINTS, settings.updates) // settings.updates
    curve = state.curve.at[stretch].add(jnp.where(finite, loss, 0.0))
    return State(parameters, optimizer, model, curve, state.step + finite.astype(jnp.int32), finite)


def penalized(workload: Workload, parameters: Any, gradient: Any) -> Any:
    """Return a gradient with that of the workload's penalty added, where it has one."""
    if workload.penalty is None:
        return gradient
    return jax.tree.map(jnp.add, gradient, jax.grad(workload.penalty)(parameters))


def full_gradient(recipe: Recipe, train_split: Batch, seed: Any, state: State, parameters: Any) -> Any:
    """Return the gradient of the mean training loss of all N examples, and of the penalty.

    The examples come as in the epoch in which the trial's next batch begins, with its order, augmentation and random
    numbers, in chunks of whole ghost batches; what fills up the last chunk counts for nothing.
    """
    workload = recipe.workload
    examples, ghost = examples_in(train_split), workload.ghost_batch_size
    size = min(max(1, workload.evaluation_batch_size // ghost), -(-examples // ghost)) * ghost
    first = state.step.astype(jnp.uint32) * jnp.uint32(recipe.kind.batch_size)
    epoch = first // jnp.uint32(examples)

    def of_chunk(parameters: Any, number: jax.Array) -> jax.Array:
        batch, keys = microbatch_at(workload, train_split, seed, epoch, number, (examples, size))
        if workload.training_loss is None:
            losses = workload.loss(parameters, state.model, batch)
        else:
            losses, _ = workload.training_loss(parameters, state.model, batch, keys)
        counts = number * size + jnp.arange(size) < examples
        return jnp.where(counts, losses.astype(jnp.float32), 0.0).sum()

    gradient_of = in_dtype(jax.grad(of_chunk), recipe.compute_dtype)

    def add_chunk(number: jax.Array, total: Any) -> Any:
        return jax.tree.map(jnp.add, total, gradient_of(parameters, number))

    total = jax.lax.fori_loop(0, -(-examples // size), add_chunk, jax.tree.map(jnp.zeros_like, parameters))
    return penalized(workload, parameters, jax.tree.map(lambda g: g / examples, total))


def loss_and_gradient(workload: Workload, compute_dtype: str) -> Callable[..., Any]:
    """Return ``(parameters, state, batch, keys) -> ((mean training loss, state), gradient)``, in these products."""
    return in_dtype(jax.value_and_grad(mean_loss(workload), has_aux=True), compute_dtype)


def in_dtype(function: Callable[..., Any], compute_dtype: str) -> Callable[..., Any]:
    """Return a function, which is not differentiated any more, with its products in these numbers."""
    return products_in_bfloat16(function) if compute_dtype == "bfloat16" else function


def mean_loss(workload: Workload) -> Callable[[Any, Any, Any, Any], tuple[Any, Any]]:
    """Return ``(parameters, state, batch, keys) -> (mean training loss, state)`` of a workload."""

    def mean(parameters: Any, state: Any, batch: Batch, keys: Any) -> tuple[Any, Any]:
        if workload.training_loss is None:
            return workload.loss(parameters, state, batch).astype(jnp.float32).mean(), state
        losses, state = workload.training_loss(parameters, state, batch, keys)
        return losses.astype(jnp.float32).mean(), state

    return mean


def measure(workload: Workload, splits: dict[str, Batch], model: Any, wanted: jax.Array) -> dict[str, Evaluation]:
    """Return the evaluation of each whole split, of the held-out ones by example too; zeros where nothing is wanted."""

    def measured(model: Any) -> dict[str, Evaluation]:
        return {name: evaluate(workload, model, split, name != "train") for name, split in splits.items()}

    nothing = zeros(jax.eval_shape(measured, model))
    values: dict[str, Evaluation] = jax.lax.cond(wanted, measured, lambda _: nothing, model)
    return values


def evaluated(workload: Workload, parameters: Any, model: Any) -> tuple[Any, Any]:
    """Return what an evaluation gives to ``loss`` and ``score``: the parameters and the model's state.

    What streams carry is no state of the model's: an evaluation reads each text from a fresh start.
    """
    return parameters, () if workload.init_state is None else model


def stretches(updates: int) -> list[tuple[int, int]]:
    """Return the first update and the one after the last of each stretch of a training curve.

    >>> stretches(3), stretches(100)[:2], stretches(100)[-1], len(stretches(101))
    ([(0, 1), (1, 2), (2, 3)], [(0, 2), (2, 4)], (98, 100), 50)
    """
    points = min(CURVE_POINTS, updates)
    bounds = [-(-number * updates // points) for number in range(points + 1)]
    return list(pairwise(bounds))


def zeros(shapes: Any) -> Any:
    """Return a tree of zeros of these shapes, in numpy's or JAX's types."""
    return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)


def state_bytes(shapes: Any) -> int:
    """Return the bytes of a tree of arrays or shapes."""
    return int(sum(np.prod(a.shape, dtype=np.int64) * np.dtype(a.dtype).itemsize for a in jax.tree.leaves(shapes)))
