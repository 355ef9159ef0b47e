"""Choosing a rate and reporting its score: naive recomputation, and whom which way flatters."""

import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

from sgdscope.analysis.curve import Curve, curve
from sgdscope.analysis.rate_choice import (
    chosen_scores,
    left_one_out,
    left_one_out_interval,
    scores_by_batch_size,
    spread_left_one_out,
)
from sgdscope.records import WorkloadRecord
from sgdscope.testing.simulated import Truth, simulate

VALIDATED = WorkloadRecord("w", "1", (), "0" * 64, (1024, 256, 500), "accuracy", "maximize", 2.3, 0.1)
ON_TEST = WorkloadRecord("w", "1", (), "0" * 64, (1024, 0, 500), "accuracy", "maximize", 2.3, 0.1, chosen_on="test")
PERPLEXITY = WorkloadRecord("w", "1", (), "0" * 64, (1024, 256, 500), "perplexity", "minimize", 6.0, 400.0)


def cell(test, validation=None, size=32):
    """Rates 1, 2, 4, …; ``test[rate][seed]``, None for a trial that diverged."""
    validation = test if validation is None else validation
    rows = [
        ("w", "epochs:1", "sgd", size, 2.0**k, seed, "complete" if score is not None else "diverged", score, v, 1.0)
        for k, (scores, of_validation) in enumerate(zip(test, validation, strict=True))
        for seed, (score, v) in enumerate(zip(scores, of_validation, strict=True))
    ]
    names = ("workload", "budget", "optimizer", "batch_size", "learning_rate", "seed", "status")
    values = ("test_score", "validation_score", "train_loss")
    schema = dict.fromkeys(names + values, pl.Float64) | {"batch_size": pl.Int64, "seed": pl.Int64}
    schema |= dict.fromkeys(("workload", "budget", "optimizer", "status"), pl.String)
    return pl.DataFrame(rows, schema=schema, orient="row")


def random_scores(seed, rates=5, n=6, spread=0.05):
    return np.random.default_rng(seed).normal(0.8, spread, (rates, n)).tolist()


def naive_left_one_out(scores, sign=1):
    """Each seed at the rate whose mean over all others is best."""
    n, values = len(scores[0]), []
    for left in range(n):
        means = [sum(row[s] for s in range(n) if s != left) / (n - 1) for row in scores]
        values.append(scores[max(range(len(scores)), key=lambda k: sign * means[k])][left])
    return values


# ── Naive recomputation ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [2, 6])
def test_each_seed_is_scored_at_the_rate_that_the_others_choose(seed, n):
    scores = random_scores(seed, n=n)
    left = left_one_out(curve(cell(scores), ON_TEST, "score"))
    np.testing.assert_allclose(left, naive_left_one_out(scores))
    found = chosen_scores(cell(scores), ON_TEST)
    assert found.seeds.tolist() == list(range(n))
    # The same, but further apart: t over them is the interval.
    away, of_left = found.scores - found.scores.mean(), left - left.mean()
    np.testing.assert_allclose(away * of_left[0], of_left * away[0], atol=1e-12)
    interval = stats.ttest_1samp(found.scores, 0).confidence_interval(0.95)
    expected = left_one_out_interval(curve(cell(scores), ON_TEST, "score"))
    np.testing.assert_allclose([found.scores.mean(), *interval], expected)


@pytest.mark.parametrize("seed", range(5))
def test_the_validation_split_chooses_and_the_test_split_reports(seed):
    test, validation = random_scores(seed), random_scores(seed + 100)
    found = chosen_scores(cell(test, validation), VALIDATED)
    best = max(range(5), key=lambda k: sum(validation[k]))
    np.testing.assert_allclose(found.scores, test[best])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("record", "sign"), [(VALIDATED, 1), (PERPLEXITY, -1)])
def test_the_interval_with_one_left_out_is_as_much_wider_as_the_seeds_that_choose_flatter(seed, record, sign):
    test = random_scores(seed)
    left, talk = naive_left_one_out(test, sign), max(sign * np.mean(row) for row in test)
    t = stats.ttest_1samp(left, 0).confidence_interval(0.95)
    half, mean = math.hypot((t.high - t.low) / 2, 2 * (talk - sign * np.mean(left))), sign * np.mean(left)
    found = left_one_out_interval(curve(cell(test), record, "score", "test_score"))
    np.testing.assert_allclose(found, [mean, mean - half, mean + half])


def test_one_seed_is_scored_at_its_best_rate_with_no_certainty():
    found = chosen_scores(cell([[0.5], [0.9], [0.6]]), ON_TEST)
    assert found.scores.tolist() == [0.9]
    one = curve(cell([[0.5], [0.9], [0.6]]), ON_TEST, "score")
    assert left_one_out_interval(one) == (0.9, -math.inf, math.inf)


