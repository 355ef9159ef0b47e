"""Fashion-MNIST: images of clothes in MNIST's own format, under MNIST's file names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from sgdscope.data.mnist import MNIST, read_idx
from sgdscope.data.published import Content

CONTENTS = {
    "train-images-idx3-ubyte": Content(47040016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    "train-labels-idx1-ubyte": Content(60008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    "t10k-images-idx3-ubyte": Content(7840016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    "t10k-labels-idx1-ubyte": Content(10008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
}
FASHION_MNIST = replace(
    MNIST,
    name="fashion_mnist",
    folder="fashion-mnist",
    contents=CONTENTS,
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ),
    source="Fashion-MNIST is by Zalando SE (H. Xiao, K. Rasul and R. Vollgraf), under the MIT licence.",
    package=Path("/usr/share/datasets/fashion-mnist"),
)


def read_fashion_mnist(where: Path | None = None, train_on_all: bool = False) -> dict[str, dict[str, np.ndarray]]:
    """Return the fixed split: 50,000 images for training, 10,000 for validation, 10,000 for testing.

    Each split has ``picture``, uint8 of shape (n, 28, 28), and ``label``, uint8 of shape (n,). Validation is the
    last 10,000 of the published training set, in its order.

    Args:
        where: the folder of the four IDX files, gzipped or not, or one that has them in ``fashion-mnist``; without
            it, SGDSCOPE_DATA, or the cache that ``sgdscope data fetch fashion_mnist`` fills, or where Debian's package
            ``dataset-fashion-mnist`` has them.
        train_on_all: train on all 60,000. Validation is then the test split, so that what validation chooses was
            chosen on the test set.

    Raises:
        InputError: where a file is missing, damaged or another than was published.

    Source: Xiao, Rasul and Vollgraf (2017), arXiv 1708.07747.

    >>> len(read_fashion_mnist()["train"]["label"])  # doctest: +SKIP
    50000
    """
    return read_idx(FASHION_MNIST, where, train_on_all)
