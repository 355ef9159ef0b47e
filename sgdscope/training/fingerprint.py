"""A hash of what a workload's traced functions compute."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgdscope.training.flops import nested
from sgdscope.training.shapes import Shapes, examples_of, key_shape, training_arguments
from sgdscope.training.step import evaluated, mean_loss
from sgdscope.workloads.base import Workload, examples_in

# Raised with every change of what a fingerprint is made of.
FINGERPRINT_FORM = 2


Call = tuple[Callable[..., Any], tuple[Any, ...]]


def fingerprint(workload: Workload, shapes: Shapes) -> str:
    """Return a hash of the traced functions of a workload and of the gradient, constants included.

    It tells whether a workload of the same name and version still computes the same; it depends on the version
    of JAX, which writes the same function down differently, and on the form in which it is taken here.
    """
    gradient = jax.grad(mean_loss(workload), has_aux=True)
    calls: list[Call] = [(workload.init, (key_shape(),))]
    if workload.init_state is not None:
        calls.append((workload.init_state, ()))
    for n in (2 * workload.ghost_batch_size, 7 * workload.ghost_batch_size):
        calls.append((gradient, (shapes.parameters, *training_arguments(workload, shapes, n * workload.unroll))))
        if workload.streams is not None:  # how many streams an evaluation has may depend on the text's length
            n = min(workload.evaluation_batch_size, examples_in(workload.train))
            calls.append((partial(workload.streams.carry, 2), ()))
        evaluation = (*evaluated(workload, shapes.parameters, shapes.model), examples_of(workload, n))
        calls += [(workload.loss, evaluation), (workload.score, evaluation)]
    if workload.penalty is not None:
        calls.append((jax.grad(workload.penalty), (shapes.parameters,)))
    if workload.score_of_mean is not None:
        calls.append((workload.score_of_mean, (jax.ShapeDtypeStruct((), jnp.float32),)))
    if workload.augment is not None:
        example = {k: jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for k, a in examples_of(workload, 1).items()}
        calls.append((workload.augment, (key_shape(), example)))
    return hash_of(calls)


def hash_of(calls: Sequence[Call]) -> str:
    """Return a hash of functions as they are traced with these arguments."""
    digest = hashlib.sha256()
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
        for part in nested(equation):
            yield from _constants(part)
