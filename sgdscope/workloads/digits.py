"""The UCI handwritten digits with a fully connected network: a whole study in under a minute."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import optax

from sgdscope.data.digits_file import read_digits
from sgdscope.models.layers import Dense
from sgdscope.models.mlp import mlp, mlp_init
from sgdscope.workloads.base import Batch, Workload, constant_classifier

CLASSES = 10


def digits(hidden: int = 64) -> Workload:
    """Return 8 × 8 pictures of digits, a network 64-h-h-10 with rectified units, cross-entropy and accuracy.

    Args:
        hidden: h, the width of both hidden layers.

    >>> digits().record().examples
    (1024, 256, 517)
    """
    splits = read_digits()
    constant_loss, constant_score = constant_classifier(splits["train"]["label"])
    return Workload(
        name="digits",
        version="1",
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        init=partial(mlp_init, widths=(64, hidden, hidden, CLASSES)),
        loss=cross_entropy,
        score=accuracy,
        constant_loss=constant_loss,
        constant_score=constant_score,
        fields={"hidden": hidden},
    )


def cross_entropy(layers: list[Dense], batch: Batch) -> jax.Array:
    """Return the cross-entropy of each picture in nats, shape (n,)."""
    logits = mlp(layers, batch["picture"])
    # One-hot labels: the gather of integer labels takes longer to trace and has a scatter for its gradient.
    loss: jax.Array = optax.softmax_cross_entropy(logits, jax.nn.one_hot(batch["label"], CLASSES))
    return loss


def accuracy(layers: list[Dense], batch: Batch) -> jax.Array:
    """Return 1 for each picture whose largest output is its label's, else 0, shape (n,)."""
    right = mlp(layers, batch["picture"]).argmax(axis=1) == batch["label"].astype(jnp.int32)
    correct: jax.Array = right.astype(jnp.float32)
    return correct
