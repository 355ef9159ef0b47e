"""Which cells have learned anything: the optimal rate of one that has not says nothing of batch sizes or epochs."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, TypeVar

import polars as pl

from sgdscope.analysis.curves import Records, by_optimizer, curve
from sgdscope.store import ended
from sgdscope.workloads.base import WorkloadRecord

# Of what the best cell gains over the constant predictor.
LEAST_GAIN = 0.1

Size = TypeVar("Size", bound=Hashable)


def has_learned(gain: float, most: float) -> bool:
    """Return whether a cell gains at least a tenth over the constant predictor of what the best cell gains.

    >>> has_learned(0.2, most=0.8), has_learned(0.05, most=0.8), has_learned(math.nan, most=0.8)
    (True, False, False)
    """
    return gain > 0 and gain >= LEAST_GAIN * most


def gains(members: Mapping[Size, pl.DataFrame], record: WorkloadRecord) -> dict[Size, float]:
    """Return by how much each cell's best score exceeds the constant predictor; NaN where no trial has ended."""
    return {size: curve(cell, record, "score").gain for size, cell in members.items()}


def most_of(gained: Mapping[Size, float]) -> float:
    """Return the largest gain of the cells of which a trial has ended."""
    return max((gain for gain in gained.values() if not math.isnan(gain)), default=0.0)


def learned_by_optimizer(
    trials: pl.DataFrame, records: Records
) -> Iterator[tuple[dict[str, Any], dict[int, pl.DataFrame]]]:
    """Yield what :func:`by_optimizer` does, of the cells only those that have learned.

    They are compared with the best of their workload and budget, of all optimizers. A cell of which no trial has ended
    has learned nothing.

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
        yield key, {size: cell for size, cell in members.items() if has_learned(gained[size], best)}


def unlearned_sizes(trials: pl.DataFrame, records: Records) -> Iterator[tuple[dict[str, Any], tuple[int, ...]]]:
    """Yield workload, budget and optimizer with the batch sizes at which a trial has ended and nothing was learned."""
    there = {tuple(key.values()): members for key, members in by_optimizer(ended(trials))}
    for key, members in learned_by_optimizer(trials, records):
        yield key, tuple(size for size in there.get(tuple(key.values()), {}) if size not in members)
