"""A PyTorch module as a pure function: exported by ``torch.export``, and applied in JAX."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import torch
import torch._decomp
from torch.fx.node import map_arg

from sgdscope.errors import InputError
from sgdscope.torch import layers, recurrent  # noqa: F401 - which enter their operations
from sgdscope.torch.draws import ChannelsLast, Context, SharedDrawError
from sgdscope.torch.operations import ELEMENTWISE, NEEDS_CONTEXT, OPERATIONS, PLACEMENT, held, lookup

# Decompositions that torch.export does not use by itself, such as that of an interpolation.
MORE = torch._decomp.decomposition_table

# Operations beside ELEMENTWISE that take each number by itself.
MORE_ELEMENTWISE = {"add", "sub", "mul", "div", "clone", "detach", "alias", "gelu", "hardtanh", "leaky_relu", "elu"}
MORE_ELEMENTWISE |= {"clamp", "clamp_min", "hardsigmoid", "hardswish", "softplus", "threshold"}

# Size of the example batch: not 1, which PyTorch takes for a size of its own, and no usual size of an axis.
EXAMPLES = 11


@dataclass(frozen=True)
class Graph:
    """One mode of a module, training or evaluation, as a list of ATen operations.

    Args:
        nodes: of the exported graph, in their order.
        tensors: the name of each parameter and buffer by its place in the graph; tied parameters have one name.
        constants: the arrays by their place.
        inputs: the places of the examples' arrays.
        moved: which buffer each of the first results is.
        batch: PyTorch's symbol of the number of examples.
    """

    nodes: tuple[Any, ...]
    tensors: Mapping[str, str]
    constants: Mapping[str, Any]
    inputs: tuple[str, ...]
    moved: tuple[str, ...]
    batch: Any

    def __call__(
        self,
        tensors: Mapping[str, Any],
        arrays: Sequence[Any],
        context: Context,
        watch: Callable[[Any, Any], None] | None = None,
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the results of the module for a batch, and the buffers that it moves.

        Args:
            tensors: the parameters and buffers by name.
            arrays: the arrays of a batch.
            context: of random numbers and ghost batches.
            watch: called with each node and its value. Default: none.
        """
        given = {place: tensors[name] for place, name in self.tensors.items()}
        given |= {**self.constants, **dict(zip(self.inputs, arrays, strict=True))}
        values: dict[Any, Any] = {}
        # PyTorch's rules of promotion, and of how numbers of axes fit, are JAX's own unless it is told to be strict.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            for node in self.nodes:
                if node.op == "placeholder":
                    values[node] = given[node.name]
                elif node.op == "call_function":
                    values[node] = self._applied(node, values, context)
                if watch is not None:
                    watch(node, values.get(node))
        results = map_arg(self.nodes[-1].args[0], values.__getitem__)
        return results[len(self.moved) :], dict(zip(self.moved, results, strict=False))

    def _applied(self, node: Any, values: Mapping[Any, Any], context: Context) -> Any:
        name = lookup(operation(node))
        if name is None:  # arithmetic of sizes
            return node.target(*map_arg(node.args, values.__getitem__))
        arguments = map_arg(node.args, values.__getitem__)
        options = map_arg({k: v for k, v in node.kwargs.items() if k not in PLACEMENT}, values.__getitem__)
        if name == "squeeze":  # PyTorch's graph counts on more than one example
            sizes = node.args[0].meta["val"].shape
            axes = range(len(sizes)) if len(arguments) == 1 else arguments[1]
            axes = (axes,) if isinstance(axes, int) else axes
            arguments = (arguments[0], [axis for axis in axes if sizes and isinstance(sizes[axis], int)])
        is_last = False
        if name in NEEDS_CONTEXT:
            context.axis = self.batch_axis(node)
            arguments = (context, *arguments)
        elif name in ELEMENTWISE or name in MORE_ELEMENTWISE:
            arguments, is_last = _all_last(arguments, context)
        try:
            result = OPERATIONS[name](*arguments, **options)
            result = ChannelsLast(result) if is_last else result
        except SharedDrawError:
            raise InputError(
                f"the operation {operation(node)}{line_of(node)} draws random numbers for a whole batch at once, "
                f"which would depend on the batch size. Draw them for each example, in arrays whose first axis is "
                f"that of examples."
            ) from None
        except (NotImplementedError, jax.errors.JAXIndexError, jax.errors.ConcretizationTypeError) as error:
            raise InputError(f"the operation {operation(node)}{line_of(node)} {_why(error)}") from error
        return _typed(result, node.meta.get("val"), context)

    def batch_axis(self, node: Any) -> tuple[int, int] | None:
        """Return which axis of a result counts examples, and how many numbers each has along it; None if none does."""
        value = node.meta.get("val")
        value = value[0] if isinstance(value, tuple | list) else value
        for axis, size in enumerate(getattr(value, "shape", ())):
            expression = getattr(getattr(size, "node", None), "expr", None)
            if expression is not None and expression.has(self.batch):
                return axis, int((expression / self.batch).simplify())
        return None

    def layer(self, node: Any) -> str:
        """Return the name of the module that made a node, by its parameters or buffers, or of the operation."""
        names = [self.tensors[n.name] for n in node.all_input_nodes if n.name in self.tensors]
        return names[0].rpartition(".")[0] if names else operation(node)

    def buffers_behind(self, moved: str | None) -> set[str]:
        """Return the parameters and buffers on which a moved buffer depends; for None, those of the results."""
        results = self.nodes[-1].args[0]
        own = results[len(self.moved) :] if moved is None else results[: len(self.moved)]
        ahead = [
            node
            for place, node in enumerate(own)
            if hasattr(node, "all_input_nodes") and (moved is None or self.moved[place] == moved)
        ]
        seen: set[Any] = set()
        while ahead:
            node = ahead.pop()
            if node not in seen:
                seen.add(node)
                ahead += node.all_input_nodes
        return {self.tensors[node.name] for node in seen if node.name in self.tensors}


