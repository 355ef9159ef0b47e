import numpy as np

from sgdscope.data.digits_file import read_digits


def test_the_split_is_fixed_and_complete():
    splits = read_digits()
    assert [len(splits[name]["label"]) for name in ("train", "validation", "test")] == [1024, 256, 517]
    pictures = np.concatenate([split["picture"] for split in splits.values()])
    labels = np.concatenate([split["label"] for split in splits.values()])
    # The counts of the source's own description.
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert pictures.dtype == np.float32
    assert (pictures.min(), pictures.max()) == (0.0, 1.0)
    assert len(np.unique(np.concatenate([pictures, labels[:, None]], 1), axis=0)) == 1797


def test_every_class_is_in_every_split():
    for split in read_digits().values():
        assert set(split["label"]) == set(range(10))
