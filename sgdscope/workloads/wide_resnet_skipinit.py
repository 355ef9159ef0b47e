"""CIFAR-10 with a wide residual network and no normalization."""

from __future__ import annotations

from collections.abc import Mapping

from sgdscope.models.wide_resnet import skipinit, skipinit_init
from sgdscope.workloads.base import Split, Workload
from sgdscope.workloads.wide_resnet import workload_of


def wide_resnet_skipinit(splits: Mapping[str, Split], depth: int = 16, width: int = 4, l2: float = 5e-4) -> Workload:
    """Return CIFAR-10 with WRN-depth-width by SkipInit, cross-entropy and accuracy.

    Args:
        splits: "train", "validation" and "test", each with "picture", uint8 of shape (n, 32, 32, 3), and "label".
        depth: d = 6n + 4 for n blocks in each of the three stages.
        width: k, for 16k, 32k and 64k channels.
        l2: λ, see :func:`~sgdscope.workloads.wide_resnet.penalty_of_weights`.

    Sources: De and Smith (2020), arXiv 2002.10444; Smith, Elsen and De (2020), arXiv 2006.15081, for WRN-16-4
    and 5e-4.

    Raises:
        InputError: where no network has this depth or width, or l2 is no finite number of at least 0.

    >>> import numpy as np
    >>> split = {"picture": np.zeros((3, 32, 32, 3), np.uint8), "label": np.array([0, 1, 1], np.uint8)}
    >>> wide_resnet_skipinit(dict.fromkeys(("train", "validation", "test"), split)).name
    'wide_resnet_skipinit'
    """
    return workload_of(
        skipinit_init,
        lambda parameters, state, pictures: skipinit(parameters, pictures),
        splits,
        {"depth": depth, "width": width, "l2": l2},
        name="wide_resnet_skipinit",
    )
