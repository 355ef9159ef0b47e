"""Epochs at a fixed batch size, on CIFAR-10 with a Wide-ResNet 16-4 and ghost batch normalization.

Hypothesis: the accuracy saturates as epochs are added, the learning rate that is best for the training loss decays,
and the one that is best for the accuracy hardly changes.

Command: ``sgdscope run wide_resnet_epochs --profile small`` (or full); it needs ``sgdscope data fetch cifar10``.
Cost: see ``sgdscope plan``; full takes 50 to 6,400 epochs in doublings, small half to four times the epochs of
`wide_resnet`.
What should come out: of full, all of the hypothesis; small ends long before anything saturates, and shows the two
optimal learning rates at most. Neither has been run.
"""

from __future__ import annotations

from collections.abc import Mapping

from sgdscope.studies import wide_resnet
from sgdscope.studies.profiles import FULL_EPOCHS, over_epochs
from sgdscope.study import Study
from sgdscope.workloads.base import Split

__all__ = ["PROFILES", "read", "study"]

PROFILES, read = wide_resnet.PROFILES, wide_resnet.read


def study(splits: Mapping[str, Split], profile: str) -> Study:
    """Return the study on these splits of CIFAR-10 at one of the profiles."""
    return over_epochs(wide_resnet.study(splits, profile), FULL_EPOCHS if profile == "full" else None)
