"""Which trials of one study stand for which of another: the same workload, budget and optimizer, or the one it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from sgdscope.analysis.trial_table import OPTIMIZER_SCHEMA
from sgdscope.comparison.side import Side
from sgdscope.errors import InputError


@dataclass(frozen=True)
class Matched:
    """Trials that are compared: workload, budget and optimizer in each study, in the order of the studies."""

    keys: tuple[dict[str, str], ...]

    def value(self, axis: str, *places: int) -> str:
        """Return what the studies have on an axis, once where it is the same."""
        return against([self.keys[place][axis] for place in places or range(len(self.keys))])


def against(values: Sequence[str]) -> str:
    """Return values that differ in words, and one where all are the same.

    >>> against(["halving", "cosine"]), against(["sgd", "sgd"])
    ('halving against cosine', 'sgd')
    """
    return values[0] if len(set(values)) == 1 else " against ".join(values)


def matched(sides: Sequence[Side]) -> tuple[list[Matched], list[str]]:
    """Return the trials that stand for each other, and what of the studies is compared with nothing.

    On each axis equal values stand for each other. Where each study has one value left, these do.

    Raises:
        InputError: If nothing stands for anything, or scores cannot be compared.
    """
    axes: dict[str, list[tuple[str, ...]]] = {}
    alone: list[str] = []
    for axis in OPTIMIZER_SCHEMA:
        values = [_values(side, axis) for side in sides]
        axes[axis] = standing_for(values)
        if not axes[axis]:
            said = "; ".join(f"{side.name} has {', '.join(of)}" for side, of in zip(sides, values, strict=True))
            raise InputError(f"compare: the studies have no {axis} in common: {said}. Name studies that share one.")
        for place, (side, of) in enumerate(zip(sides, values, strict=True)):
            left = [value for value in of if value not in {found[place] for found in axes[axis]}]
            alone += [f"Not compared: {axis} {', '.join(left)} of {side.name}."] * bool(left)
    found = [
        Matched(tuple(dict(zip(axes, of_side, strict=True)) for of_side in zip(*combined, strict=True)))
        for combined in product(*axes.values())
    ]
    without = [
        (side.name, key)
        for one in found
        for side, key in zip(sides, one.keys, strict=True)
        if side.tables.optima.filter(**key, criterion="score").is_empty()
    ]
    found = [
        one for one in found if not any((side.name, key) in without for side, key in zip(sides, one.keys, strict=True))
    ]
    alone += [
        f"Not compared: {', '.join(key.values())}, without a best learning rate in {name}." for name, key in without
    ]
    if not found:
        raise InputError(
            "compare: no workload, budget and optimizer has a best learning rate in all studies. Name others."
        )
    for one in found:
        _check_scores(sides, one)
    return found, alone


def _values(side: Side, axis: str) -> list[str]:
    """Return what a study has on an axis; of optimizers plain SGD first."""
    return sorted(side.tables.trials[axis].unique(), key=lambda value: (value != "sgd", value))


def standing_for(values: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Return which values of several lists stand for each other: equal ones, and the last one left of each.

    >>> standing_for([["sgd", "momentum:0.9"], ["sgd", "adam"]])
    [('sgd', 'sgd'), ('momentum:0.9', 'adam')]
    """
    shared = [value for value in values[0] if all(value in of for of in values)]
    rest = [[value for value in of if value not in shared] for of in values]
    left = [tuple(of[0] for of in rest)] if all(len(of) == 1 for of in rest) else []
    return [(value,) * len(values) for value in shared] + left


def _check_scores(sides: Sequence[Side], of: Matched) -> None:
    records = [side.tables.records[key["workload"]] for side, key in zip(sides, of.keys, strict=True)]
    first = records[0]
    for side, record in zip(sides, records, strict=True):
        if (record.score_name, record.score_goal) != (first.score_name, first.score_goal):
            raise InputError(
                f"compare: {sides[0].name} has the score {first.score_name} ({first.score_goal}), {side.name} has "
                f"{record.score_name} ({record.score_goal}). Compare studies of one score."
            )
