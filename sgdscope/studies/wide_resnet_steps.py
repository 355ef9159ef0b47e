"""Batch size at a constant number of steps, on CIFAR-10 with a Wide-ResNet 16-4 and ghost batch normalization.

Hypothesis: the accuracy falls for large batches although the training loss is lower, and the optimal learning rate
rises more slowly than the batch.

Command: ``sgdscope run wide_resnet_steps --profile small`` (or full); it needs ``sgdscope data fetch cifar10``.
Cost: see ``sgdscope plan``; proportional to the batch size, so that a trial at the largest costs many times one at
the smallest. The steps of full are 9,765, the talk's: 200 epochs of all 50,000 pictures at a batch size of 1,024;
those of small, its epochs at the batch size next to that.
What should come out: of full, both parts of the hypothesis; small trains too briefly to overfit, and shows the
learning rate at most. Neither has been run.
"""

from __future__ import annotations

from collections.abc import Mapping

from sgdscope.studies import wide_resnet
from sgdscope.studies.profiles import TALK_STEPS, at_constant_steps
from sgdscope.study import Study
from sgdscope.workloads.base import Split

__all__ = ["PROFILES", "read", "study"]

PROFILES, read = wide_resnet.PROFILES, wide_resnet.read


def study(splits: Mapping[str, Split], profile: str) -> Study:
    """Return the study on these splits of CIFAR-10 at one of the profiles."""
    return at_constant_steps(wide_resnet.study(splits, profile), TALK_STEPS if profile == "full" else None)
