"""What a workload's traced functions cost: their floating-point operations, and convolutions that are slow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax


def operations(traced: Any) -> int:
    """Return the floating-point operations of a traced function: those of matrix products and convolutions.

    A multiplication and an addition count as two. What is left out, such as the update itself and activations,
    is bounded by memory rather than by arithmetic.
    """
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
            inner = [operations(part) for part in nested(equation)]
            total += max(inner, default=0) if name == "cond" else times * sum(inner)
    return total


def slow_convolutions(gradient: Any) -> int:
    """Return how many convolutions of a traced gradient XLA's fast path on the CPU does not take inside a loop.

    It takes those from NHWC by HWIO to NHWC, which JAX's own gradient of a convolution is not (jax-ml/jax#12868).
    """
    fast = jax.lax.conv_dimension_numbers((1, 1, 1, 1), (1, 1, 1, 1), ("NHWC", "HWIO", "NHWC"))
    found = [e for e in _equations(gradient) if e.primitive.name == "conv_general_dilated"]
    return sum(e.params["dimension_numbers"] != fast for e in found)


def nested(equation: Any) -> list[Any]:
    """Return the functions that an equation of a traced function holds."""
    values = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda value: hasattr(value, "eqns"))
    return [value for value in values if hasattr(value, "eqns")]


def _equations(traced: Any) -> Iterator[Any]:
    """Yield what a traced function does on the CPU, also in the functions inside it."""
    for equation in getattr(traced, "jaxpr", traced).eqns:
        yield equation
        parts = nested(equation)
        platforms = equation.params.get("branches_platforms")
        if platforms is not None:
            parts = [p for p, names in zip(parts, platforms, strict=True) if names is None or "cpu" in names][:1]
        for part in parts:
            yield from _equations(part)