def _why(error: Exception) -> str:
    if isinstance(error, NotImplementedError) and error.args:
        return f"is not supported: {error}."
    return (
        "gives an array whose shape depends on the numbers in it, which cannot be compiled. Use torch.where in place "
        "of a boolean index."
    )


def _all_last(arguments: tuple[Any, ...], context: Context) -> tuple[tuple[Any, ...], bool]:
    """Return the arguments of an operation on each number by itself with channels last, if all images are known so."""
    images = [a for a in arguments if getattr(a, "ndim", 0)]
    if not images or any(context.channels_last(a) is None or a.shape != images[0].shape for a in images):
        return arguments, False
    return tuple(context.channels_last(a) if getattr(a, "ndim", 0) else a for a in arguments), True


def _typed(result: Any, meta: Any, context: Context) -> Any:
    """Return a result in PyTorch's types, and of its axes in PyTorch's order."""
    if isinstance(meta, tuple | list) and isinstance(result, tuple | list):
        return [_typed(*pair, context) for pair in zip(result, meta, strict=False)]
    if isinstance(result, ChannelsLast):
        last = jnp.asarray(result.array, held(meta.dtype))
        images = last.transpose(0, 3, 1, 2)
        context.last[id(images)] = images, last  # the images too, so that no other array gets their identity
        return images
    if isinstance(meta, torch.Tensor) and result is not None:
        return jnp.asarray(result, held(meta.dtype))
    return result


def operation(node: Any) -> str:
    """Return the name of a node's operation, such as "add.Tensor"."""
    return str(node.target).removeprefix("aten.")


def line_of(node: Any) -> str:
    """Return which line of the user's made a node, such as " in `x = self.layer(x)`"; empty if that is not known."""
    trace = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines() if line.strip()]
    return f" (of `{trace[-1]}`)" if trace and not trace[-1].startswith("File ") else ""


