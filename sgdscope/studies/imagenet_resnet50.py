"""Batch size at a constant epoch budget, on ImageNet with ResNet-50 and ghost batch normalization.

Hypothesis: SGD and momentum reach the same test accuracy up to some batch size at 90 epochs, with a learning rate that
grows with the batch; beyond, the learning rate stops growing, the accuracy falls, and momentum is better.

Sweep ``steps``: the accuracy falls for large batches although the training loss is lower, and the optimal learning rate
rises more slowly than the batch. Full takes the steps of 90 epochs at a batch size of 8,192.

Sweep ``epochs``: the accuracy saturates, the learning rate that is best for the training loss decays, and the one that
is best for the accuracy hardly changes. Both profiles take half to four times their epochs.

Command: ``sgdscope run imagenet_resnet50 --data DIR --devices-per-trial 4`` (or --profile full); it needs ImageNet's
images in folders, and what ``pip install '.[imagenet]'`` installs. Each device takes whole ghost batches of 64: no
more than four can share the smallest batch size, and with eight ``--batch-sizes`` leaves it out.
Cost: see ``sgdscope plan``; small is declared for one machine of GPUs and a day, full for a cluster.
What should come out: full the regimes and the place between them; small, whose four batch sizes are too few to find
three in each regime, that the largest lose accuracy. Neither has been run.
"""

from __future__ import annotations

from typing import Any

from sgdscope.budget import Epochs
from sgdscope.imagenet.index import ImageNet, of_classes
from sgdscope.imagenet.index import read_imagenet as read
from sgdscope.imagenet.workload import imagenet_resnet50
from sgdscope.studies.profiles import FULL, SMALL, Sweeps, profiled
from sgdscope.study import Study
from sgdscope.workloads.base import examples_in

__all__ = ["PROFILES", "SWEEPS", "read", "study"]

# For each device, of 80 GB in 32 bits: 45 GiB at a side of 224, and 95 GiB with 512, by XLA's account for a CPU, which
# copies more than one for a GPU should; not measured there. A smaller device needs a smaller --microbatch-size.
MICROBATCH_SIZE = 256
# A tenth of the classes, at half the side.
SMALL_CLASSES, SMALL_SIDE = 100, 112
PROFILES: dict[str, dict[str, Any]] = {
    # 90 epochs: arXiv 1512.03385 and 1706.02677. Seeds and batch sizes of the study are not checked against its text.
    "full": FULL
    | {
        "budgets": (Epochs(90),),
        "seeds": 5,
        "batch_sizes": tuple(256 << k for k in range(9)),
        "microbatch_size": MICROBATCH_SIZE,
    },
    "small": SMALL
    | {"batch_sizes": (256, 1024, 4096, 16384), "budgets": (Epochs(15),), "microbatch_size": MICROBATCH_SIZE},
}
# Up to a batch size of 8,192 arXiv 1706.02677 loses nothing.
SWEEPS = {"full": Sweeps(steps_of=8192), "small": Sweeps()}


def study(data: ImageNet, profile: str) -> Study:
    """Return the study on these images at one of the profiles, without the batch sizes that they are too few for."""
    workload = imagenet_resnet50(data)
    if profile == "small":
        workload = imagenet_resnet50(of_classes(data, SMALL_CLASSES), side=SMALL_SIDE)
    most = examples_in(workload.train)
    sizes = [size for size in PROFILES[profile]["batch_sizes"] if size <= most]
    fewest = workload.ghost_batch_size * max(1, most // workload.ghost_batch_size)
    profiles = {profile: PROFILES[profile] | {"batch_sizes": tuple(sizes) or (fewest,)}}
    return profiled(workload, profile, profiles)
