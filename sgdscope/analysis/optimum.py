"""The optimal learning rate of a cell: which rate is best, how sure that is, and what it gives."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import polars as pl

from sgdscope.analysis.statistics import resampled_seeds, t_interval
from sgdscope.errors import InputError
from sgdscope.store import ended
from sgdscope.workloads.base import WorkloadRecord

CELL = ("workload", "budget", "optimizer", "batch_size")
Criterion = Literal["score", "train_loss"]
CRITERIA: tuple[Criterion, ...] = ("score", "train_loss")
# What each criterion chooses by.
COLUMN: dict[Criterion, str] = {"score": "validation_score", "train_loss": "train_loss"}

# A rate at which more than this share of trials diverges is not eligible as the optimum.
MOST_DIVERGED = 0.2
# An interval wider than this many octaves says that the curve is flat, not where its optimum is.
FLAT_OCTAVES = 3.0
# Below the smallest float32 a training loss is 0, whose logarithm would rule every mean.
SMALLEST_LOSS = 1e-38
# An interval over seeds that differ wildly may reach beyond what a float can hold.
LARGEST_EXPONENT = 709.0

OPTIMA_SCHEMA: dict[str, type[pl.DataType]] = {
    "workload": pl.String,
    "budget": pl.String,
    "optimizer": pl.String,
    "batch_size": pl.Int64,
    "criterion": pl.String,
    "learning_rate": pl.Float64,
    "learning_rate_low": pl.Float64,
    "learning_rate_high": pl.Float64,
    "effective_learning_rate": pl.Float64,
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
}


@dataclass(frozen=True)
class Curve:
    """How good each learning rate of a cell is, by one criterion.

    ``goodness`` has shape (rates, seeds) and larger is better: the validation score with its sign turned where
    a smaller one is better, or minus the logarithm of the training loss. A diverged trial counts as the
    constant predictor.
    """

    rates: np.ndarray
    seeds: np.ndarray
    goodness: np.ndarray
    diverged: np.ndarray
    constant: float = -math.inf  # the constant predictor's goodness, where it is known

    @property
    def eligible(self) -> np.ndarray:
        """Whether at most 20 % of a rate's trials diverged, shape (rates,)."""
        eligible: np.ndarray = self.diverged.mean(axis=1) <= MOST_DIVERGED
        return eligible

    def best(self, seeds: np.ndarray | None = None, statistic: Any = np.mean) -> np.ndarray:
        """Return the index of the best eligible rate; with draws of seeds, shape (draws, n), one for each draw.

        Of tied rates it is the middle one; −1 where no rate is eligible.
        """
        if not self.eligible.any():
            return np.full(1 if seeds is None else len(seeds), -1)
        goodness = self.goodness[:, None, :] if seeds is None else self.goodness[:, seeds]
        value = np.round(statistic(goodness, axis=2), 12)
        value[~self.eligible] = -np.inf
        tied = value == value.max(axis=0)
        middle = (tied.sum(axis=0) + 1) // 2
        index: np.ndarray = (np.cumsum(tied, axis=0) >= middle).argmax(axis=0)
        return index


def curve(cell: pl.DataFrame, record: WorkloadRecord, criterion: Criterion) -> Curve:
    """Return the curve of one cell from its complete and diverged trials.

    Only seeds that every rate has are used, so that rates are compared on the same seeds.
    """
    cell = ended(cell)
    rates = cell["learning_rate"].unique().sort()
    per_seed = cell.group_by("seed").len().filter(pl.col("len") == len(rates))
    seeds = per_seed["seed"].sort()
    rows = cell.filter(pl.col("seed").is_in(seeds.to_list())).sort("learning_rate", "seed")
    shape = (len(rates), len(seeds))
    return Curve(
        rates.to_numpy(),
        seeds.to_numpy(),
        goodness(rows[COLUMN[criterion]].to_numpy(), record, criterion).reshape(shape),
        (rows["status"] == "diverged").to_numpy().reshape(shape),
        constant_goodness(record, criterion),
    )


def constant_goodness(record: WorkloadRecord, criterion: Criterion) -> float:
    """Return how good the constant predictor is."""
    return float(goodness(np.array([np.nan]), record, criterion)[0])


def on_common_seeds(curves: Sequence[Curve]) -> list[Curve]:
    """Return the curves on the seeds that all of them have, so that drawing seeds is the same in each."""
    if not curves:
        return []
    common = functools.reduce(np.intersect1d, [c.seeds for c in curves])
    kept = [np.isin(c.seeds, common) for c in curves]
    return [
        replace(c, seeds=common, goodness=c.goodness[:, k], diverged=c.diverged[:, k])
        for c, k in zip(curves, kept, strict=True)
    ]


