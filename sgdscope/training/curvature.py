"""Dense layers that are found in a workload's traced loss, and the Kronecker factors of their Fisher matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from sgdscope.optimizers import Layer
from sgdscope.workloads.base import Batch, Workload

# Operations that hold a function which they merely call.
CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "remat2": "jaxpr", "checkpoint": "jaxpr"}
# Operations after which an array is still the same parameter, in another shape.
VIEWS = {"broadcast_in_dim", "reshape", "squeeze", "expand_dims", "copy"}


class _Mark(NamedTuple):
    """What a value of a traced loss is: a parameter, by its leaf, or the output of a dense layer, by its place."""

    kind: str
    number: int


class _Tape:
    """One evaluation of a traced loss that stops at each product ``x @ W`` with a parameter W.

    Args:
        product: ``product(place, leaf, x, output) -> output``, told of each product in its order.
        bias: ``bias(place, leaf)``, told where a parameter is added to the output of a product.
    """

    def __init__(self, product: Callable[[int, int, Any, Any], Any], bias: Callable[[int, int], Any]) -> None:
        self._product, self._bias, self._places = product, bias, 0

    def run(
        self, jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any], marks: Sequence[_Mark | None]
    ) -> tuple[list[Any], list[_Mark | None]]:
        """Return the results of a function, and what each is."""
        values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments], strict=True))
        known: dict[Any, _Mark | None] = dict(zip(jaxpr.invars, marks, strict=True))
        read: Callable[[Any], Any] = lambda v: v.val if isinstance(v, core.Literal) else values[v]
        mark: Callable[[Any], _Mark | None] = lambda v: None if isinstance(v, core.Literal) else known.get(v)
        for equation in jaxpr.eqns:
            operands, of = [read(v) for v in equation.invars], [mark(v) for v in equation.invars]
            name = equation.primitive.name
            if name in CALLS:
                inner = equation.params[CALLS[name]]
                results, marked = self.run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), operands, of)
            else:
                results, marked = _applied(equation, operands), [None] * len(equation.outvars)
                if name in VIEWS:
                    marked = of[:1]
                elif name in ("add", "add_any") and {each.kind for each in of if each} == {"product", "parameter"}:
                    place, leaf = sorted((each for each in of if each), key=lambda each: each.kind == "parameter")
                    self._bias(place.number, leaf.number)
                elif _is_dense(equation) and of[1] is not None and of[1].kind == "parameter":
                    results = [self._product(self._places, of[1].number, operands[0], results[0])]
                    marked, self._places = [_Mark("product", self._places)], self._places + 1
            values |= zip(equation.outvars, results, strict=True)
            known |= zip(equation.outvars, marked, strict=True)
        return [read(v) for v in jaxpr.outvars], [mark(v) for v in jaxpr.outvars]


def _is_dense(equation: Any) -> bool:
    """Return whether an operation multiplies the last axis of an array by the first of a matrix."""
    if equation.primitive.name != "dot_general":
        return False
    left, right = (v.aval.ndim for v in equation.invars)
    contracted, batched = equation.params["dimension_numbers"]
    return right == 2 and left > 1 and tuple(map(tuple, contracted)) == ((left - 1,), (0,)) and not batched[0]


def _applied(equation: Any, operands: Sequence[Any]) -> list[Any]:
    """Return the results of one operation, which keeps a derivative of its own."""
    primitive = equation.primitive
    results = primitive.bind(*operands, **primitive.get_bind_params(equation.params))
    return list(results) if primitive.multiple_results else [results]


def dense_layers(workload: Workload) -> tuple[Layer, ...]:
    """Return the dense layers of a workload that come once in its training loss, in the order of their products."""
    key = jax.ShapeDtypeStruct((), jax.eval_shape(lambda: jax.random.key(0)).dtype)
    parameters = jax.eval_shape(workload.init, key)
    model = () if workload.init_state is None else jax.eval_shape(workload.init_state)
    n = 2 * workload.ghost_batch_size
    batch = {
        name: jax.ShapeDtypeStruct((n, *array.shape[1:]), jax.dtypes.canonicalize_dtype(array.dtype))
        for name, array in workload.train.items()
    }
    keys = jax.ShapeDtypeStruct((n,), key.dtype)
    found: list[tuple[int, tuple[int, ...]]] = []
    biases: dict[int, int] = {}

    def product(place: int, leaf: int, x: Any, output: Any) -> Any:
        found.append((leaf, (x.shape[-1], output.shape[-1])))
        return output

    def run(parameters: Any, model: Any, batch: Batch, keys: Any) -> Any:
        return _taped(workload, parameters, model, batch, keys, _Tape(product, biases.setdefault))

    jax.eval_shape(run, parameters, model, batch, keys)
    shapes = [leaf.shape for leaf in jax.tree.leaves(parameters)]
    weights = [leaf for leaf, _ in found]
    layers = []
    for place, (leaf, (inputs, outputs)) in enumerate(found):
        bias = biases.get(place)
        if bias is not None and shapes[bias] != (outputs,):
            bias = None
        if weights.count(leaf) == 1:
            layers.append(Layer(leaf, bias, inputs + (bias is not None), outputs))
    return tuple(layers)


def kronecker_factors(
    workload: Workload, key: Any, parameters: Any, model: Any, batch: Batch, keys: Any
) -> list[tuple[Any, Any]]:
    """Return for each dense layer A, the mean of ā āᵀ over a batch, and G, that of g gᵀ.

    ā are the layer's inputs, with a 1 for its bias, and g the gradient of each example's loss by the layer's output,
    with targets drawn from the model.

    Args:
        workload: whose layers they are.
        key: what targets are drawn with.
        parameters: where the curvature is taken.
        model: the model's state.
        batch: the examples.
        keys: their random keys.
    """
    layers = dense_layers(workload)
    wanted = {layer.weight: number for number, layer in enumerate(layers)}
    drawn = workload.sample_targets(parameters, model, batch, key)  # type: ignore[misc]
    nothing: Callable[[int, int], None] = lambda place, leaf: None

    def outputs(place: int, leaf: int, x: Any, output: Any) -> Any:
        if leaf in wanted:
            shapes[wanted[leaf]] = output
        return output

    shapes: dict[int, Any] = {}
    jax.eval_shape(lambda: _taped(workload, parameters, model, drawn, keys, _Tape(outputs, nothing)))
    probes = {number: jnp.zeros(output.shape, jnp.float32) for number, output in shapes.items()}

    def run(probes: Mapping[int, Any]) -> tuple[Any, tuple[dict[int, Any], Any]]:
        inputs: dict[int, Any] = {}

        def product(place: int, leaf: int, x: Any, output: Any) -> Any:
            if leaf not in wanted:
                return output
            inputs[wanted[leaf]] = x
            return output + probes[wanted[leaf]]

        losses = _taped(workload, parameters, model, drawn, keys, _Tape(product, nothing))
        return losses.astype(jnp.float32).sum(), (inputs, losses.size)

    gradients, (inputs, count) = jax.grad(run, has_aux=True)(probes)
    factors = []
    for number, layer in enumerate(layers):
        x, g = (of[number].reshape(-1, of[number].shape[-1]) for of in (inputs, gradients))
        if layer.bias is not None:
            x = jnp.concatenate([x, jnp.ones((len(x), 1), x.dtype)], axis=1)
        factors.append((x.T @ x / len(x), g.T @ g / count))
    return factors


def _taped(workload: Workload, parameters: Any, model: Any, batch: Batch, keys: Any, tape: _Tape) -> Any:
    """Return the training loss of each example, evaluated on a tape."""

    def losses(parameters: Any, model: Any, batch: Batch, keys: Any) -> Any:
        if workload.training_loss is None:
            return workload.loss(parameters, model, batch)
        return workload.training_loss(parameters, model, batch, keys)[0]

    arguments = (parameters, model, batch, keys)
    traced = jax.make_jaxpr(losses)(*arguments)
    leaves, of_parameters = jax.tree.leaves(arguments), len(jax.tree.leaves(parameters))
    marks = [_Mark("parameter", number) if number < of_parameters else None for number in range(len(leaves))]
    (result,), _ = tape.run(traced.jaxpr, traced.consts, leaves, marks)
    return result
