"""A small GPT: a transformer that predicts each next token from the ones before it, as plain functions on a tree."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

Tree = dict[str, Any]
EPSILON = 1e-6
SCALE = 0.02


def gpt_init(key: jax.Array, vocabulary: int, width: int, layers: int, context: int) -> Tree:
    """Draw parameters: normal numbers of deviation 0.02, in the layers that add to the residual 0.02/√(2 layers).

    Args:
        key: a PRNG key.
        vocabulary: the number of tokens, whose embedding is also the output layer.
        width: of the residual.
        layers: blocks of attention and a network of 4 width units.
        context: tokens that are read at most.

    Source: Radford et al. (2019), "Language models are unsupervised multitask learners", section 2.3.

    >>> parameters = gpt_init(jax.random.key(0), vocabulary=50, width=64, layers=2, context=64)
    >>> sum(array.size for array in jax.tree.leaves(parameters))
    105920
    """
    keys, residual = iter(jax.random.split(key, 2 + 4 * layers)), SCALE / math.sqrt(2 * layers)

    def draw(*shape: int, scale: float = SCALE) -> jax.Array:
        return scale * jax.random.normal(next(keys), shape)

    def block() -> Tree:
        return {
            "attention_norm": jnp.ones(width),
            "query_key_value": draw(width, 3 * width),
            "attention_out": draw(width, width, scale=residual),
            "network_norm": jnp.ones(width),
            "up": draw(width, 4 * width),
            "down": draw(4 * width, width, scale=residual),
        }

    return {
        "embedding": draw(vocabulary, width),
        "position": draw(context, width),
        "blocks": [block() for _ in range(layers)],
        "norm": jnp.ones(width),
    }


def gpt(parameters: Tree, tokens: jax.Array, heads: int) -> jax.Array:
    """Return the logits of each next token, (n, t, vocabulary), of tokens (n, t).

    Each block adds attention to the tokens so far, and then a network, of the normalized residual x/RMS(x).
    """
    embedding, steps = parameters["embedding"], tokens.shape[1]
    # One-hot, since the gradient of a gather is a scatter, which is slower for few tokens.
    x = jax.nn.one_hot(tokens, len(embedding), dtype=embedding.dtype) @ embedding + parameters["position"][None, :steps]
    for block in parameters["blocks"]:
        heard = attention(normalized(x, block["attention_norm"]) @ block["query_key_value"], heads)
        x = x + heard @ block["attention_out"]
        x = x + jax.nn.gelu(normalized(x, block["network_norm"]) @ block["up"]) @ block["down"]
    logits: jax.Array = normalized(x, parameters["norm"]) @ embedding.T
    return logits


def attention(query_key_value: jax.Array, heads: int) -> jax.Array:
    """Return softmax(q kᵀ/√d) v of each head, over the tokens so far; from (n, t, 3 width) to (n, t, width)."""
    n, steps, width = query_key_value.shape
    query, key, value = query_key_value.reshape(n, steps, 3, heads, -1).transpose(2, 0, 3, 1, 4)
    scores = query @ key.swapaxes(-1, -2) / math.sqrt(query.shape[-1])
    seen = jnp.tril(jnp.ones((1, 1, steps, steps), bool))
    weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), axis=-1)
    heard: jax.Array = (weights @ value).transpose(0, 2, 1, 3).reshape(n, steps, width // 3)
    return heard


def normalized(x: jax.Array, gain: jax.Array) -> jax.Array:
    """Return gain · x/√(mean x² + 10⁻⁶) over the last axis (RMSNorm, arXiv 1910.07467).

    >>> normalized(jnp.array([[3.0, -3.0]]), jnp.ones(2)).round(3).tolist()
    [[1.0, -1.0]]
    """
    scaled: jax.Array = gain.reshape((1,) * (x.ndim - 1) + (-1,)) * x
    return scaled * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + EPSILON)
