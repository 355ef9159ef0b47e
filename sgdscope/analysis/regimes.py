"""Where the optimal learning rate stops growing with the batch size, and which batch sizes are in which regime."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from sgdscope.analysis.curves import (
    OPTIMIZER_SCHEMA,
    Criterion,
    Curve,
    Records,
    curve,
    measured_criteria,
    on_common_seeds,
)
from sgdscope.analysis.dynamics import momentum_of
from sgdscope.analysis.fits import KNEES_PER_OCTAVE, fit_hinge
from sgdscope.analysis.learning import learning
from sgdscope.analysis.statistics import BOOTSTRAP_SEED, bootstrap_t_interval
from sgdscope.workloads.base import WorkloadRecord

FEWEST_BATCH_SIZES = 4
# A regime with fewer batch sizes than this is not identified.
FEWEST_IN_REGIME = 3
# Intervals of batch sizes are given as far as this, log₂.
FARTHEST = 60.0

REGIMES_SCHEMA: dict[str, type[pl.DataType]] = {
    **OPTIMIZER_SCHEMA,
    "criterion": pl.String,
    "batch_sizes": pl.Int64,
    "n": pl.Int64,
    "status": pl.String,
    "bend": pl.Float64,
    "bend_low": pl.Float64,
    "bend_high": pl.Float64,
    "slope": pl.Float64,
    "slope_low": pl.Float64,
    "slope_high": pl.Float64,
    "level": pl.Float64,
}


@dataclass(frozen=True)
class Cells:
    """The curves of one optimizer by batch size, on common seeds; cells without an eligible rate are left out.

    Where it is epochs that differ and not batch sizes, ``sizes`` are those.
    """

    sizes: Sequence[float]
    curves: list[Curve]

    @property
    def x(self) -> np.ndarray:
        """log₂ of the batch sizes."""
        return np.log2(self.sizes)

    @property
    def n(self) -> int:
        """The number of seeds."""
        return len(self.curves[0].seeds) if self.curves else 0

    @property
    def vertices(self) -> np.ndarray:
        """log₂ ε* by the vertex of a parabola around the winner, shape (1, k)."""
        return np.array([c.vertex()[0] for c in self.curves]).T

    def drawn_vertices(self, stream: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return the vertices of each draw of seeds, shape (draws, k), and which of them are bounds.

        The same seeds are drawn in every cell. Each draw's vertices are moved at random by as much as they may stray:
        without that, studies whose seeds agree would claim a certainty that their grid cannot give. What is compared
        is moved by numbers of another ``stream``, since by the same ones the moves would cancel.
        """
        best, vertices, strays = self._drawn
        moved = np.random.default_rng(BOOTSTRAP_SEED + 1 + stream).uniform(-1, 1, strays.shape)
        return vertices + strays * moved, self._bounds(best)

    @property
    def _drawn(self) -> tuple[np.ndarray, ...]:
        """Best rates, vertices and strays of each draw of seeds, which are the same in every cell; shape (draws, k)."""
        return tuple(np.stack(of, axis=1) for of in zip(*(c.drawn for c in self.curves), strict=True))

    def drawn_means(self, stream: int) -> np.ndarray:
        """Return the mean vertex over the batch sizes in each draw of seeds, shape (draws,).

        Where ε* grows by whole steps of the grid, or not at all, it lies alike between the rates tried at all batch
        sizes, and all vertices stray alike: no slope shows that, and a mean does not average it out. So they are moved
        together, by numbers that differ from one ``stream`` to the other, since two optimizers stray each by itself.
        """
        _, vertices, strays = self._drawn
        moved = np.random.default_rng([BOOTSTRAP_SEED, stream]).uniform(-1, 1, (len(strays), 1))
        means: np.ndarray = (vertices + strays * moved).mean(axis=1)
        return means

    @property
    def mean_grid_error(self) -> float:
        """The standard error of :meth:`drawn_means` that seeds do not make smaller: all vertices stray alike."""
        return float(np.mean([float(c.vertex()[1][0]) for c in self.curves])) / math.sqrt(3)

    @property
    def bounds(self) -> np.ndarray:
        """−1 where the winner is the lowest rate tried, +1 where it is the highest, else 0; shape (1, k)."""
        return self._bounds(np.array([[c.best()[0] for c in self.curves]]))

    def _bounds(self, best: np.ndarray) -> np.ndarray:
        last = np.array([len(c.rates) - 1 for c in self.curves])
        bounds: np.ndarray = (best == last).astype(int) - (best == 0)
        return bounds

    def of(self, sizes: Sequence[float]) -> Cells:
        """Return some of the batch sizes."""
        kept = [(size, c) for size, c in zip(self.sizes, self.curves, strict=True) if size in sizes]
        return Cells([size for size, _ in kept], [c for _, c in kept])


