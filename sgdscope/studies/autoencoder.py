"""Batch size at a constant epoch budget, on MNIST images that a deep autoencoder reconstructs.

Hypothesis: as for the other workloads: below some batch size SGD and momentum reach the same error and the
optimal learning rate grows with the batch; above it the learning rate stops growing and momentum is better. Deep
autoencoders are known to need momentum (Sutskever et al. 2013), so it should be better from small batches on.

Sweep ``steps``: the squared error rises for large batches although the training loss is lower, and the optimal learning
rate rises more slowly than the batch. Full takes the steps of 200 epochs at a batch size of 1,024.

Sweep ``epochs``: the squared error saturates, the learning rate that is best for the training loss decays, and the one
that is best for the squared error hardly changes. Full takes 50 to 6,400 epochs in doublings.

Command: ``sgdscope run autoencoder --profile small`` (or full); it needs ``sgdscope data fetch mnist``.
Cost: see ``sgdscope plan``; small runs in under 30 minutes on two cores, full takes a cluster.
What came out: of small, the error rising with the batch size, since two epochs of 5,000 images are few updates: at
256 and 1,024 hardly anything is learned, and no claim can be tested (``results/autoencoder-small``; with 6 epochs:
``results/autoencoder-6-epochs``). The small sweeps found nothing: 10 steps are too few to learn anything, and the
epochs end long before the error saturates. Full has not been run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgdscope.budget import Epochs
from sgdscope.data.mnist import read_mnist as read
from sgdscope.data.split import first_examples
from sgdscope.studies.profiles import FULL, FULL_EPOCHS, SMALL, Sweeps, profiled
from sgdscope.study import Study
from sgdscope.workloads.autoencoder import autoencoder
from sgdscope.workloads.base import Split

__all__ = ["PROFILES", "SWEEPS", "read", "study"]

PROFILES: dict[str, dict[str, Any]] = {
    "full": FULL | {"batch_sizes": (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)},
    "small": SMALL | {"batch_sizes": (16, 64, 256, 1024), "budgets": (Epochs(2),)},
}
SWEEPS = {"full": Sweeps(epochs=FULL_EPOCHS), "small": Sweeps()}
# How many pictures of each split the small profile has, the first ones: the test set whole.
SMALL_EXAMPLES = {"train": 5_000, "validation": 2_500, "test": 10_000}


def study(splits: Mapping[str, Split], profile: str) -> Study:
    """Return the study on these splits of MNIST at one of the profiles."""
    if profile == "small":
        splits = first_examples(splits, SMALL_EXAMPLES)
    return profiled(autoencoder(splits), profile, PROFILES)
