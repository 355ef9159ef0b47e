"""Reconstruction of MNIST digits by a deep autoencoder: unsupervised, and hard for SGD without momentum."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sgdscope.errors import InputError
from sgdscope.models import autoencoder as model
from sgdscope.models.layers import Dense
from sgdscope.records import SPLITS
from sgdscope.workloads.base import Batch, Split, Workload

PIXELS = 28 * 28
WIDTHS = (PIXELS, 1000, 500, 250, 30)


def autoencoder(splits: Mapping[str, Split], widths: Sequence[int] = WIDTHS) -> Workload:
    """Return images of 28 × 28 pixels, the network 784-1000-500-250-30-250-500-1000-784 and its two errors.

    The training loss is the cross-entropy summed over the pixels; its least possible value is the entropy of
    the grey levels, which is not 0. The score is the squared error summed over the pixels, as the literature
    reports it.

    Args:
        splits: for each split ``picture``, uint8 of shape (n, 28, 28); labels are not used.
        widths: of the layers from the image to the code. The images have as many pixels as the first.
            Default: those of the literature.

    Raises:
        InputError: where images are of another type or size.

    Source: Hinton and Salakhutdinov (2006), doi 10.1126/science.1127647; Martens (2010); Sutskever et al. (2013).

    >>> images = {"picture": np.arange(3 * PIXELS, dtype=np.uint8).reshape(3, 28, 28)}
    >>> workload = autoencoder(dict.fromkeys(SPLITS, images))
    >>> sum(array.size for array in jax.tree.leaves(jax.eval_shape(workload.init, jax.random.key(0))))
    2837314
    """
    side = math.isqrt(widths[0])
    for split in SPLITS:
        picture = splits[split]["picture"]
        if picture.dtype != np.uint8 or picture.shape[1:] != (side, side):
            raise InputError(
                f"'picture' of the {split} split must be uint8 of shape (n, {side}, {side}), not {picture.dtype} of "
                f"shape {picture.shape}."
            )
    train, validation, test = ({"picture": splits[split]["picture"]} for split in SPLITS)
    constant_loss, constant_score = constant_picture(train["picture"])
    return Workload(
        name="autoencoder",
        version="1",
        train=train,
        validation=validation,
        test=test,
        init=partial(model.autoencoder_init, widths=widths),
        loss=cross_entropy,
        score=squared_error,
        constant_loss=constant_loss,
        constant_score=constant_score,
        score_name="squared error",
        score_goal="minimize",
        sample_targets=sampled,
        fields={} if widths == WIDTHS else {"widths": "-".join(map(str, widths)), "side": side},
    )


def cross_entropy(layers: list[Dense], state: tuple[()], batch: Batch) -> jax.Array:
    """Return −Σ x ln y + (1 − x) ln(1 − y) over the pixels of each image x and its reconstruction y, shape (n,)."""
    x = _grey(batch["picture"])
    target = batch.get("target", x)
    losses: jax.Array = optax.sigmoid_binary_cross_entropy(model.autoencoder(layers, x), target).sum(axis=1)
    return losses


def sampled(layers: list[Dense], state: tuple[()], batch: Batch, key: jax.Array) -> Batch:
    """Return a batch whose targets are black and white pixels, drawn by the reconstruction's probabilities."""
    probability = jax.nn.sigmoid(model.autoencoder(layers, _grey(batch["picture"])))
    return dict(batch) | {"target": jax.random.bernoulli(key, probability).astype(jnp.float32)}


def squared_error(layers: list[Dense], state: tuple[()], batch: Batch) -> jax.Array:
    """Return Σ (y − x)² over the pixels of each image x and its reconstruction y, shape (n,)."""
    x = _grey(batch["picture"])
    return ((jax.nn.sigmoid(model.autoencoder(layers, x)) - x) ** 2).sum(axis=1)


def constant_picture(pictures: np.ndarray) -> tuple[float, float]:
    """Return the mean cross-entropy and squared error of the best constant reconstruction, each pixel's mean.

    With mean m and mean square s of a pixel they are Σ −m ln m − (1 − m) ln(1 − m) and Σ s − m².

    >>> loss, score = constant_picture(np.array([[[0]], [[255]]], np.uint8))
    >>> round(loss, 4), score
    (0.6931, 0.25)
    """
    flat = pictures.reshape(len(pictures), -1)
    mean = flat.mean(axis=0, dtype=np.float64) / 255
    square = np.square(flat, dtype=np.uint32).mean(axis=0, dtype=np.float64) / 255**2
    entropy = -sum(p * np.log(p, out=np.zeros_like(p), where=p > 0) for p in (mean, 1 - mean))
    return float(entropy.sum()), float((square - mean**2).sum())


def _grey(picture: jax.Array) -> jax.Array:
    return picture.reshape(len(picture), -1).astype(jnp.float32) / 255
