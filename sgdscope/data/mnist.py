"""The MNIST database of handwritten digits, in its own IDX format."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sgdscope.data.published import Content, DataSet, read_contents
from sgdscope.data.split import hold_out

HELD_OUT = 10_000
# An IDX file begins with four bytes of type and four for each axis' length.
PICTURE_START, LABEL_START = 16, 8

CONTENTS = {
    "train-images-idx3-ubyte": Content(47040016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "train-labels-idx1-ubyte": Content(60008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte": Content(7840016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "t10k-labels-idx1-ubyte": Content(10008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}
MNIST = DataSet(
    name="mnist",
    folder="mnist",
    published={f"{name}.gz": (name,) for name in CONTENTS},
    contents=CONTENTS,
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    source="MNIST is by Y. LeCun, C. Cortes and C. J. C. Burges.",
)


def read_mnist(where: Path | None = None, train_on_all: bool = False) -> dict[str, dict[str, np.ndarray]]:
    """Return the fixed split: 50,000 images for training, 10,000 for validation, 10,000 for testing.

    Each split has ``picture``, uint8 of shape (n, 28, 28), and ``label``, uint8 of shape (n,). Validation is the
    last 10,000 of the published training set, in its order.

    Args:
        where: the folder of the four IDX files, gzipped or not, or one that has them in ``mnist``; without it,
            SGDSCOPE_DATA, or the cache that ``sgdscope data fetch mnist`` fills.
        train_on_all: train on all 60,000, as the paper does. Validation is then the test split, so that what
            validation chooses was chosen on the test set.

    Raises:
        InputError: where a file is missing, damaged or another than was published.

    Source: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998.

    >>> len(read_mnist()["train"]["label"])  # doctest: +SKIP
    50000
    """
    return read_idx(MNIST, where, train_on_all)


def read_idx(data_set: DataSet, where: Path | None, train_on_all: bool) -> dict[str, dict[str, np.ndarray]]:
    """Return the fixed split of a data set in MNIST's format: see :func:`read_mnist`."""
    contents = dict(read_contents(data_set, where))

    def split(prefix: str) -> dict[str, np.ndarray]:
        pictures = np.frombuffer(contents[f"{prefix}-images-idx3-ubyte"], np.uint8, offset=PICTURE_START)
        labels = np.frombuffer(contents[f"{prefix}-labels-idx1-ubyte"], np.uint8, offset=LABEL_START)
        return {"picture": pictures.reshape(-1, 28, 28), "label": labels}

    return hold_out(split("train"), split("t10k"), HELD_OUT, train_on_all)
