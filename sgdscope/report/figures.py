"""Which figures the trials are enough for, each with what to see in it, in the order of the talk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from sgdscope.analysis.tables import Tables
from sgdscope.analysis.trial_table import CELL
from sgdscope.report import seen
from sgdscope.report.charts import Charts, best_score_by_epochs, optimal_rates_by_epochs
from sgdscope.report.text.summary import how_chosen

# Of fewer points along training no curve is drawn.
FEWEST_MOMENTS = 3


# What an arrow at a best score or loss says.
BETTER = "Arrow: the best rate lies at the edge of the rates tried, and rates beyond it may be better."


@dataclass(frozen=True)
class Figure:
    """A chart with its words.

    Args:
        kind: its name among the figures of a workload and budget.
        title: what is drawn against what.
        seen: what to see in it, from the data.
        caption: how to read it.
        table: which table has its numbers.
        chart: an Altair chart.
    """

    kind: str
    title: str
    seen: str
    caption: str
    table: str
    chart: Any


def figures_of(part: Tables) -> list[Figure]:
    """Return the figures of one workload and budget."""
    return [*_against_batch_size(part), *_against_learning_rate(part), *_along_training(part), *_temperature(part)]


def figures_against_epochs(tables: Tables, workload: str) -> list[Figure]:
    """Return the figures of what more epochs give a workload; none unless a batch size was given several budgets."""
    optima = given_several_epochs(tables.optima.filter(workload=workload))
    if optima.is_empty():
        return []
    record = tables.records[workload]
    rates = Figure(
        "rates-by-epochs",
        "Optimal learning rates against epochs",
        seen.rates_by_epochs(optima),
        "The rate that is best for the score, and the one that is best for the training loss, with their 95 % "
        "intervals; momentum at its effective rate. Arrow: at the edge of the rates tried.",
        "optima",
        optimal_rates_by_epochs(optima),
    )
    if not has_scores(optima):
        return [rates]
    return [
        Figure(
            "score-by-epochs",
            f"Best test {record.score_name} against epochs",
            seen.score_by_epochs(optima, record.score_name),
            f"At each budget, the learning rate that is {how_chosen(record)}. {_points(optima)} {BETTER}",
            "optima",
            best_score_by_epochs(optima, record.score_name, record.score_sign),
        ),
        rates,
    ]


def given_several_epochs(optima: pl.DataFrame) -> pl.DataFrame:
    """Return the optima of the batch sizes that were given several epoch budgets."""
    place = ("workload", "optimizer", "batch_size")
    epochs = optima.filter(pl.col("budget").str.starts_with("epochs:"))
    return epochs.filter(pl.col("budget").n_unique().over(place) > 1)


def has_scores(optima: pl.DataFrame) -> bool:
    """Return whether a learning rate is best for the score: not where no trial has a score."""
    return "score" in optima["criterion"]


def _against_batch_size(part: Tables) -> Iterator[Figure]:
    if part.trials["batch_size"].n_unique() < 2:
        return
    if has_scores(part.optima):
        yield from _scores_against_batch_size(part)
    if "train_loss" in part.optima["criterion"]:
        yield Figure(
            "training-loss",
            "Best training loss against batch size",
            seen.training_loss(part),
            f"The whole training split after the last update, at the rate that is best for it. {_points(part.curves)} "
            f"{BETTER}",
            "optima",
            Charts(part).training_loss(),
        )


def _scores_against_batch_size(part: Tables) -> Iterator[Figure]:
    charts, record, n = Charts(part), part.record, seen.seeds(part.curves)
    yield Figure(
        "best-score",
        f"Best test {record.score_name} against batch size",
        seen.best_score(part),
        f"At each batch size, the learning rate that is {how_chosen(record)}. {_points(part.curves)} A broad line is "
        f"the plateau, as far as the score is shown to hold; a thin one goes on to where it is shown to be lost. "
        f"{BETTER}",
        "optima",
        charts.best_score(),
    )
    yield Figure(
        "optimal-learning-rate",
        "Optimal learning rate against batch size",
        seen.optimal_learning_rate(part),
        f"The rate that is best for the {record.chosen_on} {record.score_name}; momentum at its effective rate. Bars "
        f"and bands: 95 % intervals over n = {n} seeds. Lines: fitted hinge, free slope and then 0. Dotted: in "
        f"proportion to the batch size. Arrow: the interval reaches the edge of the rates tried, and the best rate "
        f"may lie beyond.",
        "transitions",
        charts.optimal_learning_rate(),
    )
    yield Figure(
        "two-regimes",
        "The two regimes",
        seen.two_regimes(part),
        f"The same rates up to the full batch of {record.examples[0]:,} examples. Noise-dominated: below the lower "
        f"95 % limit of where SGD's rate bends. Curvature-dominated: above the upper limit of where the optimizer's "
        f"own does. What lies between, or has no limit that is known, is in neither. Arrow: the interval reaches "
        f"the edge of the rates tried.",
        "regimes",
        charts.two_regimes(),
    )


def _against_learning_rate(part: Tables) -> Iterator[Figure]:
    charts, record = Charts(part), part.record
    how = f"One line for each batch size. {_points(part.curves)} A diverged trial counts as the constant predictor"
    if has_scores(part.optima):
        yield Figure(
            "score-by-learning-rate",
            f"Test {record.score_name} against learning rate",
            seen.best_rate(part, "score"),
            f"{how}; what lies far from the best is cut off.",
            "curves",
            charts.score_by_learning_rate(),
        )
    if part.curves["train_loss"].drop_nans().drop_nulls().len():
        yield Figure(
            "loss-by-learning-rate",
            "Training loss against learning rate",
            seen.best_rate(part, "train_loss"),
            f"{how}.",
            "curves",
            charts.loss_by_learning_rate(),
        )


def _along_training(part: Tables) -> Iterator[Figure]:
    charts, record = Charts(part), part.record
    moments = part.training_curves.group_by("metric", *CELL).len()
    measured = set(moments.filter(pl.col("len") >= FEWEST_MOMENTS)["metric"])
    how = f"At each batch size's best learning rate. Lines are means over n = {seen.seeds(part.curves)} seeds, bands "
    if "minibatch_loss" in measured:
        yield Figure(
            "loss-along-training",
            "Loss along training",
            seen.along_training(part, "minibatch_loss"),
            f"{how}their 95 % t intervals, of logarithms.",
            "training_curves",
            charts.loss_along_training(),
        )
    if "test_score" in measured:
        yield Figure(
            "score-along-training",
            f"Test {record.score_name} along training",
            seen.along_training(part, "test_score"),
            f"{how}their 95 % t intervals.",
            "training_curves",
            charts.score_along_training(),
        )
    if part.noise_scale_at_best["identified"].any():
        yield Figure(
            "noise-scale",
            "Gradient noise scale along training",
            seen.noise_scale(part),
            "A batch of so many examples has as much noise as gradient. At each batch size's best learning rate, with "
            "95 % jackknife intervals; where the gradient is not told from 0 there is no point. Dashed, where it is "
            "identified: the batch size at which the learning rate bends.",
            "noise_scale",
            charts.noise_scale_along_training(),
        )


def _temperature(part: Tables) -> Iterator[Figure]:
    if not (part.curves["temperature"] > 0).any() or not has_scores(part.optima):
        return
    charts, record = Charts(part), part.record
    noisy = "Augmentation, dropout and ghost batches are not counted; the full batch has no temperature."
    if part.trials["batch_size"].n_unique() > 1:
        yield Figure(
            "optimal-temperature",
            "Optimal temperature against batch size",
            seen.optimal_temperature(part),
            f"The temperature at the best learning rate: level where the rate grows in proportion to the batch size. "
            f"Bars: 95 % intervals. Arrow: the best rate lies at the edge of the rates tried. {noisy}",
            "optima",
            charts.optimal_temperature(),
        )
    yield Figure(
        "score-by-temperature",
        f"Test {record.score_name} against temperature",
        seen.score_by_temperature(part),
        f"The lines of batch sizes fall together as far as the noise decides. {_points(part.curves)} {noisy}",
        "curves",
        charts.score_by_temperature(),
    )


def _points(table: pl.DataFrame) -> str:
    return f"Points are means over n = {seen.seeds(table)} seeds, bars their 95 % t intervals."
