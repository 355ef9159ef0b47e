"""The transition batch size: where the optimal learning rate stops growing with the batch size."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from sgdscope.analysis.edges import listed
from sgdscope.analysis.exclusions import learning
from sgdscope.analysis.sweep import Cells, cells_of
from sgdscope.analysis.trial_table import CRITERION, LEFT_OUT, OPTIMIZER_COLUMNS, SEEDS, Records, measured_criteria
from sgdscope.frames import Column, Columns, schema, with_interval
from sgdscope.stats.intervals import Estimate, bootstrap_t_interval, bootstrapped
from sgdscope.stats.laws import PLACES_PER_OCTAVE, fit_hinge, fit_line

FEWEST_BATCH_SIZES = 4


# A study lies in one regime where the slope over all of it is in the first zone, and what the other rates lie above the
# smallest batch size's, in octaves, in the second: by the slope alone an octave of growth at that end would be missed.
LEVEL_SLOPE, LEVEL_OCTAVES = (-0.25, 0.25), (-1.0, 1.0)


# What a row of :func:`regimes` says of the transition.
IDENTIFIED, NOT_IDENTIFIED, TOO_FEW = "identified", "not identified", "too few batch sizes"


NOWHERE, THROUGHOUT, AT_EDGE = "grows nowhere", "grows throughout", "at the edge of the rates tried"


# Intervals of batch sizes are given as far as this, log₂.
FARTHEST = 60.0


TRANSITIONS_COLUMNS: Columns = {
    **OPTIMIZER_COLUMNS,
    "criterion": CRITERION,
    "batch_sizes": Column(pl.Int64, "Number of batch sizes that were fitted.", "batch sizes"),
    "n": SEEDS,
    "status": Column(
        pl.String,
        "`identified`, `not identified`, `grows nowhere`, `grows throughout`, `too few batch sizes` or `at the edge of "
        "the rates tried`.",
    ),
    **with_interval(
        "transition", "Transition batch size B_ε: the optimal learning rate stops growing there.", "examples"
    ),
    **with_interval("slope", "Slope of log ε* against log B below the transition; 1 is linear scaling."),
    "level": Column(pl.Float64, "Optimal learning rate ε* above the transition."),
    "left_out": LEFT_OUT,
}
TRANSITIONS_SCHEMA = schema(TRANSITIONS_COLUMNS)


def transitions(trials: pl.DataFrame, records: Records) -> pl.DataFrame:
    """Return B_ε, from which on log ε* no longer grows with log B, for each optimizer, budget and criterion.

    The hinge is fitted to log₂ ε* of all batch sizes, each by :meth:`~sgdscope.analysis.curve.Curve.vertex`; a best
    rate at the edge of the rates tried is a bound. Seeds are drawn jointly over all batch sizes and
    everything is fitted anew for each draw; the interval is estimate ± √((t(n−1)·SE)²·n/(n−1) + lean²) in log₂ B, with
    the most that :meth:`~sgdscope.analysis.sweep.Cells.leaning` curves move the estimate as the lean, widened by half a
    step of the grid of transitions.

    Cells that have hardly learned are left out, by :func:`learning`.

    ``status`` is one of

    - ``identified``: that interval lies inside the batch sizes of the study, and the slope's interval above 0.
    - ``grows nowhere``: the 90 % interval of the slope over all batch sizes lies within ±0.25, and the 95 % interval of
      what the other rates lie above the smallest batch size's within ±1 octave. The study is curvature-dominated
      throughout; the transition is at most ``transition_high``, the smallest batch size.
    - ``grows throughout``: the fitted transition is the largest batch size, its interval lies above the second largest,
      the slope's above 0, and so does the 90 % interval of the growth between these two. The study is noise-dominated
      throughout; the transition is at least ``transition_low``, the largest batch size.
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
        of.key | {"criterion": criterion} | transition_of(cells_of(of.learned, records[of.key["workload"]], criterion))
        for of in learning(trials, records)
        for criterion in measured_criteria(trials)
    ]
    return pl.DataFrame(rows, schema=TRANSITIONS_SCHEMA)


def transition_of(found: Cells) -> dict[str, Any]:
    """Return the row of :func:`transitions` for one optimizer's cells, but for their key."""
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
    place, slope = float(estimate.transition[0]), float(estimate.slope[0])
    y = fitted.leaning()
    leaning = fit_hinge(fitted.x, y, np.repeat(fitted.bounds, len(y), axis=0))
    place_low, place_high = place_interval(place, drawn.transition, found.n, most_away(leaning.transition, place))
    slope_low, slope_high = bootstrap_t_interval(slope, drawn.slope, found.n, lean=most_away(leaning.slope, slope))
    growing = found.n > 1 and slope_low > 0
    if _level(fitted, inside):
        line = slope_of(fitted)
        level = 2.0 ** float(inside.vertices.mean())
        slopes = {"slope": line.value, "slope_low": line.low95, "slope_high": line.high95}
        return row | {"status": NOWHERE, "transition_high": 2.0 ** x[0], "level": level} | slopes
    fit = {"slope": slope, "slope_low": slope_low, "slope_high": slope_high, "level": 2.0 ** float(estimate.level[0])}
    if growing and place >= x[-1] and place_low >= x[-2] and _rise(inside, slice(-2, -1), slice(-1, None)).low90 > 0:
        # The line at the largest batch size at which it is known.
        level = float(estimate.level[0]) - slope * (place - x[-1])
        return row | fit | {"status": THROUGHOUT, "transition_low": 2.0 ** x[-1], "level": 2.0**level}
    identified = growing and place_low >= x[0] and place_high < x[-1]
    return (
        row
        | fit
        | {
            "status": IDENTIFIED if identified else NOT_IDENTIFIED,
            "transition": 2.0**place,
            "transition_low": 2.0 ** max(place_low, -FARTHEST),
            "transition_high": 2.0 ** min(place_high, FARTHEST),
        }
    )


def slope_of(found: Cells) -> Estimate:
    """Return the slope of log₂ ε* against log₂ B over some batch sizes, at least two.

    ε* is that of :meth:`~sgdscope.analysis.curve.Curve.vertex`. Seeds are drawn jointly over all batch sizes and
    everything is fitted anew; the intervals are estimate ± (t(n−1)·SE·√(n/(n−1)) + lean), with the lean of
    :func:`lean_of_slope`.
    """
    estimate = float(fit_line(found.x, found.vertices, found.bounds)[0])
    drawn = fit_line(found.x, *found.drawn_vertices())
    return bootstrapped(estimate, drawn, found.n, lean_of_slope(found))


def lean_of_slope(found: Cells) -> float:
    """Return by how much a slope may be wrong since curves lean: see :meth:`~.sweep.Cells.leaning`."""
    leaning = found.leaning()
    slope = float(fit_line(found.x, found.vertices, found.bounds)[0])
    return most_away(fit_line(found.x, leaning, np.repeat(found.bounds, len(leaning), axis=0)), slope)


def most_away(values: np.ndarray, value: float) -> float:
    """Return the largest distance of values from one; 0 without any."""
    return float(np.abs(values - value).max(initial=0.0))


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


def place_interval(place: float, drawn: np.ndarray, n: int, lean: float = 0.0) -> tuple[float, float]:
    """Return the 95 % interval of a fitted transition, in octaves, widened by what its grid rounds."""
    low, high = bootstrap_t_interval(place, drawn, n, lean=lean)
    return low - 0.5 / PLACES_PER_OCTAVE, high + 0.5 / PLACES_PER_OCTAVE
