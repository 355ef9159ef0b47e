"""Batch size at a constant epoch budget, on CIFAR-10 with a Wide-ResNet 16-4 without normalization (SkipInit).

Hypothesis: as with batch normalization, but without it large learning rates are out of reach, so that the learning
rate stops growing, and the accuracy begins to fall, at a smaller batch size.

The sweeps ``steps`` and ``epochs`` vary what those of `wide_resnet` vary.

Command: ``sgdscope run wide_resnet_skipinit --profile small`` (or full); it needs ``sgdscope data fetch cifar10``.
Cost: see ``sgdscope plan``; small is declared for one large GPU and half an hour, full for a cluster.
What should come out: full the regimes and the place between them; small shows that all of it runs, since its four batch
sizes are too few to find three in each regime, and its one epoch is 11 updates at the largest. Neither has been run.
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
FULL = wide_resnet.PROFILES["full"]
PROFILES: dict[str, dict[str, Any]] = wide_resnet.PROFILES | {
    "full": FULL | {"batch_sizes": (16, 32, *FULL["batch_sizes"])},
}
SWEEPS = wide_resnet.SWEEPS


def study(splits: Mapping[str, Split], profile: str) -> Study:
    """Return the study on these splits of CIFAR-10 at one of the profiles."""
    return profiled(wide_resnet_skipinit(splits), profile, PROFILES)
