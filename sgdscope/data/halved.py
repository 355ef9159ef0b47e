"""Images of half the size, for studies that a CPU carries."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def halved(splits: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, np.ndarray]]:
    """Return splits whose images have half the height and width: each pixel is the mean of 2 × 2, rounded.

    Args:
        splits: each with ``picture``, uint8 of shape (n, h, w) or (n, h, w, channels), h and w even.

    >>> splits = {"train": {"picture": np.array([[[0, 2], [4, 8]]], np.uint8), "label": np.array([3])}}
    >>> halved(splits)["train"]["picture"].tolist(), halved(splits)["train"]["label"].tolist()
    ([[[4]]], [3])
    """
    return {name: {**split, "picture": _of_pictures(split["picture"])} for name, split in splits.items()}


def _of_pictures(pictures: np.ndarray) -> np.ndarray:
    n, h, w, *channels = pictures.shape
    means = pictures.reshape(n, h // 2, 2, w // 2, 2, *channels).mean(axis=(2, 4))
    rounded: np.ndarray = np.rint(means).astype(np.uint8)
    return rounded
