"""The contract of a workload's functions, checked before anything is trained: pure, real, and with a gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgdscope.errors import InputError
from sgdscope.study import Trial
from sgdscope.training.clocks import clocks_ahead
from sgdscope.training.fingerprint import fingerprint
from sgdscope.training.flops import nested
from sgdscope.training.jax_setup import pinned
from sgdscope.training.sampling import microbatch_at
from sgdscope.training.step import Settings, loss_and_gradient, start
from sgdscope.workloads.base import Workload

# The functions of a workload that are given random keys.
WITH_KEYS = ("init", "augment", "training_loss", "sample_targets")
# Host functions that a program calls while it runs: a trace shows nothing of what they do.
CALLBACKS = ("pure_callback", "io_callback")


class Call(NamedTuple):
    """One function of a workload, with the shapes of its arguments.

    Args:
        name: how the workload calls it.
        function: what is traced.
        arguments: the shapes and types of its arguments.
        is_gradient: whether ``function`` is the gradient of that function, which training takes.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    is_gradient: bool = False


def check_calls(where: str, calls: Sequence[Call]) -> list[Any]:
    """Refuse functions that are not pure, that call back into Python, or that lack the gradient that training takes.

    The last call of each function is traced twice, and both traces are compared: their structure and their constants.

    Args:
        where: the workload, as errors name it.
        calls: its functions; a function may come several times, with other arguments.

    Returns:
        The closed jaxpr of each call.

    Raises:
        InputError: If a function breaks the contract; one sentence that names the function.
    """
    traces = []
    last = {id(call.function): place for place, call in enumerate(calls)}
    for place, call in enumerate(calls):
        with pinned():
            first = _trace(where, call)
        traces.append(first)
        for name in dict.fromkeys(equation.primitive.name for equation in _equations(first)):
            if name in CALLBACKS:
                raise InputError(
                    f"{where}: {call.name} calls back into Python by {name}; write it with jax.numpy, or store what "
                    f"the callback returns as an array of the splits."
                )
        if last[id(call.function)] != place:
            continue
        if call.is_gradient and call.name != "penalty" and _is_zero(first, call.arguments[0]):
            raise InputError(
                f"{where}: the gradient of {call.name} is 0 whatever the parameters and the examples are, so that "
                f"nothing is learned. Comparisons, rounding, argmax and stop_gradient have a gradient of 0. Use a "
                f"smooth loss, such as a cross-entropy."
            )
        # Another name for the same precision: functions under jax.jit are traced anew, not taken from JAX's cache.
        with pinned(), jax.default_matmul_precision("float32"), clocks_ahead():
            second = _trace(where, call)
        if traced_differently(first, second):
            keys = call.name in WITH_KEYS
            source = "draw random numbers from its key by jax.random" if keys else "compute the same each time"
            raise InputError(
                f"{where}: {call.name} computes something else each time that JAX traces it. The likely cause is a "
                f"random number of numpy or Python, the time, the order of a set, or a counter. A trace freezes such "
                f"a value: {call.name} must {source}."
            )
    return traces


def untraceable(what: str, error: Exception) -> InputError:
    """Return the error of a function that JAX cannot trace, with the first line of what it raised."""
    return InputError(f"{what} cannot be traced by JAX: {type(error).__name__}: {_first_line(error)}")


def traced_differently(a: Any, b: Any) -> bool:
    """Return whether two traces of a function differ in their structure or in a constant."""
    return fingerprint(a) != fingerprint(b)


