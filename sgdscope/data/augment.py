"""Augmentation of one example, with a key of its own for each visit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

# He et al. (2015), arXiv 1512.03385, section 4.2.
CROP_PADDING = 4


def crop_and_flip(key: jax.Array, example: Mapping[str, Any], side: int = CROP_PADDING) -> dict[str, Any]:
    """Return an example whose image is a random crop of itself within a margin, and mirrored in half the cases.

    In the margin, by default of 4 pixels on each side, the image is mirrored at its edge, as in arXiv
    1605.07146 (He et al. have zeros there). Each of the 9 × 9 places and each of the 2 orientations is as likely as
    another.
    """
    crop_key, flip_key = jax.random.split(key)
    picture = example["picture"]
    padded = jnp.pad(picture, ((side, side), (side, side), (0, 0)), mode="reflect")
    row, column = jax.random.randint(crop_key, (2,), 0, 2 * side + 1)
    crop = jax.lax.dynamic_slice(padded, (row, column, jnp.zeros_like(row)), picture.shape)
    return {**example, "picture": jnp.where(jax.random.bernoulli(flip_key), crop[:, ::-1], crop)}
