"""PyTorch's layers in JAX: convolution, pooling, normalization, attention, embedding, dropout and losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgdscope.models.convolution import convolution as fast_convolution
from sgdscope.torch.draws import ChannelsLast, Context
from sgdscope.torch.operations import aten

# ── Convolution and pooling ──────────────────────────────────────────────────────────────────────────────


def _sizes(value: Any, n: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * n if len(values) == 1 else values


@aten("conv1d", "conv2d", "conv3d", context=True)
def convolution(
    context: Context,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """Return the convolution of x, (n, c, ...), with a weight of shape (outputs, c/groups, ...)."""
    n, unbatched = weight.ndim - 2, x.ndim == weight.ndim - 1
    x = x[None] if unbatched else x
    stride, dilation = _sizes(stride, n), _sizes(dilation, n)
    kernel = weight.shape[2:]
    if isinstance(padding, str):
        whole = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        pads = [(total // 2, total - total // 2) for total in whole]
    else:
        pads = [(p, p) for p in _sizes(padding, n)]
    half = kernel[0] // 2
    cut = half - pads[0][0]  # pixels of our convolution, which pads by half of its kernel, that are not asked for
    ours = n == 2 and len({*kernel}) == len({*stride}) == len({*pads, pads[0][::-1]}) == 1 and kernel[0] % 2
    if ours and dilation == (1, 1) and groups == 1 and cut >= 0 and (cut == 0 or stride[0] == 1):
        last = context.channels_last(x)
        last = x.transpose(0, 2, 3, 1) if last is None else last
        y = fast_convolution(last, weight.transpose(2, 3, 1, 0), stride[0])
        y = y[:, cut : y.shape[1] - cut, cut : y.shape[2] - cut]
        if not unbatched:
            return ChannelsLast(y if bias is None else y + bias)
        y = y.transpose(0, 3, 1, 2)
    else:
        y = jax.lax.conv_general_dilated(
            x, weight, stride, pads, rhs_dilation=dilation, feature_group_count=groups, dimension_numbers=_letters(n)
        )
    y = y if bias is None else y + bias.reshape(-1, *(1,) * n)
    return y[0] if unbatched else y


def _letters(n: int) -> tuple[str, str, str]:
    pixels = "DHW"[3 - n :]
    return f"NC{pixels}", f"OI{pixels}", f"NC{pixels}"


@aten("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
) -> Any:  # fmt: skip
    """Return the transpose of a convolution whose weight has shape (c, outputs/groups, ...)."""
    n = weight.ndim - 2
    stride, padding, more, dilation = (_sizes(v, n) for v in (stride, padding, output_padding, dilation))
    pads = []
    for k, p, extra, d in zip(weight.shape[2:], padding, more, dilation, strict=True):
        pads.append((d * (k - 1) - p, d * (k - 1) - p + extra))
    c, outputs = weight.shape[:2]
    turned = jnp.flip(weight, range(2, 2 + n)).reshape(groups, c // groups, outputs, *weight.shape[2:])
    turned = turned.swapaxes(1, 2).reshape(groups * outputs, c // groups, *weight.shape[2:])
    y = jax.lax.conv_general_dilated(
        x, turned, (1,) * n, pads, lhs_dilation=stride, rhs_dilation=dilation, feature_group_count=groups,
        dimension_numbers=_letters(n),
    )  # fmt: skip
    return y if bias is None else y + bias.reshape(-1, *(1,) * n)


def _windows(x: Any, kernel: Any, stride: Any, padding: Any, fill: Any, ceil: bool) -> tuple[list[Any], Any]:
    """Return x as each place of a window sees it, one array a place, and how many of its pixels lie in x."""
    n = 2
    kernel, padding = _sizes(kernel, n), _sizes(padding, n)
    stride = _sizes(stride, n) if stride not in (None, [], ()) else kernel
    lead, sides = [(0, 0, 0)] * (x.ndim - n), x.shape[-n:]
    outputs, pads = [], []
    for side, k, s, p in zip(sides, kernel, stride, padding, strict=True):
        out = (side + 2 * p - k + (s - 1 if ceil else 0)) // s + 1
        if ceil and (out - 1) * s >= side + p:
            out -= 1
        outputs.append(out)
        pads.append((p, max(0, (out - 1) * s + k - side - p), 0))
    padded = jax.lax.pad(x, jnp.asarray(fill, x.dtype), [*lead, *pads])
    (h, w), (sh, sw) = outputs, stride
    places = [
        padded[..., a : a + sh * (h - 1) + 1 : sh, b : b + sw * (w - 1) + 1 : sw]
        for a in range(kernel[0])
        for b in range(kernel[1])
    ]
    return places, (kernel, stride, padding, pads)


@aten("max_pool2d", context=True)
def max_pool(
    context: Context, x: Any, kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil: bool = False
) -> Any:
    """Return the largest number of each window; at a tie the gradient goes to the first."""
    if _sizes(dilation, 2) != (1, 1):
        raise NotImplementedError("a max-pool with dilation")
    sides, last = _sizes(kernel, 2), context.channels_last(x)
    apart = stride in (None, [], ()) or _sizes(stride, 2) == sides
    if (
        last is not None
        and apart
        and _sizes(padding, 2) == (0, 0)
        and not (x.shape[2] % sides[0] or x.shape[3] % sides[1])
    ):
        return ChannelsLast(largest(last, sides))
    lowest = -np.inf if jnp.issubdtype(x.dtype, jnp.floating) else np.iinfo(x.dtype).min
    best, *rest = _windows(x, kernel, stride, padding, lowest, ceil)[0]
    for place in rest:
        best = jnp.where((place > best) | (place != place), place, best)
    return best


def _parts(x: Any, sides: tuple[int, int]) -> Any:
    n, h, w, c = x.shape
    return x.reshape(n, h // sides[0], sides[0], w // sides[1], sides[1], c)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def largest(x: Any, sides: tuple[int, int]) -> Any:
    """Return the largest number of each window of images (n, h, w, c), which the windows tile.

    The gradient goes to the first of those that are equal. It is written as one array of all windows, which XLA fuses,
    where the gradient of a slice is a padded array for each place of a window.

    >>> largest(jnp.arange(16.0).reshape(1, 4, 4, 1), (2, 2))[0, :, :, 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]
    """
    return _parts(x, sides).max((2, 4))


def _largest_saved(x: Any, sides: tuple[int, int]) -> tuple[Any, tuple[Any, Any]]:
    y = _parts(x, sides).max((2, 4))
    return y, (x, y)


def _largest_gradient(sides: tuple[int, int], saved: tuple[Any, Any], dy: Any) -> tuple[Any]:
    x, y = saved
    windows, taken, gradients = _parts(x, sides), jnp.zeros(y.shape, bool), []
    for a in range(sides[0]):
        for b in range(sides[1]):
            place = windows[:, :, a, :, b]
            here = ((place == y) | (place != place)) & ~taken
            taken = taken | here
            gradients.append(jnp.where(here, dy, 0.0))
    stacked = jnp.stack(gradients).reshape(*sides, *y.shape)
    return (stacked.transpose(2, 3, 0, 4, 1, 5).reshape(x.shape),)


largest.defvjp(_largest_saved, _largest_gradient)


@aten("max_pool1d", context=True)
def max_pool1d(
    context: Context, x: Any, kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil: bool = False
) -> Any:
    """Return the largest number of each window along the last axis."""
    wide: Any = lambda value, rest: None if value in (None, [], ()) else (rest, _sizes(value, 1)[0])
    return max_pool(context, x[..., None, :], wide(kernel, 1), wide(stride, 1), wide(padding, 0), dilation, ceil)[
        ..., 0, :
    ]


@aten("avg_pool2d")
def avg_pool(
    x: Any, kernel: Any, stride: Any = None, padding: Any = 0, ceil: bool = False, count_padding: bool = True,
    divisor: int | None = None,
) -> Any:  # fmt: skip
    """Return the mean of each window."""
    places, _ = _windows(x, kernel, stride, padding, 0, ceil)
    total = sum(places[1:], places[0])
    if divisor is not None:
        return total / divisor
    if not ceil and (count_padding or _sizes(padding, 2) == (0, 0)):
        return total / len(places)
    p = _sizes(padding, 2)
    ones = jnp.ones(x.shape[-2:], x.dtype)
    if count_padding:
        ones, padding = jnp.pad(ones, [(p[0], p[0]), (p[1], p[1])], constant_values=1), 0
    counts, _ = _windows(ones, kernel, stride, padding, 0, ceil)
    return total / sum(counts[1:], counts[0])


def _adaptive(x: Any, sizes: Any, n: int, reduce: Any) -> Any:
    for axis, wanted in zip(range(x.ndim - n, x.ndim), _sizes(sizes, n), strict=True):
        side = x.shape[axis]
        size = side if wanted is None else wanted
        if side % size == 0:
            x = reduce(x.reshape(*x.shape[:axis], size, side // size, *x.shape[axis + 1 :]), axis=axis + 1)
        else:
            bounds = [(place * side // size, -(-(place + 1) * side // size)) for place in range(size)]
            parts = [reduce(jax.lax.slice_in_dim(x, *bound, axis=axis), axis=axis, keepdims=True) for bound in bounds]
            x = jnp.concatenate(parts, axis)
    return x


for _n, _name in ((1, "adaptive_avg_pool1d"), (2, "adaptive_avg_pool2d"), (3, "adaptive_avg_pool3d")):
    aten(_name)(lambda x, sizes, n=_n: _adaptive(x, sizes, n, jnp.mean))


@aten("adaptive_max_pool2d")
def adaptive_max_pool(x: Any, sizes: Any) -> tuple[Any, Any]:
    """Return the largest number of each of so many parts; their places are not given."""
    return _adaptive(x, sizes, 2, jnp.max), None


# ── Normalization ────────────────────────────────────────────────────────────────────────────────────────


def _normalized(x: Any, axes: Any, epsilon: float) -> Any:
    centred = x - x.mean(axes, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(axes, keepdims=True) + epsilon)


def _scaled(y: Any, weight: Any, bias: Any, shape: Any) -> Any:
    y = y if weight is None else y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


@aten("layer_norm")
def layer_norm(x: Any, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, cudnn: bool = True) -> Any:
    """Return x normalized over its last axes."""
    return _scaled(_normalized(x, tuple(range(-len(shape), 0)), eps), weight, bias, tuple(shape))


@aten("group_norm")
def group_norm(x: Any, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, cudnn: bool = True) -> Any:
    """Return x normalized over the pixels and channels of each group."""
    parts = x.reshape(x.shape[0], groups, -1)
    return _scaled(_normalized(parts, -1, eps).reshape(x.shape), weight, bias, (1, -1, *(1,) * (x.ndim - 2)))


@aten("instance_norm")
def instance_norm(
    x: Any, weight: Any, bias: Any, mean: Any, variance: Any, own: bool, momentum: float, eps: float, cudnn: bool
) -> Any:
    """Return x normalized over the pixels of each example and channel."""
    if mean is not None:
        raise NotImplementedError("an instance normalization with running statistics")
    return _scaled(_normalized(x, tuple(range(2, x.ndim)), eps), weight, bias, (1, -1, *(1,) * (x.ndim - 2)))


@aten("_native_batch_norm_legit_functional", "_native_batch_norm_legit.no_stats", context=True)
def batch_norm(context: Context, x: Any, weight: Any, bias: Any, *arguments: Any) -> tuple[Any, ...]:
    """Return x normalized by the statistics of each ghost batch, and the running statistics, which each moves in turn.

    r ← (1 − m) r + m s for the statistics s of the ghost batches in their order, in closed form; the running variance
    takes up the unbiased one, as PyTorch's does.
    """
    *running, training, momentum, eps = arguments
    if not training:
        return (*eval_batch_norm(x, weight, bias, *running, momentum, eps), *running)
    if not isinstance(momentum, float | int):
        raise NotImplementedError("a batch normalization with momentum=None")
    last = context.channels_last(x)
    given, channel = (x, 1) if last is None else (last, x.ndim - 1)
    ghosts = given.reshape(-1, context.ghost, *given.shape[1:])
    axes = tuple(axis for axis in range(1, ghosts.ndim) if axis != channel + 1)
    mean = ghosts.mean(axes, keepdims=True)
    centred = ghosts - mean
    variance = (centred**2).mean(axes, keepdims=True)
    shape = tuple(-1 if axis == channel + 1 else 1 for axis in range(ghosts.ndim))
    scale = jax.lax.rsqrt(variance + eps)
    scale = scale if weight is None else scale * weight.reshape(shape)
    y = centred * scale
    y = (y if bias is None else y + bias.reshape(shape)).reshape(given.shape)
    count = context.ghost * math.prod(x.shape[2:])
    seen = momentum * (1 - momentum) ** jnp.arange(len(ghosts) - 1, -1, -1, dtype=x.dtype)
    moved = [
        (1 - momentum) ** len(ghosts) * old + seen @ jax.lax.stop_gradient(new).reshape(len(ghosts), -1)
        for old, new in zip(running, (mean, variance * (count / max(count - 1, 1))), strict=bool(running))
    ]
    return y if last is None else ChannelsLast(y), None, None, *moved


@aten("_native_batch_norm_legit_no_training")
def eval_batch_norm(
    x: Any, weight: Any, bias: Any, mean: Any, variance: Any, momentum: float, eps: float
) -> tuple[Any, Any, Any]:
    """Return x normalized by the running statistics."""
    shape = (1, -1, *(1,) * (x.ndim - 2))
    scale = jax.lax.rsqrt(variance + eps)
    scale = scale if weight is None else scale * weight
    y = (x - mean.reshape(shape)) * scale.reshape(shape)
    return (y if bias is None else y + bias.reshape(shape)), None, None


@aten("_weight_norm", "_weight_norm_interface")
def weight_norm(v: Any, g: Any, dim: int = 0) -> Any:
    """Return g v/|v|, the norm over all axes but one."""
    axes = tuple(axis for axis in range(v.ndim) if axis != dim % v.ndim)
    return v * (g / jnp.sqrt((v * v).sum(axes, keepdims=True)))


# ── Attention, embedding, dropout ────────────────────────────────────────────────────────────────────────


@aten("scaled_dot_product_attention", context=True)
def attention(
    context: Context, query: Any, key: Any, value: Any, mask: Any = None, dropout: float = 0.0, causal: bool = False,
    *, scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    """Return softmax(Q Kᵀ/√d + mask) V, with dropout of the weights."""
    if enable_gqa and key.shape[-3] != query.shape[-3]:
        key, value = (jnp.repeat(a, query.shape[-3] // a.shape[-3], -3) for a in (key, value))
    logits = query @ key.swapaxes(-1, -2) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if causal:
        logits = jnp.where(jnp.tril(jnp.ones(logits.shape[-2:], bool)), logits, -jnp.inf)
    if mask is not None:
        logits = jnp.where(mask, logits, -jnp.inf) if mask.dtype == bool else logits + mask
    weights = jax.nn.softmax(logits, -1)
    return (weights if not dropout else context.dropout(weights, dropout)) @ value


def _refuse_scale(scale: bool) -> None:
    if scale:
        raise NotImplementedError("an embedding with scale_grad_by_freq=True")


@aten("embedding")
def embedding(weight: Any, index: Any, padding: int = -1, scale: bool = False, sparse: bool = False) -> Any:
    """Return the row of each index; that of ``padding`` has no gradient."""
    _refuse_scale(scale)
    rows = weight[index]
    return rows if padding < 0 else jnp.where((index == padding)[..., None], jax.lax.stop_gradient(rows), rows)


@aten("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(
    weight: Any, index: Any, offsets: Any, scale: bool = False, mode: int = 0, sparse: bool = False,
    weights: Any = None, last: bool = False, padding: int | None = None,
) -> tuple[Any, ...]:  # fmt: skip
    """Return the sum, the mean or the largest of the rows of each bag."""
    _refuse_scale(scale)
    bags = len(offsets) - last
    bag = jnp.searchsorted(offsets, jnp.arange(len(index)), side="right") - 1
    rows = weight[index]
    rows = rows if weights is None else rows * weights[:, None]
    counts = jnp.ones(len(index), rows.dtype)
    if padding is not None and padding >= 0:
        counts = (index != padding).astype(rows.dtype)
        rows = rows * counts[:, None]
    if mode == 2:
        return jax.ops.segment_max(rows, bag, bags), None, None, None
    total = jax.ops.segment_sum(rows, bag, bags)
    if mode == 1:
        total = total / jnp.maximum(jax.ops.segment_sum(counts, bag, bags), 1)[:, None]
    return total, None, None, None


@aten("dropout", context=True)
def dropout(context: Context, x: Any, rate: float, train: bool) -> Any:
    """Return x with a share of its numbers set to 0 and the others divided by what is left."""
    return context.dropout(x, rate) if train and rate else x


@aten("native_dropout", context=True)
def native_dropout(context: Context, x: Any, rate: float, train: bool | None) -> tuple[Any, Any]:
    """Return the same, and which numbers were kept, which is not given."""
    return dropout(context, x, rate, train is not False), None


@aten("bernoulli", "bernoulli_", context=True)
def bernoulli(context: Context, x: Any, rate: Any = None) -> Any:
    """Return 1 with a probability, else 0."""
    return (context.uniform(x.shape) < (x if rate is None else rate)).astype(x.dtype)


@aten("rand", context=True)
def rand(context: Context, shape: Any, *, dtype: Any = None) -> Any:
    """Return uniform numbers from 0 to 1."""
    return context.uniform(tuple(shape))


@aten("rand_like", context=True)
def rand_like(context: Context, x: Any, *, dtype: Any = None) -> Any:
    """Return uniform numbers from 0 to 1 in the shape of x."""
    return context.uniform(x.shape)


@aten("randn", context=True)
def randn(context: Context, shape: Any, *, dtype: Any = None) -> Any:
    """Return standard normal numbers."""
    return context.normal(tuple(shape))


@aten("randn_like", "normal_functional", "normal_", context=True)
def randn_like(context: Context, x: Any, mean: Any = 0.0, std: Any = 1.0, *, dtype: Any = None) -> Any:
    """Return normal numbers in the shape of x."""
    return context.normal(x.shape) * std + mean


@aten("uniform", "uniform_", context=True)
def uniform(context: Context, x: Any, low: Any = 0.0, high: Any = 1.0) -> Any:
    """Return uniform numbers in the shape of x."""
    return low + (high - low) * context.uniform(x.shape)


@aten("exponential", "exponential_", context=True)
def exponential(context: Context, x: Any, rate: float = 1.0) -> Any:
    """Return exponential numbers in the shape of x."""
    return -jnp.log1p(-context.uniform(x.shape)) / rate


# ── Losses ───────────────────────────────────────────────────────────────────────────────────────────────


def _reduced(losses: Any, reduction: int) -> Any:
    return losses if reduction == 0 else losses.mean() if reduction == 1 else losses.sum()


@aten("cross_entropy_loss")
def cross_entropy(
    x: Any, target: Any, weight: Any = None, reduction: int = 1, ignore: int = -100, smoothing: float = 0.0
) -> Any:
    """Return the cross-entropy of classes, or of probabilities, along axis 1."""
    axis = 1 if x.ndim > 1 else 0
    log_p = jax.nn.log_softmax(x, axis)
    weights = jnp.ones((), x.dtype) if weight is None else weight.reshape(-1, *(1,) * (x.ndim - 1 - axis))
    if target.ndim == x.ndim and jnp.issubdtype(target.dtype, jnp.floating):  # probabilities
        smooth = target * (1 - smoothing) + smoothing / x.shape[axis]
        losses = -(log_p * smooth * weights).sum(axis)
        return losses if reduction == 0 else losses.sum() / (losses.size if reduction == 1 else 1)
    # A sum over one-hot classes, whose gradient is no scatter.
    counts = target != ignore
    chosen = jax.nn.one_hot(target, x.shape[axis], axis=axis, dtype=x.dtype)
    own_weight = (chosen * weights).sum(axis) * counts
    losses = -(log_p * chosen * weights).sum(axis) * counts
    if smoothing:
        even = -(log_p * weights).sum(axis) * counts
        losses = (1 - smoothing) * losses + smoothing / x.shape[axis] * even
    return losses.sum() / own_weight.sum() if reduction == 1 else _reduced(losses, reduction)


aten("mse_loss")(lambda x, y, reduction=1: _reduced((x - y) ** 2, reduction))
aten("l1_loss")(lambda x, y, reduction=1: _reduced(jnp.abs(x - y), reduction))


@aten("binary_cross_entropy_with_logits")
def binary_cross_entropy(
    x: Any, target: Any, weight: Any = None, positive_weight: Any = None, reduction: int = 1
) -> Any:
    """Return the cross-entropy of two classes, from logits."""
    positive = 1.0 if positive_weight is None else positive_weight
    losses = (1 - target) * x + (1 + (positive - 1) * target) * jax.nn.softplus(-x)
    return _reduced(losses if weight is None else losses * weight, reduction)


@aten("upsample_nearest2d.vec")
def nearest(x: Any, size: Sequence[int] | None, factors: Sequence[float] | None) -> Any:
    """Return x in another size, each pixel the nearest of x."""
    size = size or [int(side * factor) for side, factor in zip(x.shape[2:], factors or (), strict=True)]
    for axis, wanted in zip((2, 3), size, strict=True):
        x = jnp.take(x, jnp.arange(wanted) * x.shape[axis] // wanted, axis)
    return x
