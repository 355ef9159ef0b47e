"""Two-dimensional convolution with a gradient that is fast inside loops on the CPU."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

LAYOUT = ("NHWC", "HWIO", "NHWC")


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolution(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Return the convolution of a kernel of odd size k with x, padded by (k − 1)/2 zeros on every side.

    y[n, i, j, o] = Σ_{a, b, c} x[n, s·i + a − (k − 1)/2, s·j + b − (k − 1)/2, c] kernel[a, b, c, o]

    Only reverse-mode differentiation is defined. JAX's own gradient asks for convolutions in layouts that XLA's
    fast path on the CPU does not take inside a loop (jax-ml/jax#12868), so there it is written differently;
    ``benchmarks/convolution.py`` measures by how much.

    Args:
        x: shape (n, h, w, c_in).
        kernel: shape (k, k, c_in, c_out).
        stride: s, along both sides.

    >>> convolution(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)), 2)[0, :, :, 0].tolist()
    [[4.0, 6.0], [6.0, 9.0]]
    """
    return _forward(x, kernel, stride)


def _forward(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    pad = kernel.shape[0] // 2
    return lax.conv_general_dilated(x, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=LAYOUT)


def _save(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _forward(x, kernel, stride), (x, kernel)


def _gradient(stride: int, saved: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    gradient: tuple[jax.Array, jax.Array] = lax.platform_dependent(
        *saved, dy, cpu=partial(_of_the_cpu, stride=stride), default=partial(_of_jax, stride=stride)
    )
    return gradient


def _of_jax(x: jax.Array, kernel: jax.Array, dy: jax.Array, stride: int) -> tuple[jax.Array, jax.Array]:
    gradient: Any = jax.vjp(partial(_forward, stride=stride), x, kernel)[1](dy)
    return gradient[0], gradient[1]


def _of_the_cpu(x: jax.Array, kernel: jax.Array, dy: jax.Array, stride: int) -> tuple[jax.Array, jax.Array]:
    """Return the gradients of x and of the kernel.

    ∂x is ∂y, with s − 1 zeros between its pixels, convolved with the kernel turned by 180° and its channels
    exchanged. ∂kernel is a matrix product at each of the k² offsets: of x, as the offset sees it, with ∂y.
    """
    k, pad = kernel.shape[0], kernel.shape[0] // 2
    (_, h, w, c_in), (_, rows, columns, c_out) = x.shape, dy.shape
    last = (stride * (rows - 1) + 1, stride * (columns - 1) + 1)  # one past the last pixel that an offset sees
    dx = lax.conv_general_dilated(
        dy,
        kernel[::-1, ::-1].swapaxes(2, 3),
        (1, 1),
        [(k - 1 - pad, side - seen + pad) for side, seen in zip((h, w), last, strict=True)],
        lhs_dilation=(stride, stride),
        dimension_numbers=LAYOUT,
    )
    padded = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    pixels = dy.reshape(-1, c_out)
    dkernel = [
        padded[:, a : a + last[0] : stride, b : b + last[1] : stride].reshape(-1, c_in).T @ pixels
        for a in range(k)
        for b in range(k)
    ]
    return dx, jnp.stack(dkernel).reshape(kernel.shape)


convolution.defvjp(_save, _gradient)
