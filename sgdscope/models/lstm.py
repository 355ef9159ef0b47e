"""A language model of stacked long short-term memory (LSTM) layers; arrays have time first, then the stream."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from sgdscope.models.layers import dense

LSTMParameters = dict[str, Any]
LSTMState = list[tuple[jax.Array, jax.Array]]  # for each layer its output h and its cell c, (streams, units)


def lstm_init(key: jax.Array, *, vocabulary: int, units: int, layers: int, scale: float) -> LSTMParameters:
    """Return an embedding, layers and a softmax of their own, every parameter from U(−scale, scale).

    Source: Zaremba et al. (2014), arXiv 1409.2329, section 4.1; biases included, as in their published code.

    >>> from functools import partial
    >>> init = partial(lstm_init, vocabulary=10, units=3, layers=1, scale=0.1)
    >>> jax.tree.map(lambda array: array.shape, jax.eval_shape(init, jax.random.key(0))["layers"])
    [{'bias': (12,), 'recurrent': (3, 12), 'weight': (3, 12)}]
    """
    zeros = {
        "embedding": jnp.zeros((vocabulary, units), jnp.float32),
        "layers": [
            {
                "weight": jnp.zeros((units, 4 * units), jnp.float32),
                "bias": jnp.zeros(4 * units, jnp.float32),
                "recurrent": jnp.zeros((units, 4 * units), jnp.float32),
            }
            for _ in range(layers)
        ],
        "softmax": {
            "weight": jnp.zeros((units, vocabulary), jnp.float32),
            "bias": jnp.zeros(vocabulary, jnp.float32),
        },
    }
    flat, unravel = ravel_pytree(zeros)
    parameters: LSTMParameters = unravel(jax.random.uniform(key, flat.shape, jnp.float32, -scale, scale))
    return parameters


def zero_state(streams: int, *, units: int, layers: int) -> LSTMState:
    """Return the state in which a text begins.

    >>> [(hidden.shape, cell.shape) for hidden, cell in zero_state(20, units=3, layers=2)]
    [((20, 3), (20, 3)), ((20, 3), (20, 3))]
    """
    hidden, cell = jnp.zeros((2, layers, streams, units), jnp.float32)
    return list(zip(hidden, cell, strict=True))


def lstm(
    parameters: LSTMParameters, tokens: jax.Array, state: LSTMState, masks: jax.Array | None = None
) -> tuple[jax.Array, LSTMState]:
    """Return the logits of the token after each token, (steps, streams, vocabulary), and the state after the last.

    Args:
        parameters: of :func:`lstm_init`.
        tokens: int32, (steps, streams).
        state: of the streams, before the first token.
        masks: of :func:`dropout_masks`; none in evaluation.
    """
    x, states = parameters["embedding"][tokens], []
    for number, (layer, before) in enumerate(zip(parameters["layers"], state, strict=True)):
        x, after = lstm_layer(layer, x if masks is None else x * masks[number], before)
        states.append(after)
    return _dense(parameters["softmax"], x if masks is None else x * masks[-1]), states


def lstm_layer(
    layer: dict[str, jax.Array], x: jax.Array, state: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Return the outputs h of all steps, (steps, streams, units), and the last (h, c).

    With (i, f, o, g) the four quarters of x W + h U + b and σ the logistic function,
    c ← σ(f) c + σ(i) tanh(g) and h ← σ(o) tanh(c).

    Source: Zaremba et al. (2014), arXiv 1409.2329, section 3.1.
    """

    def step(state: tuple[jax.Array, jax.Array], projected: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        hidden, cell = state
        i, f, o, g = jnp.split(projected + hidden @ layer["recurrent"], 4, axis=1)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
        return (hidden, cell), hidden

    # What does not wait for the step before is one matrix product over all steps.
    state, outputs = jax.lax.scan(step, state, _dense(layer, x))
    return outputs, state


def dropout_masks(keys: jax.Array, rate: float, *, steps: int, units: int, layers: int) -> jax.Array:
    """Return what multiplies the input of each layer and of the softmax, (layers + 1, steps, streams, units).

    Each entry is 0 with probability ``rate``, else 1/(1 − rate), so that its mean is 1; a stream's entries come
    from its key alone.

    Args:
        keys: a PRNG key for each stream, (streams,).
        rate: the share of entries that are 0.
        steps: tokens of each stream.
        units: of each layer.
        layers: how many there are.

    Source: Zaremba et al. (2014), arXiv 1409.2329, section 3.2: connections from step to step are not dropped.

    >>> dropout_masks(jax.random.split(jax.random.key(0), 20), 0.5, steps=35, units=3, layers=2).shape
    (3, 35, 20, 3)
    """

    def draw(place: jax.Array) -> jax.Array:
        def kept(key: jax.Array) -> jax.Array:
            return jax.random.bernoulli(jax.random.fold_in(key, place), 1 - rate, (steps, units))

        return jax.vmap(kept, out_axes=1)(keys).astype(jnp.float32) / (1 - rate)

    # A loop, since without one XLA draws a mask again, and compiles that again, wherever it is used.
    masks: jax.Array = jax.lax.map(draw, jnp.arange(layers + 1))
    return masks


def _dense(layer: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    # Steps and streams as one axis: of a product with both, XLA transposes the gradient in memory.
    return dense(layer, x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)
