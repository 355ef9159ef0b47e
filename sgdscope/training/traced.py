"""The user's functions before anything is trained: a workload is traced once, and what it gives is checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgdscope.errors import InputError
from sgdscope.optimizers import Layer, Optimizer
from sgdscope.records import SPLITS
from sgdscope.training.contract import Call, check_calls, check_examples, check_parameters, untraceable
from sgdscope.training.curvature import dense_layers
from sgdscope.training.fingerprint import fingerprint
from sgdscope.training.flops import operations, slow_convolutions
from sgdscope.training.ghosts import with_ghosts
from sgdscope.training.jax_setup import pinned
from sgdscope.training.step import evaluated, mean_loss
from sgdscope.workloads.base import Workload, examples_in


@dataclass(frozen=True)
class Shapes:
    """The shapes of a trial's parameters and of its model's state."""

    parameters: Any
    model: Any


@dataclass(frozen=True, eq=False)
class TracedWorkload:
    """A workload whose functions have been traced and checked: what everyone asks of it, found out once.

    Args:
        workload: the model and its data.
        shapes: those of its parameters and of its model's state.
        functions: its functions and its gradient as closed jaxprs, in the order of :attr:`fingerprint`.
    """

    workload: Workload
    shapes: Shapes
    functions: tuple[Any, ...] = field(repr=False)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what the functions compute, constants included, with this version of JAX."""
        return fingerprint(*self.functions)

    def optimizer_fingerprint(self, optimizer: Optimizer) -> str:
        """Return a hash of what an optimizer computes with this workload's parameters.

        Raises:
            InputError: where the optimizer cannot be traced.
        """

        def update(gradient: Any, state: Any, parameters: Any, rate: Any, numbers: Any) -> Any:
            nothing: Any = None
            return optimizer.update(gradient, state, parameters, rate, numbers, nothing)

        parameters, number = self.shapes.parameters, jax.ShapeDtypeStruct((), jnp.float32)
        numbers = dict.fromkeys(optimizer.coefficients(1), number)
        try:
            with pinned():
                state = jax.eval_shape(optimizer.init, parameters)
                return fingerprint(jax.make_jaxpr(update)(parameters, state, parameters, number, numbers))
        except InputError as error:
            raise InputError(str(error)) from None  # without the notes that JAX adds
        except Exception as error:  # whatever an optimizer of the user's raises
            raise untraceable(f"optimizers: {optimizer}", error) from error

    @cached_property
    def operations_per_example(self) -> float:
        """The floating-point operations of a gradient, an example."""
        return operations(self._gradient) / (self.workload.ghost_batch_size * self.workload.unroll)

    @cached_property
    def targets_fingerprint(self) -> str:
        """A hash of what ``sample_targets`` computes, which optimizers that ask for the curvature depend on.

        Raises:
            InputError: where it is not pure, or does not return the arrays that the loss is given.
        """
        workload, shapes, where = self.workload, self.shapes, f"workload {self.workload.name!r}"
        batch = examples_of(workload, 2 * workload.ghost_batch_size)
        arguments = (shapes.parameters, shapes.model, batch, key_shape())
        drawn = _traced(workload, "sample_targets", workload.sample_targets, *arguments)
        if not isinstance(drawn, dict) or not batch.keys() <= drawn.keys():
            raise InputError(f"{where}: sample_targets must return the batch, a dictionary, with other targets.")
        return fingerprint(*check_calls(where, [Call("sample_targets", workload.sample_targets, arguments)]))  # type: ignore[arg-type]

    @cached_property
    def uniform_fingerprint(self) -> str:
        """A hash of what ``uniform_loss`` computes, which label smoothing depends on.

        Raises:
            InputError: where it is not pure, has no gradient, or does not return a loss of each example.
        """
        workload, shapes, where = self.workload, self.shapes, f"workload {self.workload.name!r}"
        uniform: Callable[..., Any] = workload.uniform_loss  # type: ignore[assignment]
        batch = examples_of(workload, n := 7 * workload.ghost_batch_size)
        arguments = (shapes.parameters, shapes.model, batch)
        check_examples(where, "uniform_loss", _traced(workload, "uniform_loss", uniform, *arguments), n)
        gradient = jax.grad(lambda *of: uniform(*of).astype(jnp.float32).mean())
        return fingerprint(*check_calls(where, [Call("uniform_loss", gradient, arguments, is_gradient=True)]))

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The dense layers, for optimizers that ask for them."""
        with pinned():
            return dense_layers(self.workload)

    @cached_property
    def operations_per_evaluation(self) -> int:
        """The floating-point operations of one evaluation of all splits; loss and score share a forward pass."""
        model = evaluated(self.workload, self.shapes.parameters, self.shapes.model)
        total = 0
        with pinned():
            for examples in (examples_in(self.workload.split(name)) for name in SPLITS):
                size = min(self.workload.evaluation_batch_size, examples)
                traced = jax.make_jaxpr(self.workload.loss)(*model, examples_of(self.workload, size))
                total += operations(traced) * -(-examples // size)
        return total

    @cached_property
    def slow_convolutions(self) -> int:
        """How many convolutions of the gradient are slow inside a loop on a CPU."""
        return slow_convolutions(self._gradient)

    @cached_property
    def _gradient(self) -> Any:
        """The gradient of the smallest batch."""
        smallest = self.workload.ghost_batch_size * self.workload.unroll
        with pinned():
            arguments = training_arguments(self.workload, self.shapes, smallest)
            return jax.make_jaxpr(jax.grad(mean_loss(self.workload), has_aux=True))(self.shapes.parameters, *arguments)


def trace(workload: Workload) -> TracedWorkload:
    """Trace a workload's functions, refuse those that break the contract, and cut batches into ghost batches.

    Raises:
        InputError: where a function of the workload fails, returns another shape, is not pure, lacks its gradient, or
            takes statistics over a batch without a ghost batch size.
    """
    with pinned():
        shapes = _checked(workload)
        workload = with_ghosts(workload, partial(examples_of, workload))
        functions = check_calls(f"workload {workload.name!r}", _calls(workload, shapes))
    return TracedWorkload(workload, shapes, tuple(functions))


def _calls(workload: Workload, shapes: Shapes) -> list[Call]:
    """Return the functions of a workload and its gradient, each with the shapes of its arguments.

    A fingerprint is taken of them in this order, and studies' folders keep fingerprints: do not change it.
    """
    trained = "loss" if workload.training_loss is None else "training_loss"
    gradient = jax.grad(mean_loss(workload), has_aux=True)
    carry = None if workload.streams is None else partial(workload.streams.carry, 2)
    calls = [Call("init", workload.init, (key_shape(),))]
    if workload.init_state is not None:
        calls.append(Call("init_state", workload.init_state, ()))
    for n in (2 * workload.ghost_batch_size, 7 * workload.ghost_batch_size):
        arguments = (shapes.parameters, *training_arguments(workload, shapes, n * workload.unroll))
        calls.append(Call(trained, gradient, arguments, is_gradient=True))
        if carry is not None:  # how many streams an evaluation has may depend on the text's length
            n = min(workload.evaluation_batch_size, examples_in(workload.train))
            calls.append(Call("carry", carry, ()))
        evaluation = (*evaluated(workload, shapes.parameters, shapes.model), examples_of(workload, n))
        calls += [Call("loss", workload.loss, evaluation), Call("score", workload.score, evaluation)]
    if workload.penalty is not None:
        calls.append(Call("penalty", jax.grad(workload.penalty), (shapes.parameters,), is_gradient=True))
    if workload.score_of_mean is not None:
        calls.append(Call("score_of_mean", workload.score_of_mean, (jax.ShapeDtypeStruct((), jnp.float32),)))
    if workload.augment is not None:
        example = {k: jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for k, a in examples_of(workload, 1).items()}
        calls.append(Call("augment", workload.augment, (key_shape(), example)))
    return calls


def _checked(workload: Workload) -> Shapes:
    """Return the shapes of a workload's parameters and state, after checking what each function returns."""
    where, traced = f"workload {workload.name!r}", partial(_traced, workload)
    parameters = traced("init", workload.init, key_shape())
    model = () if workload.init_state is None else traced("init_state", workload.init_state)
    for name, tree in (("init", parameters), ("init_state", model)):
        check_parameters(where, name, tree)
    # Plain shapes: a number of Python's is an array like any other from the first update on.
    parameters, model = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (parameters, model))
    shapes = Shapes(parameters, model)
    n = 7 * workload.ghost_batch_size
    batch = examples_of(workload, n)
    if workload.augment is not None:
        example = {key: jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for key, a in batch.items()}
        augmented = traced("augment", workload.augment, key_shape(), example)
        if jax.tree.map(lambda a: a.shape, augmented) != jax.tree.map(lambda a: a.shape, example):
            raise InputError(f"{where}: augment must return an example of the same shapes.")
    for name, function in (("loss", workload.loss), ("score", workload.score)):
        check_examples(where, name, traced(name, function, *evaluated(workload, parameters, model), batch), n)
    if workload.training_loss is not None:
        _check_training(workload, shapes, n)
    number = jax.ShapeDtypeStruct((), jnp.float32)
    for name, of_numbers, argument in (
        ("penalty", workload.penalty, parameters),
        ("score_of_mean", workload.score_of_mean, number),
    ):
        if of_numbers is not None and getattr(traced(name, of_numbers, argument), "shape", None) != ():
            raise InputError(f"{where}: {name} must return one number, shape ().")
    return shapes


