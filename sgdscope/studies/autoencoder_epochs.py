"""Epochs at a fixed batch size, on MNIST pictures that a deep autoencoder reconstructs.

Hypothesis: the squared error saturates as epochs are added, the learning rate that is best for the training loss
decays, and the one that is best for the squared error hardly changes.

Command: ``sgdscope run autoencoder_epochs --profile small`` (or full); it needs ``sgdscope data fetch mnist``.
Cost: see ``sgdscope plan``; full takes 50 to 6,400 epochs in doublings, small half to four times the epochs of
`autoencoder`.
What came out: small ends long before anything saturates, so that no claim can be tested
(``results/autoencoder-small``). Full, which should show all of the hypothesis, has not been run.
"""

from __future__ import annotations

from collections.abc import Mapping

from sgdscope.studies import autoencoder
from sgdscope.studies.profiles import FULL_EPOCHS, over_epochs
from sgdscope.study import Study
from sgdscope.workloads.base import Split

__all__ = ["PROFILES", "read", "study"]

PROFILES, read = autoencoder.PROFILES, autoencoder.read


def study(splits: Mapping[str, Split], profile: str) -> Study:
    """Return the study on these splits of MNIST at one of the profiles."""
    return over_epochs(autoencoder.study(splits, profile), FULL_EPOCHS if profile == "full" else None)
