"""The optimal learning rate of a cell: which rate is best, how sure that is, and what it gives."""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from sgdscope.analysis.curve import ROUNDED_OCTAVES, Curve, curve, log_losses
from sgdscope.analysis.derived import cell_warmed_up, l2_of, momentum_of, temperature
from sgdscope.analysis.reporting import reporting_trials
from sgdscope.analysis.trial_table import OPTIMIZER_SCHEMA, SCORES, Records, cells, measured_criteria
from sgdscope.records import WorkloadRecord
from sgdscope.stats.intervals import named, t_interval
from sgdscope.store import ended

# An interval wider than this many octaves says that the curve is flat, not where its optimum is.
FLAT_OCTAVES = 3.0
# An interval over seeds that differ wildly may reach beyond what a float can hold.
LARGEST_EXPONENT = 709.0

OPTIMA_SCHEMA: dict[str, type[pl.DataType]] = {
    **OPTIMIZER_SCHEMA,
    "batch_size": pl.Int64,
    "criterion": pl.String,
    "coefficient": pl.Float64,
    "coefficient_contenders": pl.String,
    "learning_rate": pl.Float64,
    "learning_rate_low": pl.Float64,
    "learning_rate_high": pl.Float64,
    "effective_learning_rate": pl.Float64,
    "temperature": pl.Float64,
    "learning_rate_times_l2": pl.Float64,
    "warmed_up": pl.Boolean,
    "median_learning_rate": pl.Float64,
    "censored": pl.String,
    "flat": pl.Boolean,
    "rates": pl.Int64,
    "trials": pl.Int64,
    "cell_diverged": pl.Int64,
    "n": pl.Int64,
    "diverged": pl.Int64,
    "test_score": pl.Float64,
    "test_score_low": pl.Float64,
    "test_score_high": pl.Float64,
    "validation_score": pl.Float64,
    "validation_score_low": pl.Float64,
    "validation_score_high": pl.Float64,
    "train_loss": pl.Float64,
    "train_loss_low": pl.Float64,
    "train_loss_high": pl.Float64,
    "without_score": pl.Int64,
    "above_constant": pl.Int64,
}


def learning_rate_curves(trials: pl.DataFrame, records: Records) -> pl.DataFrame:
    """Return one row for each cell and learning rate: n, diverged, and means with 95 % t intervals over seeds.

    ``test_score`` and ``validation_score`` are means with diverged trials as the constant predictor;
    ``train_loss`` is the geometric mean, the exponential of the mean logarithm, and null where no trial has one.
    ``temperature`` is ε(N/B − 1)/(N(1 − m)), ``learning_rate_times_l2`` is ε·λ where the workload has an L2 penalty,
    and ``warmed_up`` says whether momentum had 20/(1 − m) updates. ``without_score`` counts complete trials whose score
    is missing, which are in no mean of scores; ``above_constant`` counts trials that diverged or end with a training
    loss above the constant predictor's.

    Args:
        trials: a table of trials.
        records: what their workloads are, by name.
    """
    rows = []
    for key, cell in cells(ended(trials)):
        record, warm = records[key["workload"]], cell_warmed_up(cell)
        momentum, examples, l2 = momentum_of(key["optimizer"]), record.examples[0], l2_of(record)
        by_rate = cell.sort("learning_rate", "seed").group_by(
            "learning_rate", "effective_learning_rate", maintain_order=True
        )
        for (rate, effective), group in by_rate:
            known = momentum is not None and examples > 0
            heat = temperature(rate, momentum or 0.0, key["batch_size"], examples) if known else None
            rows.append(
                key
                | {"learning_rate": rate, "effective_learning_rate": effective, "temperature": heat}
                | {"learning_rate_times_l2": None if l2 is None else rate * l2, "warmed_up": warm}
                | {"n": len(group), "diverged": int((group["status"] == "diverged").sum())}
                | _score("test_score", group, record.constant_score)
                | _score("validation_score", group, record.constant_score)
                | _training_loss(group, record)
                | {"without_score": without_score(group).height, "above_constant": above_constant(group, record)}
            )
    return pl.DataFrame(rows, schema_overrides={"learning_rate_times_l2": pl.Float64}, infer_schema_length=None)