def _check_training(workload: Workload, shapes: Shapes, n: int) -> None:
    """Refuse a training loss that does not return the losses and a state like the one that it is given."""
    where, examples = f"workload {workload.name!r}", n * workload.unroll
    state, batch, keys = training_arguments(workload, shapes, examples)
    if workload.streams is not None and any(leaf.shape[:1] != (n,) for leaf in jax.tree.leaves(state)):
        raise InputError(f"{where}: carry(n) must return arrays whose first axis is n.")
    value = _traced(workload, "training_loss", workload.training_loss, shapes.parameters, state, batch, keys)
    losses = (n,) if workload.streams is None else (n, workload.unroll)
    if isinstance(value, tuple) and getattr(value[0], "shape", None) != losses:
        raise InputError(
            f"{where}: training_loss must return losses of shape {losses} for a batch of {examples} examples, not "
            f"{getattr(value[0], 'shape', type(value[0]).__name__)}."
        )
    kinds: Callable[[Any], Any] = lambda tree: jax.tree.map(lambda a: (a.shape, a.dtype), tree)
    if not (isinstance(value, tuple) and len(value) == 2 and kinds(state) == kinds(value[1])):
        raise InputError(
            f"{where}: training_loss must return the losses and a state of the same shapes and types as the state "
            f"that it is given."
        )


def _traced(workload: Workload, name: str, function: Any, *arguments: Any) -> Any:
    try:
        return jax.eval_shape(function, *arguments)
    except Exception as error:
        raise untraceable(f"workload {workload.name!r}: {name}", error) from error


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
