import numpy as np
import pytest

from sgdscope.data.ptb import END, ptb_vocabulary, read_ptb, read_ptb_characters


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


def test_characters_spell_the_text_and_the_end_of_a_line_is_first(small, lay, tmp_path):
    lay(tmp_path, small["ptb"])
    splits = read_ptb_characters(tmp_path)
    train = small["ptb"]["ptb.train.txt"].decode()
    spelling = dict(zip(splits["train"]["token"].tolist(), train, strict=True))
    assert sorted(spelling) == list(range(len(set(train))))
    counts = [train.count(spelling[token]) for token in range(1, len(spelling))]
    assert spelling[0] == "\n"
    assert counts == sorted(counts, reverse=True)
    for name, file in (("train", "train"), ("validation", "valid"), ("test", "test")):
        assert "".join(spelling[token] for token in splits[name]["token"].tolist()) == (
            small["ptb"][f"ptb.{file}.txt"].decode()
        )
    on_all = read_ptb_characters(tmp_path, train_on_all=True)
    np.testing.assert_array_equal(on_all["validation"]["token"], splits["test"]["token"])


def test_the_real_characters(real):
    splits = read_ptb_characters(real)
    assert {name: len(split["token"]) for name, split in splits.items()} == {
        "train": 5_101_618, "validation": 399_782, "test": 449_945
    }  # fmt: skip
    assert {int(split["token"].max()) for split in splits.values()} <= set(range(50))
    assert splits["train"]["token"].max() == 49


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
