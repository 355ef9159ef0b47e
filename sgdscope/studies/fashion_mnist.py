"""Batch size at a constant epoch budget, on images of clothes (Fashion-MNIST) with a fully connected network.

Hypothesis: as for the other workloads: below some batch size SGD and momentum reach the same score and the optimal
learning rate grows with the batch size. Above it the learning rate stops growing, the score falls, and momentum is
better.

The sweeps ``steps`` and ``epochs`` vary what those of `digits` vary.

Command: ``sgdscope run fashion_mnist --profile laptop`` (or full); it needs ``sgdscope data fetch fashion_mnist``, or
Debian's package ``dataset-fashion-mnist``.
Cost: see ``sgdscope plan``; laptop is meant for 8 hours of one core, full for a GPU.
How laptop was sized: from the digits, whose transition lies at about 1,200 updates. Of 30 epochs of 8,192 images these
are a batch size of about 200, so that batch sizes of 8 to 2,048 have at least three on each side. No probe was made.
What came out: neither profile has been run. One batch size has (``results/fashion-mnist``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgdscope.budget import Epochs
from sgdscope.data.fashion_mnist import read_fashion_mnist as read
from sgdscope.data.split import first_examples
from sgdscope.studies.profiles import FULL, LAPTOP, Sweeps, profiled
from sgdscope.study import Study
from sgdscope.workloads.base import Split
from sgdscope.workloads.fashion_mnist import fashion_mnist

__all__ = ["PROFILES", "SWEEPS", "read", "study"]

PROFILES: dict[str, dict[str, Any]] = {
    "full": FULL | {"batch_sizes": tuple(8 << k for k in range(10)), "budgets": (Epochs(30),)},
    "laptop": LAPTOP | {"batch_sizes": tuple(8 << k for k in range(9)), "budgets": (Epochs(30),)},
}
SWEEPS = {"full": Sweeps(), "laptop": Sweeps(steps_of=512)}
# How many images of each split the profile laptop has, the first ones: the test set whole.
LAPTOP_EXAMPLES = {"train": 8_192, "validation": 5_000, "test": 10_000}


def study(splits: Mapping[str, Split], profile: str) -> Study:
    """Return the study on these splits of Fashion-MNIST at one of the profiles."""
    if profile == "laptop":
        splits = first_examples(splits, LAPTOP_EXAMPLES)
    return profiled(fashion_mnist(splits), profile, PROFILES)
