"""How a PyTorch module draws its parameters, as a function of a key: recorded once, and drawn anew by JAX.

While the module is made, each operation that draws random numbers, or that uses what was drawn, is written down with
the places in memory that it reads and writes. What depends on no draw is a constant.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from sgdscope.errors import InputError
from sgdscope.torch import layers  # noqa: F401 - which enter their operations
from sgdscope.torch.draws import Context
from sgdscope.torch.graph import as_array
from sgdscope.torch.operations import NEEDS_CONTEXT, OPERATIONS, PLACEMENT, held, lookup

# Operations that draw random numbers.
DRAWS = {"uniform_", "normal_", "bernoulli_", "exponential_", "rand", "randn", "rand_like", "randn_like", "bernoulli"}
DRAWS |= {"normal", "randint", "randint_like", "randperm", "random_", "log_normal_", "cauchy_", "geometric_"}
DRAWS |= {"multinomial", "poisson"}

Memory = dict[int, Any]  # storages by number, each a flat array


@dataclass(frozen=True)
class View:
    """Which numbers of a storage a tensor shows."""

    storage: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    size: int  # of the storage

    def _order(self) -> list[int] | None:
        """Return the axes from the outermost in memory, where the tensor shows all of the storage; else None."""
        order = sorted(range(len(self.shape)), key=lambda axis: (-self.strides[axis], -self.shape[axis]))
        step = 1
        for axis in reversed(order):
            if self.shape[axis] != 1 and self.strides[axis] != step:
                return None
            step *= self.shape[axis]
        return order if self.offset == 0 and step == self.size else None

    def _places(self) -> np.ndarray:
        grid = np.full(self.shape, self.offset)
        for axis, (size, stride) in enumerate(zip(self.shape, self.strides, strict=True)):
            grid += np.expand_dims(np.arange(size) * stride, tuple(a for a in range(len(self.shape)) if a != axis))
        return grid

    def read(self, memory: Memory) -> Any:
        """Return the tensor."""
        flat, order = memory[self.storage], self._order()
        if order is None:
            return flat[self._places()]
        return flat.reshape([self.shape[axis] for axis in order]).transpose(np.argsort(order))

    def write(self, memory: Memory, value: Any) -> None:
        """Overwrite the tensor."""
        flat, order = memory[self.storage], self._order()
        value = jnp.broadcast_to(value, self.shape).astype(flat.dtype)
        if order is None:
            memory[self.storage] = flat.at[self._places()].set(value)
        else:
            memory[self.storage] = value.transpose(order).reshape(-1)


class _Source(Context):
    """Random numbers of initialization, which belong to no example."""

    def __init__(self, key: Any) -> None:
        super().__init__(1, 1, key)

    def uniform(self, shape: tuple[int, ...], axis: Any = None) -> Any:
        return jax.random.uniform(self._next(), shape)

    def normal(self, shape: tuple[int, ...]) -> Any:
        return jax.random.normal(self._next(), shape)

    def _next(self) -> Any:
        self.draws += 1
        return jax.random.fold_in(self.keys, self.draws)


Step = Callable[[Memory, _Source], None]


class _Recorder(TorchDispatchMode):  # type: ignore[misc]
    """Write down what random numbers go through, while PyTorch makes a module."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self._storages: dict[int, int] = {}
        self._alive: list[Any] = []  # so that no other storage takes the place of one in memory

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(func).removeprefix("aten.")
        base = name.partition(".")[0]
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if base.startswith(("empty", "new_empty")):  # what memory happens to hold is no number of the user's
            return func(*args, **kwargs).zero_()
        if base not in DRAWS and not any(self.drawn(tensor) for tensor in given):
            return func(*args, **kwargs)
        if base in ("_local_scalar_dense", "equal", "is_nonzero"):
            raise InputError(
                "make decides by a random number what it does (by an `if` or `.item()`). The parameters of all seeds "
                "must be drawn in the same steps."
            )
        if torch.Tag.inplace_view in func.tags:
            return func(*args, **kwargs)
        written = [
            value
            for argument, value in zip(func._schema.arguments, args, strict=False)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        written += [kwargs["out"]] if isinstance(kwargs.get("out"), torch.Tensor) else []
        shared = {tensor.untyped_storage()._cdata for tensor in given}
        for tensor in written:
            if not self.drawn(tensor):
                self._track(tensor, constant=True)
        operands, options = tree_map(
            self.place, (args, {k: v for k, v in kwargs.items() if k not in PLACEMENT | {"out"}})
        )
        result = func(*args, **kwargs)
        results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        if not written and all(tensor.untyped_storage()._cdata in shared for tensor in results):
            return result  # another view of the same numbers
        for tensor in results:
            if not self.drawn(tensor):
                self._track(tensor, constant=False)
        places = [self.place(tensor) for tensor in written or results]
        self.steps.append(_step(name, operands, options, places))
        return result

    def drawn(self, tensor: torch.Tensor) -> bool:
        """Return whether a tensor depends on random numbers."""
        return tensor.untyped_storage()._cdata in self._storages

    def place(self, value: Any) -> Any:
        """Return where a tensor's numbers are, or the numbers themselves where none was drawn."""
        if not isinstance(value, torch.Tensor):
            return value
        if not self.drawn(value):
            return as_array(value).copy()
        storage = value.untyped_storage()
        size = storage.nbytes() // value.element_size()
        number = self._storages[storage._cdata]
        return View(number, tuple(value.shape), value.stride(), value.storage_offset(), size)

    def _track(self, tensor: torch.Tensor, constant: bool) -> None:
        storage = tensor.untyped_storage()
        self._alive.append(storage)
        number = self._storages[storage._cdata] = len(self._storages)
        size = storage.nbytes() // tensor.element_size()
        start = np.zeros(size, held(tensor.dtype))
        if constant:
            start[:] = as_array(torch.as_strided(tensor.detach(), (size,), (1,), 0))
        self.steps.append(lambda memory, source: memory.update({number: jnp.asarray(start)}))


def _step(name: str, operands: Any, options: Any, places: Sequence[View]) -> Step:
    base, _, overload = name.partition(".")
    plain = base.rstrip("_") if base not in OPERATIONS else base
    found = lookup(f"{plain}.{overload}")
    if found is None:
        raise InputError(
            f"make draws parameters by the operation {name}, which has no counterpart in JAX here. Use the functions "
            f"of torch.nn.init."
        )
    function, draws = OPERATIONS[found], found in NEEDS_CONTEXT

    def step(memory: Memory, source: _Source) -> None:
        read = lambda value: value.read(memory) if isinstance(value, View) else value
        arguments, named = tree_map(read, (operands, options), is_leaf=lambda value: isinstance(value, View))
        result = function(source, *arguments, **named) if draws else function(*arguments, **named)
        results = result if isinstance(result, tuple | list) else [result]
        for place, value in zip(places, results, strict=False):
            place.write(memory, value)

    return step


def _truncated_normal(
    tensor: torch.Tensor, mean: float, std: float, a: float, b: float, generator: Any = None
) -> torch.Tensor:
    """Draw from the truncated normal distribution by its inverse, where PyTorch draws until all numbers fit."""
    below, above = (math.erf((bound - mean) / std / math.sqrt(2)) for bound in (a, b))
    with torch.no_grad():
        tensor.uniform_(below, above).erfinv_().mul_(std * math.sqrt(2)).add_(mean)
        return tensor.clamp_(a, b)


@contextmanager
def _seeded() -> Iterator[None]:
    """Draw from seed 0, and leave PyTorch's random numbers as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def recorded(make: Callable[[], torch.nn.Module]) -> tuple[torch.nn.Module, Callable[[Any], dict[str, Any]]]:
    """Return a module, and the function of a key that draws its trained parameters from the same distributions.

    Raises:
        InputError: If ``make`` returns no new module each time, or draws in a way that cannot be written down.
    """
    recorder = _Recorder()
    inverse = mock.patch.object(torch.nn.init, "_no_grad_trunc_normal_", _truncated_normal)
    with _seeded(), inverse, recorder:
        module = make()
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"make returns a {type(module).__name__}. Return a torch.nn.Module.")
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not trained:
        raise InputError("make returns a module without parameters to train (requires_grad is False for all).")
    places = {name: recorder.place(p) for name, p in trained.items()}
    steps = tuple(recorder.steps)
    _check_again(module, make)

    def init(key: Any) -> dict[str, Any]:
        memory: Memory = {}
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            source = _Source(key)
            for step in steps:
                step(memory, source)
            read: Any = lambda place: place.read(memory) if isinstance(place, View) else jnp.asarray(place)
            return {name: read(place) for name, place in places.items()}

    return module, init


def _check_again(module: torch.nn.Module, make: Callable[[], torch.nn.Module]) -> None:
    """Refuse a ``make`` that does not make the same module again from the same random numbers of PyTorch."""
    inverse = mock.patch.object(torch.nn.init, "_no_grad_trunc_normal_", _truncated_normal)
    with _seeded(), inverse:
        again = make()
    if again is module:
        raise InputError("make returns the same module each time. Make a new one in each call, such as lambda: Net().")
    first, second = (dict(itertools.chain(m.named_parameters(), m.named_buffers())) for m in (module, again))
    for name in first.keys() | second.keys():
        if name not in first or name not in second or not torch.equal(first[name], second[name]):
            raise InputError(
                f"make draws {name} from other random numbers than PyTorch's, such as numpy's. Use torch.nn.init or "
                f"torch's own functions, whose draws then come from each trial's seed."
            )
