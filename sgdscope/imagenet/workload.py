"""ImageNet with ResNet-50 and ghost batch normalization."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from sgdscope.errors import InputError
from sgdscope.imagenet.images import labelled_square, libraries
from sgdscope.imagenet.index import ImageNet
from sgdscope.models.losses import accuracy, cross_entropy
from sgdscope.models.normalization import channels, cuts_ghosts, ghost_batch_norm, running_norm
from sgdscope.models.resnet import RESNET_50, channels_of_blocks, resnet, resnet_init, resnet_state
from sgdscope.models.wide_resnet import Tree
from sgdscope.records import Layout
from sgdscope.workloads.base import Batch, Feed, Workload, constant_classifier
from sgdscope.workloads.wide_resnet import penalty_of_weights

# Mean and standard deviation of each channel over the training images, on the scale 0 to 255.
CHANNEL_MEANS = (123.675, 116.28, 103.53)
CHANNEL_DEVIATIONS = (58.395, 57.12, 57.375)

EVALUATION_BATCH_SIZE = 256


def imagenet_resnet50(
    data: ImageNet,
    blocks: Sequence[int] = RESNET_50,
    width: int = 64,
    side: int = 224,
    ghost_batch_size: int = 64,
    l2: float = 1e-4,
) -> Workload:
    """Return ImageNet with ResNet-50, ghost batch normalization, cross-entropy and top-1 accuracy.

    Training sees a random piece of each image, scaled to a square and mirrored in half the cases; evaluation its
    centre. Labels are not smoothed.

    Args:
        data: the images.
        blocks: of each stage.
        width: channels of the first convolution.
        side: of the squares, in pixels; all of 224 as published.
        ghost_batch_size: examples for each batch-norm statistic; every batch size is a multiple of it.
        l2: λ of ½ λ Σ‖w‖² over kernels and the last matrix, and over no bias, scale or shift.

    Sources: Goyal et al. (2017), arXiv 1706.02677, section 5.1, for the network, its initialization, λ = 1e-4 on what
    is no scale or shift, and the augmentation, checked against later public code (docs/development-notes.md); Smith,
    Elsen and De (2020), arXiv 2006.15081, for ghost batches of 64.

    Raises:
        InputError: where no network has these fields.
    """
    strides = [stride for *_, stride in channels_of_blocks(blocks, width)]
    for what, value in (("side", side), ("ghost_batch_size", ghost_batch_size)):
        if type(value) is not int or value < 1:
            raise InputError(f"imagenet_resnet50: {what} must be a whole number of at least 1, not {value!r}.")
    if not (math.isfinite(l2) and l2 >= 0):
        raise InputError(f"imagenet_resnet50: l2 must be a finite number of at least 0, not {l2!r}.")
    constant_loss, constant_score = constant_classifier(data.splits["train"]["label"])
    train_norm = partial(ghost_batch_norm, ghost_batch_size=ghost_batch_size)

    @cuts_ghosts
    def training_loss(parameters: Tree, state: Tree, batch: Batch, keys: jax.Array) -> tuple[jax.Array, Tree]:
        outputs, state = resnet(parameters, state, standardised(batch["picture"]), strides, train_norm)
        return cross_entropy(outputs, batch["label"]), state

    def outputs(parameters: Tree, state: Tree, batch: Batch) -> jax.Array:
        return resnet(parameters, state, standardised(batch["picture"]), strides, running_norm)[0]

    layout: Layout = {"picture": ((side, side, 3), np.dtype(np.uint8)), "label": ((), np.dtype(np.uint16))}
    return Workload(
        name="imagenet_resnet50",
        version="2",
        train=data.splits["train"],
        validation=data.splits["validation"],
        test=data.splits["test"],
        init=partial(resnet_init, blocks=tuple(blocks), width=width, classes=len(data.classes)),
        loss=lambda parameters, state, batch: cross_entropy(outputs(parameters, state, batch), batch["label"]),
        score=lambda parameters, state, batch: accuracy(outputs(parameters, state, batch), batch["label"]),
        constant_loss=constant_loss,
        constant_score=constant_score,
        training_loss=training_loss,
        init_state=partial(resnet_state, blocks=tuple(blocks), width=width),
        penalty=partial(penalty_of_weights, l2),
        ghost_batch_size=ghost_batch_size,
        reader=Feed(layout, partial(_place, data), partial(labelled_square, side), data.bytes, libraries()),
        evaluation_batch_size=EVALUATION_BATCH_SIZE,
        fields={"blocks": "-".join(map(str, blocks)), "width": width, "side": side, "l2": l2},
    )


def _place(data: ImageNet, split: str, index: int) -> tuple[str, int]:
    return str(data.path(split, index)), int(data.splits[split]["label"][index])


def standardised(picture: jax.Array) -> jax.Array:
    """Return images, uint8 of shape (n, h, w, 3), with mean 0 and variance 1 in each channel over the training set."""
    means, deviations = (channels(jnp.array(each, jnp.float32), 4) for each in (CHANNEL_MEANS, CHANNEL_DEVIATIONS))
    return (picture.astype(jnp.float32) - means) / deviations
