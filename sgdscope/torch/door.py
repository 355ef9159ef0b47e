"""The check at the door: one batch through PyTorch's own autograd, compared with the module in JAX."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn
from torch.fx.node import map_arg
from torch.utils._python_dispatch import TorchDispatchMode

from sgdscope.errors import InputError
from sgdscope.torch.draws import Context, pattern
from sgdscope.torch.graph import as_array, line_of, operation, own_name

# By how much numbers of JAX and PyTorch may differ, relative to the largest of an array.
TOLERANCE = 1e-4
# A gradient so much smaller than the largest of the module is rounding, such as of a bias before a normalization.
NEGLIGIBLE = 1e-3
# Examples of a batch where there are no ghost batches.
BATCH = 8
# How often a module is called with the same examples, to see that it computes the same.
REPEATS = 4


class _Patterned(TorchDispatchMode):  # type: ignore[misc]
    """Put fixed numbers in the place of PyTorch's random numbers, the same that JAX is given."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        base = str(func).removeprefix("aten.").partition(".")[0]
        if base == "native_dropout":
            x, rate, _ = args
            kept = _uniform(x) < 1 - rate
            return torch.where(kept, x / (1 - rate), 0.0), kept
        if base in ("bernoulli_", "uniform_", "normal_", "exponential_"):
            numbers = _drawn(base, args[0], *args[1:], **{k: v for k, v in kwargs.items() if k != "generator"})
            return args[0].copy_(numbers)
        if base == "bernoulli":
            x, *rate = args
            return (_uniform(x) < (rate[0] if rate else x)).to(x.dtype)
        if base in ("rand", "randn", "rand_like", "randn_like"):
            result = func(*args, **kwargs)
            return result.copy_(2 * _uniform(result) - 1 if base.startswith("randn") else _uniform(result))
        return func(*args, **kwargs)


