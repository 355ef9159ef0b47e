"""Batch size at a constant number of steps, on the Penn TreeBank with an LSTM language model.

Hypothesis: the perplexity rises for large batches although the training loss is lower, and the optimal learning rate
rises more slowly than the batch.

Command: ``sgdscope run lstm_steps --profile small`` (or full); it needs ``sgdscope data fetch ptb``.
Cost: see ``sgdscope plan``; proportional to the batch size, so that a trial at the largest costs many times one at
the smallest. The steps of full are those of 200 epochs at a batch size of 1,120; those of small, its epochs at the
batch size next to that. The largest batch of sweep (a) would take more examples than one trial may, and is left out.
What should come out: of full, both parts of the hypothesis; small trains too briefly to overfit, and shows the
learning rate at most. Neither has been run.
"""

from __future__ import annotations

from collections.abc import Mapping

from sgdscope.studies import lstm
from sgdscope.studies.profiles import at_constant_steps
from sgdscope.study import Study
from sgdscope.workloads.base import Split

__all__ = ["PROFILES", "read", "study"]

PROFILES, read = lstm.PROFILES, lstm.read


def study(splits: Mapping[str, Split], profile: str) -> Study:
    """Return the study on these splits of the Penn TreeBank at one of the profiles."""
    of_epochs = lstm.study(splits, profile)
    # 165,998 steps of the largest batch are more tokens than the order of examples can count.
    sizes = of_epochs.batch_sizes[:-1] if profile == "full" else of_epochs.batch_sizes
    return at_constant_steps(of_epochs.changed({"batch_sizes": sizes}))
