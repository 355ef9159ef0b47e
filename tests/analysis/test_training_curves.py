"""Curves along training, against means computed one by one."""

import math

import numpy as np
import polars as pl
import pytest

from sgdscope.analysis.optima import optima
from sgdscope.analysis.training_curves import training_curves
from sgdscope.stats.intervals import t_interval
from sgdscope.testing.simulated import RECORD

RECORDS = {"w": RECORD}
SEEDS = 5


@pytest.fixture
def trials(trial_row):
    """Two rates of one cell, the larger the better, and of its trials the last diverged."""
    rows = []
    for rate in (0.1, 0.2):
        for seed in range(SEEDS):
            diverged = rate == 0.2 and seed == SEEDS - 1
            rows.append(
                trial_row(
                    batch_size=64, learning_rate=rate, effective_learning_rate=rate, seed=seed, steps=16,
                    status="diverged" if diverged else "complete", train_loss=None if diverged else 0.1 / rate,
                    validation_score=None if diverged else 4 * rate, test_score=None if diverged else 4 * rate,
                )
            )  # fmt: skip
    return pl.DataFrame(rows, infer_schema_length=None)


def measurements(trials):
    rows = []
    for trial in trials.iter_rows(named=True):
        for step in (4, 8, 16):
            if trial["status"] == "diverged" and step > 4:
                continue
            loss = (1 + trial["seed"]) / step
            for split, metric, value in (
                ("train", "minibatch_loss", loss),
                ("train", "loss", 99.0),
                ("test", "score", 0.5 + trial["seed"] / 100),
                ("validation", "score", 0.1),
            ):
                row = {"trial_id": trial["trial_id"], "step": step, "examples": 64 * step}
                rows.append(row | {"split": split, "metric": metric, "value": value})
    return pl.DataFrame(rows)


def test_curves_are_means_at_the_best_rate_with_diverged_trials_as_the_constant_predictor(trials):
    found = training_curves(trials, measurements(trials), optima(trials, RECORDS), RECORDS)
    assert found["learning_rate"].unique().to_list() == [0.2]
    assert set(found["metric"]) == {"minibatch_loss", "test_score"}
    assert found["n"].to_list() == [SEEDS] * 6
    assert found["diverged"].to_list() == [1] * 6
    at = {(row["metric"], row["step"]): row for row in found.iter_rows(named=True)}
    losses = np.log([(1 + seed) / 8 for seed in range(SEEDS - 1)] + [RECORD.constant_loss])
    row = at["minibatch_loss", 8]
    assert [row["value"], row["value_low"], row["value_high"]] == pytest.approx(np.exp(t_interval(losses)))
    scores = np.array([0.5 + seed / 100 for seed in range(SEEDS - 1)] + [RECORD.constant_score])
    row = at["test_score", 16]
    assert [row["value"], row["value_low"], row["value_high"]] == pytest.approx(t_interval(scores))
    assert math.exp(np.log([(1 + seed) / 4 for seed in range(SEEDS)]).mean()) == pytest.approx(
        at["minibatch_loss", 4]["value"]
    )


@pytest.mark.parametrize(("budget", "epochs"), [("epochs:1", 1.0), ("steps:16", None)])
def test_epochs_are_counted_where_the_budget_is_of_them(trials, budget, epochs):
    of_budget = trials.with_columns(budget=pl.lit(budget))
    found = training_curves(of_budget, measurements(trials), optima(of_budget, RECORDS), RECORDS)
    assert found.filter(step=16)["epochs"].to_list() == [epochs] * 2


def test_one_seed_has_no_interval_and_no_measurement_no_curve(trials):
    one = trials.filter(seed=0)
    found = training_curves(one, measurements(one), optima(one, RECORDS), RECORDS)
    assert not found["value_high"].is_finite().any()
    assert training_curves(one, measurements(one).clear(), optima(one, RECORDS), RECORDS).is_empty()
