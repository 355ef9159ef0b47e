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
from sgdscope.analysis.derived import momentum_of
from sgdscope.analysis.edges import listed
from sgdscope.analysis.exclusions import learning
from sgdscope.records import WorkloadRecord
from sgdscope.stats.intervals import BOOTSTRAP_SEED, Estimate, bootstrap_t_interval, bootstrapped
from sgdscope.stats.laws import KNEES_PER_OCTAVE, fit_hinge, fit_line

FEWEST_BATCH_SIZES = 4
# A regime with fewer batch sizes than this is not identified.
FEWEST_IN_REGIME = 3
# A study lies in one regime where the slope over all of it is in the first zone, and what the other rates lie above the
# smallest batch size's, in octaves, in the second: by the slope alone an octave of growth at that end would be missed.
LEVEL_SLOPE, LEVEL_OCTAVES = (-0.25, 0.25), (-1.0, 1.0)
# What a row of :func:`regimes` says of the transition.
IDENTIFIED, NOT_IDENTIFIED, TOO_FEW = "identified", "not identified", "too few batch sizes"
NOWHERE, THROUGHOUT, AT_EDGE = "grows nowhere", "grows throughout", "at the edge of the rates tried"
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
    "left_out": pl.String,
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
    def censored(self) -> dict[float, tuple[str, ...]]:
        """At which sizes the optimum lies at an edge of the rates tried, and at which ends."""
        return {size: c.censored for size, c in zip(self.sizes, self.curves, strict=True) if c.censored}

    @property
    def inside(self) -> Cells:
        """The sizes whose optimum lies inside the rates tried: verdicts rest on these alone."""
        return self.of([size for size, c in zip(self.sizes, self.curves, strict=True) if not c.censored])

    @property
    def bounded(self) -> Cells:
        """The sizes at which more than one rate was tried: a single rate bounds the optimum from neither side."""
        return self.of([size for size, c in zip(self.sizes, self.curves, strict=True) if len(c.rates) > 1])

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

    ``status`` is one of

    - ``identified``: that interval lies inside the batch sizes of the study, and the slope's interval above 0.
    - ``grows nowhere``: the 90 % interval of the slope over all batch sizes lies within ±0.25, and the 95 % interval of
      what the other rates lie above the smallest batch size's within ±1 octave. The study is curvature-dominated
      throughout; the transition is at most ``bend_high``, the smallest batch size.
    - ``grows throughout``: the fitted transition is the largest batch size, its interval lies above the second largest,
      the slope's above 0, and so does the 90 % interval of the growth between these two. The study is noise-dominated
      throughout; the transition is at least ``bend_low``, the largest batch size.
    - ``at the edge of the rates tried``: at fewer than 4 batch sizes does the optimum lie inside the rates tried.
    - ``too few batch sizes``: the study has fewer than 4.
    - ``not identified``: none of these.

    Batch sizes whose optimum may lie beyond the rates tried are ``left_out``: they are bounds in the fit, and what the
    status says is of the others.

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
    inside = found.inside
    row: dict[str, Any] = {"batch_sizes": len(found.sizes), "n": found.n, "status": TOO_FEW}
    row["left_out"] = listed(f"{size:g}" for size in found.censored)
    if len(found.sizes) < FEWEST_BATCH_SIZES or found.n == 0:
        return row
    if len(inside.sizes) < FEWEST_BATCH_SIZES:
        return row | {"status": AT_EDGE}
    fitted, x = found.bounded, inside.x
    estimate = fit_hinge(fitted.x, fitted.vertices, fitted.bounds)
    drawn = fit_hinge(fitted.x, *fitted.drawn_vertices())
    knee, slope = float(estimate.knee[0]), float(estimate.slope[0])
    knee_low, knee_high = knee_interval(knee, drawn.knee, found.n)
    slope_low, slope_high = bootstrap_t_interval(slope, drawn.slope, found.n)
    growing = found.n > 1 and slope_low > 0
    if _level(fitted, inside):
        line = slope_of(fitted)
        level = 2.0 ** float(inside.vertices.mean())
        slopes = {"slope": line.value, "slope_low": line.low95, "slope_high": line.high95}
        return row | {"status": NOWHERE, "bend_high": 2.0 ** x[0], "level": level} | slopes
    fit = {"slope": slope, "slope_low": slope_low, "slope_high": slope_high, "level": 2.0 ** float(estimate.level[0])}
    if growing and knee >= x[-1] and knee_low >= x[-2] and _rise(inside, slice(-2, -1), slice(-1, None)).low90 > 0:
        # The line at the largest batch size at which it is known.
        level = float(estimate.level[0]) - slope * (knee - x[-1])
        return row | fit | {"status": THROUGHOUT, "bend_low": 2.0 ** x[-1], "level": 2.0**level}
    identified = growing and knee_low >= x[0] and knee_high < x[-1]
    return (
        row
        | fit
        | {
            "status": IDENTIFIED if identified else NOT_IDENTIFIED,
            "bend": 2.0**knee,
            "bend_low": 2.0 ** max(knee_low, -FARTHEST),
            "bend_high": 2.0 ** min(knee_high, FARTHEST),
        }
    )


def slope_of(found: Cells) -> Estimate:
    """Return the slope of log₂ ε* against log₂ B over some batch sizes, at least two.

    ε* is the vertex of a parabola within an octave of the winner. Seeds are drawn jointly over all batch sizes and
    everything is fitted anew; the intervals are estimate ± t(n−1)·SE·√(n/(n−1)).
    """
    estimate = float(fit_line(found.x, found.vertices, found.bounds)[0])
    drawn = fit_line(found.x, *found.drawn_vertices())
    return bootstrapped(estimate, drawn, found.n)


def _level(fitted: Cells, inside: Cells) -> bool:
    """Return whether ε* is shown to grow nowhere, with bounds where it lies at an edge of the rates tried."""
    if fitted.n < 2 or slope_of(fitted).verdict(*LEVEL_SLOPE) != "supported":
        return False
    rise = _rise(inside, slice(0, 1), slice(1, None))
    return LEVEL_OCTAVES[0] <= rise.low95 and rise.high95 <= LEVEL_OCTAVES[1]


def _rise(found: Cells, before: slice, after: slice) -> Estimate:
    """Return by how many octaves the mean rate of some batch sizes lies above that of others."""
    value, draws = (
        of[:, after].mean(axis=1) - of[:, before].mean(axis=1) for of in (found.vertices, found.drawn_vertices()[0])
    )
    return bootstrapped(float(value[0]), draws, found.n)


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
    """Return both limits of B_ε from a row of :func:`regimes`; None where the rate is not shown to grow below it.

    Where the rate grows nowhere no batch size is below the lower limit, 0, and all of the study are above the upper;
    where it grows throughout all are below the lower limit and none is above the upper, ∞.
    """
    if row["status"] == NOWHERE:
        return 0.0, math.nextafter(row["bend_high"], 0.0)
    if row["status"] == THROUGHOUT:
        return math.nextafter(row["bend_low"], math.inf), math.inf
    growing = row.get("slope_low") is not None and row["slope_low"] > 0
    return (row["bend_low"], row["bend_high"]) if growing else (None, None)


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
