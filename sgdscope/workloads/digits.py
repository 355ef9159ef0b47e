"""The UCI handwritten digits with a fully connected network: a whole study in under a minute."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax

from sgdscope.data.digits_file import read_digits
from sgdscope.models.losses import accuracy, cross_entropy, uniform_cross_entropy
from sgdscope.models.mlp import mlp, mlp_init
from sgdscope.workloads.base import Batch, Workload, constant_classifier

CLASSES = 10


def digits(hidden: int = 64) -> Workload:
    """Return 8 × 8 images of digits, a network 64-h-h-10 with rectified units, cross-entropy and accuracy.

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
        loss=lambda layers, state, batch: cross_entropy(mlp(layers, batch["picture"]), batch["label"]),
        score=lambda layers, state, batch: accuracy(mlp(layers, batch["picture"]), batch["label"]),
        constant_loss=constant_loss,
        constant_score=constant_score,
        fields={"hidden": hidden},
        sample_targets=_sampled,
        uniform_loss=lambda layers, state, batch: uniform_cross_entropy(mlp(layers, batch["picture"])),
    )


def _sampled(layers: Any, state: Any, batch: Batch, key: Any) -> Batch:
    """Return a batch with labels that are drawn by the model's probabilities."""
    labels = jax.random.categorical(key, mlp(layers, batch["picture"]))
    return dict(batch) | {"label": labels.astype(batch["label"].dtype)}
