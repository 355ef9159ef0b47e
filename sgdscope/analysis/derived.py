"""What a rate and a batch size mean for the dynamics: the temperature, and whether momentum is in steady state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import polars as pl

from sgdscope.errors import InputError
from sgdscope.optimizers import SGD, parse_optimizer
from sgdscope.records import WorkloadRecord

T = TypeVar("T")


def temperature(learning_rate: float, momentum: float, batch_size: int, examples: int) -> float:
    """Return ε(N/B − 1)/(N(1 − m)), the scale of the noise of the gradient in the stochastic differential equation.

    It is about ε/(B(1 − m)) for B far below N, and 0 at B = N, where the order of examples is the only thing that is
    drawn; augmentation, dropout and ghost batches keep a full batch noisy, which this does not count.

    Args:
        learning_rate: ε.
        momentum: m.
        batch_size: B.
        examples: N, of the training split.

    Source: Smith and Le (2018), arXiv 1710.06451, where g = ε(N/B − 1) is the same but for the factor 1/(N(1 − m)).

    >>> round(temperature(0.5, momentum=0.9, batch_size=50, examples=1000), 6)
    0.095
    """
    return learning_rate * (examples / batch_size - 1) / (examples * (1 - momentum))


def l2_of(record: WorkloadRecord) -> float | None:
    """Return λ, the coefficient of a workload's L2 penalty, from its field ``l2``; None where it has none.

    With normalization the product ε·λ sets the equilibrium of the weights, so that an optimal ε belongs to its λ.
    """
    l2 = dict(record.fields).get("l2")
    return float(l2) if isinstance(l2, int | float) else None


def momentum_of(optimizer: str) -> float | None:
    """Return m of an optimizer as tables name it, or None where it is none of ours.

    >>> momentum_of("sgd"), momentum_of("momentum:0.9"), momentum_of("adam")
    (0.0, 0.9, None)
    """
    try:
        known = parse_optimizer(optimizer)
    except InputError:
        return None
    return known.momentum if isinstance(known, SGD) and isinstance(known.momentum, float) else None


def of_sgd(found: Iterable[tuple[Mapping[str, Any], T]]) -> dict[tuple[str, str], T]:
    """Return what plain SGD has, by workload and budget, of what optimizers have."""
    return {(key["workload"], key["budget"]): value for key, value in found if momentum_of(key["optimizer"]) == 0}


def cell_warmed_up(cell: pl.DataFrame) -> bool | None:
    """Return whether an optimizer reached its steady state in a cell; None where that is unknown.

    It is told by the most updates that a complete trial of the cell made, and by the optimizer's ``settling_updates``.
    """
    try:
        settling = parse_optimizer(cell["optimizer"][0]).settling_updates
    except InputError:
        return None
    if settling == 0:
        return True
    if settling is None or "steps" not in cell.columns:
        return None
    steps = cell.filter(pl.col("status") == "complete")["steps"].drop_nulls().to_list()
    return max(steps) >= settling * (1 - 1e-9) if steps else None
