"""Where the optimal learning rate stops growing with the batch size, and which batch sizes are in which regime."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import polars as pl

from sgdscope.analysis.derived import momentum_of
from sgdscope.analysis.exclusions import learning
from sgdscope.analysis.transitions import NOWHERE, THROUGHOUT
from sgdscope.analysis.trial_table import CELL_COLUMNS, Records
from sgdscope.frames import Column, Columns, schema

REGIMES_COLUMNS: Columns = {
    **CELL_COLUMNS,
    "regime": Column(
        pl.String,
        "`noise` (below the lower limit of SGD's transition batch size), `curvature` (above the upper limit of the "
        "optimizer's own) or `unassigned`.",
    ),
}
REGIMES_SCHEMA = schema(REGIMES_COLUMNS)
# A regime with fewer batch sizes than this is not identified.
FEWEST_IN_REGIME = 3


def regimes(transitions: pl.DataFrame, trials: pl.DataFrame, records: Records) -> pl.DataFrame:
    """Return which regime each batch size of each optimizer is in: ``noise``, ``curvature`` or ``unassigned``.

    Noise-dominated are the batch sizes below the lower limit of SGD's B_ε, curvature-dominated those above the upper
    limit of the optimizer's own, both by the score. Where growth of the optimal rate is not confirmed the
    transition has no limits, and that side is left unassigned, as is a batch size at which the score hardly improved.

    Args:
        transitions: the table of :func:`transitions`.
        trials: the table of trials that it was made from.
        records: what their workloads are, by name.
    """
    rows: list[dict[str, Any]] = []
    for of in learning(trials, records):
        low, high = regime_limits(transitions, *of.key.values())
        for size in of.members:
            regime = _regime(size, low, high) if size in of.learned else "unassigned"
            rows.append(of.key | {"batch_size": size, "regime": regime})
    return pl.DataFrame(rows, schema=REGIMES_SCHEMA)


def regime_limits(
    transitions: pl.DataFrame, workload: str, budget: str, optimizer: str
) -> tuple[float | None, float | None]:
    """Return the lower limit of SGD's B_ε and the upper of an optimizer's own, by the score; None if unknown."""
    studied = transitions.filter(workload=workload, budget=budget, criterion="score").iter_rows(named=True)
    ends = {row["optimizer"]: transition_limits(row) for row in studied}
    plain = next((low for name, (low, _) in ends.items() if momentum_of(name) == 0), None)
    return plain, ends.get(optimizer, (None, None))[1]


def transition_limits(row: dict[str, Any]) -> tuple[float | None, float | None]:
    """Return both limits of B_ε from a row of :func:`transitions`; None where growth below it is not confirmed.

    Where the rate grows nowhere no batch size is below the lower limit, 0, and all of the study are above the upper;
    where it grows throughout all are below the lower limit and none is above the upper, ∞.
    """
    if row["status"] == NOWHERE:
        return 0.0, math.nextafter(row["transition_high"], 0.0)
    if row["status"] == THROUGHOUT:
        return math.nextafter(row["transition_low"], math.inf), math.inf
    growing = row.get("slope_low") is not None and row["slope_low"] > 0
    return (row["transition_low"], row["transition_high"]) if growing else (None, None)


def batch_sizes_to_add(
    sizes: Sequence[int], low: float | None, high: float | None, possible: range
) -> dict[str, list[int]]:
    """Return the batch sizes, factors of 2 beyond those there, that would give each regime its three.

    Args:
        sizes: the batch sizes of the study.
        low: below it lies the noise-dominated regime; 0 where it lies beyond the study, None where it is unknown.
        high: above it lies the curvature-dominated regime; ∞ where it lies beyond the study, None where unknown.
        possible: the batch sizes that can be trained.

    >>> batch_sizes_to_add([8, 16, 32, 64], low=20.0, high=50.0, possible=range(1, 1025))
    {'noise': [4], 'curvature': [128, 256]}
    >>> batch_sizes_to_add([8, 16, 32, 64], low=0.0, high=7.9, possible=range(1, 1025))
    {'noise': [4, 2, 1], 'curvature': []}
    """
    smallest, largest = min(sizes), max(sizes)
    below = [smallest >> k for k in range(1, smallest.bit_length()) if smallest >> k in possible]
    above = [largest << k for k in range(1, possible.stop.bit_length()) if largest << k in possible]
    add: dict[str, list[int]] = {"noise": [], "curvature": []}
    if low is not None:
        known = sum(size < low for size in sizes)
        add["noise"] = [size for size in below if low == 0 or size < low][: max(0, FEWEST_IN_REGIME - known)]
    if high is not None:
        known = sum(size > high for size in sizes)
        add["curvature"] = [size for size in above if math.isinf(high) or size > high]
        add["curvature"] = add["curvature"][: max(0, FEWEST_IN_REGIME - known)]
    return add


def _regime(size: int, low: float | None, high: float | None) -> str:
    if low is not None and size < low:
        return "noise"
    return "curvature" if high is not None and size > high else "unassigned"
