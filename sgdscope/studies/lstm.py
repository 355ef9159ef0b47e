"""Batch size at a constant epoch budget, on the Penn TreeBank with an LSTM language model.

Hypothesis: as for the other workloads, and at the smallest batch sizes of all, since a batch of B streams takes
B × 35 tokens.

Sweep ``steps``: the perplexity rises for large batches although the training loss is lower, and the optimal learning
rate rises more slowly than the batch. Full takes the steps of 200 epochs at a batch size of 1,120, without the largest
batch size.

Sweep ``epochs``: the perplexity saturates, the learning rate that is best for the training loss decays, and the one
that is best for the perplexity hardly changes. Full takes 50 to 1,600 epochs in doublings.

Command: ``sgdscope run lstm --profile laptop`` (or full); it needs ``sgdscope data fetch ptb``.
Cost: see ``sgdscope plan``; laptop takes some 3 to 4 hours of one core, full a cluster. Laptop reads 200,000 characters
in place of words, 5 times, with two layers of 64 units that are unrolled for 16 characters.
How laptop was sized: by probes (``results/laptop``), in which SGD's transition lay at some 3,600 updates, a batch
size of about 110 at 2 epochs.
What came out: of 12,000 words read once, too few to come below the perplexity of the words' frequencies:
``results/lstm-small``. Neither laptop nor full has been run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sgdscope.budget import Epochs
from sgdscope.data.ptb import read_ptb, read_ptb_characters
from sgdscope.data.split import first_examples
from sgdscope.studies.profiles import FULL, FULL_EPOCHS, LAPTOP, Sweeps, profiled
from sgdscope.study import Study
from sgdscope.workloads.base import Split
from sgdscope.workloads.lstm import UNROLL, lstm, lstm_of_characters

__all__ = ["PROFILES", "SWEEPS", "read", "study"]

PROFILES: dict[str, dict[str, Any]] = {
    "full": FULL
    | {
        "batch_sizes": tuple(UNROLL * streams for streams in (4, 8, 16, 32, 64, 128, 256, 512)),
        "microbatch_size": UNROLL * 256,
    },
    "laptop": LAPTOP | {"batch_sizes": tuple(16 << k for k in range(9)), "budgets": (Epochs(5),)},
}
# Trials of more tokens than these are more than the order of examples can count.
SWEEPS = {"full": Sweeps(largest=UNROLL * 256, epochs=FULL_EPOCHS[:6]), "laptop": Sweeps()}
# The first characters of each split that the profile laptop reads.
LAPTOP_EXAMPLES = {"train": 200_000, "validation": 50_000, "test": 100_000}


def read(where: Path | None = None, train_on_all: bool = False) -> Mapping[str, Mapping[str, Split]]:
    """Return the splits of the Penn TreeBank by words and by characters."""
    return {"words": read_ptb(where, train_on_all), "characters": read_ptb_characters(where, train_on_all)}


def study(text: Mapping[str, Mapping[str, Split]], profile: str) -> Study:
    """Return the study on the Penn TreeBank at one of the profiles."""
    if profile == "full":
        return profiled(lstm(text["words"], size="small"), profile, PROFILES)
    characters = first_examples(text["characters"], LAPTOP_EXAMPLES)
    return profiled(lstm_of_characters(characters), profile, PROFILES)
