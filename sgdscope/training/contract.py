"""The user's functions before anything is trained: a workload is traced once, and what it gives is checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from sgdscope.errors import InputError
from sgdscope.optimizers import Optimizer
from sgdscope.training.fingerprint import fingerprint, hash_of
from sgdscope.training.flops import operations, slow_convolutions
from sgdscope.training.jax_setup import pinned
from sgdscope.training.shapes import Shapes, examples_of, key_shape, training_arguments
from sgdscope.training.step import evaluated, mean_loss
from sgdscope.workloads.base import SPLITS, Workload, examples_in


@dataclass(frozen=True, eq=False)
class TracedWorkload:
    """A workload whose functions have been traced and checked: what everyone asks of it, found out once.

    Args:
        workload: the model and its data.
        shapes: those of its parameters and of its model's state.
    """

    workload: Workload
    shapes: Shapes

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what the functions compute."""
        with pinned():
            return fingerprint(self.workload, self.shapes)

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
                return hash_of([(update, (parameters, state, parameters, number, numbers))])
        except InputError as error:
            raise InputError(str(error)) from None  # without the notes that JAX adds
        except Exception as error:  # whatever an optimizer of the user's raises
            first_line = (str(error).strip() or repr(error)).splitlines()[0]
            raise InputError(
                f"optimizers: {optimizer} cannot be traced by JAX: {type(error).__name__}: {first_line}"
            ) from error

    @cached_property
    def operations_per_example(self) -> float:
        """The floating-point operations of a gradient, an example."""
        return operations(self._gradient) / (self.workload.ghost_batch_size * self.workload.unroll)

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
    """Trace a workload's functions, and refuse those whose shapes are not the contract's.

    Raises:
        InputError: where a function of the workload fails or returns another shape.
    """
    with pinned():
        return TracedWorkload(workload, _checked(workload))


def _checked(workload: Workload) -> Shapes:
    parameters = _traced(workload, "init", workload.init, key_shape())
    model = () if workload.init_state is None else _traced(workload, "init_state", workload.init_state)
    for name, tree in (("init", parameters), ("init_state", model)):
        leaves = jax.tree.leaves(tree)
        if (name == "init" and not leaves) or any(leaf.dtype != jnp.float32 for leaf in leaves):
            raise InputError(f"workload {workload.name!r}: {name} must return a tree of float32 arrays.")
    shapes = Shapes(parameters, model)
    n = 7 * workload.ghost_batch_size
    batch = examples_of(workload, n)
    if workload.augment is not None:
        example = {key: jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for key, a in batch.items()}
        augmented = _traced(workload, "augment", workload.augment, key_shape(), example)
        if jax.tree.map(lambda a: a.shape, augmented) != jax.tree.map(lambda a: a.shape, example):
            raise InputError(f"workload {workload.name!r}: augment must return an example of the same shapes.")
    for name, function in (("loss", workload.loss), ("score", workload.score)):
        _check_arguments(workload, name, function)
        value = _traced(workload, name, function, *evaluated(workload, parameters, model), batch)
        if getattr(value, "shape", None) != (n,):
            raise InputError(
                f"workload {workload.name!r}: {name} must return one number for each example, shape (n,), but "
                f"returns shape {getattr(value, 'shape', type(value).__name__)} for a batch of n = {n}."
            )
    if workload.training_loss is not None:
        given, batch, keys = training_arguments(workload, shapes, n * workload.unroll)
        if workload.streams is not None and any(leaf.shape[:1] != (n,) for leaf in jax.tree.leaves(given)):
            raise InputError(f"workload {workload.name!r}: carry(n) must return arrays whose first axis is n.")
        value = _traced(workload, "training_loss", workload.training_loss, parameters, given, batch, keys)
        kept = jax.tree.map(lambda a: (a.shape, a.dtype), given)
        losses = (n,) if workload.streams is None else (n, workload.unroll)
        if isinstance(value, tuple) and getattr(value[0], "shape", None) != losses:
            raise InputError(
                f"workload {workload.name!r}: training_loss must return losses of shape {losses} for a batch of "
                f"{n * workload.unroll} examples, not {getattr(value[0], 'shape', type(value[0]).__name__)}."
            )
        if not (isinstance(value, tuple) and len(value) == 2) or kept != jax.tree.map(
            lambda a: (a.shape, a.dtype), value[1]
        ):
            raise InputError(
                f"workload {workload.name!r}: training_loss must return the losses and a state of the same shapes "
                f"and types as the state that it is given."
            )
    number = jax.ShapeDtypeStruct((), jnp.float32)
    for name, of_numbers, argument in (
        ("penalty", workload.penalty, parameters),
        ("score_of_mean", workload.score_of_mean, number),
    ):
        if of_numbers is not None and getattr(_traced(workload, name, of_numbers, argument), "shape", None) != ():
            raise InputError(f"workload {workload.name!r}: {name} must return one number, shape ().")
    return shapes


def _check_arguments(workload: Workload, name: str, function: Callable[..., Any]) -> None:
    """Refuse a function that does not take three arguments, where that can be told."""
    try:
        inspect.signature(function).bind(None, None, None)
    except TypeError:
        raise InputError(
            f"workload {workload.name!r}: {name} must take (parameters, state, batch); state is () for a model without "
            f"a state."
        ) from None
    except ValueError:  # a function without a signature
        pass


def _traced(workload: Workload, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return jax.eval_shape(function, *arguments)
    except Exception as error:
        first_line = (str(error).strip() or repr(error)).splitlines()[0]
        raise InputError(
            f"workload {workload.name!r}: {name} cannot be traced by JAX: {type(error).__name__}: {first_line}"
        ) from error
