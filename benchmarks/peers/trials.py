"""What every peer trains, and what it tells of it: trials from standard input, seconds and accuracies to the output."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass

import numpy as np

from sgdscope.data.digits_file import read_digits

EPOCHS, WIDTHS = 30, (64, 64, 64, 10)


@dataclass(frozen=True)
class Trial:
    """One training of the study."""

    batch_size: int
    learning_rate: float
    momentum: float
    seed: int

    @property
    def updates(self) -> int:
        """As the study counts them: 30 epochs of 1,024 pictures."""
        return EPOCHS * 1024 // self.batch_size


@dataclass
class Report:
    """The seconds of getting ready, which do not grow with the trials, and of training them; test accuracies."""

    ready: float
    training: float
    accuracies: list[float]


def read_trials() -> list[Trial]:
    """Return the trials that this process is to train."""
    return [Trial(**fields) for fields in json.load(sys.stdin)]


def tell(report: Report) -> None:
    """Write the report as the last line of the output."""
    print(json.dumps(asdict(report)), flush=True)


def arrays() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return pictures and labels of each split."""
    return {name: (split["picture"], split["label"].astype(np.int64)) for name, split in read_digits().items()}


def rate_factor(step: int, updates: int) -> float:
    """Return the factor on the learning rate: held for half of the updates, then halved ten times."""
    return 2.0 ** -max(0, 20 * step // updates - 9)


def batches(trial: Trial, rng: np.random.Generator) -> np.ndarray:
    """Return the examples of every batch, shape (updates, batch size): each epoch in an order of its own."""
    order = np.concatenate([rng.permutation(1024) for _ in range(EPOCHS)])
    return order.reshape(trial.updates, trial.batch_size)
