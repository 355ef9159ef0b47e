"""CIFAR-10 with a wide residual network and ghost batch normalization."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from sgdscope.data.augment import crop_and_flip
from sgdscope.errors import InputError
from sgdscope.models.losses import accuracy, cross_entropy
from sgdscope.models.normalization import channels, cuts_ghosts, ghost_batch_norm, running_norm
from sgdscope.models.wide_resnet import Tree, channels_of_blocks, wide_resnet_init, wide_resnet_state
from sgdscope.models.wide_resnet import wide_resnet as network
from sgdscope.workloads.base import Batch, Resident, Split, Workload, constant_classifier

CLASSES = 10

# Mean and standard deviation of each channel over the training images, on the scale 0 to 255: arXiv 1605.07146's code.
CHANNEL_MEANS = (125.3, 123.0, 113.9)
CHANNEL_DEVIATIONS = (63.0, 62.1, 66.7)

# A thousand images at once would take 10 GB in the network 16-4.
EVALUATION_BATCH_SIZE = 256
# Activations of more images leave the cache: on two cores the network 10-1 trained 284 images/s at a batch size of
# 1,024 whole, and 1,750 in parts of 16.
CPU_MICROBATCH_SIZE = 16


def wide_resnet(
    splits: Mapping[str, Split], depth: int = 16, width: int = 4, ghost_batch_size: int = 64, l2: float = 5e-4
) -> Workload:
    """Return CIFAR-10 with WRN-depth-width, ghost batch normalization, cross-entropy and accuracy.

    Args:
        splits: "train", "validation" and "test", each with "picture", uint8 of shape (n, 32, 32, 3), and "label".
        depth: d = 6n + 4 for n blocks in each of the three stages.
        width: k, for 16k, 32k and 64k channels.
        ghost_batch_size: examples for each batch-norm statistic; every batch size is a multiple of it.
        l2: λ, see :func:`penalty_of_weights`.

    Sources: Smith, Elsen and De (2020), arXiv 2006.15081, for WRN-16-4, 64 and 5e-4; Zagoruyko and Komodakis
    (2016), arXiv 1605.07146, for the network.

    Raises:
        InputError: where no network has this depth or width, or l2 is no finite number of at least 0.

    >>> import numpy as np
    >>> split = {"picture": np.zeros((3, 32, 32, 3), np.uint8), "label": np.array([0, 1, 1], np.uint8)}
    >>> wide_resnet(dict.fromkeys(("train", "validation", "test"), split)).name
    'wide_resnet'
    """
    train_norm = partial(ghost_batch_norm, ghost_batch_size=ghost_batch_size)

    @cuts_ghosts
    def training_loss(parameters: Tree, state: Tree, batch: Batch, keys: jax.Array) -> tuple[jax.Array, Tree]:
        outputs, state = network(parameters, state, standardised(batch["picture"]), train_norm)
        return cross_entropy(outputs, batch["label"]), state

    return workload_of(
        wide_resnet_init,
        lambda parameters, state, pictures: network(parameters, state, pictures, running_norm)[0],
        splits,
        {"depth": depth, "width": width, "l2": l2},
        name="wide_resnet",
        training_loss=training_loss,
        init_state=partial(wide_resnet_state, depth=depth, width=width),
        ghost_batch_size=ghost_batch_size,
    )


def workload_of(
    init: Callable[..., Tree],
    outputs: Callable[[Tree, Any, jax.Array], jax.Array],
    splits: Mapping[str, Split],
    fields: Mapping[str, Any],
    **of_its_own: Any,
) -> Workload:
    """Return CIFAR-10 with a network, cross-entropy and accuracy: what the two wide residual networks share.

    Args:
        init: ``init(key, depth, width, classes) -> parameters``.
        outputs: of parameters, state and standardised images, shape (n, classes).
        splits: see :func:`wide_resnet`.
        fields: depth, width and l2.
        of_its_own: further fields of the workload.

    Raises:
        InputError: see :func:`wide_resnet`.
    """
    depth, width, l2 = fields["depth"], fields["width"], fields["l2"]
    channels_of_blocks(depth, width)  # refuses what no network has
    if not (math.isfinite(l2) and l2 >= 0):
        raise InputError(f"wide_resnet: l2 must be a finite number of at least 0, not {l2!r}.")
    constant_loss, constant_score = constant_classifier(splits["train"]["label"])

    def evaluated(parameters: Tree, state: Any, batch: Batch) -> jax.Array:
        return outputs(parameters, state, standardised(batch["picture"]))

    return Workload(
        version="1",
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        init=partial(init, depth=depth, width=width, classes=CLASSES),
        loss=lambda parameters, state, batch: cross_entropy(evaluated(parameters, state, batch), batch["label"]),
        score=lambda parameters, state, batch: accuracy(evaluated(parameters, state, batch), batch["label"]),
        constant_loss=constant_loss,
        constant_score=constant_score,
        reader=Resident(crop_and_flip),
        penalty=partial(penalty_of_weights, l2),
        evaluation_batch_size=EVALUATION_BATCH_SIZE,
        cpu_microbatch_size=CPU_MICROBATCH_SIZE,
        fields=fields,
        **of_its_own,
    )


def standardised(picture: jax.Array) -> jax.Array:
    """Return images, uint8 of shape (n, h, w, 3), with mean 0 and variance 1 in each channel over the training set."""
    means, deviations = (channels(jnp.array(each, jnp.float32), 4) for each in (CHANNEL_MEANS, CHANNEL_DEVIATIONS))
    return (picture.astype(jnp.float32) - means) / deviations


def penalty_of_weights(l2: float, parameters: Tree) -> jax.Array:
    """Return ½ λ Σ‖w‖² over kernels and matrices, and over no bias, scale, shift or scalar of a branch.

    The paper's authors decay these weights in later code (github.com/google-deepmind/deepmind-research, nfnets).

    >>> penalty_of_weights(0.5, {"weight": jnp.ones((2, 3)), "bias": jnp.ones(3)}).tolist()
    1.5
    """
    weights = [leaf for leaf in jax.tree.leaves(parameters) if leaf.ndim > 1]
    squares: jax.Array = sum(((weight**2).sum() for weight in weights), start=jnp.float32(0))
    return 0.5 * l2 * squares
