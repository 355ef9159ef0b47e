"""One trial as pure functions: how it starts, how it trains, and what is measured of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgdscope.optimizers import update
from sgdscope.schedules import halving
from sgdscope.training.batches import begins_epoch, init_key, microbatch_at
from sgdscope.training.evaluate import Evaluation, evaluate
from sgdscope.training.precision import products_in_bfloat16
from sgdscope.training.state import Settings, State
from sgdscope.workloads.base import Batch, Workload

# A training curve is the mean minibatch loss of each fiftieth of the budget.
CURVE_POINTS = 50


def start(workload: Workload, settings: Settings) -> State:
    """Return a trial before its first update; zeros in a slot without one.

    What streams carry is left out: its shape is the batch's, and it begins anew with the first update.
    """

    def begin(key: Any) -> tuple[Any, Any]:
        return workload.init(key), () if workload.init_state is None else workload.init_state()

    key = init_key(settings.seed)
    nothing = zeros(jax.eval_shape(begin, key))
    parameters, model = jax.lax.cond(settings.updates > 0, begin, lambda _: nothing, key)
    velocity = jax.tree.map(jnp.zeros_like, parameters)
    return State(parameters, velocity, model, jnp.zeros(CURVE_POINTS, jnp.float32), jnp.int32(0), jnp.bool_(True))


Advance = Callable[[State], State]


def train(advance: Advance, state: State, end: jax.Array) -> State:
    """Return the trial after ``end`` updates, or where its loss stopped being finite."""
    trained: State = jax.lax.while_loop(partial(goes_on, end), advance, state)
    return trained


def train_once(advance: Advance, state: State, end: jax.Array) -> State:
    """Return the trial after one update more, unless it has made ``end`` or its loss stopped being finite."""
    trained: State = jax.tree.map(partial(jnp.where, goes_on(end, state)), advance(state), state)
    return trained


def goes_on(end: Any, state: State) -> Any:
    """Return whether a trial makes another update."""
    return (state.step < end) & state.finite


def one_update(
    workload: Workload,
    sizes: tuple[int, int],
    train_split: Batch,
    settings: Settings,
    spread: Callable[[Any], Any] = lambda tree: tree,
    compute_dtype: str = "float32",
) -> Advance:
    """Return the function that makes one update of a trial.

    Where the loss is not finite, the trial has diverged: ``step`` stays the number of updates before, and nothing is
    made of the parameters and the velocity, which are then not finite either.

    Args:
        workload: what is trained.
        sizes: the batch size and the microbatch size, which divides it. The gradient of a batch is the mean of
            those of its microbatches, which come one after the other.
        train_split: the arrays of the training split.
        settings: what makes it this trial.
        spread: places a tree of arrays, by their first axis, on the devices that share the trial.
        compute_dtype: ``float32``, or ``bfloat16`` for the products of the loss and its gradient.
    """
    batch_size, size = sizes
    gradient_of = loss_and_gradient(workload, compute_dtype)

    def of_microbatch(state: State, model: Any, number: jax.Array) -> tuple[Any, Any, Any]:
        batch, keys = microbatch_at(workload, train_split, settings.seed, state.step, number, sizes)
        (loss, model), gradient = gradient_of(state.parameters, model, spread(batch), keys)
        return loss, gradient, model

    def add_microbatch(number: jax.Array, sums: tuple[Any, Any, Any], state: State) -> tuple[Any, Any, Any]:
        loss, gradient, model = sums
        # Each microbatch moves its own streams on, but all of them the one state of a model, in turn.
        part, place = model, jnp.int32(0)
        if workload.streams is not None:
            streams = size // workload.unroll
            place = number * streams
            part = jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, place, streams), model)
        more_loss, more_gradient, part = of_microbatch(state, part, number)
        if workload.streams is not None:
            part = jax.tree.map(lambda a, b: jax.lax.dynamic_update_slice_in_dim(a, b, place, axis=0), model, part)
        return loss + more_loss, jax.tree.map(jnp.add, gradient, more_gradient), part

    def of_batch(state: State) -> tuple[Any, Any, Any]:
        model = state.model
        if workload.streams is not None:
            first = begins_epoch(workload, batch_size, state.step)
            fresh = workload.streams.carry(batch_size // workload.unroll)
            model = spread(jax.tree.map(lambda a, b: jnp.where(first, a, b), fresh, model))
        if size == batch_size:
            return of_microbatch(state, model, jnp.int32(0))
        parts = batch_size // size
        sums = (jnp.float32(0), jax.tree.map(jnp.zeros_like, state.parameters), model)
        loss, gradient, model = jax.lax.fori_loop(0, parts, lambda i, sums: add_microbatch(i, sums, state), sums)
        return loss / parts, jax.tree.map(lambda g: g / parts, gradient), model

    return lambda state: descended(workload, settings, state, *of_batch(state))


def descended(workload: Workload, settings: Settings, state: State, loss: Any, gradient: Any, model: Any) -> State:
    """Return a trial after an update; where its loss is not finite, its parameters are not either.

    Args:
        workload: what is trained.
        settings: what makes it this trial.
        state: the trial before.
        loss: of its batch, the mean.
        gradient: of that, without the penalty's.
        model: the state that the batch leaves behind.
    """
    if workload.penalty is not None:
        gradient = jax.tree.map(jnp.add, gradient, jax.grad(workload.penalty)(state.parameters))
    finite = jnp.isfinite(loss)
    rate = settings.learning_rate * halving(state.step, settings.updates)
    parameters, velocity = update(state.parameters, state.velocity, gradient, rate, settings.momentum)
    stretch = state.step * jnp.minimum(CURVE_POINTS, settings.updates) // settings.updates
    curve = state.curve.at[stretch].add(jnp.where(finite, loss, 0.0))
    return State(parameters, velocity, model, curve, state.step + finite.astype(jnp.int32), finite)


def loss_and_gradient(workload: Workload, compute_dtype: str) -> Callable[..., Any]:
    """Return ``(parameters, state, batch, keys) -> ((mean training loss, state), gradient)``, in these products."""
    both = jax.value_and_grad(mean_loss(workload), has_aux=True)
    return products_in_bfloat16(both) if compute_dtype == "bfloat16" else both


def mean_loss(workload: Workload) -> Callable[[Any, Any, Any, Any], tuple[Any, Any]]:
    """Return ``(parameters, state, batch, keys) -> (mean training loss, state)`` of a workload."""

    def mean(parameters: Any, state: Any, batch: Batch, keys: Any) -> tuple[Any, Any]:
        if workload.training_loss is None:
            return workload.loss(parameters, batch).astype(jnp.float32).mean(), state
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


def evaluated(workload: Workload, state: State) -> Any:
    """Return what ``loss`` and ``score`` are given: the parameters, with the state of a model that has one."""
    return state.parameters if workload.init_state is None else (state.parameters, state.model)


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
