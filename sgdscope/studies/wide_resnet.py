"""Batch size at a constant epoch budget, on CIFAR-10 with a Wide-ResNet 16-4 and ghost batch normalization.

Hypothesis: SGD and momentum reach the same test accuracy up to a batch size of about 512 at 200 epochs, with a
learning rate that grows with the batch; beyond, the learning rate stops growing, the accuracy falls, and momentum
is better.

Sweep ``steps``: the accuracy falls for large batches although the training loss is lower, and the optimal learning rate
rises more slowly than the batch. Full takes 9,765 steps, as the paper does.

Sweep ``epochs``: the accuracy saturates, the learning rate that is best for the training loss decays, and the one that
is best for the accuracy hardly changes. Full takes 50 to 6,400 epochs in doublings.

Command: ``sgdscope run wide_resnet --profile laptop`` (or full); it needs ``sgdscope data fetch cifar10``.
Cost: see ``sgdscope plan``; laptop takes some 5 hours of one core, full a cluster. Laptop has images of 16 × 16 pixels,
the network 10-1 with ghost batches of 8, and 80 epochs of 1,024 images.
How laptop was sized: by probes (``results/laptop``). They saw no transition with normalization; the size follows
that of `wide_resnet_skipinit`, so that three batch sizes on each side are a guess.
What should come out: the regimes and the place between them. Neither profile has been run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from sgdscope.budget import Epochs
from sgdscope.data.augment import CROP_PADDING, crop_and_flip
from sgdscope.data.cifar10 import read_cifar10 as read
from sgdscope.data.halved import halved
from sgdscope.data.split import first_examples
from sgdscope.studies.profiles import FULL, FULL_EPOCHS, LAPTOP, TALK_STEPS, Sweeps, profiled
from sgdscope.study import Study
from sgdscope.workloads.base import Resident, Split, Workload
from sgdscope.workloads.wide_resnet import wide_resnet

__all__ = ["PROFILES", "SWEEPS", "read", "study"]

MICROBATCH_SIZE = 1024
PROFILES: dict[str, dict[str, Any]] = {
    "full": FULL | {"batch_sizes": (64, 128, 256, 512, 1024, 2048, 4096, 8192), "microbatch_size": MICROBATCH_SIZE},
    "laptop": LAPTOP | {"batch_sizes": tuple(8 << k for k in range(7)), "budgets": (Epochs(80),)},
}
SWEEPS = {"full": Sweeps(steps=TALK_STEPS, epochs=FULL_EPOCHS), "laptop": Sweeps(steps_of=128)}
# How many images of each split the profile laptop has, the first ones: the test set whole.
LAPTOP_EXAMPLES = {"train": 1_024, "validation": 5_000, "test": 10_000}
# Half as much as in images of the full size.
LAPTOP_MARGIN = CROP_PADDING // 2


def study(splits: Mapping[str, Split], profile: str) -> Study:
    """Return the study on these splits of CIFAR-10 at one of the profiles."""
    if profile == "full":
        return profiled(wide_resnet(splits), profile, PROFILES)
    return profiled(on_laptop(partial(wide_resnet, ghost_batch_size=8), splits), profile, PROFILES)


def on_laptop(workload_of: Callable[..., Workload], splits: Mapping[str, Split]) -> Workload:
    """Return a workload with the network 10-1 on the first images, of half the size."""
    workload = workload_of(halved(first_examples(splits, LAPTOP_EXAMPLES)), depth=10, width=1)
    reader = Resident(partial(crop_and_flip, side=LAPTOP_MARGIN))
    return replace(workload, reader=reader, version="laptop-1", fields={**workload.fields, "side": 16})
