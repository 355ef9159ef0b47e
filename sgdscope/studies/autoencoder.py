"""Batch size at a constant epoch budget, on MNIST pictures that a deep autoencoder reconstructs.

Hypothesis: as for the other workloads: below some batch size SGD and momentum reach the same error and the
optimal learning rate grows with the batch; above it the learning rate stops growing and momentum is ahead. Deep
autoencoders are known to need momentum (Sutskever et al. 2013), so it should be ahead from small batches on.

Command: ``sgdscope run autoencoder --profile small`` (or full); it needs ``sgdscope data fetch mnist``.
Cost: see ``sgdscope plan``; small runs in under 30 minutes on two cores, full takes a cluster.
What should come out: small tells the two regimes apart on the training loss, hardly the place between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgdscope.budget import Epochs
from sgdscope.data.mnist import read_mnist as read
from sgdscope.optimizers import SGD, Momentum
from sgdscope.study import Study
from sgdscope.workloads.autoencoder import autoencoder
from sgdscope.workloads.base import Split

__all__ = ["PROFILES", "read", "study"]

PROFILES: dict[str, dict[str, Any]] = {
    "full": {
        "batch_sizes": (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096),
        "budget": Epochs(200),
        "seeds": 15,
        "evaluate_at": (0.5, 1.0),
    },
    "small": {
        "batch_sizes": (16, 64, 256, 1024),
        "budget": Epochs(2),
        "seeds": 3,
        "evaluate_at": (1.0,),
    },
}
# How many pictures of each split the small profile has, the first ones: the test set whole.
SMALL = {"train": 10_000, "validation": 5_000, "test": 10_000}


def study(splits: Mapping[str, Split], profile: str) -> Study:
    """Return the study on these splits of MNIST at one of the profiles."""
    if profile == "small":
        splits = {name: {"picture": split["picture"][: SMALL[name]]} for name, split in splits.items()}
    return Study(
        name=f"autoencoder-{profile}",
        workload=autoencoder(splits),
        optimizers=(SGD(), Momentum(0.9)),
        **PROFILES[profile],
    )
