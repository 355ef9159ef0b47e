"""How the examples of a published training set are split."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Arrays = Mapping[str, np.ndarray]


def hold_out(train: Arrays, test: Arrays, held_out: int, train_on_all: bool) -> dict[str, dict[str, np.ndarray]]:
    """Return three splits, of which validation is the last ``held_out`` examples of the training set.

    Args:
        train: the published training set, arrays with one leading axis of examples.
        test: the published test set, likewise.
        held_out: how many examples validation has.
        train_on_all: hold out nothing; validation is then the test split itself.

    >>> splits = hold_out({"label": np.arange(5)}, {"label": np.arange(3)}, held_out=2, train_on_all=False)
    >>> {name: split["label"].tolist() for name, split in splits.items()}
    {'train': [0, 1, 2], 'validation': [3, 4], 'test': [0, 1, 2]}
    """
    if train_on_all:
        return {"train": dict(train), "validation": dict(test), "test": dict(test)}
    return {
        "train": {key: array[:-held_out] for key, array in train.items()},
        "validation": {key: array[-held_out:] for key, array in train.items()},
        "test": dict(test),
    }


def first_examples(splits: Mapping[str, Arrays], counts: Mapping[str, int]) -> dict[str, dict[str, np.ndarray]]:
    """Return as many examples of each split as its count says, the first ones.

    >>> part = first_examples({"train": {"label": np.arange(5)}}, {"train": 2})
    >>> part["train"]["label"].tolist()
    [0, 1]
    """
    return {name: {key: array[: counts[name]] for key, array in split.items()} for name, split in splits.items()}
