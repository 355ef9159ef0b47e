"""Ghost batches by the engine, for a training loss that takes its statistics over whatever batch it is given.

Source: Hoffer, Hubara and Soudry (2017), arXiv 1705.08741, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgdscope.errors import InputError
from sgdscope.workloads.base import Workload


def ghosted(training_loss: Callable[..., Any], size: int) -> Callable[..., Any]:
    """Return a training loss that is taken of each ghost batch by itself, all from the same state.

    The state that a batch leaves behind is the mean of the states that its ghost batches leave behind. Whole numbers,
    such as a count of updates, are those of the first ghost batch.

    Args:
        training_loss: ``(parameters, state, batch, keys) -> (losses, state)``.
        size: Examples of a ghost batch. Batches are multiples of it.

    >>> centred = lambda parameters, state, batch, keys: (batch["x"] - batch["x"].mean(), batch["x"].mean())
    >>> losses, state = ghosted(centred, 2)({}, 0.0, {"x": jnp.array([1.0, 3.0, 10.0, 30.0])}, jnp.zeros(4))
    >>> losses.tolist(), float(state)
    ([-1.0, 1.0, -10.0, 10.0], 11.0)
    """

    def of_each(parameters: Any, state: Any, batch: Any, keys: Any) -> tuple[Any, Any]:
        cut = lambda a: a.reshape(-1, size, *a.shape[1:])
        losses, moved = jax.vmap(training_loss, (None, None, 0, 0))(
            parameters, state, *jax.tree.map(cut, (batch, keys))
        )
        mean = lambda a: a.mean(0) if jnp.issubdtype(a.dtype, jnp.floating) else a[0]
        return losses.reshape(-1), jax.tree.map(mean, moved)

    return of_each


def with_ghosts(workload: Workload, examples: Callable[[int], Any]) -> Workload:
    """Return a workload whose training loss of an example depends on no example outside its ghost batch.

    A training loss that cuts its batch by itself, or looks at each example alone, stays as it is. Looked at are
    workloads that have a state or ghost batches.

    Args:
        workload: whose functions return what they must.
        examples: the shapes of a batch of n examples.

    Raises:
        InputError: If examples depend on one another and there is no ghost batch size.
    """
    size, loss = workload.ghost_batch_size, workload.training_loss
    if loss is None or workload.streams is not None or (size == 1 and workload.init_state is None):
        return workload
    if getattr(loss, "cuts_ghosts", False) or not _mixes_examples(workload, loss, examples(2 * size)):
        return workload
    if size == 1:
        raise InputError(
            f"workload {workload.name!r}: the training loss of an example depends on the other examples of its batch, "
            f"as under batch normalization, so that it would change with the batch size. Give ghost_batch_size, such "
            f"as 32, the examples for each statistic."
        )
    return replace(workload, training_loss=ghosted(loss, size))


def _mixes_examples(workload: Workload, loss: Callable[..., Any], shapes: Mapping[str, Any]) -> bool:
    """Return whether losses of the first half of a batch change with the examples of the second."""
    n = 2 * workload.ghost_batch_size

    @jax.jit
    def first_half(key: Any, batch: Any) -> Any:
        # Layers that begin with zeros would hide what comes before them.
        leaves, tree = jax.tree.flatten(workload.init(key))
        noise = [0.1 * jax.random.normal(jax.random.fold_in(key, i), a.shape) for i, a in enumerate(leaves)]
        parameters = jax.tree.unflatten(tree, map(jnp.add, leaves, noise))
        state = () if workload.init_state is None else jax.tree.map(jnp.asarray, workload.init_state())
        losses, _ = loss(parameters, state, batch, jax.random.split(key, n))
        return losses[: n // 2]

    batch = {key: _numbers(workload, key, shape) for key, shape in shapes.items()}
    other = {key: np.concatenate([a[: n // 2], _others(a[: n // 2])]) for key, a in batch.items()}
    key = jax.random.key(0)
    return not np.array_equal(first_half(key, batch), first_half(key, other), equal_nan=True)


def _numbers(workload: Workload, key: str, shape: jax.ShapeDtypeStruct) -> Any:
    """Return an array of the first examples, or zeros and ones where no device holds them."""
    if workload.feed is not None:
        return (np.arange(np.prod(shape.shape)) % 2).reshape(shape.shape).astype(shape.dtype)
    array = workload.train[key]
    return array[np.arange(shape.shape[0]) % len(array)].astype(shape.dtype)


def _others(array: np.ndarray) -> np.ndarray:
    """Return examples that differ from these: zeros, or for whole numbers the first example again and again."""
    return np.zeros_like(array) if array.dtype.kind == "f" else np.broadcast_to(array[:1], array.shape)
