"""Batch size at a constant number of steps, on ImageNet with ResNet-50 and ghost batch normalization.

Hypothesis: the accuracy falls for large batches although the training loss is lower, and the optimal learning rate
rises more slowly than the batch.

Command: ``sgdscope run imagenet_resnet50_steps --data DIR`` (or --profile full); see `imagenet_resnet50` for what it
needs.
Cost: see ``sgdscope plan``; proportional to the batch size. The steps of full are those of 90 epochs at a batch size of
8,192, up to which arXiv 1706.02677 loses nothing; those of small, of its epochs at the batch size next to 1,024.
What should come out: of full, both parts of the hypothesis; small shows the learning rate alone. Neither has been run.
"""

from __future__ import annotations

from sgdscope.imagenet.index import ImageNet
from sgdscope.studies import imagenet_resnet50
from sgdscope.studies.profiles import at_constant_steps
from sgdscope.study import Study
from sgdscope.workloads.base import examples_in

__all__ = ["PROFILES", "read", "study"]

PROFILES, read = imagenet_resnet50.PROFILES, imagenet_resnet50.read
BATCH_SIZE_OF_STEPS = 8192


def study(data: ImageNet, profile: str) -> Study:
    """Return the study on these pictures at one of the profiles."""
    epochs = imagenet_resnet50.study(data, profile)
    (workload,), (budget,) = epochs.workloads, epochs.trial_budgets
    steps = budget.updates(BATCH_SIZE_OF_STEPS, examples_in(workload.train)) if profile == "full" else None
    return at_constant_steps(epochs, steps)
