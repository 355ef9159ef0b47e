"""The fingerprint of traced functions: a hash of what they compute, and of nothing that only their print shows.

A value is identified by how it is computed: a constant by its type, shape and bytes, an argument by its place, a result
by the operation, its parameters and its operands. Left out is what has no part in a result: names, lines of source,
addresses, devices, shardings, the order of independent operations, and Python functions inside parameters.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import re
from collections.abc import Mapping, Sequence, Set
from enum import Enum
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Raised with every change of what a fingerprint is made of.
FINGERPRINT_FORM = 3

Digest = bytes

# Parameters that say how an operation is called, laid out or differentiated, and not what it computes.
UNTOLD = {
    # how they are shown
    *("name_and_src_info", "debug", "debug_info", "source_info", "metadata", "cost_estimate", "origin", "weak_type"),
    # where their arrays are
    *("ctx_mesh", "mesh", "sharding", "out_sharding", "in_shardings", "out_shardings"),
    *("in_layouts", "out_layouts", "donated_invars", "keep_unused"),
    # what is kept between a function and its gradient
    *("inline", "prevent_cse", "differentiated", "policy"),
    # how a gradient would be taken
    *("jvp_jaxpr_fun", "jvp_jaxpr_thunk", "fwd_jaxpr_thunk", "bwd", "out_trees", "num_consts", "symbolic_zeros"),
}
# In a text that shows an object.
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
# Calls, which compute just what the function inside computes.
CALLS = {"jit", "pjit", "closed_call", "core_call", "call", "remat", "remat2", "checkpoint"}
CALLS |= {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}


def fingerprint(*traced: Any) -> str:
    """Return a hash of closed jaxprs, 16 hexadecimal digits: the same in every process, for one version of JAX."""
    return _digest("program", *(_Walk().applied(each) for each in traced)).hex()[:16]


class _Walk:
    """One pass over a traced function; operations with effects depend on all those before them."""

    def __init__(self) -> None:
        self._effects = b""
        self._depth = 0
        self._constants: dict[int, tuple[Any, Digest]] = {}

    def closed(self, traced: Any, operands: Sequence[Digest]) -> Digest:
        """Return the digest of all results of a function, and of its effects."""
        return _digest("results", *self.results(traced, operands), self._effects)

    def results(self, traced: Any, operands: Sequence[Digest]) -> list[Digest]:
        """Return the digest of each result of a function, closed or not, from the digest of each argument."""
        jaxpr = getattr(traced, "jaxpr", traced)
        known: dict[Any, Digest] = dict(zip(jaxpr.invars, operands, strict=True))
        constants = getattr(traced, "consts", ())
        if len(constants) == len(jaxpr.constvars):
            known |= {v: self._constant(c) for v, c in zip(jaxpr.constvars, constants, strict=True)}
        else:  # what it closes over is not known here
            known |= {v: self._argument(~place, v) for place, v in enumerate(jaxpr.constvars)}

        def of(variable: Any) -> Digest:
            return (
                _array(np.asarray(variable.val, variable.aval.dtype)) if hasattr(variable, "val") else known[variable]
            )

        for equation in jaxpr.eqns:
            if equation.primitive.name.startswith("debug_"):  # printing
                continue
            given = self._equation(equation, [of(variable) for variable in equation.invars])
            known |= zip(equation.outvars, given, strict=True)
        return [of(variable) for variable in jaxpr.outvars]

    def _equation(self, equation: Any, operands: list[Digest]) -> list[Digest]:
        """Return the digest of each result of one operation."""
        name, parameters = equation.primitive.name, dict(equation.params)
        functions = [value for value in parameters.values() if _is_function(value)]
        if name in CALLS and len(functions) == 1 and len(_inputs(functions[0])) == len(operands):
            return self.results(functions[0], operands)
        parts: list[Any] = []
        if name == "scan":
            kept, parameters["num_carry"] = _kept_and_carried(parameters)
            parts = [self.applied(parameters.pop("jaxpr"), operands[:kept]), *operands[kept:]]
        elif name == "while":
            of_test, of_body = parameters.pop("cond_nconsts"), parameters.pop("body_nconsts")
            kept = of_test + of_body
            parts = [
                self.applied(parameters.pop("cond_jaxpr"), operands[:of_test]),
                self.applied(parameters.pop("body_jaxpr"), operands[of_test:kept]),
                *operands[kept:],
            ]
        elif name == "cond":
            parts = [operands[0], *(self.closed(branch, operands[1:]) for branch in parameters.pop("branches"))]
        else:
            parts = operands
        # The name of an operation that holds a function is the function's.
        untold = UNTOLD | {"name"} if functions else UNTOLD
        told = {key: value for key, value in parameters.items() if key not in untold and value is not None}
        digest = _digest("operation", name, self.canonical(told), *parts)
        if equation.effects:
            digest = self._effects = _digest("effect", self._effects, digest)
        return [
            _digest("result", digest, str(place), _type(variable.aval))
            for place, variable in enumerate(equation.outvars)
        ]

    def applied(self, traced: Any, kept: Sequence[Digest] = ()) -> Digest:
        """Return the digest of a function of its own arguments: the first are known, the others go by their places."""
        self._depth += 1
        own = [self._argument(place, variable) for place, variable in enumerate(_inputs(traced)[len(kept) :])]
        digest = self.closed(traced, [*kept, *own])
        self._depth -= 1
        return digest

    def _argument(self, place: int, variable: Any) -> Digest:
        return _digest("argument", str(self._depth), str(place), _type(variable.aval))

    def _constant(self, value: Any) -> Digest:
        if id(value) not in self._constants:  # the value is kept as well, so that no other takes its place in memory
            self._constants[id(value)] = value, _array(value)
        return self._constants[id(value)][1]

    def canonical(self, value: Any, within: tuple[int, ...] = ()) -> Digest:
        """Return the digest of a parameter, by its value where it has one, and else by its kind alone."""
        if id(value) in within:
            return _digest("circle")
        each = partial(self.canonical, within=(*within, id(value)))
        if isinstance(value, Enum):
            return _digest("choice", type(value).__name__, value.name)
        if isinstance(value, str):
            return _digest("text", ADDRESS.sub("", value))
        if value is None or isinstance(value, bool | int | float | complex | bytes):
            return _digest("plain", type(value).__name__, repr(value))
        if _is_function(value):
            return self.applied(value)
        if isinstance(value, jax.Array) or hasattr(value, "__array__"):
            return _array(value) if value.dtype != object else each(np.asarray(value).tolist())
        if isinstance(value, np.dtype):
            return _digest("type", value.name)
        if isinstance(value, type):
            return _digest("type", value.__name__)
        if hasattr(value, "dtype") and hasattr(value, "shape"):
            return _digest("shape", _type(value))
        if isinstance(value, Mapping):
            return _digest("mapping", *sorted(each(key) + each(item) for key, item in value.items()))
        if isinstance(value, Set):
            return _digest("set", *sorted(map(each, value)))
        if isinstance(value, Sequence | jax.sharding.PartitionSpec):
            return _digest("sequence", *map(each, value))
        if isinstance(value, partial):
            return _digest("partial", each(value.args), each(value.keywords))
        if inspect.isroutine(value):
            return _digest("routine")
        return _digest("object", type(value).__name__, each(_fields(value)))


def _kept_and_carried(scan: dict[str, Any]) -> tuple[int, int]:
    """Take from a scan's parameters how many operands it keeps and how many it carries on, in any version of JAX."""
    if "ft_in" not in scan:
        return scan.pop("num_consts"), scan.pop("num_carry")
    del scan["ft_out"]
    kept, carried, _ = map(len, scan.pop("ft_in").unpack())
    return kept, carried


def _fields(value: Any) -> dict[str, Any]:
    """Return what an object shows of itself: its public fields, which caches and counters of libraries are not."""
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    else:
        fields = dict(getattr(value, "__dict__", {}))
    return {name: field for name, field in fields.items() if not name.startswith("_") and name not in UNTOLD}


def _is_function(value: Any) -> bool:
    return hasattr(value, "eqns")


def _inputs(traced: Any) -> list[Any]:
    inputs: list[Any] = getattr(traced, "jaxpr", traced).invars
    return inputs


def _array(value: Any) -> Digest:
    """Return the digest of an array: its type, shape and bytes."""
    kind = str(value.dtype)
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    array = np.ascontiguousarray(value)
    content = array.reshape(-1).view(np.uint8).data if array.nbytes else b""
    return _digest("constant", kind, str(np.shape(value)), content)


def _type(aval: Any) -> str:
    return f"{type(aval).__name__ if not hasattr(aval, 'dtype') else aval.dtype} {getattr(aval, 'shape', '')}"


def _digest(*parts: str | bytes | memoryview) -> Digest:
    """Return the hash of parts, each with its length, so that no two lists of parts read the same."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8))
        digest.update(content)
    return digest.digest()
