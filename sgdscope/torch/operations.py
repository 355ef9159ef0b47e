"""PyTorch's ATen operations in JAX: a table by the names that ``torch.export`` gives them.

Each function takes the arguments of ATen's schema of its name and returns what ATen returns, with PyTorch's choice
where a function has no derivative: at 0 of an absolute value, at the bounds of a clamp, at ties of a maximum.
Operations that are not here are decomposed by PyTorch's own table into those that are.

Source: the schemas of ATen, ``native_functions.yaml`` in pytorch/pytorch.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Function = Callable[..., Any]

# By the name of an operation, with or without its overload, such as "max.dim" and "max".
OPERATIONS: dict[str, Function] = {}
# Of these the first argument is a source of random numbers, or the size of the ghost batches.
NEEDS_CONTEXT: set[str] = set()

# Arguments that say where and how an array is held.
PLACEMENT = {"device", "layout", "pin_memory", "memory_format", "requires_grad", "non_blocking", "generator"}


def aten(*names: str, context: bool = False) -> Callable[[Function], Function]:
    """Enter a function in the table under these names."""

    def enter(function: Function) -> Function:
        OPERATIONS.update(dict.fromkeys(names, function))
        if context:
            NEEDS_CONTEXT.update(names)
        return function

    return enter


def lookup(name: str) -> str | None:
    """Return the name under which an operation is in the table, such as "add" for "add.Tensor"; None if it is not."""
    plain = name.partition(".")[0]
    return name if name in OPERATIONS else plain if plain in OPERATIONS else None


def held(dtype: Any) -> Any:
    """Return the type in which a device holds numbers of one of PyTorch's types, which has at most 32 bits.

    >>> held("torch.int64")
    dtype('int32')
    """
    name = str(dtype).removeprefix("torch.")
    return jnp.dtype({"int64": "int32", "float64": "float32", "complex128": "complex64"}.get(name, name))


# ── One number at a time ─────────────────────────────────────────────────────────────────────────────────

ELEMENTWISE: dict[str, Any] = {
    "relu": jax.nn.relu, "relu6": lambda x: clamp(x, 0, 6), "sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh,
    "exp": jnp.exp, "expm1": jnp.expm1, "log": jnp.log, "log1p": jnp.log1p, "log2": jnp.log2, "log10": jnp.log10,
    "sqrt": jnp.sqrt, "rsqrt": jax.lax.rsqrt, "abs": jnp.abs, "neg": operator.neg, "reciprocal": lambda x: 1 / x,
    "square": jnp.square, "sign": jnp.sign, "floor": jnp.floor, "ceil": jnp.ceil, "round": jnp.round,
    "trunc": jnp.trunc, "sin": jnp.sin, "cos": jnp.cos, "tan": jnp.tan, "sinh": jnp.sinh, "cosh": jnp.cosh,
    "asin": jnp.arcsin, "acos": jnp.arccos, "atan": jnp.arctan, "erf": jax.lax.erf, "erfc": jax.lax.erfc,
    "erfinv": jax.lax.erf_inv, "log_sigmoid": jax.nn.log_sigmoid, "silu": jax.nn.silu, "mish": jax.nn.mish,
    "isnan": jnp.isnan, "isinf": jnp.isinf, "isfinite": jnp.isfinite,
    "logical_not": jnp.logical_not, "bitwise_not": jnp.bitwise_not, "lgamma": jax.lax.lgamma,
    "digamma": jax.lax.digamma, "logical_and": jnp.logical_and, "logical_or": jnp.logical_or,
    "bitwise_and": jnp.bitwise_and, "bitwise_or": jnp.bitwise_or, "bitwise_xor": jnp.bitwise_xor,
    "mul": operator.mul, "maximum": jnp.maximum, "minimum": jnp.minimum, "max.other": jnp.maximum,
    "min.other": jnp.minimum, "atan2": jnp.arctan2, "fmod": jnp.fmod, "remainder": jnp.remainder,
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
    "where": jnp.where, "logaddexp": jnp.logaddexp,
    "real": jnp.real, "imag": jnp.imag, "complex": jax.lax.complex,
}  # fmt: skip
for _name, _function in ELEMENTWISE.items():
    aten(_name)(_function)


@aten("clone", "alias", "contiguous", "lift_fresh", "lift_fresh_copy", "positive", "conj", "resolve_conj")
def same(x: Any, **_: Any) -> Any:
    """Return x."""
    return x


@aten("detach", "detach_copy", "item", "_local_scalar_dense")
def detach(x: Any) -> Any:
    """Return x as a constant of the gradient; ``item`` gives a number of Python's, which is one as well."""
    return jax.lax.stop_gradient(x)


