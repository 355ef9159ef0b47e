"""A language model of the Penn TreeBank: stacked LSTM layers that predict each next word of a text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from sgdscope.data.ptb import END
from sgdscope.errors import InputError
from sgdscope.models import lstm as model
from sgdscope.models.lstm import LSTMParameters, LSTMState
from sgdscope.records import SPLITS
from sgdscope.workloads.base import Batch, Split, Streams, Workload, constant_classifier

VOCABULARY, CHARACTERS = 10_000, 50
LAYERS = 2
UNROLL = 35
EVALUATION_STREAMS = 64
WHOLE_SPLIT = 2**20  # tokens, more than any split of this text has

# Units of a layer, dropout, and the s of U(−s, s) that parameters begin with.
SIZES = {"small": (200, 0.0, 0.1), "medium": (650, 0.5, 0.05), "large": (1500, 0.65, 0.04)}


def lstm(splits: Mapping[str, Split], size: Literal["small", "medium", "large"] = "small") -> Workload:
    """Return a text as streams, a network of two LSTM layers, cross-entropy in nats a token, and perplexity.

    As in the paper but for two things: all sizes are unrolled for 35 steps (there the small one for 20), and gradients
    are not clipped. The paper adds up the gradients of the steps, so that its learning rate of 1 is 35 here.

    Args:
        splits: for each split ``token``, uint16 below 10,000 of shape (n,).
        size: 200, 650 or 1,500 units in each layer, with dropout of 0, 0.5 or 0.65.

    Raises:
        InputError: where a token is none of the vocabulary's, or the size is none of these.

    Source: Zaremba et al. (2014), arXiv 1409.2329, section 4.1 and the published code.

    >>> import numpy as np
    >>> text = {"token": np.arange(100, dtype=np.uint16)}
    >>> workload = lstm(dict.fromkeys(SPLITS, text))
    >>> sum(array.size for array in jax.tree.leaves(jax.eval_shape(workload.init, jax.random.key(0))))
    4651600
    """
    if size not in SIZES:
        raise InputError(f"size must be one of {', '.join(SIZES)}, not {size!r}.")
    units, dropout, scale = SIZES[size]
    return _language_model(
        splits, VOCABULARY, units, dropout=dropout, scale=scale, unroll=UNROLL, version="1", fields={"size": size}
    )


def lstm_of_characters(splits: Mapping[str, Split], units: int = 64, unroll: int = 16, scale: float = 0.1) -> Workload:
    """Return a text as streams of characters, a network of two LSTM layers, cross-entropy in nats, and perplexity.

    It is a language model that a CPU trains in seconds, for the regimes and not for the score: the published ones read
    words.

    Args:
        splits: for each split ``token``, a character's number, uint16 below 50 of shape (n,).
        units: of each layer.
        unroll: the characters through which a gradient is taken.
        scale: s of U(−s, s), of which the parameters are drawn.

    Raises:
        InputError: where a token is no character's.

    >>> import numpy as np
    >>> text = {"token": np.arange(100, dtype=np.uint16) % 50}
    >>> lstm_of_characters(dict.fromkeys(SPLITS, text)).unroll
    16
    """
    fields = {"units": units, "layers": LAYERS, "vocabulary": CHARACTERS, "scale": scale}
    return _language_model(
        splits, CHARACTERS, units, dropout=0.0, scale=scale, unroll=unroll, version="laptop-1", fields=fields
    )


def _language_model(
    splits: Mapping[str, Split],
    vocabulary: int,
    units: int,
    *,
    dropout: float,
    scale: float,
    unroll: int,
    version: str,
    fields: Mapping[str, float | int | str],
) -> Workload:
    for split in SPLITS:
        largest = splits[split]["token"].max(initial=0)
        if largest >= vocabulary:
            raise InputError(f"token {largest} of the {split} split is not below the vocabulary's {vocabulary:,}.")
    train, validation, test = (splits[split] for split in SPLITS)
    carry = partial(model.zero_state, units=units, layers=LAYERS)
    evaluation = partial(evaluation_loss, begin=carry)
    entropy, _ = constant_classifier(train["token"])
    return Workload(
        name="lstm",
        version=version,
        train=train,
        validation=validation,
        test=test,
        init=partial(model.lstm_init, vocabulary=vocabulary, units=units, layers=LAYERS, scale=scale),
        loss=evaluation,
        score=evaluation,
        training_loss=partial(training_loss, dropout=dropout),
        constant_loss=entropy,
        constant_score=math.exp(entropy),
        score_name="perplexity",
        score_goal="minimize",
        score_of_mean=jnp.exp,
        reader=Streams(unroll, carry),
        evaluation_batch_size=WHOLE_SPLIT,
        fields=fields,
    )


def training_loss(
    parameters: LSTMParameters, state: LSTMState, batch: Batch, keys: jax.Array, dropout: float
) -> tuple[jax.Array, LSTMState]:
    """Return the cross-entropy of each stream's next tokens in nats, (streams, steps), and the state after them.

    Args:
        parameters: of the network.
        state: what the streams carry; no gradient goes back through it.
        batch: ``token``, each stream's inputs and the token after the last, (streams, steps + 1).
        keys: a PRNG key for each stream, (streams,), which draws its dropout.
        dropout: the share of the connections from layer to layer that are dropped.
    """
    tokens = batch["token"].T.astype(jnp.int32)
    masks = None
    if dropout > 0:
        units = parameters["embedding"].shape[1]
        masks = model.dropout_masks(keys, dropout, steps=len(tokens) - 1, units=units, layers=len(state))
    logits, state = model.lstm(parameters, tokens[:-1], state, masks)
    return _cross_entropy(logits, tokens[1:]).T, state


def evaluation_loss(
    parameters: LSTMParameters, state: tuple[()], batch: Batch, begin: Callable[[int], LSTMState]
) -> jax.Array:
    """Return the cross-entropy of every token of a text in nats, (n,), each predicted from those before it.

    The text is read as at most 64 streams of equal length, one after another in the text and side by side in
    time, each from ``begin`` and the token before its first; ``<eos>`` stands before the first of all. The last
    streams are filled up with tokens that count for nothing.

    Args:
        parameters: of the network.
        state: none.
        batch: ``token``, a text, (n,).
        begin: the state in which n streams begin.
    """
    tokens = batch["token"].astype(jnp.int32)
    streams = min(EVALUATION_STREAMS, len(tokens))
    steps = -(-len(tokens) // streams)
    before = jnp.concatenate([jnp.full(1, END, jnp.int32), tokens[:-1]])
    filling = (0, streams * steps - len(tokens))
    inputs, targets = (jnp.pad(text, filling).reshape(streams, steps).T for text in (before, tokens))

    def step(state: LSTMState, token: tuple[jax.Array, jax.Array]) -> tuple[LSTMState, jax.Array]:
        logits, state = model.lstm(parameters, token[0][None], state)
        return state, _cross_entropy(logits[0], token[1])

    # Step by step, since the logits of all tokens would not fit in memory.
    losses: jax.Array = jax.lax.scan(step, begin(streams), (inputs, targets))[1]
    return losses.T.reshape(-1)[: len(tokens)]


def _cross_entropy(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    # Not one-hot: with 10,000 classes that takes three times as long as the gather and the scatter of its gradient.
    losses: jax.Array = optax.softmax_cross_entropy_with_integer_labels(logits, tokens)
    return losses
