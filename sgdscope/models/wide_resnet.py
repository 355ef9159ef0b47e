"""Wide residual networks, with batch normalization and, by SkipInit, without.

Sources: Zagoruyko and Komodakis (2016), arXiv 1605.07146, and their released code
(github.com/szagoruyko/wide-residual-networks); De and Smith (2020), arXiv 2002.10444.

Both networks are a 3 × 3 convolution to 16 channels; three stages of n residual blocks of 16k, 32k and 64k
channels, the second and third beginning with stride 2; the mean over pixels; and a fully connected layer. A
network of depth d has n = (d − 4)/6 blocks in a stage. In a block x → x + branch(x) the branch is twice an
activation and a 3 × 3 convolution. Where the shape changes, the first activation comes before the block
divides, and the shortcut is a 1 × 1 convolution of it. There is no dropout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sgdscope.errors import InputError
from sgdscope.models.convolution import convolution
from sgdscope.models.layers import dense, dense_init
from sgdscope.models.normalization import Norm, Running, channels, norm_init, running_init

Tree = dict[str, Any]
Normalize = Callable[[Norm, Running, jax.Array], tuple[jax.Array, Running]]
STEM_CHANNELS = 16


def channels_of_blocks(depth: int, width: int) -> list[tuple[int, int]]:
    """Return the number of channels that go into and out of each residual block.

    Raises:
        InputError: where no network has this depth or width.

    >>> channels_of_blocks(16, 4)
    [(16, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)]
    """
    if type(depth) is not int or depth < 10 or (depth - 4) % 6:
        raise InputError(
            f"wide_resnet: depth must be 6n + 4 for a whole number n, such as 10, 16 or 28, not {depth!r}."
        )
    if type(width) is not int or width < 1:
        raise InputError(f"wide_resnet: width must be a whole number of at least 1, not {width!r}.")
    out = [stage * width for stage in (16, 32, 64) for _ in range((depth - 4) // 6)]
    return list(zip([STEM_CHANNELS, *out[:-1]], out, strict=True))


def strides_of_blocks(blocks: int) -> list[int]:
    """Return the stride of each block's first convolution: 2 where the second and third stage begin.

    >>> strides_of_blocks(6)
    [1, 1, 2, 1, 2, 1]
    """
    return [2 if block in (blocks // 3, 2 * blocks // 3) else 1 for block in range(blocks)]


def kernel_init(key: jax.Array, size: int, c_in: int, c_out: int) -> jax.Array:
    """Return a kernel of shape (size, size, c_in, c_out), normal with variance 2/(size² c_in).

    Source: He et al. (2015), arXiv 1502.01852, equation 10, as in the released PyTorch code; the released Lua
    code has c_out in the place of c_in.
    """
    return jax.random.normal(key, (size, size, c_in, c_out), jnp.float32) * jnp.sqrt(2.0 / (size**2 * c_in))


# ── With batch normalization ─────────────────────────────────────────────────────────────────────────────


def wide_resnet_init(key: jax.Array, depth: int, width: int, classes: int) -> Tree:
    """Return the parameters of a network with normalization: its convolutions have no biases.

    >>> shapes = jax.eval_shape(lambda key: wide_resnet_init(key, 16, 4, 10), jax.random.key(0))
    >>> sum(leaf.size for leaf in jax.tree.leaves(shapes))
    2748890
    """
    channels = channels_of_blocks(depth, width)
    stem_key, head_key, *keys = jax.random.split(key, 2 + len(channels))

    def block(key: jax.Array, c_in: int, c_out: int) -> Tree:
        first, second, third = jax.random.split(key, 3)
        layers: Tree = {
            "norm1": norm_init(c_in),
            "conv1": kernel_init(first, 3, c_in, c_out),
            "norm2": norm_init(c_out),
            "conv2": kernel_init(second, 3, c_out, c_out),
        }
        return layers if c_in == c_out else layers | {"shortcut": kernel_init(third, 1, c_in, c_out)}

    return {
        "stem": kernel_init(stem_key, 3, 3, STEM_CHANNELS),
        "blocks": [block(key, *c) for key, c in zip(keys, channels, strict=True)],
        "norm": norm_init(channels[-1][1]),
        "head": dense_init(head_key, channels[-1][1], classes),
    }


def wide_resnet_state(depth: int, width: int) -> Tree:
    """Return the running statistics of a network before any example."""
    channels = channels_of_blocks(depth, width)
    return {
        "blocks": [{"norm1": running_init(c_in), "norm2": running_init(c_out)} for c_in, c_out in channels],
        "norm": running_init(channels[-1][1]),
    }


def wide_resnet(parameters: Tree, state: Tree, x: jax.Array, normalize: Normalize) -> tuple[jax.Array, Tree]:
    """Return the outputs, (n, 32, 32, 3) to (n, classes), and the state that ``normalize`` leaves behind.

    Args:
        parameters: as of :func:`wide_resnet_init`.
        state: as of :func:`wide_resnet_state`.
        x: standardised images.
        normalize: ``ghost_batch_norm`` at a ghost batch size in training, ``running_norm`` in evaluation.
    """
    x = convolution(x, parameters["stem"])
    states = []
    strides = strides_of_blocks(len(parameters["blocks"]))
    for block, running, stride in zip(parameters["blocks"], state["blocks"], strides, strict=True):
        normal, running1 = normalize(block["norm1"], running["norm1"], x)
        active = jax.nn.relu(normal)
        normal, running2 = normalize(block["norm2"], running["norm2"], convolution(active, block["conv1"], stride))
        branch = convolution(jax.nn.relu(normal), block["conv2"])
        x = branch + (convolution(active, block["shortcut"], stride) if "shortcut" in block else x)
        states.append({"norm1": running1, "norm2": running2})
    normal, running = normalize(parameters["norm"], state["norm"], x)
    outputs = dense(parameters["head"], jax.nn.relu(normal).mean(axis=(1, 2)))
    return outputs, {"blocks": states, "norm": running}


# ── Without normalization: SkipInit ──────────────────────────────────────────────────────────────────────


def skipinit_init(key: jax.Array, depth: int, width: int, classes: int) -> Tree:
    """Return the parameters of a network without normalization.

    Every convolution has biases, initially 0, and every branch ends in a learnable scalar, initially 0, so that
    at first a block is its shortcut. Source: De and Smith (2020), arXiv 2002.10444.
    """
    channels = channels_of_blocks(depth, width)
    stem_key, head_key, *keys = jax.random.split(key, 2 + len(channels))

    def biased(key: jax.Array, size: int, c_in: int, c_out: int) -> Tree:
        return {"weight": kernel_init(key, size, c_in, c_out), "bias": jnp.zeros(c_out, jnp.float32)}

    def block(key: jax.Array, c_in: int, c_out: int) -> Tree:
        first, second, third = jax.random.split(key, 3)
        layers: Tree = {
            "conv1": biased(first, 3, c_in, c_out),
            "conv2": biased(second, 3, c_out, c_out),
            "scalar": jnp.zeros((), jnp.float32),
        }
        return layers if c_in == c_out else layers | {"shortcut": biased(third, 1, c_in, c_out)}

    return {
        "stem": biased(stem_key, 3, 3, STEM_CHANNELS),
        "blocks": [block(key, *c) for key, c in zip(keys, channels, strict=True)],
        "head": dense_init(head_key, channels[-1][1], classes),
    }


def skipinit(parameters: Tree, x: jax.Array) -> jax.Array:
    """Return the outputs of a network without normalization, (n, 32, 32, 3) to (n, classes).

    Args:
        parameters: as of :func:`skipinit_init`.
        x: standardised images.
    """

    def convolved(layer: Tree, x: jax.Array, stride: int = 1) -> jax.Array:
        y: jax.Array = convolution(x, layer["weight"], stride) + channels(layer["bias"], 4)
        return y

    x = convolved(parameters["stem"], x)
    for block, stride in zip(parameters["blocks"], strides_of_blocks(len(parameters["blocks"])), strict=True):
        active = jax.nn.relu(x)
        branch = convolved(block["conv2"], jax.nn.relu(convolved(block["conv1"], active, stride)))
        x = block["scalar"] * branch + (convolved(block["shortcut"], active, stride) if "shortcut" in block else x)
    return dense(parameters["head"], jax.nn.relu(x).mean(axis=(1, 2)))
