"""PyTorch's recurrent layers in JAX, each a scan over the steps of a sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from sgdscope.torch.draws import Context
from sgdscope.torch.operations import aten, linear

Step = Callable[[tuple[Any, ...], Any, Any, Any], tuple[Any, ...]]


def lstm_step(carry: tuple[Any, ...], projected: Any, weight: Any, bias: Any) -> tuple[Any, ...]:
    """Return (h, c) of a long short-term memory: c ← σ(f) c + σ(i) tanh(g), h ← σ(o) tanh(c)."""
    hidden, cell, *project = carry
    i, f, g, o = jnp.split(projected + linear(hidden, weight, bias), 4, axis=-1)
    cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
    return (linear(hidden, project[0]) if project else hidden), cell, *project


def gru_step(carry: tuple[Any, ...], projected: Any, weight: Any, bias: Any) -> tuple[Any, ...]:
    """Return h of a gated recurrent unit: h ← (1 − σ(z)) tanh(n + σ(r) (U h + b)) + σ(z) h."""
    r, z, n = jnp.split(projected, 3, axis=-1)
    of_r, of_z, of_n = jnp.split(linear(carry[0], weight, bias), 3, axis=-1)
    update = jax.nn.sigmoid(z + of_z)
    new = jnp.tanh(n + jax.nn.sigmoid(r + of_r) * of_n)
    return (new + update * (carry[0] - new),)


def plain_step(function: Callable[[Any], Any], carry: Any, projected: Any, weight: Any, bias: Any) -> tuple[Any, ...]:
    """Return h of a plain recurrent layer: h ← f(W x + U h + b)."""
    return (function(projected + linear(carry[0], weight, bias)),)


def stacked(
    step: Step, parts: int, context: Context, x: Any, states: Sequence[Any], weights: Sequence[Any], biases: bool,
    layers: int, dropout: float, train: bool, two_ways: bool, batch_first: bool,
) -> tuple[Any, ...]:  # fmt: skip
    """Return the outputs of the last layer and the last state of every layer and direction.

    Args:
        step: of one layer, ``step(state, projected input, recurrent weight, its bias) -> state``.
        parts: how many arrays a state has.
        context: draws dropout between layers.
        x: (steps, n, inputs), or (n, steps, inputs) where the batch comes first.
        states: each part of the first states, (layers × directions, n, units).
        weights: of each layer and direction W, U and, where there are biases, b and b'.
        biases: whether there are biases.
        layers: how many there are.
        dropout: the share of each layer's outputs, but for the last, that are 0.
        train: whether there is dropout.
        two_ways: whether a second direction reads the steps backwards.
        batch_first: which axis of x comes first.
    """
    x = x.swapaxes(0, 1) if batch_first else x
    directions = 2 if two_ways else 1
    each = len(weights) // (layers * directions)
    last: list[tuple[Any, ...]] = []
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            place = layer * directions + direction
            own = list(weights[place * each : (place + 1) * each])
            project = own[-1:] if each % 2 else []  # of a projection of h, which only an LSTM has
            w, u, b, c = own[:4] if biases else (*own[:2], None, None)

            def advance(carry: Any, projected: Any, u: Any = u, c: Any = c, project: Any = project) -> Any:
                after = step((*carry, *project), projected, u, c)[:parts]
                return after, after[0]

            # What does not wait for the step before is one matrix product over all steps.
            first = tuple(state[place] for state in states)
            after, out = jax.lax.scan(advance, first, linear(x, w, b), reverse=direction == 1)
            outputs.append(out)
            last.append(after)
        x = outputs[0] if directions == 1 else jnp.concatenate(outputs, -1)
        if train and dropout and layer + 1 < layers:
            x = context.dropout(x, dropout, (1, 1))
    final = tuple(jnp.stack(part) for part in zip(*last, strict=True))
    return (x.swapaxes(0, 1) if batch_first else x), *final


@aten("lstm.input", context=True)
def lstm(context: Context, x: Any, states: Sequence[Any], *how: Any) -> tuple[Any, ...]:
    """Return the outputs, the last h and the last c of stacked LSTM layers."""
    return stacked(lstm_step, 2, context, x, states, *how)


def _one_part(step: Step) -> Callable[..., tuple[Any, ...]]:
    return lambda context, x, state, *how: stacked(step, 1, context, x, [state], *how)


aten("gru.input", context=True)(_one_part(gru_step))
aten("rnn_tanh.input", context=True)(_one_part(partial(plain_step, jnp.tanh)))
aten("rnn_relu.input", context=True)(_one_part(partial(plain_step, jax.nn.relu)))


@aten("lstm_cell")
def lstm_cell(x: Any, state: Sequence[Any], w: Any, u: Any, b: Any = None, c: Any = None) -> tuple[Any, ...]:
    """Return h and c after one step."""
    return lstm_step(tuple(state), linear(x, w, b), u, c)


aten("gru_cell")(lambda x, h, w, u, b=None, c=None: gru_step((h,), linear(x, w, b), u, c)[0])
aten("rnn_tanh_cell")(lambda x, h, w, u, b=None, c=None: plain_step(jnp.tanh, (h,), linear(x, w, b), u, c)[0])
aten("rnn_relu_cell")(lambda x, h, w, u, b=None, c=None: plain_step(jax.nn.relu, (h,), linear(x, w, b), u, c)[0])
