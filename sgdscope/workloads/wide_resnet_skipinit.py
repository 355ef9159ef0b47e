"""CIFAR-10 with a wide residual network and no normalization."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import jax

from sgdscope.models.wide_resnet import Tree, skipinit, skipinit_init
from sgdscope.workloads.base import Batch, Split, Workload, constant_classifier
from sgdscope.workloads.wide_resnet import (
    CLASSES,
    EVALUATION_BATCH_SIZE,
    accuracy,
    check_fields,
    crop_and_flip,
    cross_entropy,
    penalty_of_weights,
    standardised,
)


def wide_resnet_skipinit(splits: Mapping[str, Split], depth: int = 16, width: int = 4, l2: float = 5e-4) -> Workload:
    """Return CIFAR-10 with WRN-depth-width by SkipInit, cross-entropy and accuracy.

    Args:
        splits: "train", "validation" and "test", each with "picture", uint8 of shape (n, 32, 32, 3), and "label".
        depth: d = 6n + 4 for n blocks in each of the three stages.
        width: k, for 16k, 32k and 64k channels.
        l2: λ, see :func:`~sgdscope.workloads.wide_resnet.penalty_of_weights`.

    Sources: De and Smith (2020), arXiv 2002.10444; Smith, Elsen and De (2020), arXiv 2006.15081, for WRN-16-4
    and 5e-4.

    Raises:
        InputError: where no network has this depth or width, or l2 is no finite number of at least 0.

    >>> import numpy as np
    >>> split = {"picture": np.zeros((3, 32, 32, 3), np.uint8), "label": np.array([0, 1, 1], np.uint8)}
    >>> wide_resnet_skipinit(dict.fromkeys(("train", "validation", "test"), split)).name
    'wide_resnet_skipinit'
    """
    check_fields(depth, width, l2)
    constant_loss, constant_score = constant_classifier(splits["train"]["label"])

    def outputs(parameters: Tree, batch: Batch) -> jax.Array:
        return skipinit(parameters, standardised(batch["picture"]))

    return Workload(
        name="wide_resnet_skipinit",
        version="1",
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        init=partial(skipinit_init, depth=depth, width=width, classes=CLASSES),
        loss=lambda parameters, batch: cross_entropy(outputs(parameters, batch), batch["label"]),
        score=lambda parameters, batch: accuracy(outputs(parameters, batch), batch["label"]),
        constant_loss=constant_loss,
        constant_score=constant_score,
        augment=crop_and_flip,
        evaluation_batch_size=EVALUATION_BATCH_SIZE,
        penalty=lambda parameters: penalty_of_weights(l2, parameters),
        fields={"depth": depth, "width": width, "l2": l2},
    )