def cells_of(members: Mapping[Any, pl.DataFrame], record: WorkloadRecord, criterion: Criterion) -> Cells:
    """Return the curves of one optimizer's cells, which are given by batch size."""
    curves = {size: curve(cell, record, criterion) for size, cell in members.items()}
    ended = {size: c for size, c in curves.items() if c.seeds.size}  # one whose trials all failed has no seeds to share
    kept = [(size, c) for size, c in zip(ended, on_common_seeds(list(ended.values())), strict=True) if c.seeds.size]
    kept = [(size, c) for size, c in kept if c.eligible.any()]
    return Cells([size for size, _ in kept], [c for _, c in kept])


def pair_on_common_seeds(one: Cells, other: Cells) -> tuple[Cells, Cells]:
    """Return both on the seeds that they have in common, so that drawing seeds is the same in each."""
    curves = on_common_seeds([*one.curves, *other.curves])
    return Cells(one.sizes, curves[: len(one.sizes)]), Cells(other.sizes, curves[len(one.sizes) :])


def regimes(trials: pl.DataFrame, records: Records) -> pl.DataFrame:
    """Return B_ε, the batch size where log ε* bends against log B, for each optimizer, budget and criterion.

    The hinge is fitted to log₂ ε* of all batch sizes, each the vertex of a parabola within an octave of the winning
    rate; a winner at the edge of the rates tried is a bound. Seeds are drawn jointly over all batch sizes and
    everything is fitted anew for each draw; the interval is estimate ± t(n−1)·SE·√(n/(n−1)) in log₂ B, widened by
    half a step of the grid of knees. In ``benchmarks/coverage.py`` it holds the bend in .98 of studies. Fitted to the
    winners, moved at random by up to half a step of the grid of rates, it would hold it in .99 or more, and be 1.8 to 4
    times as wide where curves are smooth, 1.0 to 1.4 times where they are flat or end at a cliff.

    Cells that have learned next to nothing are left out, by :func:`learning`.

    ``status`` is ``identified`` where that interval lies inside the batch sizes of the study and the slope's
    interval above 0; ``not identified`` otherwise, also where a winner lies at the edge of the rates tried; and
    ``too few batch sizes`` below 4.

    Args:
        trials: a table of trials.
        records: what their workloads are, by name.
    """
    rows = [
        of.key | {"criterion": criterion} | bend_of(cells_of(of.learned, records[of.key["workload"]], criterion))
        for of in learning(trials, records)
        for criterion in measured_criteria(trials)
    ]
    return pl.DataFrame(rows, schema=REGIMES_SCHEMA)


def bend_of(found: Cells) -> dict[str, Any]:
    """Return the row of :func:`regimes` for one optimizer's cells, but for their key."""
    row: dict[str, Any] = {"batch_sizes": len(found.sizes), "n": found.n, "status": "too few batch sizes"}
    if len(found.sizes) < FEWEST_BATCH_SIZES or found.n == 0:
        return row
    x, n = found.x, found.n
    estimate = fit_hinge(x, found.vertices, found.bounds)
    drawn = fit_hinge(x, *found.drawn_vertices())
    knee, slope = float(estimate.knee[0]), float(estimate.slope[0])
    knee_low, knee_high = knee_interval(knee, drawn.knee, n)
    slope_low, slope_high = bootstrap_t_interval(slope, drawn.slope, n)
    inside = n > 1 and not found.bounds.any() and knee_low >= x[0] and knee_high < x[-1] and slope_low > 0
    return row | {
        "status": "identified" if inside else "not identified",
        "bend": 2.0**knee,
        "bend_low": 2.0 ** max(knee_low, -FARTHEST),
        "bend_high": 2.0 ** min(knee_high, FARTHEST),
        "slope": slope,
        "slope_low": slope_low,
        "slope_high": slope_high,
        "level": 2.0 ** float(estimate.level[0]),
    }


