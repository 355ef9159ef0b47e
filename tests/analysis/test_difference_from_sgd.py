"""Scores of optimizers minus SGD's by batch size: one table, which the claims, the advice and the figure tell of."""

import numpy as np
import polars as pl
import pytest
from scipy import stats

from sgdscope.advice.advice import Advice
from sgdscope.analysis.tables import Tables
from sgdscope.claims.batch_sizes import cases
from sgdscope.report.figures import difference_from_sgd
from sgdscope.testing.simulated import RECORD, Truth, simulate, trial_table

MARGIN, SIZES, N = 0.01, (4, 16, 64, 256, 1024), 8


def falling(x):
    """What SGD lacks from batch size 64 on: 0.02 an octave."""
    return 0.02 * max(0.0, x - 6)


@pytest.fixture(scope="module")
def tables():
    rng = np.random.default_rng(0)
    sgd = simulate(rng, N, Truth(lost=falling, spread=0.004), SIZES)
    momentum = simulate(rng, N, Truth(spread=0.004), SIZES)
    return Tables(trial_table({"sgd": sgd, "momentum:0.9": momentum}), {RECORD.name: RECORD}, MARGIN)


def test_the_planted_differences_are_found_by_a_paired_t_of_the_chosen_rates(tables):
    rows = tables.difference_from_sgd
    assert rows["batch_size"].to_list() == list(SIZES)
    assert dict(rows.select("batch_size", "verdict").iter_rows())[1024] == "better"
    assert rows["paired"].all()
    for row in rows.iter_rows(named=True):
        scores = []
        for optimizer in ("momentum:0.9", "sgd"):
            cell = tables.trials.filter(optimizer=optimizer, batch_size=row["batch_size"])
            best = tables.optima.filter(criterion="score", optimizer=optimizer, batch_size=row["batch_size"])
            scores.append(cell.filter(learning_rate=best["learning_rate"].item()).sort("seed")["test_score"].to_numpy())
        found = stats.ttest_rel(*scores)
        interval = found.confidence_interval(0.95)
        assert row["difference"] == pytest.approx(np.mean(scores[0] - scores[1]))
        assert (row["difference_low"], row["difference_high"]) == pytest.approx((interval.low, interval.high))
        assert row["n"] == N


def test_the_advice_and_the_claims_rest_on_the_same_differences(tables):
    rows = tables.difference_from_sgd
    equal = Advice(tables).leads.filter(over="equal batch sizes")
    shared = [name for name in rows.columns if name in equal.columns]
    assert {"verdict", "decides_low", "decides_high", "level"} <= set(shared)
    assert equal.select(shared).equals(rows.select(shared))
    (case,) = (case for case in cases(tables) if case.has_momentum)
    means = dict(rows.filter(pl.col("verdict") != "at the edge").select("batch_size", "difference").iter_rows())
    assert {size: np.nanmean(lead) for size, lead in case.leads.items()} == pytest.approx(means)
    first = rows.filter(verdict="better")["batch_size"][0]
    limits = tables.score_limits.filter(quantity="B_mom", warmed_up=False)
    assert limits["high"].item() == first


def test_the_figure_draws_the_intervals_that_decide_in_points(tables):
    figure = difference_from_sgd.figure(tables)
    drawn = max(figure.chart.to_dict()["datasets"].values(), key=len)
    wanted = tables.difference_from_sgd
    assert [row["decides_low"] for row in drawn] == pytest.approx((100 * wanted["decides_low"]).to_list())
    # At 256 and above the runs are too short for momentum's steady state.
    assert "better at 256 and larger, where runs are too short for momentum's steady state" in figure.sentence
    assert "Holm" in figure.sentence
    assert difference_from_sgd.figure(Tables(tables.trials.filter(optimizer="sgd"), tables.records, MARGIN)) is None


def test_samples_that_share_no_seed_are_compared_by_welchs_test(tables):
    moved = tables.trials.with_columns(seed=pl.col("seed") + 100 * (pl.col("optimizer") == "sgd").cast(pl.Int64))
    rows = Tables(moved, tables.records, MARGIN).difference_from_sgd
    assert not rows["paired"].any()
    assert rows["difference"].to_list() == pytest.approx(tables.difference_from_sgd["difference"].to_list())
