"""Batch size at a constant epoch budget, on CIFAR-10 with a Wide-ResNet 16-4 and ghost batch normalization.

Hypothesis: SGD and momentum reach the same test accuracy up to a batch size of about 512 at 200 epochs, with a
learning rate that grows with the batch; beyond, the learning rate stops growing, the accuracy falls, and momentum
is ahead.

Command: ``sgdscope run wide_resnet --profile small`` (or full); it needs ``sgdscope data fetch cifar10``.
Cost: see ``sgdscope plan``; small is declared for one large GPU and half an hour, full for a cluster.
What should come out: full the regimes and the place between them; small shows that all of it runs, since its four batch
sizes are too few to find three in each regime, and its one epoch is 11 updates at the largest. Neither has been run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgdscope.budget import Epochs
from sgdscope.data.cifar10 import read_cifar10 as read
from sgdscope.studies.profiles import FULL, SMALL, profiled
from sgdscope.study import Study
from sgdscope.workloads.base import Split
from sgdscope.workloads.wide_resnet import wide_resnet

__all__ = ["PROFILES", "read", "study"]

MICROBATCH_SIZE = 1024
PROFILES: dict[str, dict[str, Any]] = {
    "full": FULL | {"batch_sizes": (64, 128, 256, 512, 1024, 2048, 4096, 8192), "microbatch_size": MICROBATCH_SIZE},
    "small": SMALL
    | {"batch_sizes": (64, 256, 1024, 4096), "budgets": (Epochs(1),), "microbatch_size": MICROBATCH_SIZE},
}


def study(splits: Mapping[str, Split], profile: str) -> Study:
    """Return the study on these splits of CIFAR-10 at one of the profiles."""
    return profiled(wide_resnet(splits), profile, PROFILES)