@aten("_to_copy", "to", "type_as", "_assert_tensor_metadata", "_assert_scalar", "copy")
def converted(x: Any, *others: Any, dtype: Any = None, **_: Any) -> Any:
    """Return x in another type; that of the result is set for every operation."""
    return x if dtype is None else x.astype(held(dtype))


@aten("copy_")
def copied(x: Any, source: Any, *_: Any) -> Any:
    """Return the source in the shape and type of x, which it overwrites."""
    return jnp.broadcast_to(source, x.shape).astype(x.dtype)


@aten("add")
def add(x: Any, y: Any, *, alpha: Any = 1) -> Any:
    """Return x + alpha y."""
    return x + (y if alpha == 1 else alpha * y)


@aten("sub")
def sub(x: Any, y: Any, *, alpha: Any = 1) -> Any:
    """Return x − alpha y."""
    return x - (y if alpha == 1 else alpha * y)


@aten("rsub")
def rsub(x: Any, y: Any, alpha: Any = 1) -> Any:
    """Return y − alpha x."""
    return y - alpha * x


@aten("div", "true_divide")
def div(x: Any, y: Any, *, rounding_mode: str | None = None) -> Any:
    """Return x/y, rounded down or towards 0 where that is asked for."""
    if rounding_mode == "floor":
        return jnp.floor_divide(x, y)
    return jnp.trunc(x / y) if rounding_mode else x / y


@aten("floor_divide")
def floor_divide(x: Any, y: Any) -> Any:
    """Return ⌊x/y⌋."""
    return x // y


@aten("pow")
def power(x: Any, y: Any) -> Any:
    """Return x to the power y."""
    return jnp.square(x) if isinstance(y, int | float) and y == 2 else x**y


@aten("clamp", "clip")
def clamp(x: Any, low: Any = None, high: Any = None, *, min: Any = None, max: Any = None) -> Any:  # noqa: A002
    """Return x where it is between two bounds, whose gradient is 1 at the bounds as well, else the nearer bound."""
    low, high = (min if low is None else low), (max if high is None else high)
    x = x if low is None else jnp.where(x < low, low, x)
    return x if high is None else jnp.where(x > high, high, x)


aten("hardtanh")(lambda x, low=-1.0, high=1.0: clamp(x, low, high))
aten("clamp_min")(clamp)
aten("clamp_max")(lambda x, high: clamp(x, None, high))
aten("hardsigmoid")(lambda x: clamp(x + 3, 0, 6) / 6)
aten("hardswish")(lambda x: x * clamp(x + 3, 0, 6) / 6)
aten("threshold")(lambda x, low, value: jnp.where(x > low, x, value))
aten("leaky_relu")(lambda x, slope=0.01: jnp.where(x > 0, x, slope * x))
aten("lerp")(lambda x, y, weight: x + weight * (y - x))
aten("addcmul")(lambda x, a, b, *, value=1: x + value * a * b)
aten("addcdiv")(lambda x, a, b, *, value=1: x + value * a / b)
aten("masked_fill")(lambda x, mask, value: jnp.where(mask, value, x))
aten("nan_to_num")(lambda x, nan=None, posinf=None, neginf=None: jnp.nan_to_num(x, True, nan or 0.0, posinf, neginf))
aten("xlogy")(lambda x, y: jnp.where(x == 0, 0.0, x * jnp.log(jnp.where(x == 0, 1.0, y))))


@aten("gelu")
def gelu(x: Any, *, approximate: str = "none") -> Any:
    """Return x Φ(x), exactly or by a hyperbolic tangent."""
    return jax.nn.gelu(x, approximate=approximate == "tanh")


@aten("softplus")
def softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """Return ln(1 + exp(beta x))/beta; x itself where beta x is above the threshold."""
    small = jnp.where(x * beta > threshold, 0.0, x * beta)
    return jnp.where(x * beta > threshold, x, jnp.log1p(jnp.exp(small)) / beta)


