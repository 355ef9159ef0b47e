"""The study of a CSV file: which batch size and learning rate predict one of its columns best."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sgdscope.budget import Epochs
from sgdscope.study import Study
from sgdscope.workloads.tabular import from_csv

# Batch sizes go from the smallest to the largest in doublings, as far as the training rows allow.
SMALLEST, LARGEST = 4, 1024
EPOCHS = 30
SEEDS = 15


def study_of(path: str | Path, target: str, task: Literal["classification", "regression"] | None = None) -> Study:
    """Return the study of a network that predicts one column of a CSV file from the others.

    It tries batch sizes from 4 to 1,024 in doublings, at 30 epochs, with 15 seeds, SGD and momentum 0.9.

    Args:
        path: The file, with a header.
        target: The name of the column to predict.
        task: ``"classification"`` or ``"regression"``. Default: by the target, see
            :func:`sgdscope.workloads.tabular.from_csv`.

    Raises:
        InputError: If the file cannot be read, lacks the column or holds values that cannot be used.
    """
    workload = from_csv(path, target, task=task)
    rows = len(workload.train["x"])
    sizes = [2**k for k in range(2, 11) if SMALLEST <= 2**k <= min(LARGEST, rows)]
    return Study(name=workload.name, workloads=workload, batch_sizes=sizes or rows, budgets=Epochs(EPOCHS), seeds=SEEDS)
