from dataclasses import replace

import numpy as np
import pytest

from sgdscope.data import fashion_mnist
from sgdscope.data.fashion_mnist import read_fashion_mnist
from sgdscope.data.mnist import read_mnist
from sgdscope.data.published import find
from sgdscope.errors import InputError


@pytest.mark.parametrize("how", ["", ".gz"])
@pytest.mark.parametrize("inside", ["", "mnist"])
def test_every_byte_of_the_files_is_where_it_belongs(small, lay, tmp_path, how, inside):
    lay(tmp_path / inside, small["mnist"], how)
    splits = read_mnist(tmp_path)
    assert {name: split["picture"].shape for name, split in splits.items()} == {
        "train": (5, 28, 28),
        "validation": (2, 28, 28),
        "test": (3, 28, 28),
    }
    pictures = np.concatenate([splits["train"]["picture"], splits["validation"]["picture"]])
    assert pictures.tobytes() == small["mnist"]["train-images-idx3-ubyte"][16:]
    labels = np.concatenate([splits["train"]["label"], splits["validation"]["label"]])
    assert labels.tobytes() == small["mnist"]["train-labels-idx1-ubyte"][8:]
    assert splits["test"]["picture"].tobytes() == small["mnist"]["t10k-images-idx3-ubyte"][16:]
    assert splits["test"]["label"].tobytes() == small["mnist"]["t10k-labels-idx1-ubyte"][8:]


def test_training_on_all_chooses_on_the_test_set(small, lay, tmp_path):
    splits = read_mnist(lay(tmp_path, small["mnist"]), train_on_all=True)
    assert splits["train"]["picture"].tobytes() == small["mnist"]["train-images-idx3-ubyte"][16:]
    for key, array in splits["validation"].items():
        np.testing.assert_array_equal(array, splits["test"][key])


def test_the_real_pictures(real):
    splits = read_mnist(real)
    counts = {name: np.bincount(split["label"]) for name, split in splits.items()}
    assert {name: count.sum() for name, count in counts.items()} == {"train": 50000, "validation": 10000, "test": 10000}
    # The counts of the published sets.
    whole = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert (counts["train"] + counts["validation"]).tolist() == whole
    assert counts["test"].tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert splits["train"]["label"][:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    seen = [{picture.tobytes() for picture in splits[name]["picture"]} for name in ("train", "validation", "test")]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    pictures = read_mnist(real, train_on_all=True)["train"]["picture"] / np.float32(255)
    assert pictures.mean() == pytest.approx(0.1307, abs=1e-4)
    assert pictures.std() == pytest.approx(0.3081, abs=1e-4)


def test_fashion_mnist_is_found_where_a_package_of_the_system_has_it(small, lay, tmp_path, monkeypatch):
    package = lay(tmp_path / "package", small["fashion_mnist"], ".gz")
    published = replace(fashion_mnist.FASHION_MNIST, package=package)
    monkeypatch.setattr(fashion_mnist, "FASHION_MNIST", published)
    labels = lambda splits: splits["test"]["label"].tobytes()
    assert labels(read_fashion_mnist()) == small["fashion_mnist"]["t10k-labels-idx1-ubyte"][8:]
    with pytest.raises(InputError, match="fashion_mnist is not in"):  # a place that is named is the only one
        read_fashion_mnist(tmp_path / "elsewhere")
    own = small["fashion_mnist"]["t10k-labels-idx1-ubyte"]
    lay(tmp_path / "cache" / "data" / "fashion-mnist", small["fashion_mnist"])
    (package / "t10k-labels-idx1-ubyte.gz").unlink()  # what was fetched comes before the package
    assert labels(read_fashion_mnist()) == own[8:]


def test_the_real_clothes(real):
    if find(fashion_mnist.FASHION_MNIST, real) is None:
        pytest.skip("SGDSCOPE_DATA has no Fashion-MNIST")
    splits = read_fashion_mnist(real)
    counts = {name: np.bincount(split["label"]) for name, split in splits.items()}
    assert (counts["train"] + counts["validation"]).tolist() == [6000] * 10
    assert counts["test"].tolist() == [1000] * 10
    pictures = read_fashion_mnist(real, train_on_all=True)["train"]["picture"] / np.float32(255)
    assert pictures.mean() == pytest.approx(0.2860, abs=1e-4)  # as torchvision's documentation has them
    assert pictures.std() == pytest.approx(0.3530, abs=1e-4)
