import numpy as np
import pytest

from sgdscope.data.cifar10 import read_cifar10
from sgdscope.errors import InputError

FOLDER = "cifar-10-batches-bin"


def record(content, index):
    """One label and image, read byte by byte as the format's page says."""
    start = index * 3073
    picture = np.zeros((32, 32, 3), np.uint8)
    for colour in range(3):
        for row in range(32):
            for column in range(32):
                picture[row, column, colour] = content[start + 1 + colour * 1024 + row * 32 + column]
    return content[start], picture


@pytest.mark.parametrize(("how", "inside"), [("", ""), ("", FOLDER), ("tar", ""), ("tar", FOLDER)])
def test_each_picture_is_the_one_of_the_format(small, lay, tmp_path, how, inside):
    lay(tmp_path / inside, small["cifar10"], how)
    splits = read_cifar10(tmp_path)
    assert [len(splits[name]["label"]) for name in ("train", "validation", "test")] == [17, 3, 4]
    batches = [small["cifar10"][f"data_batch_{number}.bin"] for number in range(1, 6)]
    expected = [record(batch, index) for batch in batches for index in range(4)]
    for name, records in (
        ("train", expected[:17]),
        ("validation", expected[17:]),
        ("test", [record(small["cifar10"]["test_batch.bin"], index) for index in range(4)]),
    ):
        assert splits[name]["label"].tolist() == [label for label, _ in records]
        np.testing.assert_array_equal(splits[name]["picture"], np.stack([picture for _, picture in records]))
        assert splits[name]["picture"].dtype == splits[name]["label"].dtype == np.uint8


def test_the_tar_itself_by_any_name(small, lay, tmp_path):
    tar = (lay(tmp_path, small["cifar10"], "tar") / "cifar-10-binary.tar.gz").rename(tmp_path / "mine.tar.gz")
    assert len(read_cifar10(tar)["train"]["label"]) == 17


def test_training_on_all_chooses_on_the_test_set(small, lay, tmp_path):
    splits = read_cifar10(lay(tmp_path, small["cifar10"]), train_on_all=True)
    assert len(splits["train"]["label"]) == 20
    for key, array in splits["validation"].items():
        np.testing.assert_array_equal(array, splits["test"][key])


@pytest.mark.parametrize("prefix", ["../../", "/", "a/../../"])
def test_a_hostile_tar_writes_nothing_anywhere(small, make_tar, tmp_path, prefix):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.write_bytes(b"not to be read")
    links = [("data_batch_1.bin", str(secret)), ("cifar-10-batches-bin", str(tmp_path)), ("x", "../../secret")]
    tar = inner / "cifar-10-binary.tar.gz"
    tar.write_bytes(make_tar(small["cifar10"] | {"evil": b"evil"}, prefix, links))
    assert len(read_cifar10(tar)["train"]["label"]) == 17  # by what the regular members hold
    tar.write_bytes(make_tar({}, links=[(name, str(secret)) for name in small["cifar10"]]))
    with pytest.raises(InputError, match=r"holds no data_batch_1\.bin"):
        read_cifar10(tar)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "cifar-10-binary.tar.gz", "secret"]


@pytest.mark.parametrize("cut", [0, 2, 100, 0.5, -1])
def test_a_truncated_tar(small, make_tar, tmp_path, cut, one_sentence):
    tar = tmp_path / "cifar-10-binary.tar.gz"
    whole = make_tar(small["cifar10"])
    tar.write_bytes(whole[: int(len(whole) * cut) if isinstance(cut, float) else cut] if cut != -1 else b"x" * 5000)
    with pytest.raises(InputError, match=r"cannot be unpacked; `sgdscope data fetch cifar10") as error:
        read_cifar10(tmp_path)
    one_sentence(error.value)


def test_a_member_of_another_size_or_content(small, make_tar, tmp_path, one_sentence):
    tar = tmp_path / "cifar-10-binary.tar.gz"
    for content in (b"", b"short", bytes(4 * 3073), bytes(10**6)):
        tar.write_bytes(make_tar(small["cifar10"] | {"data_batch_3.bin": content}))
        with pytest.raises(InputError, match=r"is not the published data_batch_3\.bin") as error:
            read_cifar10(tar)
        one_sentence(error.value)


def test_the_real_pictures(real):
    splits = read_cifar10(real)
    counts = {name: np.bincount(split["label"]) for name, split in splits.items()}
    assert {name: count.sum() for name, count in counts.items()} == {"train": 45000, "validation": 5000, "test": 10000}
    assert (counts["train"] + counts["validation"]).tolist() == [5000] * 10
    assert counts["test"].tolist() == [1000] * 10
    assert counts["validation"].min() > 450
    assert splits["train"]["label"][:8].tolist() == [6, 9, 9, 4, 1, 1, 2, 7]
    # The means that everyone subtracts: red, green, blue.
    pictures = read_cifar10(real, train_on_all=True)["train"]["picture"]
    means = pictures.mean(axis=(0, 1, 2)) / 255
    np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=1e-4)
