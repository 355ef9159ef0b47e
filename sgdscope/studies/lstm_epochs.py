"""Epochs at a fixed batch size, on the Penn TreeBank with an LSTM language model.

Hypothesis: the perplexity saturates as epochs are added, the learning rate that is best for the training loss decays,
and the one that is best for the perplexity hardly changes.

Command: ``sgdscope run lstm_epochs --profile small`` (or full); it needs ``sgdscope data fetch ptb``.
Cost: see ``sgdscope plan``; full takes 50 to 1,600 epochs in doublings, small half to four times the epochs of
`lstm`.
What should come out: of full, all of the hypothesis; small ends long before anything saturates, and shows the two
optimal learning rates at most. Neither has been run.
"""

from __future__ import annotations

from collections.abc import Mapping

from sgdscope.studies import lstm
from sgdscope.studies.profiles import FULL_EPOCHS, over_epochs
from sgdscope.study import Study
from sgdscope.workloads.base import Split

__all__ = ["PROFILES", "read", "study"]

PROFILES, read = lstm.PROFILES, lstm.read


def study(splits: Mapping[str, Split], profile: str) -> Study:
    """Return the study on these splits of the Penn TreeBank at one of the profiles."""
    # More epochs than 1,600 are more tokens than the order of examples can count.
    return over_epochs(lstm.study(splits, profile), FULL_EPOCHS[:6] if profile == "full" else None)
