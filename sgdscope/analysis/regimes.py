"""Where the optimal learning rate stops growing with the batch size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from sgdscope.analysis.optimum import CRITERIA, Curve, cells, curve, on_common_seeds
from sgdscope.analysis.statistics import BOOTSTRAP_SEED, bootstrap_t_interval, resampled_seeds
from sgdscope.workloads.base import WorkloadRecord

FEWEST_BATCH_SIZES = 4
KNEES_PER_OCTAVE = 20


@dataclass(frozen=True)
class Hinge:
    """A fit y = level − slope·max(0, knee − x) to points: a line of free slope up to the knee, then constant."""

    knee: np.ndarray
    slope: np.ndarray
    level: np.ndarray


def fit_hinge(x: np.ndarray, y: np.ndarray) -> Hinge:
    """Fit a hinge by least squares, over a grid of knees between the second point and the last.

    A knee at the last point is a line without a bend.

    Args:
        x: log₂ batch sizes, ascending, shape (k,).
        y: log₂ learning rates, shape (draws, k); each draw is fitted by itself.

    >>> x = np.arange(8.0)
    >>> hinge = fit_hinge(x, np.minimum(x, 4.0)[None] - 7)
    >>> [round(float(v[0]), 6) for v in (hinge.knee, hinge.slope, hinge.level)]
    [4.0, 1.0, -3.0]
    """
    count = round((x[-1] - x[1]) * KNEES_PER_OCTAVE) + 1
    knees = np.linspace(x[1], x[-1], count)
    sums, coefficients = [], []
    for knee in knees:
        design = np.stack([np.ones_like(x), -np.maximum(0, knee - x)], axis=1)
        solution = y @ np.linalg.pinv(design).T
        coefficients.append(solution)
        sums.append(((y - solution @ design.T) ** 2).sum(axis=1))
    best = np.round(np.array(sums), 9).argmin(axis=0)
    chosen = np.array(coefficients)[best, np.arange(len(y))]
    return Hinge(knees[best], chosen[:, 1], chosen[:, 0])


def regimes(trials: pl.DataFrame, record: WorkloadRecord) -> pl.DataFrame:
    """Return B_ε, the batch size where log ε* bends against log B, for each optimizer, budget and criterion.

    The hinge is fitted to the winning rates of all batch sizes. Seeds are drawn jointly over all batch sizes
    and everything is fitted anew for each draw; the interval is estimate ± t(n−1)·SE·√(n/(n−1)) in log₂ B.
    The winner is the optimum rounded to the grid, so each draw's winners are moved by up to half a grid step
    at random: without that, studies whose seeds agree would claim a certainty that their grid cannot give.

    ``status`` is ``identified`` where that interval lies inside the batch sizes of the study and the slope's
    interval above 0; ``not identified`` otherwise, also where a winner lies at the edge of the rates tried; and
    ``too few batch sizes`` below 4.
    """
    rows: list[dict[str, Any]] = []
    groups: dict[tuple[Any, ...], list[tuple[int, pl.DataFrame]]] = {}
    for key, cell in cells(trials):
        groups.setdefault((key["workload"], key["budget"], key["optimizer"]), []).append((key["batch_size"], cell))
    for (workload, budget, optimizer), members in groups.items():
        for criterion in CRITERIA:
            found = [(size, curve(cell, record, criterion)) for size, cell in members]
            key = {"workload": workload, "budget": budget, "optimizer": optimizer, "criterion": criterion}
            rows.append(key | _bend([size for size, _ in found], [c for _, c in found]))
    return pl.DataFrame(rows, infer_schema_length=None)


def _bend(sizes: list[int], curves: list[Curve]) -> dict[str, Any]:
    curves = on_common_seeds(curves)
    kept = [number for number, c in enumerate(curves) if c.seeds.size and c.eligible.any()]
    sizes, curves = [sizes[number] for number in kept], [curves[number] for number in kept]
    n = len(curves[0].seeds) if curves else 0
    row: dict[str, Any] = {"batch_sizes": len(sizes), "n": n, "status": "too few batch sizes"}
    numbers = ("bend", "bend_low", "bend_high", "slope", "slope_low", "slope_high", "level")
    if len(sizes) < FEWEST_BATCH_SIZES or n == 0:
        return row | dict.fromkeys(numbers, None)
    x = np.log2(sizes)
    winners = np.array([np.log2(c.rates[c.best()[0]]) for c in curves])
    redrawn = np.array([np.log2(c.rates[c.best(resampled_seeds(n))]) for c in curves]).T
    estimate = fit_hinge(x, winners[None])
    drawn = fit_hinge(x, redrawn + _rounding(redrawn.shape) * np.array([_grid_step(c) for c in curves]))
    knee, slope = float(estimate.knee[0]), float(estimate.slope[0])
    knee_low, knee_high = bootstrap_t_interval(knee, drawn.knee, n)
    slope_low, slope_high = bootstrap_t_interval(slope, drawn.slope, n)
    censored = any(c.best()[0] in (0, len(c.rates) - 1) for c in curves)
    inside = n > 1 and not censored and knee_low >= x[0] and knee_high < x[-1] and slope_low > 0
    values = (
        2.0**knee,
        2.0 ** max(knee_low, -60.0),
        2.0 ** min(knee_high, 60.0),
        slope,
        slope_low,
        slope_high,
        2.0 ** float(estimate.level[0]),
    )
    return row | {"status": "identified" if inside else "not identified"} | dict(zip(numbers, values, strict=True))


def _rounding(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(BOOTSTRAP_SEED + 1).uniform(-0.5, 0.5, shape)


def _grid_step(found: Curve) -> float:
    """The step of the grid around the winner, in octaves; none where a single rate was tried."""
    if len(found.rates) == 1:
        return 0.0
    steps = np.diff(np.log2(found.rates))
    best = int(found.best()[0])
    return float(steps[max(best - 1, 0) : best + 1].mean())
