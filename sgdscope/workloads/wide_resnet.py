"""CIFAR-10 with a wide residual network and ghost batch normalization."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import optax

from sgdscope.errors import InputError
from sgdscope.models.normalization import ghost_batch_norm, running_norm
from sgdscope.models.wide_resnet import Tree, channels_of_blocks, wide_resnet_init, wide_resnet_state
from sgdscope.models.wide_resnet import wide_resnet as network
from sgdscope.workloads.base import Batch, Split, Workload, constant_classifier

CLASSES = 10

# Mean and standard deviation of each channel over all pixels of the 50,000 training pictures, on the scale 0 to
# 255: 125.307, 122.950, 113.865 and 62.993, 62.089, 66.705, in the released code of arXiv 1605.07146 as here.
CHANNEL_MEANS = (125.3, 123.0, 113.9)
CHANNEL_DEVIATIONS = (63.0, 62.1, 66.7)

# He et al. (2015), arXiv 1512.03385, section 4.2.
CROP_PADDING = 4

# A thousand pictures at once would take 10 GB in the network 16-4.
EVALUATION_BATCH_SIZE = 256


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
    check_fields(depth, width, l2)
    constant_loss, constant_score = constant_classifier(splits["train"]["label"])
    train_norm = partial(ghost_batch_norm, ghost_batch_size=ghost_batch_size)

    def training_loss(parameters: Tree, state: Tree, batch: Batch, keys: jax.Array) -> tuple[jax.Array, Tree]:
        outputs, state = network(parameters, state, standardised(batch["picture"]), train_norm)
        return cross_entropy(outputs, batch["label"]), state

    def evaluated(parameters_and_state: tuple[Tree, Tree], batch: Batch) -> jax.Array:
        return network(*parameters_and_state, standardised(batch["picture"]), running_norm)[0]

    return Workload(
        name="wide_resnet",
        version="1",
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        init=partial(wide_resnet_init, depth=depth, width=width, classes=CLASSES),
        loss=lambda model, batch: cross_entropy(evaluated(model, batch), batch["label"]),
        score=lambda model, batch: accuracy(evaluated(model, batch), batch["label"]),
        constant_loss=constant_loss,
        constant_score=constant_score,
        augment=crop_and_flip,
        training_loss=training_loss,
        init_state=partial(wide_resnet_state, depth=depth, width=width),
        penalty=lambda parameters: penalty_of_weights(l2, parameters),
        ghost_batch_size=ghost_batch_size,
        evaluation_batch_size=EVALUATION_BATCH_SIZE,
        fields={"depth": depth, "width": width, "l2": l2},
    )


def check_fields(depth: int, width: int, l2: float) -> None:
    """Refuse fields of which there is no network or no penalty.

    Raises:
        InputError: see :func:`wide_resnet`.
    """
    channels_of_blocks(depth, width)
    if not (math.isfinite(l2) and l2 >= 0):
        raise InputError(f"wide_resnet: l2 must be a finite number of at least 0, not {l2!r}.")


def standardised(picture: jax.Array) -> jax.Array:
    """Return pictures, uint8 of shape (..., 3), with mean 0 and variance 1 in each channel over the training set."""
    means, deviations = (jnp.array(of_channel, jnp.float32) for of_channel in (CHANNEL_MEANS, CHANNEL_DEVIATIONS))
    return (picture.astype(jnp.float32) - means) / deviations


def crop_and_flip(key: jax.Array, example: Batch) -> Batch:
    """Return an example whose picture is a random crop of itself within a margin, and mirrored in half the cases.

    In the margin of 4 pixels on each side the picture is mirrored at its edge, as in arXiv 1605.07146 (He et al. have
    zeros there). Each of the 9 × 9 places and each of the 2 orientations is as likely as another.
    """
    crop_key, flip_key = jax.random.split(key)
    side = CROP_PADDING
    picture = example["picture"]
    padded = jnp.pad(picture, ((side, side), (side, side), (0, 0)), mode="reflect")
    row, column = jax.random.randint(crop_key, (2,), 0, 2 * side + 1)
    crop = jax.lax.dynamic_slice(padded, (row, column, jnp.zeros_like(row)), picture.shape)
    return {**example, "picture": jnp.where(jax.random.bernoulli(flip_key), crop[:, ::-1], crop)}


def cross_entropy(outputs: jax.Array, label: jax.Array) -> jax.Array:
    """Return the cross-entropy of each example in nats, (n, classes) and (n,) to (n,)."""
    loss: jax.Array = optax.softmax_cross_entropy(outputs, jax.nn.one_hot(label, outputs.shape[1]))
    return loss


def accuracy(outputs: jax.Array, label: jax.Array) -> jax.Array:
    """Return 1 for each example whose largest output is its label's, else 0, (n, classes) and (n,) to (n,)."""
    return (outputs.argmax(axis=1) == label.astype(jnp.int32)).astype(jnp.float32)


def penalty_of_weights(l2: float, parameters: Tree) -> jax.Array:
    """Return ½ λ Σ‖w‖² over kernels and matrices, and over no bias, scale, shift or scalar of a branch.

    These are the weights that the study's authors decay in their later code (github.com/google-deepmind/
    deepmind-research, nfnets); the first code of arXiv 1605.07146 decays every parameter.

    >>> penalty_of_weights(0.5, {"weight": jnp.ones((2, 3)), "bias": jnp.ones(3)}).tolist()
    1.5
    """
    weights = [leaf for leaf in jax.tree.leaves(parameters) if leaf.ndim > 1]
    squares: jax.Array = sum(((weight**2).sum() for weight in weights), start=jnp.float32(0))
    return 0.5 * l2 * squares
