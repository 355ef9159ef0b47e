"""Which examples a trial scored 1 on, unpacked from the bits that a study's folder keeps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from sgdscope.errors import InputError


def correct(table: pl.DataFrame, trial_ids: Sequence[str], split: str) -> np.ndarray:
    """Return which of the N examples of a split each trial scored 1 on at the end of its budget.

    Args:
        table: a study's correctness, such as ``result.correctness``.
        trial_ids: the trials, in the order of the rows that are returned.
        split: ``validation`` or ``test``.

    Returns:
        bool of shape (trials, N); (0, 0) for no trials.

    Raises:
        InputError: where a trial has none, since it diverged or its scores are not all 0 or 1.

    >>> table = pl.DataFrame([{"trial_id": "a", "split": "test", "examples": 3, "bits": bytes([0b10100000])}])
    >>> correct(table, ["a"], "test").tolist()
    [[True, False, True]]
    """
    rows = table.filter(pl.col("split") == split)
    found = {name: (examples, bits) for name, examples, bits in rows.select("trial_id", "examples", "bits").iter_rows()}
    missing = [name for name in trial_ids if name not in found]
    if missing:
        raise InputError(
            f"trial {missing[0]} has no correctness on the split {split!r}; only trials that are complete and whose "
            f"scores are all 0 or 1 have one."
        )
    unpacked = [
        np.unpackbits(np.frombuffer(bits, np.uint8), count=examples)
        for examples, bits in map(found.__getitem__, trial_ids)
    ]
    return np.array(unpacked, bool).reshape(len(trial_ids), -1 if unpacked else 0)