def knee_interval(knee: float, drawn: np.ndarray, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a knee, in octaves, widened by what the grid of knees rounds."""
    low, high = bootstrap_t_interval(knee, drawn, n)
    return low - 0.5 / KNEES_PER_OCTAVE, high + 0.5 / KNEES_PER_OCTAVE


def regime_of_batch_sizes(regimes: pl.DataFrame, trials: pl.DataFrame, records: Records) -> pl.DataFrame:
    """Return which regime each batch size of each optimizer is in: ``noise``, ``curvature`` or ``unassigned``.

    Noise-dominated are the batch sizes below the lower limit of SGD's B_ε, curvature-dominated those above the upper
    limit of the optimizer's own, both by the score. Where the optimal rate is not shown to grow at all there is no
    bend to have limits, and that side is left unassigned, as is a batch size at which next to nothing was learned.

    Args:
        regimes: the table of :func:`regimes`.
        trials: the table of trials that it was made from.
        records: what their workloads are, by name.
    """
    rows: list[dict[str, Any]] = []
    for of in learning(trials, records):
        low, high = regime_limits(regimes, *of.key.values())
        for size in of.members:
            regime = _regime(size, low, high) if size in of.learned else "unassigned"
            rows.append(of.key | {"batch_size": size, "regime": regime})
    return pl.DataFrame(rows, infer_schema_length=None)


def regime_limits(
    regimes: pl.DataFrame, workload: str, budget: str, optimizer: str
) -> tuple[float | None, float | None]:
    """Return the lower limit of SGD's B_ε and the upper of an optimizer's own, by the score; None if unknown."""
    studied = regimes.filter(workload=workload, budget=budget, criterion="score").iter_rows(named=True)
    ends = {row["optimizer"]: bend_limits(row) for row in studied}
    plain = next((low for name, (low, _) in ends.items() if momentum_of(name) == 0), None)
    return plain, ends.get(optimizer, (None, None))[1]


def bend_limits(row: dict[str, Any]) -> tuple[float | None, float | None]:
    """Return both limits of B_ε from a row of :func:`regimes`; None where the rate is not shown to grow below it."""
    growing = row.get("slope_low") is not None and row["slope_low"] > 0
    return (row["bend_low"], row["bend_high"]) if growing else (None, None)


def batch_sizes_to_add(sizes: Sequence[int], low: float, high: float, possible: range) -> dict[str, list[int]]:
    """Return the batch sizes, factors of 2 beyond those there, that would give each regime its three.

    Args:
        sizes: the batch sizes of the study.
        low: below it lies the noise-dominated regime.
        high: above it lies the curvature-dominated regime.
        possible: the batch sizes that can be trained.

    >>> batch_sizes_to_add([8, 16, 32, 64], low=20.0, high=50.0, possible=range(1, 1025))
    {'noise': [4], 'curvature': [128, 256]}
    """
    smallest, largest = min(sizes), max(sizes)
    below = [smallest >> k for k in range(1, smallest.bit_length()) if smallest >> k in possible]
    above = [largest << k for k in range(1, possible.stop.bit_length()) if largest << k in possible]
    noise, curvature = sum(size < low for size in sizes), sum(size > high for size in sizes)
    return {
        "noise": [size for size in below if size < low][: max(0, FEWEST_IN_REGIME - noise)],
        "curvature": [size for size in above if size > high][: max(0, FEWEST_IN_REGIME - curvature)],
    }


def _regime(size: int, low: float | None, high: float | None) -> str:
    if low is not None and size < low:
        return "noise"
    return "curvature" if high is not None and size > high else "unassigned"
