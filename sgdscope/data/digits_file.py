"""The UCI handwritten digits that ship with the package."""

from __future__ import annotations

from importlib.resources import files

import numpy as np

# A fixed shuffle, since the file's writers follow one another; then 1,024 / 256 / 517.
SHUFFLE_SEED = 0
BOUNDS = {"train": (0, 1024), "validation": (1024, 1280), "test": (1280, 1797)}


def read_digits() -> dict[str, dict[str, np.ndarray]]:
    """Return the fixed split: 1,024 images for training, 256 for validation, 517 for testing.

    Each split has ``picture``, float32 of shape (n, 64) with values 0 to 1, and ``label``, uint8 of shape (n,).

    Source: E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998, doi 10.24432/C50P49, CC BY 4.0.

    >>> {name: len(split["label"]) for name, split in read_digits().items()}
    {'train': 1024, 'validation': 256, 'test': 517}
    """
    with (
        files("sgdscope.data").joinpath("digits/digits.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as npz,
    ):
        pictures, labels = npz["pictures"], npz["labels"]
    order = np.random.Generator(np.random.PCG64(SHUFFLE_SEED)).permutation(len(labels))
    pictures, labels = pictures[order].astype(np.float32) / 16, labels[order]
    return {
        name: {"picture": pictures[start:stop], "label": labels[start:stop]} for name, (start, stop) in BOUNDS.items()
    }
