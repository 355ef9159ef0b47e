"""Batch size at a constant epoch budget, on the Penn TreeBank with an LSTM language model.

Hypothesis: as for the other workloads, and at the smallest batch sizes of all, since a batch of B streams takes
B × 35 tokens.

Sweep ``steps``: the perplexity rises for large batches although the training loss is lower, and the optimal learning
rate rises more slowly than the batch. Full takes the steps of 200 epochs at a batch size of 1,120, without the largest
batch size.

Sweep ``epochs``: the perplexity saturates, the learning rate that is best for the training loss decays, and the one
that is best for the perplexity hardly changes. Full takes 50 to 1,600 epochs in doublings.

Command: ``sgdscope run lstm --profile small`` (or full); it needs ``sgdscope data fetch ptb``.
Cost: see ``sgdscope plan``; small runs in under 30 minutes on two cores, full takes a cluster.
What came out: small reads the first 9,000 tokens of the text once, too little to come below the perplexity of the
words' frequencies: it shows how fast the first descent goes at each batch size, not how well the model does
(``results/lstm-small``, with 12,000 tokens). Full and the two sweeps have not been run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgdscope.budget import Epochs
from sgdscope.data.ptb import read_ptb as read
from sgdscope.data.split import first_examples
from sgdscope.studies.profiles import FULL, FULL_EPOCHS, SMALL, Sweeps, profiled
from sgdscope.study import Study
from sgdscope.workloads.base import Split
from sgdscope.workloads.lstm import UNROLL, lstm

__all__ = ["PROFILES", "SWEEPS", "read", "study"]

PROFILES: dict[str, dict[str, Any]] = {
    "full": FULL
    | {
        "batch_sizes": tuple(UNROLL * streams for streams in (4, 8, 16, 32, 64, 128, 256, 512)),
        "microbatch_size": UNROLL * 256,
    },
    "small": SMALL | {"batch_sizes": tuple(UNROLL * streams for streams in (2, 4, 8, 16)), "budgets": (Epochs(1),)},
}
# Trials of more tokens than these are more than the order of examples can count.
SWEEPS = {"full": Sweeps(largest=UNROLL * 256, epochs=FULL_EPOCHS[:6]), "small": Sweeps()}
# The first tokens of each split that the small profile reads: on a CPU an epoch of the whole takes minutes.
SMALL_EXAMPLES = {"train": 9_000, "validation": 4_000, "test": 4_000}


def study(splits: Mapping[str, Split], profile: str) -> Study:
    """Return the study on these splits of the Penn TreeBank at one of the profiles."""
    if profile == "small":
        splits = first_examples(splits, SMALL_EXAMPLES)
    return profiled(lstm(splits, size="small"), profile, PROFILES)
