"""Methods made for curvature against SGD, on MNIST images that a deep autoencoder reconstructs.

Hypothesis: as on the digits (``methods``): methods made for curvature help at large batch sizes or at a constant
number of steps alone. Deep autoencoders are what K-FAC was first shown on (Martens and Grosse 2015) and what is known
to need momentum (Sutskever et al. 2013), so the hypothesis is tried here where it is least likely to hold.

All optimizers see as many examples as SGD in as many updates. K-FAC makes two passes over each batch, so that it takes
more gradients and more seconds. Its damping is searched together with the learning rate.

Command: ``sgdscope run autoencoder_methods``; it needs ``sgdscope data fetch mnist``.
Cost: see ``sgdscope plan``. Its network and images are those of the profile laptop of ``autoencoder``, for an eighth
of its epochs; the steps are those of that budget at a batch size of 256.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgdscope.budget import Epochs, Steps
from sgdscope.data.mnist import read_mnist as read
from sgdscope.optimizers import KFAC, SGD, Adam, Values
from sgdscope.seeds import Seeds
from sgdscope.studies.autoencoder import on_laptop
from sgdscope.studies.profiles import Sweeps, profiled
from sgdscope.study import Study
from sgdscope.workloads.base import Split

__all__ = ["PROFILES", "SWEEPS", "read", "study"]

PROFILES: dict[str, dict[str, Any]] = {
    "laptop": {
        "optimizers": (SGD(), SGD(momentum=0.9), Adam(), KFAC(damping=Values(0.01, 0.1, 1, 10))),
        "batch_sizes": (16, 64, 256, 1024),
        "budgets": (Epochs(24), Steps(768)),
        "seeds": Seeds(search=3, near_best=5),
        "evaluate_at": (0.25, 0.5, 1.0),
    },
}
SWEEPS: dict[str, Sweeps] = {}


def study(splits: Mapping[str, Split], profile: str) -> Study:
    """Return the study on these splits of MNIST."""
    return profiled(on_laptop(splits), profile, PROFILES).changed({"name": f"autoencoder-methods-{profile}"})