def _uniform(x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(pattern(tuple(x.shape)))


def _drawn(base: str, x: torch.Tensor, *numbers: float) -> torch.Tensor:
    u = _uniform(x)
    if base == "bernoulli_":
        return u < (numbers[0] if numbers else 0.5)
    if base == "exponential_":
        return -torch.log1p(-u) / (numbers[0] if numbers else 1.0)
    first, second = (*numbers, *(0.0, 1.0)[len(numbers) :])
    return first + (second - first) * u if base == "uniform_" else first + second * (2 * u - 1)


def check(bridge: Any, heads: nn.Module, loss: Callable[..., Any], init: Any, train: Mapping[str, np.ndarray]) -> None:
    """Refuse a module that does not compute in JAX what it computes in PyTorch.

    A batch is trained on in both, in PyTorch ghost batch after ghost batch where there are any. Compared are the
    losses, the gradient of each parameter, the moved buffers, and losses and scores in evaluation mode. The parameters
    are those of one key.

    Raises:
        InputError: If numbers differ; the sentence names the operation, parameter or buffer.
    """
    piece, n = (bridge.ghost, 2 * bridge.ghost) if bridge.ghost > 1 else (BATCH, BATCH)
    batch = {key: array[np.arange(n) % len(array)] for key, array in train.items()}
    arrays = [torch.from_numpy(array) for array in batch.values()]
    held = {key: jnp.asarray(as_array(a)) for key, a in zip(batch, arrays, strict=True)}
    parameters = init(jax.random.key(0))
    _load(heads, parameters)
    for mode in (True, False):
        _check_repeated(heads.train(mode), arrays)

    def mean(parameters: Any, state: Any, batch: Any) -> Any:
        losses, state = bridge.trained(parameters, state, batch, None, piece)
        return losses.mean(), (losses, state)

    (_, (losses, state)), gradient = jax.jit(jax.value_and_grad(mean, has_aux=True))(
        parameters, dict(bridge.state), held
    )
    own_losses, own_gradient, own_buffers = _trained(heads, arrays, piece)
    if not near(losses, own_losses):
        first = _first_difference(bridge, parameters, arrays, piece)
        raise InputError(f"{first} gives other numbers in JAX than in PyTorch.")
    _check_alone(bridge, parameters, held)
    largest = max(float(np.abs(g).max(initial=0)) for g in own_gradient.values())
    for name, value in gradient.items():
        if not near(value, own_gradient[name], NEGLIGIBLE * largest):
            raise InputError(
                f"the gradient of the parameter {name} is another in JAX than in PyTorch. A gradient of your own, by "
                f"torch.autograd.Function or a hook, is not carried over; write it with torch.where and detach."
            )
    for name, value in state.items():
        if not near(value, own_buffers[name]):
            raise InputError(f"the buffer {name} moves otherwise in JAX than in PyTorch.")
    _check_evaluation(bridge, heads, loss, (parameters, state, held), arrays)


def _check_repeated(heads: nn.Module, arrays: Sequence[torch.Tensor]) -> None:
    """Refuse a module that draws random numbers other than PyTorch's, or computes something else in each call."""
    before = {name: buffer.clone() for name, buffer in heads.named_buffers()}
    sources: dict[str, Callable[[], Any]] = {
        "Python's module random": random.getstate,
        "numpy": lambda: repr(np.random.get_state(legacy=False)),  # noqa: NPY002 - which the user may draw from
    }
    results = []
    for _ in range(REPEATS):
        states = {name: state() for name, state in sources.items()}
        with torch.no_grad(), _Patterned():
            results.append(torch.cat(heads(*arrays)))
            for name, buffer in heads.named_buffers():
                buffer.copy_(before[name])
        for name, state in sources.items():
            if state() != states[name]:
                raise InputError(
                    f"the module draws a random number of {name} in its forward pass, which would be the same in every "
                    f"update. Draw it by torch, for each example."
                )
    if not all(torch.allclose(results[0], other, rtol=1e-6, atol=0, equal_nan=True) for other in results[1:]):
        raise InputError(
            "the module gives another result each time for the same examples. The likely cause is a random number of "
            "numpy or Python, the time, or a counter that is a number of Python. Draw random numbers by torch, and "
            "count in a buffer."
        )


def _check_evaluated_alone(heads: nn.Module, arrays: Sequence[torch.Tensor], whole: Sequence[torch.Tensor]) -> None:
    """Refuse a loss or score in evaluation mode, given that of a batch, which is another in each half of the batch."""
    n = len(arrays[-1])
    with torch.no_grad():
        halves = [heads(*(array[part] for array in arrays)) for part in (slice(n // 2), slice(n // 2, n))]
    for what, values, *parts in zip(("loss", "score"), whole, *halves, strict=True):
        if not near(torch.cat(parts), values):
            raise InputError(
                f"the {what} of an example in evaluation mode depends on the other examples of its batch, so that it "
                f"would change with evaluation_batch_size. Normalize by running statistics "
                f"(track_running_stats=True), or each example by itself."
            )


def _check_alone(bridge: Any, parameters: Any, batch: Mapping[str, Any]) -> None:
    """Refuse a training loss of an example that depends on examples outside its ghost batch."""
    keys = jax.random.split(jax.random.key(0), len(batch["y"]))
    size = len(keys) // 2  # the ghost batch size where there is one

    @partial(jax.jit, static_argnums=0)
    def losses(n: int, parameters: Any, state: Any, batch: Any, keys: Any) -> Any:
        parts = [(jax.tree.map(lambda a, i=i: a[i : i + n], (batch, keys))) for i in range(0, len(keys), n)]
        return jnp.concatenate([bridge.trained(parameters, state, *part)[0] for part in parts])

    given = parameters, dict(bridge.state), batch, keys
    if not near(losses(size, *given), losses(len(keys), *given)):
        raise InputError(
            "the training loss of an example depends on the other examples of its batch, so that what the module "
            "computes would change with the batch size. Only batch normalization can, with ghost_batch_size."
        )


def near(a: Any, b: Any, least: float = 0.0) -> bool:
    """Return whether two arrays differ by at most :data:`TOLERANCE` of the largest number, or of ``least``.

    >>> near(np.array([1.0, 2.0]), np.array([1.0, 2.0001])), near(np.array([1.0, 2.0]), np.array([1.0, 2.1]))
    (True, False)
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    scale = max(float(np.abs(b).max(initial=0)), least, 1e-30)
    return bool(np.allclose(a, b, rtol=0, atol=TOLERANCE * scale, equal_nan=True))


def _load(heads: nn.Module, parameters: Mapping[str, Any]) -> None:
    own = {own_name(name): p for name, p in heads.named_parameters()}
    with torch.no_grad():
        for name, value in parameters.items():
            own[name].copy_(torch.from_numpy(np.array(value)))


def _trained(heads: nn.Module, arrays: Sequence[torch.Tensor], piece: int) -> tuple[Any, Any, Any]:
    """Return losses, the gradient of their mean and the moved buffers, of the pieces of a batch one after the other."""
    heads.train()
    heads.zero_grad()
    before = {name: buffer.clone() for name, buffer in heads.named_buffers()}
    n, losses = len(arrays[-1]), []
    with _Patterned():
        for first in range(0, n, piece):
            (some,) = heads(*(array[first : first + piece] for array in arrays))
            (some.sum() / n).backward()
            losses.append(some.detach())
    gradient = {
        own_name(name): np.zeros(p.shape, np.float32) if p.grad is None else p.grad.numpy()
        for name, p in heads.named_parameters()
    }
    buffers = {own_name(name): as_array(buffer).copy() for name, buffer in heads.named_buffers()}
    with torch.no_grad():
        for name, buffer in heads.named_buffers():
            buffer.copy_(before[name])
    return torch.cat(losses).numpy(), gradient, buffers


def _check_evaluation(
    bridge: Any, heads: nn.Module, loss: Callable[..., Any], model: tuple[Any, Any, Any], arrays: Sequence[torch.Tensor]
) -> None:
    """Compare losses and scores in evaluation mode, and the mean loss with what the user's own loss gives."""
    buffers = {own_name(name): buffer for name, buffer in heads.named_buffers()}
    heads.eval()
    with torch.no_grad():
        for name, value in model[1].items() if model[1] else ():
            buffers[name].copy_(torch.from_numpy(np.array(value)))
        own = heads(*arrays)
        mean = loss(heads.model(*arrays[:-1]), arrays[-1])
    ours = [jax.jit(partial(bridge.evaluated, place))(*model) for place in range(2)]
    _check_evaluated_alone(heads, arrays, own)
    for what, values, others in zip(("loss", "score"), ours, own, strict=True):
        if not near(values, others):
            raise InputError(f"the {what} in evaluation mode is another in JAX than in PyTorch.")
    if mean.ndim == 0 and not near(own[0].mean(), mean):
        raise InputError(
            "the loss of a batch is not the mean of its examples' losses, as with class weights or ignored targets, "
            "whose mean depends on the batch. Give a loss with reduction='none'."
        )


def _first_difference(bridge: Any, parameters: Any, arrays: Sequence[torch.Tensor], piece: int) -> str:
    """Name the first operation of the training graph that gives other numbers in JAX."""
    graph = bridge.training
    tensors = {**bridge.fixed, **bridge.state, **parameters}
    given = {place: tensors[name] for place, name in graph.tensors.items()} | dict(graph.constants)
    known: dict[Any, Any] = {}
    found: list[str] = []

    def compare(node: Any, value: Any) -> None:
        if found or node.op == "output":
            return
        if node.op == "placeholder":
            own = dict(zip(graph.inputs, arrays, strict=True)).get(node.name)
            known[node] = torch.from_numpy(np.array(given[node.name])) if own is None else own[:piece]
            return
        known[node] = node.target(*map_arg(node.args, known.__getitem__), **map_arg(node.kwargs, known.__getitem__))
        pairs = zip(*(x if isinstance(x, tuple | list) else [x] for x in (value, known[node])), strict=False)
        for ours, theirs in pairs:
            if ours is not None and isinstance(theirs, torch.Tensor) and not near(ours, theirs):
                found.append(f"the operation {operation(node)}{line_of(node)}")
                return

    held = [jnp.asarray(as_array(array[:piece])) for array in arrays]
    with torch.no_grad(), _Patterned():
        graph(tensors, held, Context(piece, bridge.ghost, None, piece), compare)
    return found[0] if found else "the training loss"
