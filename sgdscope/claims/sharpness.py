"""What the sharpness along training says of C14: whether curvature limits the optimal learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import polars as pl

from sgdscope.analysis.along_training import by_trial
from sgdscope.analysis.edges import left_out
from sgdscope.analysis.sharpness import METRICS, SHARPNESS, octaves_to_limit, stability_limit
from sgdscope.claims.batch_sizes import Case
from sgdscope.claims.finding import OCTAVES, Effect, Finding, in_zone
from sgdscope.stats.intervals import estimated

# Octaves from the limit of stability within which a rate sits at it, and below which it sits below it.
AT_THE_LIMIT, BELOW_THE_LIMIT = (-1.0, 1.0), (-math.inf, -1.0)
NOT_MEASURED = "no seed has a sharpness after the start of training at all batch sizes of a regime"
ZONES = {"curvature": AT_THE_LIMIT, "noise": BELOW_THE_LIMIT}


def at_the_limit(case: Case) -> Iterator[Finding]:
    """Yield what is found of C14, of a study that measured the sharpness, for SGD with and without momentum."""
    limit, measurements = stability_limit(case.key["optimizer"]), case.part.measurements
    if limit is None or measurements is None or SHARPNESS not in measurements["metric"]:
        return
    missing = case.missing("noise") or case.missing("curvature")
    if missing:
        yield case.found("C14", reason=missing)
        return
    measured = by_trial(case.part.trials, measurements, METRICS)
    effects = [_effect(case, measured, regime, limit) for regime in ZONES]
    found = [effect for effect in effects if effect is not None]
    if len(found) < len(ZONES):
        yield case.found("C14", reason=NOT_MEASURED)
        return
    yield case.found("C14", *found, reason=left_out(case.edges()))


def _effect(case: Case, measured: pl.DataFrame, regime: str, limit: float) -> Effect | None:
    """Return by how many octaves ε·λ_max lies above the limit, in the mean over the batch sizes of a regime."""
    best = dict(
        case.part.optima.filter(criterion="score", optimizer=case.key["optimizer"])
        .select("batch_size", "learning_rate")
        .iter_rows()
    )
    by_seed: dict[int, list[float]] = {}
    sizes = case.sizes(regime)
    for size in sizes:
        # A trial that diverges has left every region in which the limit tells of stability.
        cell = case.members[size].filter(pl.col("learning_rate") == best[size], status="complete").sort("seed")
        for seed, octaves in zip(cell["seed"], octaves_to_limit(cell, measured, limit), strict=True):
            by_seed.setdefault(seed, []).append(float(octaves))
    # A seed counts that was measured at all of these batch sizes.
    values = np.array([np.mean(of) for of in by_seed.values() if len(of) == len(sizes)])
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    name = f"largest ε·λ_max along training against 2(1 + m), {regime}-dominated"
    return in_zone(name, estimated(values), ZONES[regime], len(values), OCTAVES)
