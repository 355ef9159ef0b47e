"""Batch size at a constant epoch budget for momentum and Adam, on the characters of the Penn TreeBank with a small GPT.

Question: up to which batch size does each optimizer keep its score on a transformer? Hypothesis, from studies of larger
language models: Adam's critical batch size is larger than that of momentum, and Adam's score is better at each.

The sweeps ``steps`` and ``epochs`` vary what those of `digits` vary.

Command: ``sgdscope run char_lm --profile laptop`` (or full); it needs ``sgdscope data fetch ptb``. For another text see
:func:`sgdscope.data.characters.split_text`.
Cost: see ``sgdscope plan``; laptop is meant for an hour of two cores, full for a GPU.
How laptop was sized: by a probe of one seed and three learning rates. The best test scores at batch sizes 8, 64 and 512
were 2.77, 3.42 and 4.32 bits per character with Adam, and 2.95, 3.42 and 4.34 with momentum, so the loss begins below
64. A trial took some 12 s of processor time on a busy machine with compiling, and `plan` counts 720 trials.
What came out: the study has not been run to its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgdscope.budget import Epochs
from sgdscope.data.ptb import read_ptb_characters as read
from sgdscope.data.split import first_examples
from sgdscope.optimizers import SGD, Adam
from sgdscope.studies.profiles import FULL, LAPTOP, Sweeps, profiled
from sgdscope.study import Study
from sgdscope.workloads.base import Split
from sgdscope.workloads.char_lm import char_lm

__all__ = ["PROFILES", "SWEEPS", "read", "study"]

PROFILES: dict[str, dict[str, Any]] = {
    "full": FULL | {"batch_sizes": tuple(8 << k for k in range(9)), "budgets": (Epochs(8),)},
    "laptop": LAPTOP | {"batch_sizes": tuple(1 << k for k in range(9)), "budgets": (Epochs(2),), "evaluate_at": (1.0,)},
}
SWEEPS = {"full": Sweeps(), "laptop": Sweeps(steps_of=128)}
# The network of the profile laptop, and how many characters of each split it reads, the first ones.
LAPTOP_NETWORK = {"width": 48, "context": 32}
LAPTOP_EXAMPLES = {"train": 8_192 * 32 + 1, "validation": 1_024 * 32 + 1, "test": 2_048 * 32 + 1}
FULL_NETWORK = {"width": 256, "layers": 6, "heads": 8, "context": 128}


def study(splits: Mapping[str, Split], profile: str) -> Study:
    """Return the study on these characters at one of the profiles."""
    if profile == "laptop":
        workload = char_lm(first_examples(splits, LAPTOP_EXAMPLES), **LAPTOP_NETWORK)
    else:
        workload = char_lm(splits, **FULL_NETWORK)
    return profiled(workload, profile, PROFILES).changed({"optimizers": (SGD(momentum=0.9), Adam())})
