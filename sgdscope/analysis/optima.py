"""The optimal learning rate of a cell: which rate is best, how sure that is, and what it gives."""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from sgdscope.analysis.collapse import collapsed_of
from sgdscope.analysis.curve import Curve, curve
from sgdscope.analysis.curves import OUTCOME_COLUMNS, RATE_COLUMNS, learning_rate_curves
from sgdscope.analysis.reporting import reporting_trials
from sgdscope.analysis.trial_table import CELL_COLUMNS, COEFFICIENT, CRITERION, Records, cells, measured_criteria
from sgdscope.analysis.vertex import ROUNDED_OCTAVES
from sgdscope.frames import Column, Columns, schema, with_interval
from sgdscope.store import ended

# An interval wider than this many octaves says that the curve is flat, not where its optimum is.
FLAT_OCTAVES = 3.0

OPTIMA_COLUMNS: Columns = {
    **CELL_COLUMNS,
    "criterion": CRITERION,
    "coefficient": COEFFICIENT,
    "coefficient_contenders": Column(
        pl.String, "Values of the searched coefficient that no other value beats significantly, separated by |."
    ),
    **with_interval("learning_rate", "Optimal learning rate ε*: the rate with the best mean over seeds."),
    **{
        name: RATE_COLUMNS[name]
        for name in ("effective_learning_rate", "temperature", "learning_rate_times_l2", "warmed_up")
    },
    "median_learning_rate": Column(pl.Float64, "The rate with the best median over seeds instead of the best mean."),
    "censored": Column(
        pl.String, "Edges of the rates tried that the interval of ε* reaches: `low`, `high`, `low+high` or empty."
    ),
    "flat": Column(pl.Boolean, "Whether the interval of ε* is wider than 3 octaves (a factor of 8)."),
    "rates": Column(pl.Int64, "Number of learning rates compared in the cell.", "rates"),
    "trials": Column(pl.Int64, "Number of trials in the cell.", "trials"),
    "cell_diverged": Column(pl.Int64, "Trials of the cell that diverged, at any learning rate.", "trials"),
    "cell_collapsed": Column(
        pl.Int64, "Trials of the cell that collapsed, at any learning rate: see `collapsed` in `curves`.", "trials"
    ),
    **OUTCOME_COLUMNS,
}
OPTIMA_SCHEMA = schema(OPTIMA_COLUMNS)


def optima(trials: pl.DataFrame, records: Records) -> pl.DataFrame:
    """Return the optimal learning rate of each cell by each criterion, two rows a cell.

    The optimal learning rate has the best mean over seeds. Its interval is :func:`optimum_interval`. Where one of the
    :attr:`~Curve.contenders`, the rates that no other leads beyond chance, is the lowest or the highest rate tried, the
    optimum is ``censored`` there. ``flat`` is an interval of more than 3 octaves.

    The score criterion chooses on the validation split; ``test_score`` is then reported at the chosen rate,
    which keeps the choice from flattering it. Where the best rate has at least 10 seeds that did not choose it, these
    report (:func:`~sgdscope.analysis.reporting.reporting_trials`), and ``n`` is their number.

    Args:
        trials: a table of trials.
        records: what their workloads are, by name.
    """
    curves = learning_rate_curves(trials, records)
    rows = []
    for key, cell in cells(trials):
        for criterion in measured_criteria(cell):
            found = curve(cell, records[key["workload"]], criterion)
            if found.seeds.size == 0:
                continue
            reports = reporting_trials(cell) if criterion == "score" else None
            if reports is not None and reports["learning_rate"][0] not in found.rates:
                reports = None
            best = int(found.best()[0])
            if reports is not None:
                best = int(np.flatnonzero(found.rates == reports["learning_rate"][0])[0])
            if best < 0:
                continue
            median = int(found.best(statistic=np.median)[0])
            low, high, censored = optimum_interval(found)
            low, high = min(low, found.octaves[best]), max(high, found.octaves[best])
            rate = float(found.rates[best])
            of_rate = curves if reports is None else learning_rate_curves(reports, records)
            values = of_rate.filter(
                pl.all_horizontal(pl.col(name) == value for name, value in key.items())
                & (pl.col("learning_rate") == rate)
            ).row(0, named=True)
            rows.append(
                key
                | {
                    "criterion": criterion,
                    **_coefficient(cell),
                    "learning_rate": rate,
                    "learning_rate_low": 2.0**low,
                    "learning_rate_high": 2.0**high,
                    "effective_learning_rate": values["effective_learning_rate"],
                    "learning_rate_times_l2": values["learning_rate_times_l2"],
                    "median_learning_rate": float(found.rates[median]),
                    "censored": "+".join(censored),
                    "flat": bool(high - low > FLAT_OCTAVES + ROUNDED_OCTAVES),
                    "rates": len(found.rates),
                    "trials": len(cell),
                    "cell_diverged": int((cell["status"] == "diverged").sum()),
                    "cell_collapsed": int(collapsed_of(ended(cell), records[key["workload"]]).sum()),
                }
                | {name: value for name, value in values.items() if name not in key and "learning_rate" not in name}
            )
    return pl.DataFrame(rows, schema=OPTIMA_SCHEMA)


def optimum_interval(found: Curve) -> tuple[float, float, list[str]]:
    """Return the 95 % interval of log₂ ε* of a curve, and at which ends, low or high, it reaches the rates tried.

    It is the hull of the :attr:`~sgdscope.analysis.curve.Curve.contenders`, the rates that no other leads beyond
    chance, widened on each side by half the local step of the grid. With one seed it is infinitely wide.
    """
    octaves, censored = found.octaves, list(found.censored)
    if found.n < 2:
        return -math.inf, math.inf, censored
    low, high = np.flatnonzero(found.contenders)[[0, -1]]
    steps = np.diff(octaves) if len(octaves) > 1 else np.array([math.inf])
    widened = octaves[low] - steps[max(low - 1, 0)] / 2, octaves[high] + steps[min(high, len(steps) - 1)] / 2
    return float(widened[0]), float(widened[1]), censored


def _coefficient(cell: pl.DataFrame) -> dict[str, object]:
    """Return the value of a searched coefficient that was chosen for a cell, and its contenders."""
    names = ("coefficient", "coefficient_contenders")
    return {name: cell[name][0] if name in cell.columns else None for name in names}
