"""The shapes of what a workload's functions are given, for tracing them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from sgdscope.workloads.base import Workload


@dataclass(frozen=True)
class Shapes:
    """The shapes of a trial's parameters and of its model's state."""

    parameters: Any
    model: Any


def training_arguments(workload: Workload, shapes: Shapes, batch_size: int) -> tuple[Any, Any, Any]:
    """Return the shapes of what the loss of a batch is given beside the parameters: state, batch, keys."""
    streams = batch_size // workload.unroll
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), streams))
    if workload.streams is None:
        return shapes.model, examples_of(workload, batch_size), keys
    carry = jax.eval_shape(lambda: workload.streams.carry(streams))  # type: ignore[union-attr]
    batch = {
        key: jax.ShapeDtypeStruct((streams, workload.unroll + 1, *a.shape[1:]), a.dtype)
        for key, a in examples_of(workload, 1).items()
    }
    return carry, batch, keys


def examples_of(workload: Workload, n: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes of a batch of n examples."""
    if workload.feed is not None:
        layout = workload.feed.layout
    else:
        layout = {key: (np.shape(array)[1:], np.asarray(array).dtype) for key, array in workload.train.items()}
    return {
        key: jax.ShapeDtypeStruct((n, *shape), jax.dtypes.canonicalize_dtype(dtype))
        for key, (shape, dtype) in layout.items()
    }


def key_shape() -> Any:
    """Return the shape of a random key."""
    return jax.eval_shape(lambda: jax.random.key(0))
