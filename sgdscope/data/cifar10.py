"""The CIFAR-10 images, in the binary version of their own format."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sgdscope.data.published import Content, DataSet, read_contents
from sgdscope.data.split import hold_out

HELD_OUT = 5_000
PIXELS = 32 * 32
TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST = ("test_batch.bin",)

CONTENTS = {
    "data_batch_1.bin": Content(30730000, "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"),
    "data_batch_2.bin": Content(30730000, "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"),
    "data_batch_3.bin": Content(30730000, "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"),
    "data_batch_4.bin": Content(30730000, "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"),
    "data_batch_5.bin": Content(30730000, "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"),
    "test_batch.bin": Content(30730000, "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"),
}
CIFAR10 = DataSet(
    name="cifar10",
    folder="cifar-10-batches-bin",
    published={"cifar-10-binary.tar.gz": TRAIN + TEST},
    contents=CONTENTS,
    mirrors=("https://www.cs.toronto.edu/~kriz/",),
    source='CIFAR-10 is by A. Krizhevsky, V. Nair and G. Hinton ("Learning multiple layers of features", 2009).',
)


def read_cifar10(where: Path | None = None, train_on_all: bool = False) -> dict[str, dict[str, np.ndarray]]:
    """Return the fixed split: 45,000 images for training, 5,000 for validation, 10,000 for testing.

    Each split has ``picture``, uint8 of shape (n, 32, 32, 3), and ``label``, uint8 of shape (n,). Validation is
    the last 5,000 of the published training set, in its order.

    Args:
        where: the folder of the six .bin files, one that has them in ``cifar-10-batches-bin``, one that has
            cifar-10-binary.tar.gz, or that file itself, which is read in memory; without it, SGDSCOPE_DATA, or
            the cache that ``sgdscope data fetch cifar10`` fills.
        train_on_all: train on all 50,000, as the paper does. Validation is then the test split, so that what
            validation chooses was chosen on the test set.

    Raises:
        InputError: where a file is missing, damaged or another than was published.

    Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.

    >>> len(read_cifar10()["train"]["label"])  # doctest: +SKIP
    45000
    """
    # A record is a label and 32 × 32 values of red, of green and of blue.
    records = {
        name: np.frombuffer(content, np.uint8).reshape(-1, 1 + 3 * PIXELS)
        for name, content in read_contents(CIFAR10, where)
    }

    def split(names: tuple[str, ...]) -> dict[str, np.ndarray]:
        rows = [records[name] for name in names]
        pictures = np.empty((sum(map(len, rows)), PIXELS, 3), np.uint8)
        for colour in range(3):  # three times as fast as a transpose
            start = 1 + colour * PIXELS
            np.concatenate([row[:, start : start + PIXELS] for row in rows], out=pictures[..., colour])
        return {"picture": pictures.reshape(-1, 32, 32, 3), "label": np.concatenate([row[:, 0] for row in rows])}

    return hold_out(split(TRAIN), split(TEST), HELD_OUT, train_on_all)
