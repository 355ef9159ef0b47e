"""Batch size at a constant epoch budget, on CIFAR-10 with a Wide-ResNet 16-4 and ghost batch normalization.

Hypothesis: SGD and momentum reach the same test accuracy up to a batch size of about 512 at 200 epochs, with a
learning rate that grows with the batch; beyond, the learning rate stops growing, the accuracy falls, and momentum
is better.

Sweep ``steps``: the accuracy falls for large batches although the training loss is lower, and the optimal learning rate
rises more slowly than the batch. Full takes 9,765 steps, as the paper does.

Sweep ``epochs``: the accuracy saturates, the learning rate that is best for the training loss decays, and the one that
is best for the accuracy hardly changes. Full takes 50 to 6,400 epochs in doublings.

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
from sgdscope.studies.profiles import FULL, FULL_EPOCHS, SMALL, TALK_STEPS, Sweeps, profiled
from sgdscope.study import Study
from sgdscope.workloads.base import Split
from sgdscope.workloads.wide_resnet import wide_resnet

__all__ = ["PROFILES", "SWEEPS", "read", "study"]

MICROBATCH_SIZE = 1024
PROFILES: dict[str, dict[str, Any]] = {
    "full": FULL | {"batch_sizes": (64, 128, 256, 512, 1024, 2048, 4096, 8192), "microbatch_size": MICROBATCH_SIZE},
    "small": SMALL
    | {"batch_sizes": (64, 256, 1024, 4096), "budgets": (Epochs(1),), "microbatch_size": MICROBATCH_SIZE},
}
SWEEPS = {"full": Sweeps(steps=TALK_STEPS, epochs=FULL_EPOCHS), "small": Sweeps()}


def study(splits: Mapping[str, Split], profile: str) -> Study:
    """Return the study on these splits of CIFAR-10 at one of the profiles."""
    return profiled(wide_resnet(splits), profile, PROFILES)
