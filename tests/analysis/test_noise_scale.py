"""The table of the gradient noise scale against a naive recomputation, and how often its interval holds."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from sgdscope.analysis.noise_scale import (
    NOISE_SCALE_SCHEMA,
    SQUARE_NORM,
    TRACE,
    identified,
    jackknife_ratio,
    noise_scale,
)
from sgdscope.analysis.tables import TABLES, Tables
from sgdscope.report.figures.noise_scale import noise_scale_sentences
from sgdscope.report.text.summary import sentences
from sgdscope.store import MEASUREMENTS_SCHEMA
from sgdscope.testing import simulated
from sgdscope.training.noise_scale import NOISE_METRICS

POSITIVE = st.floats(0.01, 100.0)
PAIRS = st.lists(st.tuples(POSITIVE, POSITIVE), min_size=2, max_size=9)


def measured(trials, value, steps):
    """Rows of measurements: ``value(row, step)`` gives |G|² and tr Σ of a trial at a step, or None."""
    rows = [
        {"trial_id": row["trial_id"], "step": step, "examples": 0, "split": "train", "metric": metric, "value": number}
        for row in trials.iter_rows(named=True)
        for step in steps
        if (pair := value(row, step)) is not None
        for metric, number in [("loss", 1.0), *zip((SQUARE_NORM, TRACE), pair, strict=True)]
    ]
    return pl.DataFrame(rows, schema=MEASUREMENTS_SCHEMA)


def test_the_metrics_are_those_that_training_records():
    assert (SQUARE_NORM, TRACE) == NOISE_METRICS


# ── The table ────────────────────────────────────────────────────────────────────────────────────────────


def test_it_is_what_a_plain_loop_gives(trial_row):
    rng = np.random.default_rng(0)
    rows = [
        trial_row(batch_size=size, learning_rate=rate, seed=seed, steps=80 // size, status="complete")
        for size in (4, 8)
        for rate in (0.5, 1.0)
        for seed in range(5)
    ]
    rows[0] |= {"status": "diverged", "steps": 7}  # it has what came before
    trials = pl.DataFrame(rows, infer_schema_length=None)
    numbers = {(row["trial_id"], step): rng.lognormal(0, 0.3, 2) for row in rows for step in (0, 5, 10)}
    gone = lambda row, step: row["status"] == "diverged" and step > 5
    table = noise_scale(
        trials, measured(trials, lambda r, s: None if gone(r, s) else numbers[r["trial_id"], s], (0, 5, 10))
    )
    assert table.schema == NOISE_SCALE_SCHEMA
    assert len(table) == 2 * 2 * 3
    for row in table.iter_rows(named=True):
        mine = [r for r in rows if all(r[name] == row[name] for name in ("batch_size", "learning_rate"))]
        pairs = np.array([numbers[r["trial_id"], row["step"]] for r in mine if not gone(r, row["step"])])
        n = len(pairs)
        assert row["n"] == n == (4 if (row["batch_size"], row["learning_rate"], row["step"]) == (4, 0.5, 10) else 5)
        assert row["fraction"] == row["step"] / (80 // row["batch_size"])
        for column, metric in enumerate((SQUARE_NORM, TRACE)):
            interval = stats.ttest_1samp(pairs[:, column], 0.0).confidence_interval(0.95)
            assert row[metric] == pytest.approx(pairs[:, column].mean())
            assert (row[f"{metric}_low"], row[f"{metric}_high"]) == pytest.approx((interval.low, interval.high))
        assert row["identified"]
        assert row["noise_scale"] == pytest.approx(pairs[:, 1].mean() / pairs[:, 0].mean())
        others = [np.delete(pairs, left, axis=0).mean(axis=0) for left in range(n)]
        ends = []
        for there, back in ((float, float), (math.log, math.exp), (lambda r: 1 / r, lambda r: 1 / r)):
            values = [there(trace / square) for square, trace in others]
            error = math.sqrt((n - 1) / n * sum((value - sum(values) / n) ** 2 for value in values))
            half = stats.t.ppf(0.975, n - 1) * error
            ends += [back(there(row["noise_scale"]) + side * half) for side in (-1, 1)]
        assert (row["noise_scale_low"], row["noise_scale_high"]) == pytest.approx((min(ends), max(ends)))


@pytest.mark.parametrize(
    "pairs",
    [
        [(-1.0, 5.0), (-2.0, 5.0), (-1.5, 5.0)],  # the mean of |G|² is negative
        [(1.0, 5.0), (-2.0, 5.0), (1.5, 5.0)],  # it may be 0
        [(0.0, 5.0)] * 3,
        [(1.0, 5.0)],  # one seed tells no spread
        [(1.0, 0.0)] * 3,  # there is no noise
        [],
    ],
)
def test_what_is_not_identified_has_no_number(trial_row, pairs):
    trials = pl.DataFrame(
        [trial_row(batch_size=4, learning_rate=1.0, seed=seed, steps=10) for seed in range(3)], infer_schema_length=None
    )
    table = noise_scale(trials, measured(trials, lambda row, _: dict(enumerate(pairs)).get(row["seed"]), (5,)))
    assert table.schema == NOISE_SCALE_SCHEMA
    assert table["n"].to_list() == [len(pairs)] * bool(pairs)
    assert not table["identified"].any()
    assert table.select("noise_scale", "noise_scale_low", "noise_scale_high").null_count().row(0) == (len(table),) * 3


# ── The interval ─────────────────────────────────────────────────────────────────────────────────────────


@given(PAIRS, POSITIVE, st.randoms(use_true_random=False))
def test_order_and_units_change_nothing(pairs, factor, random):
    above, below = np.array(pairs).T
    found = np.array(jackknife_ratio(above, below))
    assert found[1] <= found[0] <= found[2]
    random.shuffle(pairs)
    np.testing.assert_allclose(jackknife_ratio(*np.array(pairs).T), found, rtol=1e-6)
    np.testing.assert_allclose(jackknife_ratio(factor * above, below), factor * found, rtol=1e-6)
    with np.errstate(divide="ignore"):  # an interval that reaches 0 reaches infinity the other way round
        np.testing.assert_allclose(jackknife_ratio(below, above), 1 / found[[0, 2, 1]], rtol=1e-6)


@given(PAIRS, st.integers(0, 8), st.floats(0.1, 10.0))
def test_more_of_a_gradient_in_every_seed_is_identified_the_sooner(pairs, which, factor):
    traces, squares = np.array(pairs).T
    squares[which % len(squares)] *= -0.01
    assume(identified(traces, squares))
    assert identified(factor * traces, factor * squares)
    assert squares.mean() > 0


@pytest.mark.parametrize(
    ("n", "spread", "error", "share", "least", "most"),
    [
        (5, 0.3, 0.0, 1.0, 0.93, 0.98),
        (15, 0.3, 0.0, 1.0, 0.93, 0.98),
        (5, 1.2, 0.05, 0.95, 0.93, 0.98),
        (15, 1.2, 0.05, 0.99, 0.93, 0.98),
        (5, 0.1, 1.0, 0.42, 0.93, 0.98),
        (15, 0.1, 1.0, 0.91, 0.93, 0.99),
    ],
)
def test_coverage(n, spread, error, share, least, most):
    """|G|² is log-normal over seeds, tr Σ likewise and with it, and |G|² is measured with an error."""
    rng, studies = np.random.default_rng(n), 4000
    sigmas = np.sqrt(np.log1p(np.array([spread, 0.25 * spread]) ** 2))
    z = rng.normal(size=(studies, n, 2))
    z[..., 1] = 0.7 * z[..., 0] + math.sqrt(1 - 0.7**2) * z[..., 1]
    squares, traces = np.moveaxis(np.exp(sigmas * z - sigmas**2 / 2), 2, 0)
    squares = squares + error * rng.normal(size=squares.shape)
    told = [pair for pair in zip(traces, squares, strict=True) if identified(*pair)]
    assert len(told) / studies >= share
    holds = np.mean([low <= 1.0 <= high for _, low, high in (jackknife_ratio(*pair) for pair in told)])
    assert least <= holds <= most


@pytest.mark.parametrize("directions", [1, 4, 1000])
@pytest.mark.parametrize("n", [5, 15])
def test_without_a_gradient_it_is_seldom_identified(n, directions):
    """|ḡ|² − tr Σ/B is then a χ² of as many degrees as the noise has directions, less its mean."""
    estimates = np.random.default_rng(n).chisquare(directions, (4000, n)) - directions
    assert np.mean([identified(np.ones(n), each) for each in estimates]) <= 0.045


# ── Among the tables, and in words ───────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def study():
    rng = np.random.default_rng(0)
    truth = simulated.Truth(spread=0.001, grid=0.5)
    trials = simulated.trial_table({name: simulated.simulate(rng, 5, truth) for name in ("momentum:0.9", "sgd")})
    ids = pl.Series([str(number) for number in range(len(trials))])
    return trials.with_columns(trial_id=ids, steps=pl.lit(100, pl.Int64))


def tables(trials, value, steps=(0, 50, 100)):
    return Tables(trials, {"simulated": simulated.RECORD}, measurements=measured(trials, value, steps))


@pytest.mark.usefixtures("quick")
def test_it_is_among_the_tables_where_it_was_measured(study):
    with_it = tables(study, lambda row, step: (1.0 + 0.1 * row["seed"], 20.0))
    assert set(with_it.all()) == {*TABLES, "noise_scale"}
    assert with_it.parts[0].noise_scale.equals(with_it.noise_scale)
    assert set(Tables(study, {"simulated": simulated.RECORD}).all()) == set(TABLES)


@pytest.mark.usefixtures("quick")
def test_one_sentence_says_it_beside_the_bend_and_as_no_verdict(study):
    """The planted bend is at 2^6.3 = 79, so SGD's batch size 64 is the nearest."""

    def value(row, step):
        if (row["optimizer"], row["batch_size"]) != ("sgd", 64):
            return 1.0, 1e9
        seeds = 1 + 0.01 * row["seed"]
        return {0: (2.0 * seeds, 20.0 * seeds), 50: (row["seed"] - 2.0, 20.0), 100: (0.1 * seeds, 20.0 * seeds)}[step]

    part = tables(study, value).parts[0]
    (said,) = noise_scale_sentences(part)
    assert said.startswith("sgd at batch size 64: the gradient noise scale tr Σ/|G|² is 10 [10, 10] at the start, not")
    assert "not identified at 50 % of the budget, 200 [200, 200] at the end (95 %, 5 seeds). The transition" in said
    assert said.endswith("This is context, not a verdict.")
    assert said in sentences(part)
    assert noise_scale_sentences(Tables(study, {"simulated": simulated.RECORD})) == []
