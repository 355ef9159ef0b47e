"""Matrix products and convolutions of a function in bfloat16, everything else as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.extend.core import primitives


def products_in_bfloat16(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose float32 products take operands that are rounded to bfloat16.

    Products of matrices are added up in float32; those of convolutions come out rounded to bfloat16, as a GPU's library
    gives them. All else stays in float32. The function must not be differentiated again: it is a gradient, not a loss.

    >>> a = jnp.full((1, 1), 1 + 2**-9)
    >>> float(products_in_bfloat16(jnp.matmul)(a, a)[0, 0])
    1.0
    """

    def rounded(*arguments: Any) -> Any:
        traced, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        results = _evaluated(traced.jaxpr, traced.consts, jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return rounded


def _evaluated(jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments], strict=True))
    read: Callable[[Any], Any] = lambda v: v.val if isinstance(v, core.Literal) else values[v]
    for equation in jaxpr.eqns:
        results = _applied(equation, [read(variable) for variable in equation.invars])
        values |= zip(equation.outvars, results, strict=True)
    return [read(variable) for variable in jaxpr.outvars]


def _applied(equation: Any, operands: list[Any]) -> Sequence[Any]:
    primitive, parameters = equation.primitive, equation.params
    if primitive in (primitives.dot_general_p, primitives.conv_general_dilated_p) and all(
        operand.dtype == jnp.float32 for operand in operands
    ):
        wide = jnp.float32 if primitive is primitives.dot_general_p else jnp.bfloat16
        parameters = parameters | {"precision": None, "preferred_element_type": wide}
        product = primitive.bind(*(operand.astype(jnp.bfloat16) for operand in operands), **parameters)
        return [product.astype(jnp.float32)]
    called = parameters.get("call_jaxpr")
    if called is not None:  # a call, or a function whose derivative, which is not wanted any more, was the user's own
        called = called if isinstance(called, core.ClosedJaxpr) else core.ClosedJaxpr(called, ())
        return _evaluated(called.jaxpr, called.consts, operands)
    results = primitive.bind(*operands, **{name: _with_rounded(value) for name, value in parameters.items()})
    return results if primitive.multiple_results else [results]


def _with_rounded(value: Any) -> Any:
    """Return a primitive's parameter with the functions in it rounded."""
    if isinstance(value, core.ClosedJaxpr):
        shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in value.jaxpr.invars]
        return jax.make_jaxpr(lambda *arguments: _evaluated(value.jaxpr, value.consts, arguments))(*shapes)
    if isinstance(value, core.Jaxpr):
        return _with_rounded(core.ClosedJaxpr(value, ())).jaxpr
    if isinstance(value, tuple) and any(isinstance(part, core.ClosedJaxpr) for part in value):
        return tuple(_with_rounded(part) for part in value)
    return value