def optima(trials: pl.DataFrame, records: Records) -> pl.DataFrame:
    """Return the optimal learning rate of each cell by each criterion, two rows a cell.

    The winning rate has the best mean over seeds. Its interval is the hull of the :attr:`~Curve.contenders`, the rates
    that no other leads beyond chance, widened on each side by half the local step of the grid. Where the hull reaches
    the lowest or the highest rate tried, the optimum is ``censored`` there. ``flat`` is an interval of more than 3
    octaves.

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
            best = int(found.best()[0]) if reports is None else _place(found, reports)
            if best < 0:
                continue
            median = int(found.best(statistic=np.median)[0])
            low, high, censored = optimum_interval(found)
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
                }
                | {name: value for name, value in values.items() if name not in key and "learning_rate" not in name}
            )
    return pl.DataFrame(rows, schema=OPTIMA_SCHEMA)


def _place(found: Curve, reports: pl.DataFrame) -> int:
    """Return the index of the rate that trials report; −1 where the curve lacks it."""
    places = np.flatnonzero(found.rates == reports["learning_rate"][0])
    return int(places[0]) if places.size else -1


def optimum_interval(found: Curve) -> tuple[float, float, list[str]]:
    """Return the 95 % interval of log₂ ε* of a curve, and at which ends, low or high, it reaches the rates tried.

    With one seed it is infinitely wide.
    """
    octaves, n = found.octaves, len(found.seeds)
    low, high = np.flatnonzero(found.contenders)[[0, -1]]
    censored = list(found.censored)
    if n == 1:
        return -math.inf, math.inf, censored
    steps = np.diff(octaves) if len(octaves) > 1 else np.array([math.inf])
    widened = octaves[low] - steps[max(low - 1, 0)] / 2, octaves[high] + steps[min(high, len(steps) - 1)] / 2
    return float(widened[0]), float(widened[1]), censored


def without_score(trials: pl.DataFrame) -> pl.DataFrame:
    """Return the complete trials that lack a score, since the workload's ``score`` was not finite."""
    missing = pl.any_horizontal(pl.col(name).is_null() for name in sorted(SCORES & set(trials.columns)))
    return trials.filter(missing & (pl.col("status") == "complete"))


def _coefficient(cell: pl.DataFrame) -> dict[str, object]:
    """Return the value of a searched coefficient that was chosen for a cell, and its contenders."""
    names = ("coefficient", "coefficient_contenders")
    return {name: cell[name][0] if name in cell.columns else None for name in names}


def above_constant(trials: pl.DataFrame, record: WorkloadRecord) -> int:
    """Return how many trials diverged, or end with a training loss above the constant predictor's."""
    above = (pl.col("status") == "diverged") | (pl.col("train_loss") > record.constant_loss).fill_null(value=False)
    return trials.filter(above).height


def _outcomes(name: str, group: pl.DataFrame, constant: float) -> np.ndarray:
    """Return what complete trials measured, and of diverged ones the constant baseline's; without what is missing."""
    gone = (group["status"] == "diverged").to_numpy()
    measured = group[name].to_numpy()
    values: np.ndarray = np.where(gone & np.isnan(measured), constant, measured)[gone | ~np.isnan(measured)]
    return values


def _score(name: str, group: pl.DataFrame, constant: float) -> dict[str, float | None]:
    values = _outcomes(name, group, constant)
    return (
        dict(named(name, t_interval(values))) if values.size else dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    )


def _training_loss(group: pl.DataFrame, record: WorkloadRecord) -> dict[str, float | None]:
    losses = _outcomes("train_loss", group, record.constant_loss)
    if not losses.size or np.isnan(losses).any():
        return dict.fromkeys(("train_loss", "train_loss_low", "train_loss_high"))
    return dict(named("train_loss", geometric_interval(losses, record)))


def geometric_interval(losses: np.ndarray, record: WorkloadRecord) -> tuple[float, float, float]:
    """Return the geometric mean of training losses with its 95 % t interval; see :func:`log_losses`."""
    mean, low, high = t_interval(log_losses(losses, record))
    return math.exp(mean), math.exp(low), math.exp(high) if high < LARGEST_EXPONENT else math.inf
