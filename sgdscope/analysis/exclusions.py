"""Which cells have learned anything: the optimal rate of one that has not says nothing of batch sizes or epochs."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import polars as pl

from sgdscope.analysis.curve import curve
from sgdscope.analysis.trial_table import Records, by_optimizer
from sgdscope.records import WorkloadRecord

# Of what the best cell gains over the constant baseline.
LEAST_GAIN = 0.1

Size = TypeVar("Size", bound=Hashable)


def has_learned(gain: float, most: float) -> bool:
    """Return whether a cell gains at least a tenth over the constant baseline of what the best cell gains.

    >>> has_learned(0.2, most=0.8), has_learned(0.05, most=0.8), has_learned(math.nan, most=0.8)
    (True, False, False)
    """
    return gain > 0 and gain >= LEAST_GAIN * most


def gains(members: Mapping[Size, pl.DataFrame], record: WorkloadRecord) -> dict[Size, float]:
    """Return by how much each cell's best score exceeds the constant baseline; NaN where no trial has ended."""
    return {size: curve(cell, record, "score").gain for size, cell in members.items()}


def most_of(gained: Mapping[Size, float]) -> float:
    """Return the largest gain of the cells of which a trial has ended."""
    return max((gain for gain in gained.values() if not math.isnan(gain)), default=0.0)


@dataclass(frozen=True)
class Learning:
    """One optimizer's cells by batch size, and those of them that have learned.

    ``unlearned`` are the batch sizes at which a trial has ended and the gain was less than that.
    """

    key: dict[str, Any]
    members: Mapping[int, pl.DataFrame]
    learned: Mapping[int, pl.DataFrame]
    unlearned: tuple[int, ...]


def learning(trials: pl.DataFrame, records: Records) -> Iterator[Learning]:
    """Yield what :func:`by_optimizer` does, with what has learned.

    Cells are compared with the best of their workload and budget, of all optimizers. A cell of which no trial has ended
    is neither.

    Args:
        trials: a table of trials.
        records: what their workloads are, by name.
    """
    studied = [(key, members, gains(members, records[key["workload"]])) for key, members in by_optimizer(trials)]
    most: dict[tuple[str, str], float] = {}
    for key, _, gained in studied:
        place = (key["workload"], key["budget"])
        most[place] = max(most.get(place, 0.0), most_of(gained))
    for key, members, gained in studied:
        best = most[key["workload"], key["budget"]]
        learned = {size: cell for size, cell in members.items() if has_learned(gained[size], best)}
        unlearned = (size for size, gain in gained.items() if size not in learned and not math.isnan(gain))
        yield Learning(key, members, learned, tuple(unlearned))
