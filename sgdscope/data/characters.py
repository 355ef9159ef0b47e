"""A text as characters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from sgdscope.errors import InputError


def as_characters(texts: Mapping[str, str]) -> dict[str, dict[str, np.ndarray]]:
    r"""Return each split's text as ``token``, uint16 of shape (n,), which numbers the characters of the training text.

    The end of a line is token 0, and the most frequent characters come next.

    Raises:
        InputError: where another split has a character that the training text has not.

    >>> as_characters({"train": "aab\n", "test": "b"})["train"]["token"].tolist()
    [1, 1, 2, 0]
    """
    counts = Counter(texts["train"])
    place = {c: token for token, c in enumerate(sorted(counts, key=lambda c: (c != "\n", -counts[c], c)))}
    for name, text in texts.items():
        if unknown := set(text) - place.keys():
            raise InputError(f"the {name} text has the character {min(unknown)!r}, which the training text has not.")
    return {
        name: {"token": np.fromiter((place[character] for character in text), np.uint16, len(text))}
        for name, text in texts.items()
    }


def split_text(text: str) -> dict[str, dict[str, np.ndarray]]:
    """Return a text as characters: the first 90 % for training, and 5 % each for validation and for testing.

    >>> {name: len(split["token"]) for name, split in split_text("To be, or not to be. " * 20).items()}
    {'train': 378, 'validation': 21, 'test': 21}
    """
    first, second = len(text) * 90 // 100, len(text) * 95 // 100
    return as_characters({"train": text[:first], "validation": text[first:second], "test": text[second:]})
