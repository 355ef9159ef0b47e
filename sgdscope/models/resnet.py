"""Residual networks of bottleneck blocks, as ResNet-50.

Sources: He et al. (2015), arXiv 1512.03385, table 1 and figure 5; Goyal et al. (2017), arXiv 1706.02677, section 5.1
(remembered, and checked against later code of the authors' laboratory, not the text).

A 7 × 7 convolution of stride 2 and a maximum over 3 × 3 of stride 2; four stages of blocks of w, 2w, 4w and 8w channels
within and four times as many without, of which all but the first begin with stride 2; the mean over pixels; and a fully
connected layer. Normalization follows each convolution, and no convolution has biases. In a block x → max(0, shortcut +
branch) the branch is 1 × 1, 3 × 3 and 1 × 1 convolutions; where the shape changes, the shortcut is a 1 × 1 convolution.
The stride is the 3 × 3 convolution's, as in the code of arXiv 1706.02677 (in arXiv 1512.03385 it is the first 1 × 1's):
what is called version 1.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from sgdscope.errors import InputError
from sgdscope.models.convolution import convolution
from sgdscope.models.layers import dense
from sgdscope.models.normalization import norm_init, running_init
from sgdscope.models.wide_resnet import Normalize, Tree, kernel_init

RESNET_50 = (3, 4, 6, 3)
EXPANSION = 4
# Goyal et al. (2017), section 5.1: normal weights of the last layer.
HEAD_DEVIATION = 0.01


def channels_of_blocks(blocks: Sequence[int], width: int) -> list[tuple[int, int, int, int]]:
    """Return for each block the channels that go in, within and out, and its stride.

    Raises:
        InputError: where no network has these.

    >>> channels_of_blocks((1, 2), 64)
    [(64, 64, 256, 1), (256, 128, 512, 2), (512, 128, 512, 1)]
    """
    if not blocks or any(type(count) is not int or count < 1 for count in blocks):
        raise InputError(f"resnet: blocks must be a number of at least 1 for each stage, not {blocks!r}.")
    if type(width) is not int or width < 1:
        raise InputError(f"resnet: width must be a whole number of at least 1, not {width!r}.")
    found, c_in = [], width
    for stage, count in enumerate(blocks):
        within = width << stage
        for number in range(count):
            found.append((c_in, within, EXPANSION * within, 2 if stage and not number else 1))
            c_in = EXPANSION * within
    return found


def resnet_init(key: jax.Array, blocks: Sequence[int], width: int, classes: int) -> Tree:
    """Return the parameters of a network.

    Kernels are normal with variance 2 over what they sum. The last scale of each branch is 0, so that at first a block
    is its shortcut, all others 1: Goyal et al. (2017), section 5.1.

    Args:
        key: of the random numbers.
        blocks: how many in each stage.
        width: w, the channels of the first convolution.
        classes: outputs.

    >>> shapes = jax.eval_shape(lambda key: resnet_init(key, RESNET_50, 64, 1000), jax.random.key(0))
    >>> sum(leaf.size for leaf in jax.tree.leaves(shapes))
    25557032
    """
    channels = channels_of_blocks(blocks, width)
    stem_key, head_key, *keys = jax.random.split(key, 2 + len(channels))

    def block(key: jax.Array, c_in: int, within: int, c_out: int, stride: int) -> Tree:
        first, second, third, fourth = jax.random.split(key, 4)
        layers: Tree = {
            "conv1": kernel_init(first, 1, c_in, within),
            "norm1": norm_init(within),
            "conv2": kernel_init(second, 3, within, within),
            "norm2": norm_init(within),
            "conv3": kernel_init(third, 1, within, c_out),
            "norm3": norm_init(c_out) | {"scale": jnp.zeros(c_out, jnp.float32)},
        }
        if c_in == c_out and stride == 1:
            return layers
        return layers | {"shortcut": kernel_init(fourth, 1, c_in, c_out), "shortcut_norm": norm_init(c_out)}

    last = channels[-1][2]
    head = jax.random.normal(head_key, (last, classes), jnp.float32) * HEAD_DEVIATION
    return {
        "stem": kernel_init(stem_key, 7, 3, width),
        "norm": norm_init(width),
        "blocks": [block(key, *c) for key, c in zip(keys, channels, strict=True)],
        "head": {"weight": head, "bias": jnp.zeros(classes, jnp.float32)},
    }


def resnet_state(blocks: Sequence[int], width: int) -> Tree:
    """Return the running statistics of a network before any example."""

    def block(c_in: int, within: int, c_out: int, stride: int) -> Tree:
        norms: Tree = {"norm1": running_init(within), "norm2": running_init(within), "norm3": running_init(c_out)}
        return norms if c_in == c_out and stride == 1 else norms | {"shortcut_norm": running_init(c_out)}

    return {"norm": running_init(width), "blocks": [block(*c) for c in channels_of_blocks(blocks, width)]}


def resnet(
    parameters: Tree, state: Tree, x: jax.Array, strides: Sequence[int], normalize: Normalize
) -> tuple[jax.Array, Tree]:
    """Return the outputs, (n, side, side, 3) to (n, classes), and the state that ``normalize`` leaves behind.

    Args:
        parameters: as of :func:`resnet_init`.
        state: as of :func:`resnet_state`.
        x: standardised images.
        strides: of the blocks, as :func:`channels_of_blocks` has them.
        normalize: ``ghost_batch_norm`` at a ghost batch size in training, ``running_norm`` in evaluation.
    """
    x, moved = normalize(parameters["norm"], state["norm"], convolution(x, parameters["stem"], 2))
    x = _largest_of_nine(jax.nn.relu(x))
    states = []
    for layers, running, stride in zip(parameters["blocks"], state["blocks"], strides, strict=True):
        left: Tree = {}

        def normal(
            name: str, x: jax.Array, layers: Tree = layers, running: Tree = running, left: Tree = left
        ) -> jax.Array:
            y, left[name] = normalize(layers[name], running[name], x)
            return y

        branch = jax.nn.relu(normal("norm1", convolution(x, layers["conv1"])))
        branch = jax.nn.relu(normal("norm2", convolution(branch, layers["conv2"], stride)))
        branch = normal("norm3", convolution(branch, layers["conv3"]))
        if "shortcut" in layers:
            x = normal("shortcut_norm", convolution(x, layers["shortcut"], stride))
        x = jax.nn.relu(x + branch)
        states.append(left)
    return dense(parameters["head"], x.mean(axis=(1, 2))), {"norm": moved, "blocks": states}


def _largest_of_nine(x: jax.Array) -> jax.Array:
    """Return the maxima over 3 × 3 pixels, at every second, with nothing around the image."""
    largest: jax.Array = lax.reduce_window(
        x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), [(0, 0), (1, 1), (1, 1), (0, 0)]
    )
    return largest
