"""A small convolutional network for grey images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sgdscope.models.convolution import convolution
from sgdscope.models.layers import Dense, dense, dense_init
from sgdscope.models.wide_resnet import kernel_init

KERNEL_SIZE = 5


def convnet_init(key: jax.Array, side: int, channels: Sequence[int], classes: int) -> list[Any]:
    """Return a convolution for each number of channels, and the fully connected layer after the last.

    Args:
        key: what the weights are drawn with.
        side: of the images, in pixels; each convolution halves it.
        channels: of each convolution's output.
        classes: the number of outputs.

    >>> layers = jax.eval_shape(lambda key: convnet_init(key, 28, (16, 32), 10), jax.random.key(0))
    >>> sum(leaf.size for leaf in jax.tree.leaves(layers))
    28938
    """
    *keys, last = jax.random.split(key, len(channels) + 1)
    layers: list[Dense] = [
        {"weight": kernel_init(key, KERNEL_SIZE, c_in, c_out), "bias": jnp.zeros(c_out, jnp.float32)}
        for key, c_in, c_out in zip(keys, (1, *channels), channels, strict=False)
    ]
    return [*layers, dense_init(last, (side >> len(channels)) ** 2 * channels[-1], classes)]


def convnet(layers: list[Any], x: jax.Array) -> jax.Array:
    """Return the outputs, (n, side, side) to (n, classes).

    Each convolution is 5 × 5, with a bias, rectified units, and the maximum over 2 × 2 pixels.

    Args:
        layers: as of :func:`convnet_init`.
        x: grey images.
    """
    x = x[..., None]
    for layer in layers[:-1]:
        x = jax.nn.relu(convolution(x, layer["weight"]) + layer["bias"].reshape(1, 1, 1, -1))
        n, h, w, c = x.shape
        x = x.reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))
    return dense(layers[-1], x.reshape(len(x), -1))
