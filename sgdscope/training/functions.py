"""The user's functions before anything is trained: their shapes, their fingerprint, and what they cost."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np

from sgdscope.errors import InputError
from sgdscope.training.contract import Call, check_calls, check_examples, check_parameters
from sgdscope.training.fingerprint import fingerprint as fingerprint_of
from sgdscope.training.runtime import pinned
from sgdscope.training.state import Settings, State
from sgdscope.training.trial import evaluated, mean_loss, start
from sgdscope.workloads.base import Workload, examples_in


def check_functions(workload: Workload) -> State:
    """Return the shapes of a trial's state, and refuse functions whose shapes are not the contract's.

    Raises:
        InputError: where a function of the workload fails or returns another shape.
    """
    zero = Settings(jnp.float32(0), jnp.float32(0), jnp.uint32(0), jnp.int32(0))
    _traced(workload, "init", workload.init, _key())
    if workload.init_state is not None:
        _traced(workload, "init_state", workload.init_state)
    state: State = _traced(workload, "init", partial(start, workload), zero)
    for name, tree in (("init", state.parameters), ("init_state", state.model)):
        check_parameters(f"workload {workload.name!r}", name, tree)
    n = 7 * workload.ghost_batch_size
    batch = _examples(workload, n)
    if workload.augment is not None:
        example = {key: jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for key, a in batch.items()}
        augmented = _traced(workload, "augment", workload.augment, _key(), example)
        if jax.tree.map(lambda a: a.shape, augmented) != jax.tree.map(lambda a: a.shape, example):
            raise InputError(f"workload {workload.name!r}: augment must return an example of the same shapes.")
    for name, function in (("loss", workload.loss), ("score", workload.score)):
        value = _traced(workload, name, function, evaluated(workload, state), batch)
        check_examples(f"workload {workload.name!r}", name, value, n)
    if workload.training_loss is not None:
        given, batch, keys = training_arguments(workload, state, n * workload.unroll)
        if workload.streams is not None and any(leaf.shape[:1] != (n,) for leaf in jax.tree.leaves(given)):
            raise InputError(f"workload {workload.name!r}: carry(n) must return arrays whose first axis is n.")
        value = _traced(workload, "training_loss", workload.training_loss, state.parameters, given, batch, keys)
        shapes = jax.tree.map(lambda a: (a.shape, a.dtype), given)
        losses = (n,) if workload.streams is None else (n, workload.unroll)
        if isinstance(value, tuple) and getattr(value[0], "shape", None) != losses:
            raise InputError(
                f"workload {workload.name!r}: training_loss must return losses of shape {losses} for a batch of "
                f"{n * workload.unroll} examples, not {getattr(value[0], 'shape', type(value[0]).__name__)}."
            )
        if not (isinstance(value, tuple) and len(value) == 2) or shapes != jax.tree.map(
            lambda a: (a.shape, a.dtype), value[1]
        ):
            raise InputError(
                f"workload {workload.name!r}: training_loss must return the losses and a state of the same shapes "
                f"and types as the state that it is given."
            )
    number = jax.ShapeDtypeStruct((), jnp.float32)
    for name, of_numbers, argument in (
        ("penalty", workload.penalty, state.parameters),
        ("score_of_mean", workload.score_of_mean, number),
    ):
        if of_numbers is not None and getattr(_traced(workload, name, of_numbers, argument), "shape", None) != ():
            raise InputError(f"workload {workload.name!r}: {name} must return one number, shape ().")
    if workload not in _checked:
        check_calls(f"workload {workload.name!r}", _calls(workload, state))
        _checked.add(workload)
    return state


# Workloads whose functions are known to be pure: to trace all of them takes a large model seconds.
_checked = weakref.WeakSet[Workload]()


def _calls(workload: Workload, state: State) -> list[Call]:
    """Return the functions of a workload, each with the shapes of its arguments."""
    n = 7 * workload.ghost_batch_size
    arguments = (state.parameters, *training_arguments(workload, state, n * workload.unroll))
    trained, mean = "loss" if workload.training_loss is None else "training_loss", mean_loss(workload)
    evaluation = (evaluated(workload, state), _examples(workload, n))
    calls = [
        Call("init", workload.init, (_key(),)),
        Call(trained, lambda *given: mean(*given)[0], arguments, differentiate=True),
        Call("score", workload.score, evaluation),
    ]
    if workload.training_loss is not None and workload.loss is not workload.score:
        calls.append(Call("loss", workload.loss, evaluation))
    if workload.init_state is not None:
        calls.append(Call("init_state", workload.init_state, ()))
    if workload.streams is not None:
        calls.append(Call("carry", partial(workload.streams.carry, n), ()))
    if workload.penalty is not None:
        calls.append(Call("penalty", workload.penalty, (state.parameters,), differentiate=True))
    if workload.score_of_mean is not None:
        calls.append(Call("score_of_mean", workload.score_of_mean, (jax.ShapeDtypeStruct((), jnp.float32),)))
    if workload.augment is not None:
        example = {k: jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for k, a in _examples(workload, 1).items()}
        calls.append(Call("augment", workload.augment, (_key(), example)))
    return calls


def fingerprint(workload: Workload) -> str:
    """Return a hash of the traced functions of a workload and of the gradient, constants included.

    It tells whether a workload of the same name and version still computes the same; it depends on the version of JAX,
    which may trace the same function to other operations, and on the form in which it is taken here.
    """
    gradient = jax.grad(mean_loss(workload), has_aux=True)
    with pinned():
        state = check_functions(workload)
        calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [(workload.init, (_key(),))]
        if workload.init_state is not None:
            calls.append((workload.init_state, ()))
        for n in (2 * workload.ghost_batch_size, 7 * workload.ghost_batch_size):
            calls.append((gradient, (state.parameters, *training_arguments(workload, state, n * workload.unroll))))
            if workload.streams is not None:  # how many streams an evaluation has may depend on the text's length
                n = min(workload.evaluation_batch_size, examples_in(workload.train))
                calls.append((partial(workload.streams.carry, 2), ()))
            evaluation = (evaluated(workload, state), _examples(workload, n))
            calls += [(workload.loss, evaluation), (workload.score, evaluation)]
        if workload.penalty is not None:
            calls.append((jax.grad(workload.penalty), (state.parameters,)))
        if workload.score_of_mean is not None:
            calls.append((workload.score_of_mean, (jax.ShapeDtypeStruct((), jnp.float32),)))
        if workload.augment is not None:
            example = {k: jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for k, a in _examples(workload, 1).items()}
            calls.append((workload.augment, (_key(), example)))
        return fingerprint_of(*(jax.make_jaxpr(function)(*arguments) for function, arguments in calls))


def training_arguments(workload: Workload, state: State, batch_size: int) -> tuple[Any, Any, Any]:
    """Return the shapes of what the loss of a batch is given beside the parameters: state, batch, keys."""
    streams = batch_size // workload.unroll
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), streams))
    if workload.streams is None:
        return state.model, _examples(workload, batch_size), keys
    carry = jax.eval_shape(lambda: workload.streams.carry(streams))  # type: ignore[union-attr]
    batch = {
        key: jax.ShapeDtypeStruct((streams, workload.unroll + 1, *a.shape[1:]), a.dtype)
        for key, a in _examples(workload, 1).items()
    }
    return carry, batch, keys


# ── What they cost ───────────────────────────────────────────────────────────────────────────────────────


def operations_per_update(workload: Workload, batch_size: int) -> int:
    """Return the floating-point operations of one update: those of matrix products and convolutions.

    A multiplication and an addition count as two. What is left out, such as the update itself and activations,
    is bounded by memory rather than by arithmetic.
    """
    return _counted(workload, batch_size)[0]


def slow_convolutions(workload: Workload) -> int:
    """Return how many convolutions of the gradient XLA's fast path on the CPU does not take inside a loop.

    It takes those from NHWC by HWIO to NHWC, which JAX's own gradient of a convolution is not (jax-ml/jax#12868).
    """
    return _counted(workload, workload.ghost_batch_size * workload.unroll)[1]


def operations_per_evaluation(workload: Workload) -> int:
    """Return the floating-point operations of one evaluation of all splits; loss and score share a forward pass."""
    with pinned():
        state = check_functions(workload)
        total = 0
        for split in (workload.train, workload.validation, workload.test):
            examples = examples_in(split)
            size = min(workload.evaluation_batch_size, examples)
            traced = jax.make_jaxpr(workload.loss)(evaluated(workload, state), _examples(workload, size))
            total += _operations(traced) * -(-examples // size)
    return total


# What was counted of workloads that are still in use: tracing takes a second, and no workload is kept alive for it.
_COUNTED: WeakKeyDictionary[Workload, dict[int, tuple[int, int]]] = WeakKeyDictionary()


def _counted(workload: Workload, batch_size: int) -> tuple[int, int]:
    """Return the operations of a gradient, and how many of its convolutions are slow in a loop on a CPU."""
    known = _COUNTED.setdefault(workload, {})
    if batch_size not in known:
        with pinned():
            state = check_functions(workload)
            arguments = training_arguments(workload, state, batch_size)
            traced = jax.make_jaxpr(jax.grad(mean_loss(workload), has_aux=True))(state.parameters, *arguments)
        fast = jax.lax.conv_dimension_numbers((1, 1, 1, 1), (1, 1, 1, 1), ("NHWC", "HWIO", "NHWC"))
        convolutions = [e for e in _equations(traced) if e.primitive.name == "conv_general_dilated"]
        slow = sum(e.params["dimension_numbers"] != fast for e in convolutions)
        known[batch_size] = _operations(traced), slow
    return known[batch_size]


def _equations(traced: Any) -> Iterator[Any]:
    """Yield what a traced function does on the CPU, also in the functions inside it."""
    for equation in getattr(traced, "jaxpr", traced).eqns:
        yield equation
        parts = _nested(equation)
        platforms = equation.params.get("branches_platforms")
        if platforms is not None:
            parts = [p for p, names in zip(parts, platforms, strict=True) if names is None or "cpu" in names][:1]
        for part in parts:
            yield from _equations(part)


def _operations(traced: Any) -> int:
    total = 0
    for equation in getattr(traced, "jaxpr", traced).eqns:
        name, parameters = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2 * depth * math.prod(equation.outvars[0].aval.shape)
        elif name == "conv_general_dilated":
            kernel, out_axis = equation.invars[1].aval.shape, parameters["dimension_numbers"].rhs_spec[0]
            # A dilated input is mostly zeros, which are not multiplied.
            spread = math.prod(parameters["lhs_dilation"])
            total += 2 * math.prod(kernel) // kernel[out_axis] * math.prod(equation.outvars[0].aval.shape) // spread
        else:
            times = parameters.get("length", 1) if name == "scan" else 1
            inner = [_operations(part) for part in _nested(equation)]
            total += max(inner, default=0) if name == "cond" else times * sum(inner)
    return total


def _nested(equation: Any) -> list[Any]:
    values = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda value: hasattr(value, "eqns"))
    return [value for value in values if hasattr(value, "eqns")]


def _examples(workload: Workload, n: int) -> dict[str, jax.ShapeDtypeStruct]:
    if workload.feed is not None:
        layout = workload.feed.layout
    else:
        layout = {key: (np.shape(array)[1:], np.asarray(array).dtype) for key, array in workload.train.items()}
    return {
        key: jax.ShapeDtypeStruct((n, *shape), jax.dtypes.canonicalize_dtype(dtype))
        for key, (shape, dtype) in layout.items()
    }


def _key() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0))


def _traced(workload: Workload, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return jax.eval_shape(function, *arguments)
    except Exception as error:
        first_line = (str(error).strip() or repr(error)).splitlines()[0]
        raise InputError(
            f"workload {workload.name!r}: {name} cannot be traced by JAX: {type(error).__name__}: {first_line}"
        ) from error
