"""Batch size at a constant epoch budget, on CIFAR-10 with a Wide-ResNet 16-4 without normalization (SkipInit).

Hypothesis: as with batch normalization, but without it large learning rates are out of reach, so that the learning
rate stops growing, and the accuracy begins to fall, at a smaller batch size.

The sweeps ``steps`` and ``epochs`` vary what those of `wide_resnet` vary.

Command: ``sgdscope run wide_resnet_skipinit --profile laptop`` (or full); it needs ``sgdscope data fetch cifar10``.
Cost: see ``sgdscope plan``; laptop takes some 6 to 9 hours of one core, full a cluster. Laptop has images of 16 × 16
pixels, the network 10-1, and 80 epochs of 1,024 images.
How laptop was sized: by probes (``results/laptop``), in which SGD's transition lay at some 1,800 updates, a batch
size of 30 to 60. Batch sizes of 2 to 8 were not tried.
What should come out: the regimes and the place between them. Neither profile has been run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgdscope.data.cifar10 import read_cifar10 as read
from sgdscope.studies import wide_resnet
from sgdscope.studies.profiles import profiled
from sgdscope.study import Study
from sgdscope.workloads.base import Split
from sgdscope.workloads.wide_resnet_skipinit import wide_resnet_skipinit

__all__ = ["PROFILES", "SWEEPS", "read", "study"]

# Without ghost batches there are smaller batches too.
FULL, LAPTOP = (wide_resnet.PROFILES[profile] for profile in ("full", "laptop"))
PROFILES: dict[str, dict[str, Any]] = {
    "full": FULL | {"batch_sizes": (16, 32, *FULL["batch_sizes"])},
    "laptop": LAPTOP | {"batch_sizes": (2, 4, *LAPTOP["batch_sizes"])},
}
SWEEPS = wide_resnet.SWEEPS


def study(splits: Mapping[str, Split], profile: str) -> Study:
    """Return the study on these splits of CIFAR-10 at one of the profiles."""
    if profile == "full":
        return profiled(wide_resnet_skipinit(splits), profile, PROFILES)
    return profiled(wide_resnet.on_laptop(wide_resnet_skipinit, splits), profile, PROFILES)
