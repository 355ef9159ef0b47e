"""Epochs at a fixed batch size, on ImageNet with ResNet-50 and ghost batch normalization.

Hypothesis: the accuracy saturates as epochs are added, the learning rate that is best for the training loss decays,
and the one that is best for the accuracy hardly changes.

Command: ``sgdscope run imagenet_resnet50_epochs --data DIR`` (or --profile full); see `imagenet_resnet50` for what it
needs.
Cost: see ``sgdscope plan``; half to four times the epochs of `imagenet_resnet50`, at a batch size of 256.
What should come out: of full, whether 360 epochs of ImageNet are enough to saturate; small ends before. Neither has
been run.
"""

from __future__ import annotations

from sgdscope.imagenet.index import ImageNet
from sgdscope.studies import imagenet_resnet50
from sgdscope.studies.profiles import over_epochs
from sgdscope.study import Study

__all__ = ["PROFILES", "read", "study"]

PROFILES, read = imagenet_resnet50.PROFILES, imagenet_resnet50.read


def study(data: ImageNet, profile: str) -> Study:
    """Return the study on these pictures at one of the profiles."""
    return over_epochs(imagenet_resnet50.study(data, profile))
