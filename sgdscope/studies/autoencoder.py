"""Batch size at a constant epoch budget, on MNIST images that a deep autoencoder reconstructs.

Hypothesis: as for the other workloads: below some batch size SGD and momentum reach the same error and the
optimal learning rate grows with the batch; above it the learning rate stops growing and momentum is better. Deep
autoencoders are known to need momentum (Sutskever et al. 2013), so it should be better from small batches on.

Sweep ``steps``: the squared error rises for large batches although the training loss is lower, and the optimal learning
rate rises more slowly than the batch. Full takes the steps of 200 epochs at a batch size of 1,024.

Sweep ``epochs``: the squared error saturates, the learning rate that is best for the training loss decays, and the one
that is best for the squared error hardly changes. Full takes 50 to 6,400 epochs in doublings.

Command: ``sgdscope run autoencoder --profile laptop`` (or full); it needs ``sgdscope data fetch mnist``.
Cost: see ``sgdscope plan``; laptop takes some 3 to 4 hours of one core, full a cluster. Laptop has images of 14 × 14
pixels, the network 196-64-32-16-8 and back, and 192 epochs of 8,192 images.
How laptop was sized: by probes (``results/laptop``), in which SGD's transition lay at some 6,000 updates, a batch
size of about 40. The loss rose with every batch size there, so that a plateau of the score may be missing.
What came out of laptop: both regimes. Momentum's rate is proportional to the batch size up to about 31. SGD's grows
like the square root up to about 108, and its error with each doubling (``results/laptop``). Of 6 epochs and less, in
which hardly anything is learned at large batch sizes: ``results/autoencoder-small`` and
``results/autoencoder-6-epochs``. Full has not been run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sgdscope.budget import Epochs
from sgdscope.data.halved import halved
from sgdscope.data.mnist import read_mnist as read
from sgdscope.data.split import first_examples
from sgdscope.studies.profiles import FULL, FULL_EPOCHS, LAPTOP, Sweeps, profiled
from sgdscope.study import Study
from sgdscope.workloads.autoencoder import autoencoder
from sgdscope.workloads.base import Split, Workload

__all__ = ["PROFILES", "SWEEPS", "on_laptop", "read", "study"]

PROFILES: dict[str, dict[str, Any]] = {
    "full": FULL | {"batch_sizes": (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)},
    "laptop": LAPTOP | {"batch_sizes": tuple(2 << k for k in range(10)), "budgets": (Epochs(192),)},
}
SWEEPS = {"full": Sweeps(epochs=FULL_EPOCHS), "laptop": Sweeps(steps_of=256)}
# How many images of each split the profile laptop has, the first ones: the test set whole.
LAPTOP_EXAMPLES = {"train": 8_192, "validation": 5_000, "test": 10_000}
LAPTOP_WIDTHS = (196, 64, 32, 16, 8)


def study(splits: Mapping[str, Split], profile: str) -> Study:
    """Return the study on these splits of MNIST at one of the profiles."""
    workload = autoencoder(splits) if profile == "full" else on_laptop(splits)
    return profiled(workload, profile, PROFILES)


def on_laptop(splits: Mapping[str, Split]) -> Workload:
    """Return the smaller network on the first images, at half their side."""
    return replace(autoencoder(halved(first_examples(splits, LAPTOP_EXAMPLES)), LAPTOP_WIDTHS), version="laptop-1")