def goodness(values: np.ndarray, record: WorkloadRecord, criterion: Criterion) -> np.ndarray:
    """Return how good a column's values are, larger being better; NaN stands for a diverged trial's."""
    if criterion == "score":
        return np.where(np.isnan(values), record.constant_score, values) * record.score_sign
    losses = np.where(np.isnan(values), record.constant_loss, values)
    if (losses < 0).any():
        raise InputError(
            f"workload {record.name!r}: a training loss of {losses.min():.3g} has no logarithm to compare it by; "
            f"add a constant to the loss so that it cannot be negative."
        )
    return -np.log(np.maximum(losses, SMALLEST_LOSS))


def cells(trials: pl.DataFrame) -> Iterator[tuple[dict[str, Any], pl.DataFrame]]:
    """Yield each cell's key and trials, in the order of the keys."""
    for key, cell in trials.sort(CELL).group_by(CELL, maintain_order=True):
        yield dict(zip(CELL, key, strict=True)), cell


def learning_rate_curves(trials: pl.DataFrame, record: WorkloadRecord) -> pl.DataFrame:
    """Return one row for each cell and learning rate: n, diverged, and means with 95 % t intervals over seeds.

    ``test_score`` and ``validation_score`` are means with diverged trials as the constant predictor;
    ``train_loss`` is the geometric mean, the exponential of the mean logarithm.
    """
    rows = []
    for key, cell in cells(ended(trials)):
        by_rate = cell.sort("learning_rate", "seed").group_by(
            "learning_rate", "effective_learning_rate", maintain_order=True
        )
        for (rate, effective), group in by_rate:
            loss = group["train_loss"].fill_null(record.constant_loss).to_numpy()
            rows.append(
                key
                | {"learning_rate": rate, "effective_learning_rate": effective, "n": len(group)}
                | {"diverged": int((group["status"] == "diverged").sum())}
                | _interval("test_score", group["test_score"].fill_null(record.constant_score).to_numpy())
                | _interval("validation_score", group["validation_score"].fill_null(record.constant_score).to_numpy())
                | _interval("train_loss", np.log(np.maximum(loss, SMALLEST_LOSS)), exponential=True)
            )
    return pl.DataFrame(rows, infer_schema_length=None)


def optima(trials: pl.DataFrame, record: WorkloadRecord) -> pl.DataFrame:
    """Return the optimal learning rate of each cell by each criterion, two rows a cell.

    The winning rate has the best mean over seeds. Its interval is the hull of the central 95 % of the rates
    that win when seeds are drawn with replacement, widened on each side by half the local step of the grid: the
    plain percentile interval on a grid of factors of 2 covers too little. Where the hull reaches the lowest or
    the highest rate tried, the optimum is ``censored`` there. ``flat`` is an interval of more than 3 octaves.

    The score criterion chooses on the validation split; ``test_score`` is then reported at the chosen rate,
    which keeps the choice from flattering it.
    """
    curves = learning_rate_curves(trials, record)
    rows = []
    for key, cell in cells(trials):
        for criterion in CRITERIA:
            found = curve(cell, record, criterion)
            if found.seeds.size == 0:
                continue
            best = int(found.best()[0])
            if best < 0:
                continue
            median = int(found.best(statistic=np.median)[0])
            log2_rates = np.log2(found.rates)
            drawn = np.sort(found.best(resampled_seeds(len(found.seeds))))
            inside = len(drawn) // 40
            low, high = int(drawn[inside]), int(drawn[-1 - inside])
            steps = np.diff(log2_rates) if len(log2_rates) > 1 else np.array([math.inf])
            log2_low = log2_rates[low] - steps[max(low - 1, 0)] / 2
            log2_high = log2_rates[high] + steps[min(high, len(steps) - 1)] / 2
            if len(found.seeds) == 1:  # one seed drawn again and again would seem certain
                log2_low, log2_high = -math.inf, math.inf
            censored = [name for name, end in (("low", low == 0), ("high", high == len(log2_rates) - 1)) if end]
            rate = float(found.rates[best])
            values = curves.filter(
                pl.all_horizontal(pl.col(name) == value for name, value in key.items())
                & (pl.col("learning_rate") == rate)
            ).row(0, named=True)
            rows.append(
                key
                | {
                    "criterion": criterion,
                    "learning_rate": rate,
                    "learning_rate_low": 2.0**log2_low,
                    "learning_rate_high": 2.0**log2_high,
                    "effective_learning_rate": values["effective_learning_rate"],
                    "median_learning_rate": float(found.rates[median]),
                    "censored": "+".join(censored),
                    "flat": bool(log2_high - log2_low > FLAT_OCTAVES),
                    "rates": len(found.rates),
                    "trials": len(cell),
                    "cell_diverged": int((cell["status"] == "diverged").sum()),
                }
                | {name: value for name, value in values.items() if name not in key and "learning_rate" not in name}
            )
    return pl.DataFrame(rows, schema=OPTIMA_SCHEMA)


def _interval(name: str, values: np.ndarray, exponential: bool = False) -> dict[str, float]:
    bounds = t_interval(values)
    if exponential:
        mean, low, high = bounds
        bounds = math.exp(mean), math.exp(low), math.exp(high) if high < LARGEST_EXPONENT else math.inf
    return dict(zip((name, f"{name}_low", f"{name}_high"), bounds, strict=True))
