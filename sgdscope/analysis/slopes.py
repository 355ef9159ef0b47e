"""How the optimal learning rate grows with the batch size: the slope within each regime, and how sharp the bend is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl

from sgdscope.analysis.derived import cell_warmed_up
from sgdscope.analysis.exclusions import learning
from sgdscope.analysis.regimes import FEWEST_IN_REGIME
from sgdscope.analysis.sweep import Cells, cells_of
from sgdscope.analysis.transitions import FARTHEST, FEWEST_BATCH_SIZES, knee_interval, slope_of
from sgdscope.analysis.trial_table import INTERVALS_SCHEMA, OPTIMIZER_SCHEMA, Records, measured_criteria
from sgdscope.stats.intervals import bootstrap_t_interval
from sgdscope.stats.laws import SOFTNESSES, fit_bend

SLOPES_SCHEMA: dict[str, type[pl.DataType]] = {
    **OPTIMIZER_SCHEMA,
    "criterion": pl.String,
    "regime": pl.String,
    "warmed_up": pl.Boolean,
    "batch_sizes": pl.Int64,
    "n": pl.Int64,
    "value": pl.Float64,
    **INTERVALS_SCHEMA,
}
SHARPNESS_SCHEMA: dict[str, type[pl.DataType]] = {
    **OPTIMIZER_SCHEMA,
    "criterion": pl.String,
    "batch_sizes": pl.Int64,
    "n": pl.Int64,
    "bend": pl.Float64,
    "bend_low": pl.Float64,
    "bend_high": pl.Float64,
    "k": pl.Float64,
    "k_low": pl.Float64,
    "k_high": pl.Float64,
}


def grid_error(found: Cells) -> float:
    """Return the standard error of a slope that seeds do not make smaller: from how far each vertex may stray.

    √(Σ wᵢ² rᵢ²/3), with w the weights of least squares and r the strays, within which a vertex may lie anywhere.
    """
    x = found.x - found.x.mean()
    strays = np.array([float(c.vertex()[1][0]) for c in found.curves])
    return float(np.sqrt(((x / (x @ x)) ** 2 * strays**2 / 3).sum()))


def slopes(trials: pl.DataFrame, regimes: pl.DataFrame, records: Records) -> pl.DataFrame:
    """Return the slope of log₂ ε* against log₂ B in each regime, for each optimizer, budget and criterion.

    It is a fit with a free slope to the batch sizes of the regime alone, without those whose optimum lies at an edge of
    the rates tried; where ``batch_sizes``, what is left, are fewer than 3 the slope is null. ``regime`` is ``all`` for
    the whole study, too. A second row, ``warmed_up``, leaves out the batch sizes at which momentum had too few updates,
    where there are such. Cells that have learned next to nothing are left out.

    Args:
        trials: a table of trials.
        regimes: which batch size is in which regime, as ``regime_of_batch_sizes`` gives it.
        records: what their workloads are, by name.
    """
    rows: list[dict[str, Any]] = []
    assigned = {tuple(row[:-1]): row[-1] for row in regimes.iter_rows()}
    for of in learning(trials, records):
        key, cold = of.key, {size for size, cell in of.learned.items() if cell_warmed_up(cell) is False}
        for criterion in measured_criteria(trials):
            found = cells_of(of.learned, records[key["workload"]], criterion).inside
            for regime in ("noise", "curvature", "all"):
                inside = [s for s in found.sizes if regime in ("all", assigned.get((*key.values(), s)))]
                chosen = [(False, inside)] + ([(True, [s for s in inside if s not in cold])] if cold else [])
                for warm, sizes in chosen:
                    row = key | {"criterion": criterion, "regime": regime, "warmed_up": warm}
                    row |= {"batch_sizes": len(sizes), "n": found.n}
                    if len(sizes) >= FEWEST_IN_REGIME:
                        row |= vars(slope_of(found.of(sizes)))
                    rows.append(row)
    return pl.DataFrame(rows, schema=SLOPES_SCHEMA)


def sharpness_of(found: Cells) -> dict[str, float]:
    """Return knee and exponent k of ε* = ε_max (1 + (B_n/B)^k)^(−1/k), with 95 % intervals.

    The interval of k is that of 1/k, turned over: it reaches infinity, the hinge, where that of 1/k reaches 0.
    """
    found = found.bounded
    estimate = fit_bend(found.x, found.vertices, found.bounds)
    drawn = fit_bend(found.x, *found.drawn_vertices())
    softness = float(estimate.softness[0])
    low, high = bootstrap_t_interval(softness, drawn.softness, found.n)
    knee = float(estimate.knee[0])
    knee_low, knee_high = knee_interval(knee, drawn.knee, found.n)
    return {
        "bend": 2.0**knee,
        "bend_low": 2.0 ** max(knee_low, -FARTHEST),
        "bend_high": 2.0 ** min(knee_high, FARTHEST),
        "k": _inverse(softness),
        "k_low": _inverse(high) if high < SOFTNESSES[-1] else 0.0,
        "k_high": _inverse(low),
    }


def sharpness(trials: pl.DataFrame, records: Records) -> pl.DataFrame:
    """Return how sharply the optimal learning rate bends, for each optimizer, budget and criterion.

    The transition is sharp where the interval of k lies above 1, the smooth form. Null where the optimum lies inside
    the rates tried at fewer than 4 batch sizes; others are bounds.

    Args:
        trials: a table of trials.
        records: what their workloads are, by name.
    """
    rows: list[dict[str, Any]] = []
    for of in learning(trials, records):
        for criterion in measured_criteria(trials):
            found = cells_of(of.learned, records[of.key["workload"]], criterion)
            row = of.key | {"criterion": criterion, "batch_sizes": len(found.sizes), "n": found.n}
            enough = len(found.inside.sizes) >= FEWEST_BATCH_SIZES and found.n
            rows.append(row | (sharpness_of(found) if enough else {}))
    return pl.DataFrame(rows, schema=SHARPNESS_SCHEMA)


def _inverse(softness: float) -> float:
    return 1 / softness if softness > 0 else math.inf
