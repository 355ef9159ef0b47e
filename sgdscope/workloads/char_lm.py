"""A language model of characters: a small GPT that predicts each next character of a text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sgdscope.errors import InputError
from sgdscope.models.gpt import gpt, gpt_init
from sgdscope.records import SPLITS
from sgdscope.workloads.base import Batch, Split, Workload, constant_classifier

CPU_MICROBATCH_SIZE = 16
EVALUATION_BATCH_SIZE = 64


def char_lm(
    splits: Mapping[str, Split], width: int = 64, layers: int = 2, heads: int = 4, context: int = 64
) -> Workload:
    """Return windows of a text, a small GPT, cross-entropy in nats, and bits per character.

    An example is a window of ``context`` characters, each of which the network predicts from those before it in the
    window. Windows follow one another in the text without a gap.

    Args:
        splits: for each split ``token``, the number of each character, uint16 of shape (n,), as
            :func:`sgdscope.data.characters.split_text` makes them of a text.
        width: of the network, a multiple of ``heads``.
        layers: of attention and a network each.
        heads: of attention.
        context: the characters of a window.

    Raises:
        InputError: where a text is shorter than a window, or the width is no multiple of the heads.

    Sources: Vaswani et al. (2017), arXiv 1706.03762; Radford et al. (2019).

    >>> from sgdscope.data.characters import split_text
    >>> workload = char_lm(split_text("To be, or not to be. " * 100), context=16)
    >>> workload.train["token"].shape, round(workload.constant_score, 2)
    ((118, 17), 2.99)
    """
    if width % heads:
        raise InputError(f"char_lm: width {width} is not a multiple of the {heads} heads.")
    cut = {split: {"token": _windows(split, splits[split]["token"], context)} for split in SPLITS}
    vocabulary = int(max(arrays["token"].max() for arrays in cut.values())) + 1
    losses = partial(_losses, heads=heads)
    entropy, _ = constant_classifier(cut["train"]["token"][:, 1:].reshape(-1))
    return Workload(
        name="char_lm",
        version="1",
        train=cut["train"],
        validation=cut["validation"],
        test=cut["test"],
        init=partial(gpt_init, vocabulary=vocabulary, width=width, layers=layers, context=context),
        loss=losses,
        score=losses,
        constant_loss=entropy,
        constant_score=entropy / math.log(2),
        score_name="bits per character",
        score_goal="minimize",
        score_of_mean=_bits,
        evaluation_batch_size=EVALUATION_BATCH_SIZE,
        cpu_microbatch_size=CPU_MICROBATCH_SIZE,
        fields={"width": width, "layers": layers, "heads": heads, "context": context, "vocabulary": vocabulary},
    )


def _windows(split: str, tokens: np.ndarray, context: int) -> np.ndarray:
    """Return windows of context + 1 tokens, the last of each the first of the next: (n, context + 1)."""
    n = (len(tokens) - 1) // context
    if n < 1:
        raise InputError(f"char_lm: the {split} text has {len(tokens)} characters. Give at least {context + 1}.")
    return np.stack([tokens[i * context : (i + 1) * context + 1] for i in range(n)])


def _losses(parameters: Any, batch: Batch, heads: int) -> jax.Array:
    """Return the mean cross-entropy of each window's characters in nats, (n,)."""
    tokens = batch["token"].astype(jnp.int32)
    logits = gpt(parameters, tokens[:, :-1], heads)
    losses: jax.Array = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean(1)
    return losses


def _bits(nats: jax.Array) -> jax.Array:
    return nats / math.log(2)