def check_parameters(where: str, name: str, tree: Any) -> None:
    """Refuse what a function returned unless it is a tree of float32 arrays, and for ``init`` not an empty one.

    A state may hold int32 arrays as well, such as a count of batches.

    Raises:
        InputError: If a leaf is of another type, or parameters are empty.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    for path, leaf in leaves:
        if leaf.dtype != jnp.float32 and not (name == "init_state" and leaf.dtype == jnp.int32):
            what = f"{where}: {name} must return a tree of float32 arrays, but {_place(path)} is {leaf.dtype}"
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) or leaf.dtype == jnp.uint32:
                raise InputError(
                    f"{what}. Keep no random keys there: init, augment and training_loss are given keys of their own."
                )
            if jnp.issubdtype(leaf.dtype, jnp.floating):
                raise InputError(f"{what}. Convert it by .astype(jnp.float32).")
            raise InputError(
                f"{what}. SGD cannot train it: close over constants, or convert numbers by .astype(jnp.float32)."
            )
    if name == "init" and not sum(leaf.size for _, leaf in leaves):
        empty = "an empty tree" if not leaves else "arrays of size 0 only"
        raise InputError(f"{where}: init must return a tree of float32 arrays, but returns {empty}: nothing to train.")


def check_examples(where: str, name: str, value: Any, n: int) -> None:
    """Refuse what a function returned for a batch of n examples, unless it is one real number for each.

    Raises:
        InputError: If the value is no array, has another shape or is not real.
    """
    if getattr(value, "shape", None) != (n,):
        raise InputError(
            f"{where}: {name} must return one number for each example, shape (n,), but returns {_described(value)} "
            f"for a batch of {n}."
        )
    real = jnp.issubdtype(value.dtype, jnp.floating)
    if name == "loss" and not real:
        raise InputError(f"{where}: loss must return floating-point numbers to have a gradient, not {value.dtype}.")
    if not (real or jnp.issubdtype(value.dtype, jnp.integer) or value.dtype == jnp.bool_):
        raise InputError(f"{where}: {name} must return real numbers, not {value.dtype}.")


def check_start(workload: Workload, trial: Trial) -> None:
    """Refuse a workload whose loss or gradient is not finite at initialization, so that no learning rate trains it.

    Raises:
        InputError: If parameters, loss or gradient of the trial's first update are not finite; it says which.
    """
    sizes = trial.batch_size, trial.microbatch_size
    seed = jnp.uint32(trial.seed)
    gradient_of = loss_and_gradient(workload, trial.compute_dtype)

    @jax.jit
    def first_update(split: Any, number: Any) -> tuple[Any, Any, Any, Any]:
        nothing = jnp.float32(0)
        state = start(workload, trial.optimizer.rule, Settings(nothing, {}, seed, jnp.int32(1)))
        batch, keys = microbatch_at(workload, split, seed, jnp.int32(0), number, sizes)
        model = state.model if workload.streams is None else workload.streams.carry(sizes[1] // workload.unroll)
        (loss, _), gradient = gradient_of(state.parameters, model, batch, keys)
        penalty = {} if workload.penalty is None else jax.grad(workload.penalty)(state.parameters)
        return state.parameters, loss, gradient, penalty

    where, at = f"workload {workload.name!r}", f"(seed {trial.seed}, first batch of {trial.batch_size} examples)"
    name = "loss" if workload.training_loss is None else "training_loss"
    causes = (
        "Look for the root or norm of 0, a division by 0, or log(0); jnp.where around it does not help its gradient"
    )
    with pinned():
        split = {key: jnp.asarray(array) for key, array in workload.train.items()}
        for number in range(trial.batch_size // trial.microbatch_size):
            parameters, loss, gradient, penalty = first_update(split, jnp.int32(number))
            if place := _not_finite(parameters):
                raise InputError(f"{where}: init returns {place}, which is not finite (seed {trial.seed}).")
            if not np.isfinite(loss):
                raise InputError(
                    f"{where}: `{name}` is not finite at initialization: its mean is {loss} {at}. No learning rate "
                    f"changes that. Look for log(0), a division by 0, or exp of a large number."
                )
            for of, tree in ((name, gradient), ("penalty", penalty)):
                if place := _not_finite(tree):
                    raise InputError(
                        f"{where}: the gradient of `{of}` is not finite at initialization: {place} {at}. No learning "
                        f"rate changes that. {causes}."
                    )


def _not_finite(tree: Any) -> str:
    """Name the first leaf that is not finite, with its value; empty where all are finite."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        if not np.isfinite(array).all():
            return f"{array[~np.isfinite(array)][0]} in {_place(path)}"
    return ""


def _trace(where: str, call: Call) -> Any:
    # JAX remembers what it traced of a function that it has seen, so each trace gets a function of its own.
    function = lambda *arguments: call.function(*arguments)
    try:
        traced = jax.make_jaxpr(function)(*call.arguments)
    except jax.errors.UnexpectedTracerError as error:
        raise _stored(where, call) from error
    except Exception as error:
        if not call.is_gradient:
            raise
        raise InputError(f"{where}: {call.name} has no gradient in reverse mode: {_first_line(error)}") from error
    if any(
        isinstance(constant, jax.core.Tracer) for part in _parts(traced) for constant in getattr(part, "consts", ())
    ):
        raise _stored(where, call)
    return traced


def _stored(where: str, call: Call) -> InputError:
    """Return the error of a function that uses what an earlier trace of it has stored, which is no array any more."""
    return InputError(
        f"{where}: {call.name} uses a value that an earlier trace stored, in a global variable, an object or a cache. "
        f"Store nothing in a traced function; make constants with numpy, or before the study is declared."
    )


def _is_zero(traced: Any, parameters: Any) -> bool:
    """Return whether a gradient, the first results of a traced function, depends on no argument and is 0."""
    jaxpr = traced.jaxpr
    reached = set(jaxpr.invars)
    for equation in jaxpr.eqns:
        if any(variable in reached for variable in equation.invars if not hasattr(variable, "val")):
            reached |= set(equation.outvars)
    gradient = jaxpr.outvars[: len(jax.tree.leaves(parameters))]
    # A function with effects, such as a callback, is not evaluated a second time.
    if jaxpr.effects or any(variable in reached for variable in gradient if not hasattr(variable, "val")):
        return False
    values = jax.core.eval_jaxpr(jaxpr, traced.consts, *(jnp.zeros(v.aval.shape, v.aval.dtype) for v in jaxpr.invars))
    return not any(np.asarray(value).any() for value in values[: len(gradient)])


def _equations(traced: Any) -> Iterator[Any]:
    for part in _parts(traced):
        yield from getattr(part, "jaxpr", part).eqns


def _parts(traced: Any) -> Iterator[Any]:
    """Yield a traced function and all functions that are traced inside it."""
    yield traced
    for equation in getattr(traced, "jaxpr", traced).eqns:
        for part in nested(equation):
            yield from _parts(part)


def _described(value: Any) -> str:
    if hasattr(value, "shape"):
        return f"shape {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, Mapping):
        return f"a dictionary with {', '.join(map(repr, value))}"
    return f"{type(value).__name__}" if value is not None else "nothing"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]


def _place(path: Any) -> str:
    return jax.tree_util.keystr(path) or "it"
