import numpy as np
import pytest

from sgdscope.data.ptb import END, ptb_vocabulary, read_ptb


@pytest.mark.parametrize("inside", ["", "ptb"])
def test_tokens_spell_the_text(small, lay, tmp_path, inside):
    lay(tmp_path / inside, small["ptb"])
    words = np.array(ptb_vocabulary(tmp_path))
    splits = read_ptb(tmp_path)
    for name, file in (("train", "train"), ("validation", "valid"), ("test", "test")):
        lines = small["ptb"][f"ptb.{file}.txt"].decode().splitlines()
        spelt = " ".join(words[splits[name]["token"]])
        assert spelt == " ".join(f"{line.strip()} <eos>" for line in lines)
        assert splits[name]["token"].dtype == np.uint16


def test_the_end_is_first_then_the_frequent_then_by_spelling(small, lay, tmp_path):
    words = ptb_vocabulary(lay(tmp_path, small["ptb"]))
    assert words == ("<eos>", "the", "a", "saw", "<unk>", "cat", "dog", "end")
    assert words[END] == "<eos>"


def test_training_on_all_chooses_on_the_test_text(small, lay, tmp_path):
    lay(tmp_path, small["ptb"])
    splits, usual = read_ptb(tmp_path, train_on_all=True), read_ptb(tmp_path)
    assert list(splits) == ["train", "validation", "test"]
    for name, same in (("train", "train"), ("validation", "test"), ("test", "test")):
        np.testing.assert_array_equal(splits[name]["token"], usual[same]["token"])


def test_the_real_text(real):
    splits = read_ptb(real)
    counts = {name: len(split["token"]) for name, split in splits.items()}
    assert counts == {"train": 929589, "validation": 73760, "test": 82430}
    words = ptb_vocabulary(real)
    assert len(words) == 10000 == splits["train"]["token"].max() + 1
    assert words[:4] == ("<eos>", "the", "<unk>", "N")
    assert {name: int((split["token"] == END).sum()) for name, split in splits.items()} == {
        "train": 42068,
        "validation": 3370,
        "test": 3761,
    }
    assert [words[token] for token in splits["validation"]["token"][:4]] == ["consumers", "may", "want", "to"]