def export(module: torch.nn.Module, example: Sequence[torch.Tensor]) -> Graph:
    """Return the graph of a module in its present mode, for any number of examples.

    Args:
        module: the module; its mode is the graph's.
        example: arrays of :data:`EXAMPLES` examples.

    Raises:
        InputError: If PyTorch cannot export the module, or if it uses an operation that there is no way to have.
    """
    sizes = ({0: torch.export.Dim("examples")},) * len(example)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(module, tuple(example), dynamic_shapes={"arrays": sizes})
            _stop_gradients(program.graph_module)
            program = _decomposed(program)
        except InputError:
            raise
        except Exception as error:
            raise InputError(_not_exported(error)) from error
    signature = program.graph_signature
    constants = {**signature.inputs_to_lifted_tensor_constants}
    known = {**program.constants, **program.state_dict}
    inputs = signature.user_inputs
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    own = _names(module)
    symbols = [node.meta["val"].shape[0] for node in program.graph.nodes if node.name == inputs[0]]
    return Graph(
        nodes=tuple(program.graph.nodes),
        tensors={place: own[name] for place, name in names.items()},
        constants={place: as_array(known[name]) for place, name in constants.items()},
        inputs=tuple(inputs),
        moved=tuple(own[output.target] for output in _mutations(signature)),
        batch=symbols[0].node.expr,
    )


def _names(module: torch.nn.Module) -> dict[str, str]:
    """Return the name of each parameter and buffer by all of its names: the first where it has several."""
    first: dict[int, str] = {}
    every = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return {name: first.setdefault(id(tensor), own_name(name)) for name, tensor in every}


def own_name(name: str) -> str:
    """Return the user's name of a parameter or buffer, whose module is the part ``model`` of what is exported."""
    return name.removeprefix("model.")


def _mutations(signature: Any) -> list[Any]:
    moved = []
    for output in signature.output_specs:
        kind = output.kind.name
        if kind == "BUFFER_MUTATION":
            moved.append(output)
        elif kind != "USER_OUTPUT":
            raise InputError(f"the module changes its {kind.lower().replace('_', ' ')} {output.target} while it runs.")
    return moved


def as_array(tensor: torch.Tensor) -> Any:
    """Return a tensor as numpy's array in a type that a device holds."""
    array = tensor.detach().cpu()
    return (array.float() if array.dtype == torch.bfloat16 else array).numpy().astype(held(tensor.dtype))


def _stop_gradients(module: Any) -> None:
    """Mark what ``torch.no_grad`` computes as a constant of the gradient, before its region is merged with the rest."""
    for node in list(module.graph.nodes):
        if "wrap_with_set_grad_enabled" not in str(node.target) or node.args[0]:
            continue
        for result in list(node.users):
            with module.graph.inserting_after(result):
                stopped = module.graph.call_function(torch.ops.aten.detach.default, (result,))
            stopped.meta = dict(result.meta)
            result.replace_all_uses_with(stopped, delete_user_cb=lambda user, own=stopped: user is not own)
    module.recompile()


def _decomposed(program: Any) -> Any:
    """Return a program without mutation, in operations of our table as far as PyTorch's decompositions lead to them."""
    table = torch.export.default_decompositions()
    lacking: dict[Any, Any] = {}
    while True:
        program = program.run_decompositions(lacking)
        unknown = {
            node.target
            for node in program.graph.nodes
            if node.op == "call_function" and hasattr(node.target, "_schema") and lookup(operation(node)) is None
        }
        more = {t: (table if t in table else MORE)[t] for t in unknown - lacking.keys() if t in table or t in MORE}
        if not more:
            break
        lacking |= more
    lost = next(
        (
            node
            for node in program.graph.nodes
            if node.op == "call_function" and lookup(operation(node)) is None and not _of_sizes(node)
        ),
        None,
    )
    if lost is not None:
        raise InputError(
            f"the operation {operation(lost)}{line_of(lost)} has no counterpart in JAX here. Write that step with "
            f"other operations of PyTorch, or the model in JAX."
        )
    return program


def _of_sizes(node: Any) -> bool:
    """Return whether a node computes with Python's numbers."""
    return not hasattr(node.target, "_schema") and node.target.__module__ in ("_operator", "math", "torch")


def _not_exported(error: Exception) -> str:
    first = next((line for line in str(error).splitlines() if line.strip()), repr(error)).strip()
    name = type(error).__name__
    if "DataDependent" in name or "data-dependent" in first:
        return (
            "the module decides by the numbers in a tensor what it computes (by an `if`, `.item()` or a boolean "
            "index), which torch.export cannot follow. Use torch.where."
        )
    if "Constraints violated" in first or "specialized" in str(error):
        return (
            f"the module works for a batch of {EXAMPLES} examples only, since it fixes their number. Take the number "
            f"from x.shape[0]."
        )
    return f"torch.export cannot export the module: {name}: {first}"
