"""Batch size at a constant number of steps, on MNIST pictures that a deep autoencoder reconstructs.

Hypothesis: the squared error rises for large batches although the training loss is lower, and the optimal learning
rate rises more slowly than the batch.

Command: ``sgdscope run autoencoder_steps --profile small`` (or full); it needs ``sgdscope data fetch mnist``.
Cost: see ``sgdscope plan``; proportional to the batch size, so that a trial at the largest costs many times one at
the smallest. The steps of full are those of 200 epochs at a batch size of 1,024; those of small, its epochs at the
batch size next to that.
What came out: of small nothing, since after 10 steps nothing is learned (``results/autoencoder-small``). Full, which
should show both parts of the hypothesis, has not been run.
"""

from __future__ import annotations

from collections.abc import Mapping

from sgdscope.studies import autoencoder
from sgdscope.studies.profiles import at_constant_steps
from sgdscope.study import Study
from sgdscope.workloads.base import Split

__all__ = ["PROFILES", "read", "study"]

PROFILES, read = autoencoder.PROFILES, autoencoder.read


def study(splits: Mapping[str, Split], profile: str) -> Study:
    """Return the study on these splits of MNIST at one of the profiles."""
    return at_constant_steps(autoencoder.study(splits, profile))