@aten("elu")
def elu(x: Any, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Any:
    """Return scale x above 0, else scale alpha (exp(input_scale x) − 1)."""
    low = alpha * jnp.expm1(jnp.where(x > 0, 0.0, x) * input_scale)
    return scale * jnp.where(x > 0, x, low)


aten("celu")(lambda x, alpha=1.0: elu(x, alpha, 1.0, 1 / alpha))
aten("selu")(lambda x: elu(x, 1.6732632423543772, 1.0507009873554805))


@aten("prelu", "_prelu_kernel")
def prelu(x: Any, weight: Any) -> Any:
    """Return x above 0, else the channel's weight times x."""
    if weight.size > 1 and x.ndim > 1 and weight.ndim == 1:
        weight = weight.reshape(1, -1, *(1,) * (x.ndim - 2))
    return jnp.where(x > 0, x, weight * x)


# ── Shapes ───────────────────────────────────────────────────────────────────────────────────────────────


@aten("view", "reshape", "_unsafe_view", "view_copy")
def view(x: Any, shape: Any) -> Any:
    """Return the same numbers in another shape, or in another type."""
    return x.reshape(shape) if isinstance(shape, list | tuple) else x.view(held(shape))


@aten("flatten")
def flatten(x: Any, start: int = 0, end: int = -1) -> Any:
    """Return x with the axes from ``start`` to ``end`` as one."""
    start, end = start % x.ndim, end % x.ndim
    return x.reshape(*x.shape[:start], -1, *x.shape[end + 1 :])


@aten("unflatten")
def unflatten(x: Any, dim: int, sizes: Sequence[int]) -> Any:
    """Return x with one axis as several."""
    dim %= x.ndim
    return x.reshape(*x.shape[:dim], *sizes, *x.shape[dim + 1 :])


aten("transpose", "swapaxes", "transpose_copy")(jnp.swapaxes)
aten("permute", "permute_copy")(jnp.transpose)
aten("t", "numpy_T", "t_copy")(jnp.transpose)
aten("unsqueeze", "unsqueeze_copy")(jnp.expand_dims)
aten("movedim")(jnp.moveaxis)
aten("expand_as", "view_as", "reshape_as")(lambda x, other: jnp.broadcast_to(x, other.shape))
aten("flip")(jnp.flip)
aten("roll")(lambda x, shifts, dims=(): jnp.roll(x, tuple(shifts), tuple(dims) or None))
aten("cat", "concat")(lambda xs, dim=0: jnp.concatenate(xs, dim))
aten("stack")(lambda xs, dim=0: jnp.stack(xs, dim))
aten("tril")(jnp.tril)
aten("triu")(jnp.triu)
aten("diagonal", "diagonal_copy")(jnp.diagonal)
aten("repeat")(lambda x, times: jnp.tile(x, tuple(times)))


@aten("squeeze")
def squeeze(x: Any, dim: Any = None) -> Any:
    """Return x without axes of size 1."""
    dims = range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    return x.squeeze(tuple(d for d in dims if x.ndim and x.shape[d] == 1))


@aten("expand", "broadcast_to", "expand_copy")
def expand(x: Any, shape: Sequence[int], *, implicit: bool = False) -> Any:
    """Return x repeated along axes of size 1; a size of −1 stays as it is."""
    own = (None,) * (len(shape) - x.ndim) + x.shape
    return jnp.broadcast_to(x, [old if new == -1 else new for old, new in zip(own, shape, strict=True)])


@aten("split", "split_with_sizes", "split_copy", "split_with_sizes_copy")
def split(x: Any, sizes: Any, dim: int = 0) -> Any:
    """Return x in pieces of one size, or of each of these sizes."""
    step = range(sizes, x.shape[dim], sizes) if isinstance(sizes, int) else np.cumsum(sizes)[:-1]
    return list(jnp.split(x, list(map(int, step)), dim))


@aten("chunk")
def chunk(x: Any, chunks: int, dim: int = 0) -> Any:
    """Return x in at most so many pieces of equal size, the last of which may be smaller."""
    return split(x, -(-x.shape[dim] // chunks), dim)


aten("unbind", "unbind_copy")(lambda x, dim=0: [jnp.take(x, place, dim) for place in range(x.shape[dim])])


def _slices(x: Any, dim: int, start: Any, end: Any, step: int) -> Any:
    return (slice(None),) * (dim % x.ndim) + (slice(start, end, step),)


@aten("slice", "slice_copy")
def slice_of(x: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    """Return every step-th element along an axis."""
    return x[_slices(x, dim, start, end, step)]


@aten("slice_scatter")
def slice_scatter(x: Any, source: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    """Return x with a slice replaced."""
    return x.at[_slices(x, dim, start, end, step)].set(source)


@aten("narrow")
def narrow(x: Any, dim: int, start: int, length: int) -> Any:
    """Return so many elements along an axis."""
    return x[_slices(x, dim, start, start + length, 1)]


@aten("select", "select_copy")
def select(x: Any, dim: int, index: Any) -> Any:
    """Return one element along an axis."""
    return x[(slice(None),) * (dim % x.ndim) + (index,)]


@aten("select_scatter")
def select_scatter(x: Any, source: Any, dim: int, index: int) -> Any:
    """Return x with one element along an axis replaced."""
    return x.at[(slice(None),) * (dim % x.ndim) + (index,)].set(source)


def _index(indices: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(slice(None) if index is None else index for index in indices)


aten("index", "_unsafe_index")(lambda x, indices: x[_index(indices)])


@aten("index_put", "_unsafe_index_put")
def index_put(x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Any:
    """Return x with the elements at these indices replaced, or with the values added."""
    at = x.at[_index(indices)]
    return at.add(values) if accumulate else at.set(values)


aten("index_select")(lambda x, dim, index: jnp.take(x, index, dim))
aten("gather")(lambda x, dim, index, *, sparse_grad=False: jnp.take_along_axis(x, index, dim))
aten("take_along_dim")(lambda x, index, dim=None: jnp.take_along_axis(x, index, dim))


@aten("scatter", "scatter_add")
def scatter(x: Any, dim: int, index: Any, source: Any, *, add: bool = False) -> Any:
    """Return x with the elements that ``index`` names along an axis replaced."""
    grid = list(jnp.indices(index.shape, sparse=True))
    grid[dim] = index
    source = source[tuple(map(slice, index.shape))] if getattr(source, "ndim", 0) else source
    at = x.at[tuple(grid)]
    return at.add(source) if add else at.set(source)


aten("scatter_add")(partial(scatter, add=True))


@aten("constant_pad_nd", "pad")
def pad(x: Any, padding: Sequence[int], value: Any = 0, *rest: Any) -> Any:
    """Return x between so many more values, from the last axis to the first; negative numbers cut."""
    mode, value = (value, (rest or (0,))[0]) if isinstance(value, str) else ("constant", value)
    pairs = list(zip(padding[::2], padding[1::2], strict=True))[::-1]
    widths = [(0, 0)] * (x.ndim - len(pairs)) + pairs
    if mode == "constant":
        return jax.lax.pad(x, jnp.asarray(value or 0, x.dtype), [(low, high, 0) for low, high in widths])
    return jnp.pad(x, widths, {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode])


# ── New arrays ───────────────────────────────────────────────────────────────────────────────────────────


def _shape(shape: Any) -> tuple[int, ...]:
    return tuple(shape) if isinstance(shape, list | tuple) else (shape,)


def _dtype(dtype: Any, default: str = "float32") -> Any:
    return jnp.dtype(default) if dtype is None else held(dtype)


aten("zeros", "empty", "empty_strided")(lambda shape, *_, dtype=None: jnp.zeros(_shape(shape), _dtype(dtype)))
aten("ones")(lambda shape, *, dtype=None: jnp.ones(_shape(shape), _dtype(dtype)))
aten("zeros_like", "empty_like")(lambda x, *, dtype=None: jnp.zeros(x.shape, _dtype(dtype, x.dtype)))
aten("ones_like")(lambda x, *, dtype=None: jnp.ones(x.shape, _dtype(dtype, x.dtype)))
aten("full_like")(lambda x, value, *, dtype=None: jnp.full(x.shape, value, _dtype(dtype, x.dtype)))
aten("new_zeros", "new_empty")(lambda x, shape, *, dtype=None: jnp.zeros(_shape(shape), _dtype(dtype, x.dtype)))
aten("new_ones")(lambda x, shape, *, dtype=None: jnp.ones(_shape(shape), _dtype(dtype, x.dtype)))
aten("new_full")(lambda x, shape, value, *, dtype=None: jnp.full(_shape(shape), value, _dtype(dtype, x.dtype)))
aten("fill", "fill_")(lambda x, value: jnp.broadcast_to(jnp.asarray(value, x.dtype), x.shape))
aten("zero", "zero_")(jnp.zeros_like)
aten("eye")(lambda n, m=None, *, dtype=None: jnp.eye(n, m, dtype=_dtype(dtype)))
aten("scalar_tensor")(lambda value, *, dtype=None: jnp.asarray(value, _dtype(dtype)))
aten("linspace")(lambda start, end, steps, *, dtype=None: jnp.linspace(start, end, steps, dtype=_dtype(dtype)))


@aten("full")
def full(shape: Any, value: Any, *, dtype: Any = None) -> Any:
    """Return an array of one value."""
    array = jnp.full(_shape(shape), value)
    return array if dtype is None else array.astype(held(dtype))


@aten("arange")
def arange(*bounds: Any, dtype: Any = None) -> Any:
    """Return the numbers from a start to before an end."""
    whole = jnp.arange(*bounds)
    return whole if dtype is None else whole.astype(held(dtype))


# ── Many numbers to one ──────────────────────────────────────────────────────────────────────────────────


def _axes(dim: Any) -> Any:
    return dim if dim is None or isinstance(dim, int) else (tuple(dim) or None)


def _reduction(function: Function) -> Function:
    def reduced(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
        x = x if dtype is None else x.astype(held(dtype))
        return function(x, axis=_axes(dim), keepdims=keepdim)

    return reduced


REDUCTIONS: dict[str, Any] = {
    "sum": jnp.sum, "mean": jnp.mean, "prod": jnp.prod, "amax": jnp.max, "amin": jnp.min, "any": jnp.any,
    "all": jnp.all, "argmax": jnp.argmax, "argmin": jnp.argmin, "logsumexp": jax.nn.logsumexp, "max": jnp.max,
    "min": jnp.min, "count_nonzero": jnp.count_nonzero,
}  # fmt: skip
for _name, _function in REDUCTIONS.items():
    aten(_name)(_reduction(_function))


def _extreme(place: Function, x: Any, dim: int, keepdim: bool = False) -> tuple[Any, Any]:
    if not x.ndim:
        return x, jnp.int32(0)
    index = place(x, axis=dim, keepdims=True)
    values = jnp.take_along_axis(x, index, dim)  # the gradient goes to the one that is named
    return (values, index) if keepdim else (values.squeeze(dim), index.squeeze(dim))


aten("max.dim")(partial(_extreme, jnp.argmax))
aten("min.dim")(partial(_extreme, jnp.argmin))


@aten("var.correction", "var")
def var(x: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: Any = None) -> Any:
    """Return the variance, with ``n − correction`` as its divisor; PyTorch's default is 1."""
    correction = (1 if unbiased else 0) if correction is None else correction
    return jnp.var(x, _axes(dim), ddof=correction, keepdims=keepdim)


@aten("std.correction", "std")
def std(x: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: Any = None) -> Any:
    """Return the standard deviation."""
    return jnp.sqrt(var(x, dim, unbiased, keepdim, correction=correction))


@aten("var_mean.correction")
def var_mean(x: Any, dim: Any = None, *, correction: Any = 1, keepdim: bool = False) -> tuple[Any, Any]:
    """Return the variance and the mean."""
    return var(x, dim, keepdim=keepdim, correction=correction), x.mean(_axes(dim), keepdims=keepdim)


@aten("linalg_vector_norm", "norm")
def vector_norm(x: Any, order: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """Return the p-norm, whose gradient at 0 is 0."""
    axes, order = _axes(dim), 2 if order is None else order
    if order in (np.inf, -np.inf):
        return (jnp.max if order > 0 else jnp.min)(jnp.abs(x), axis=axes, keepdims=keepdim)
    if order == 0:
        return (x != 0).astype(x.dtype).sum(axes, keepdims=keepdim)
    total = (x * x if order == 2 else jnp.abs(x) ** order).sum(axes, keepdims=keepdim)
    root = jnp.where(total > 0, total, 1.0) ** (1 / order) if order != 2 else jnp.sqrt(jnp.where(total > 0, total, 1.0))
    return jnp.where(total > 0, root, 0.0)


aten("cumsum")(lambda x, dim, *, dtype=None: jnp.cumsum(x, dim))
aten("cumprod")(lambda x, dim, *, dtype=None: jnp.cumprod(x, dim))


@aten("topk")
def topk(x: Any, k: int, dim: int = -1, largest: bool = True, is_sorted: bool = True) -> tuple[Any, Any]:
    """Return the k largest or smallest along an axis, and their places."""
    moved = jnp.moveaxis(x, dim, -1)
    index = jax.lax.top_k(jax.lax.stop_gradient(moved if largest else -moved), k)[1]
    values = jnp.take_along_axis(moved, index, -1)
    return jnp.moveaxis(values, -1, dim), jnp.moveaxis(index, -1, dim)


@aten("sort")
def sort(x: Any, *arguments: Any, dim: int = -1, descending: bool = False, stable: bool = True) -> tuple[Any, Any]:
    """Return the values along an axis in their order, and their places."""
    if len(arguments) > 1 and isinstance(arguments[0], bool | None):  # sort.stable: whether stable, dim, descending
        arguments = arguments[1:]
    dim, descending = (*arguments, *(dim, descending)[len(arguments) :])[:2]
    index = jnp.argsort(jax.lax.stop_gradient(x), dim, stable=True, descending=descending)
    return jnp.take_along_axis(x, index, dim), index


@aten("argsort")
def argsort(x: Any, dim: int = -1, descending: bool = False) -> Any:
    """Return the places of the values along an axis in their order."""
    return jnp.argsort(x, dim, descending=descending)


@aten("softmax", "_softmax")
def softmax(x: Any, dim: int, dtype: Any = None) -> Any:
    """Return exp(x) over its sum along an axis."""
    return jax.nn.softmax(_cast(x, dtype), dim)


@aten("log_softmax", "_log_softmax")
def log_softmax(x: Any, dim: int, dtype: Any = None) -> Any:
    """Return the logarithm of the softmax."""
    return jax.nn.log_softmax(_cast(x, dtype), dim)


def _cast(x: Any, dtype: Any) -> Any:
    return x if dtype is None or isinstance(dtype, bool) else x.astype(held(dtype))


# ── Products ─────────────────────────────────────────────────────────────────────────────────────────────

aten("mm", "bmm", "matmul", "mv", "dot")(jnp.matmul)
aten("vdot", "linalg_vecdot")(lambda x, y: (x * y).sum(-1))
aten("outer")(jnp.outer)
aten("einsum")(lambda equation, operands, *, path=None: jnp.einsum(equation, *operands))
aten("addmm", "addmv", "baddbmm")(lambda x, a, b, *, beta=1, alpha=1: beta * x + alpha * jnp.matmul(a, b))
aten("fft_rfft")(lambda x, n=None, dim=-1, norm=None: jnp.fft.rfft(x, n, dim, norm))
aten("fft_irfft")(lambda x, n=None, dim=-1, norm=None: jnp.fft.irfft(x, n, dim, norm))
aten("fft_fft")(lambda x, n=None, dim=-1, norm=None: jnp.fft.fft(x, n, dim, norm))
aten("fft_ifft")(lambda x, n=None, dim=-1, norm=None: jnp.fft.ifft(x, n, dim, norm))
aten("linalg_inv", "inverse")(jnp.linalg.inv)
aten("linalg_qr")(lambda x, mode="reduced": jnp.linalg.qr(x, mode))
aten("linalg_cholesky")(lambda x, *, upper=False: jnp.linalg.cholesky(x, upper=upper))
aten("linalg_solve")(jnp.linalg.solve)
aten("linalg_det")(jnp.linalg.det)


@aten("linear")
def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """Return x Wᵀ + b for a weight of shape (outputs, inputs)."""
    y = x.reshape(-1, x.shape[-1]) @ weight.T  # one product: of several axes XLA transposes the gradient in memory
    y = y.reshape(*x.shape[:-1], weight.shape[0])
    return y if bias is None else y + bias


aten("<built-in function getitem>")(lambda values, place: values[place])
aten("sym_size")(lambda x, dim: x.shape[dim])
aten("sym_numel", "numel")(lambda x: x.size)