def test_a_diverged_trial_counts_as_the_constant_predictor():
    """One of five may diverge: its rate still has the better mean, and its seed the constant's score."""
    scores = [[0.3] * 5, [0.9, 0.9, 0.9, 0.9, None]]
    assert chosen_scores(cell(scores), ON_TEST).scores.tolist() == pytest.approx([0.9] * 4 + [0.1])
    worse = [[300.0] * 5, [100.0, 100.0, 100.0, 100.0, None]]
    assert chosen_scores(cell(worse), PERPLEXITY).scores.tolist() == [-100.0] * 4 + [-400.0]


def test_a_rate_that_is_not_eligible_is_chosen_by_no_seed():
    scores = [[0.3] * 5, [0.9, 0.9, 0.9, None, None]]
    assert chosen_scores(cell(scores), ON_TEST).scores.tolist() == [0.3] * 5
    assert chosen_scores(cell([[None] * 3, [None] * 3]), VALIDATED) is None


def test_batch_sizes_have_one_axis_of_seeds_and_each_its_own_scores():
    members = {16: cell(random_scores(0)), 64: cell(random_scores(1)).filter(pl.col("seed") != 2), 128: cell([[None]])}
    found = scores_by_batch_size(members, VALIDATED)
    assert list(found) == [16, 64]
    for chosen in found.values():
        assert chosen.seeds.tolist() == list(range(6))
    np.testing.assert_array_equal(found[16].scores, chosen_scores(members[16], VALIDATED).scores)
    assert np.flatnonzero(np.isnan(found[64].scores)).tolist() == [2]
    assert [chosen.n for chosen in found.values()] == [6, 5]


# ── Whom it flatters ─────────────────────────────────────────────────────────────────────────────────────────


def ways(n, count, shape="symmetric"):
    """Of simulated cells: what each way reports less the true mean of the rates that it chose, and the interval."""
    found = []
    for seed in range(count):
        truth = Truth(shape=shape)
        for size, of in simulate(np.random.default_rng([seed, n]), n, truth, (16, 64)).items():
            scores = of.curve("test_score")
            means = truth.mean_score(size, np.log2(of.rates))
            others = np.array([[s for s in range(n) if s != left] for left in range(n)])
            planted = means[scores.best(others)].mean()
            mean, low, high = left_one_out_interval(scores)
            talk = scores.goodness[scores.best()[0]].mean() - means[scores.best()[0]]
            found.append((mean - planted, talk, low <= planted <= high))
    return np.array(found, float).T


@pytest.mark.parametrize(("n", "flattery"), [(5, 0.16), (10, 0.10), (15, 0.08)])
def test_leaving_one_out_is_unbiased_where_the_talks_way_flatters(n, flattery):
    """By how much depends on the curve: the protocol's points lie between those of a flat and of a parabolic one."""
    error = lambda values: values.std() / math.sqrt(len(values))
    flat, parabolic = (100 * ways(n, 300, shape) for shape in ("flat", "symmetric"))
    for left, talk, _ in (flat, parabolic):
        assert abs(left.mean()) < 4 * error(left)
        assert talk.mean() > 4 * error(talk)
    assert parabolic[1].mean() < flattery < flat[1].mean()


@pytest.mark.parametrize(("n", "shape"), [(5, "symmetric"), (10, "asymmetric"), (5, "flat")])
def test_the_interval_with_one_left_out_covers(n, shape):
    assert ways(n, 150, shape)[2].mean() >= 0.93


@pytest.mark.parametrize("shape", ["symmetric", "flat"])
def test_scores_that_lie_the_margin_apart_are_not_called_nearer(shape):
    """One-sided tests over what the other seeds chose; without the spread a tenth and more of them are wrong."""
    n = 15
    better, worse = Truth(shape=shape), Truth(shape=shape, lost=lambda x: 0.012)
    wrong = []
    for seed in range(200):
        rng = np.random.default_rng([seed, n])
        pair = [simulate(rng, n, truth, (8, 16)) for truth in (better, worse)]
        for size in (8, 16):
            first, second = (study[size].curve("test_score") for study in pair)
            wrong.append(
                [
                    stats.ttest_1samp(of(first) - of(second), 0.012, alternative="less").pvalue < 0.05
                    for of in (spread_left_one_out, left_one_out)
                ]
            )
    spread, plain = np.mean(wrong, axis=0)
    assert spread <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / len(wrong))
    assert spread < plain


def test_left_one_out_of_a_certain_curve_is_its_best_rate():
    goodness = np.array([[0.1] * 4, [0.9] * 4, [0.5] * 4])
    found = Curve(2.0 ** np.arange(3), np.arange(4), goodness, np.zeros((3, 4), bool))
    assert left_one_out(found).tolist() == [0.9] * 4
    assert left_one_out_interval(found) == pytest.approx((0.9, 0.9, 0.9))
    assert curve(cell(goodness.tolist()), ON_TEST, "score").best()[0] == 1
