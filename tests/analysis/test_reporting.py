"""Scores are reported on seeds that did not choose their rate, where there are ten or more."""

import numpy as np
import polars as pl
import pytest

from sgdscope.analysis.optima import optima
from sgdscope.analysis.rate_choice import chosen_scores
from sgdscope.analysis.reporting import reporting_trials
from sgdscope.testing.simulated import RECORD

RATES = (0.1, 0.2, 0.4, 0.8)


def cell(counts, first=0, **changes):
    """A cell whose rates have so many seeds, with scores that tell rate and seed."""
    rows = [
        {"workload": "simulated", "budget": "epochs:30", "optimizer": "sgd", "batch_size": 16, "status": "complete"}
        | {"learning_rate": rate, "effective_learning_rate": rate, "seed": first + seed, "steps": 1920}
        | {"train_loss": 0.1, "validation_score": 0.9 - abs(np.log2(rate / 0.2)) / 100, "test_score": 0.5 + seed / 1000}
        for rate, count in zip(RATES, counts, strict=True)
        for seed in range(count)
    ]
    return pl.DataFrame(rows).with_columns(**changes)


@pytest.mark.parametrize("first", [0, 1000])
def test_the_seeds_of_the_best_rate_alone_report(first):
    found = reporting_trials(cell((10, 30, 10, 5), first))
    assert set(found["learning_rate"]) == {0.2}
    assert found["seed"].sort().to_list() == list(range(first + 10, first + 30))
    chosen = chosen_scores(cell((10, 30, 10, 5), first), RECORD)
    assert chosen.scores.tolist() == [0.5 + seed / 1000 for seed in range(10, 30)]
    assert chosen.seeds.tolist() == list(range(first + 10, first + 30))
    (row,) = optima(cell((10, 30, 10, 5), first), {"simulated": RECORD}).filter(criterion="score").rows(named=True)
    assert row["learning_rate"] == 0.2
    assert row["n"] == 20
    assert row["test_score"] == pytest.approx(0.5 + 19.5 / 1000)


@pytest.mark.parametrize(
    "counts", [(10, 19, 10, 5), (15, 15, 15, 15), (5, 30, 30, 5), (1, 30, 0, 0)], ids=["nine", "all", "two", "one seed"]
)
def test_without_ten_seeds_of_one_rate_all_report(counts):
    trials = cell(counts)
    found = reporting_trials(trials)
    assert found is None or counts == (1, 30, 0, 0)


def test_where_each_rate_has_seeds_of_its_own_none_report():
    trials = cell((12, 12, 12, 12))
    apart = trials.with_columns(seed=pl.col("seed") + (100 * pl.col("learning_rate")).cast(int) * 100)
    assert reporting_trials(apart) is None


def test_a_rate_that_diverges_too_often_reports_nothing():
    late = pl.when((pl.col("seed") >= 20) & (pl.col("learning_rate") == 0.2)).then(pl.lit("diverged"))
    assert reporting_trials(cell((10, 30, 10, 5), status=late.otherwise("status"))) is None


def test_what_failed_is_none_of_a_rates_seeds():
    failed = pl.when((pl.col("seed") == 12) & (pl.col("learning_rate") == 0.2)).then(pl.lit("failed"))
    found = reporting_trials(cell((10, 30, 10, 5), status=failed.otherwise("status")))
    assert found["seed"].sort().to_list() == [seed for seed in range(10, 30) if seed != 12]
