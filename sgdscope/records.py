"""What is kept of a workload, and the layout of its examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Arrays = Mapping[str, np.ndarray]


# The shape and type of each array of an example.
Layout = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]


SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class WorkloadRecord:
    """What a study's folder keeps of a workload: all that identifies it and none of its functions or data."""

    name: str
    version: str
    fields: tuple[tuple[str, float | int | str], ...]
    data_sha256: str
    examples: tuple[int, int, int]
    score_name: str
    score_goal: Literal["maximize", "minimize"]
    constant_loss: float
    constant_score: float
    ghost_batch_size: int = 1
    unroll: int = 1
    evaluation_batch_size: int = 1
    """Told only where it changes numbers: where a text is read piece by piece."""
    chosen_on: Literal["validation", "test"] = "validation"
    """``test`` where the validation split is the test split itself, so that choosing flatters what is reported."""
    microbatch_size: int | None = field(default=None, compare=False)
    """About how many examples of a forward pass suit the device, where a study does not say; None for the batch."""

    @property
    def batch_multiple(self) -> int:
        """Every batch size, and every microbatch size, is a multiple of this."""
        return self.ghost_batch_size * self.unroll

    @property
    def score_sign(self) -> int:
        """+1 where a larger score is better, −1 where a smaller one is."""
        return 1 if self.score_goal == "maximize" else -1

    @property
    def in_percent(self) -> bool:
        """Whether the score is an accuracy, a share of 1, which is written in percent."""
        return self.score_name == "accuracy"
