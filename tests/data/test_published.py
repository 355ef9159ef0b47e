import gzip

import pytest

from sgdscope.data.mnist import read_mnist
from sgdscope.data.ptb import read_ptb
from sgdscope.data.published import check, data_place, find
from sgdscope.errors import InputError

PICTURES = "train-images-idx3-ubyte"


def test_the_path_then_the_variable_then_the_cache(small, lay, tmp_path, monkeypatch):
    lay(tmp_path / "cache" / "data" / "ptb", small["ptb"])
    assert len(read_ptb()["test"]["token"]) == 6
    monkeypatch.setenv("SGDSCOPE_DATA", str(tmp_path / "named"))
    with pytest.raises(InputError, match=r"named; `sgdscope data fetch ptb` fetches it\.$"):
        read_ptb()
    lay(tmp_path / "named", small["ptb"])
    assert len(read_ptb()["test"]["token"]) == 6
    with pytest.raises(InputError, match=rf"given; `sgdscope data fetch ptb --data {tmp_path / 'given'}` fetches it"):
        read_ptb(tmp_path / "given")


def test_without_a_word_it_is_the_users_cache(monkeypatch):
    monkeypatch.delenv("SGDSCOPE_DATA", raising=False)
    monkeypatch.delenv("SGDSCOPE_CACHE_DIR")
    assert data_place(None).parts[-2:] == ("sgdscope", "data")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda whole: None, f"{PICTURES} is missing;"),
        (lambda whole: b"", f"is not the published {PICTURES} (0 of 5,504 bytes);"),
        (lambda whole: whole[:-1], "(5,503 of 5,504 bytes);"),
        (lambda whole: whole + b"x", "(more of 5,504 bytes);"),
        (lambda whole: b"<html>" + whole[6:], "(its SHA-256 differs);"),
        (lambda whole: gzip.compress(whole)[:1000], "is damaged and cannot be unpacked;"),
        (lambda whole: gzip.compress(whole)[:9], "is damaged and cannot be unpacked;"),
        (lambda whole: b"\x1f\x8b" + whole, "is damaged and cannot be unpacked;"),
        (lambda whole: gzip.compress(whole)[:40] + b"x" * 900, "is damaged and cannot be unpacked;"),
        (lambda whole: gzip.compress(b"foreign"), "(7 of 5,504 bytes);"),
        (lambda whole: gzip.compress(bytes(10**7)), "(more of 5,504 bytes);"),
    ],
)
def test_what_is_missing_truncated_or_foreign_is_told_in_one_sentence(
    small, lay, tmp_path, content, said, one_sentence
):
    lay(tmp_path, small["mnist"])
    changed = content(small["mnist"][PICTURES])
    (tmp_path / PICTURES).unlink()
    if changed is not None:
        (tmp_path / PICTURES).write_bytes(changed)
    with pytest.raises(InputError) as error:
        read_mnist(tmp_path)
    assert said in str(error.value)
    assert str(tmp_path / PICTURES) in str(error.value)
    assert str(error.value).endswith(f"`sgdscope data fetch mnist --data {tmp_path}` fetches the right one.")
    one_sentence(error.value)


def test_a_folder_by_a_files_name_a_file_by_a_folders_and_a_name_that_cannot_be(small, lay, tmp_path, one_sentence):
    lay(tmp_path / "set", small["mnist"])
    (tmp_path / "set" / PICTURES).unlink()
    (tmp_path / "set" / PICTURES).mkdir()
    for where in (tmp_path / "set", tmp_path / "set" / "t10k-labels-idx1-ubyte", tmp_path / ("x" * 5000)):
        with pytest.raises(InputError, match=r"^mnist") as error:
            read_mnist(where)
        one_sentence(error.value)


def test_what_is_compressed_may_be_called_otherwise_and_the_reverse(small, lay, tmp_path):
    lay(tmp_path, small["mnist"])
    (tmp_path / PICTURES).rename(tmp_path / f"{PICTURES}.gz")
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(gzip.compress(labels.read_bytes(), compresslevel=1))
    assert len(read_mnist(tmp_path)["train"]["label"]) == 5


def test_the_real_sets_are_as_published(real):
    from sgdscope.data.download import DATA_SETS

    for data_set in DATA_SETS.values():
        if data_set.package and find(data_set, real) is None:
            continue  # a package of the system has it
        assert find(data_set, real) is not None
        check(data_set, real)
