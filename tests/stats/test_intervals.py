"""Small-sample intervals against scipy, and against how often they hold what was planted."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from sgdscope.stats.intervals import (
    RESAMPLES,
    bootstrap_t_interval,
    interval_with_failures,
    resampled_seeds,
    share_interval,
    t_interval,
    t_quantile,
)

TEST_EXAMPLES, ACCURACY = 517, 0.97


def digits_like(rng, n):
    """Scores of n seeds on one test set: grainy, as accuracies are, and spread a little more than by chance."""
    accuracy = np.clip(rng.normal(ACCURACY, 0.003, n), 0, 1)
    return rng.binomial(TEST_EXAMPLES, accuracy) / TEST_EXAMPLES


# ── The t interval ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("n", [2, 3, 5, 10, 15, 100])
@pytest.mark.parametrize(("centre", "spread"), [(0.0, 1.0), (0.97, 0.006), (-7.0, 0.1), (1e6, 1e-2)])
def test_t_interval_is_that_of_scipy(n, centre, spread):
    values = np.random.default_rng(n).normal(centre, spread, n)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    mean, low, high = t_interval(values)
    np.testing.assert_allclose(mean, math.fsum(values) / n, rtol=1e-12, atol=1e-15)
    # What subtracting numbers of this size leaves exact.
    rounding = 1e-13 * max(1.0, abs(centre))
    np.testing.assert_allclose([low, high], [expected.low, expected.high], rtol=1e-9, atol=rounding)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("n", [2, 5, 30])
def test_t_quantile_leaves_half_of_the_rest_on_each_side(n, level):
    assert stats.t.sf(t_quantile(n, level), df=n - 1) == pytest.approx((1 - level) / 2, rel=1e-9)


def test_t_quantile_is_that_of_the_tables():
    assert [round(t_quantile(n), 3) for n in (2, 3, 5, 10, 15)] == [12.706, 4.303, 2.776, 2.262, 2.145]
    assert t_quantile(1) == math.inf


def test_t_interval_of_equal_values_is_the_value():
    assert t_interval(np.full(5, 0.25)) == (0.25, 0.25, 0.25)


def test_one_value_has_an_infinite_interval():
    assert t_interval(np.array([0.5])) == (0.5, -math.inf, math.inf)
    assert bootstrap_t_interval(0.5, np.full(RESAMPLES, 0.5), 1) == (-math.inf, math.inf)


# ── Trials that fail ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("n", [1, 4, 15])
def test_the_interval_of_a_share_is_that_of_scipy(n):
    found = np.transpose(share_interval(np.arange(n + 1), np.full(n + 1, n)))
    for count, ends in enumerate(found):
        np.testing.assert_allclose(ends, stats.binomtest(count, n).proportion_ci(0.95, "exact"), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("larger_is_better", [True, False])
@pytest.mark.parametrize("n", [5, 15])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.2])
def test_the_interval_contains_the_mean_of_trials_that_train_or_of_all_where_some_failed(n, share, larger_is_better):
    """Near a cliff t intervals of all trials contain the mean over all of them in .57 to .77 of studies."""
    rng = np.random.default_rng([n, round(100 * share)])
    sign = 1 if larger_is_better else -1
    held = []
    for _ in range(1500):
        failed = rng.random(n) < share
        values = sign * np.where(failed, 0.11 + 0.01 * rng.normal(size=n), rng.normal(ACCURACY, 0.006, n))
        if failed.sum() > n - 2:
            continue
        mean, low, high = interval_with_failures(values, failed)
        assert low <= mean <= high
        truth = (1 - share) * ACCURACY + share * 0.11 if failed.any() else ACCURACY
        held.append(low <= sign * truth <= high)
    assert np.mean(held) >= 0.93


def test_without_failures_the_interval_is_that_of_t_and_missing_values_do_not_count():
    values = np.array([0.9, np.nan, 0.8, 0.85])
    assert interval_with_failures(values, np.array([False, True, False, False])) == t_interval(values)
    assert interval_with_failures(np.array([0.9]), np.array([False])) == (0.9, -math.inf, math.inf)


# ── The draws of seeds ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("n", [1, 2, 5, 15])
def test_draws_are_uniform_and_independent(n):
    draws = resampled_seeds(n)
    assert draws.shape == (RESAMPLES, n)
    assert set(np.unique(draws)) == set(range(n))
    if n == 1:
        return
    assert stats.chisquare(np.bincount(draws.ravel())).pvalue > 1e-3
    for first, second in itertools.pairwise(range(n)):
        pairs = np.bincount(draws[:, first] * n + draws[:, second], minlength=n * n)
        assert stats.chisquare(pairs).pvalue > 1e-4


def test_draws_are_the_same_at_every_call():
    np.testing.assert_array_equal(resampled_seeds(5), resampled_seeds(5))


# ── The bootstrap's interval ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("n", [2, 5, 10])
def test_for_a_mean_the_bootstrap_gives_the_t_interval(n):
    """All n^n draws have variance (n−1)/n · s²/n exactly, so only the sampling of draws is between the two."""
    values = np.random.default_rng(n).normal(size=n)
    mean, low, high = t_interval(values)
    got = bootstrap_t_interval(mean, values[resampled_seeds(n)].mean(axis=1), n)
    np.testing.assert_allclose(np.subtract(got, mean), np.subtract((low, high), mean), rtol=0.06)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_with_all_possible_draws_the_two_are_equal(n):
    values = np.random.default_rng(n).normal(size=n)
    every = values[np.array(list(itertools.product(range(n), repeat=n)))].mean(axis=1)
    mean, low, high = t_interval(values)
    np.testing.assert_allclose(bootstrap_t_interval(mean, every, n), (low, high), rtol=1e-9)


@pytest.mark.parametrize("n", [5, 10])
def test_t_interval_covers_the_mean(n):
    rng = np.random.default_rng(n)
    truth = ACCURACY  # clipping at 1 is ten standard deviations away
    bounds = np.array([t_interval(digits_like(rng, n))[1:] for _ in range(1000)])
    assert ((bounds[:, 0] <= truth) & (truth <= bounds[:, 1])).mean() >= 0.93


@pytest.mark.parametrize("n", [5, 10])
def test_bootstrap_t_interval_covers_the_mean(n):
    rng = np.random.default_rng(100 + n)
    draws = resampled_seeds(n)
    studies = [digits_like(rng, n) for _ in range(500)]
    bounds = np.array([bootstrap_t_interval(float(v.mean()), v[draws].mean(axis=1), n) for v in studies])
    assert ((bounds[:, 0] <= ACCURACY) & (bounds[:, 1] >= ACCURACY)).mean() >= 0.93


@pytest.mark.parametrize("n", [5, 10])
def test_bootstrap_t_interval_covers_a_paired_slope(n):
    """Seeds drawn jointly over all points of a line: what a slope's interval is made of."""
    rng = np.random.default_rng(200 + n)
    x = np.arange(9.0)
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    draws = resampled_seeds(n)
    covered = 0
    for _ in range(300):
        y = x[:, None] + rng.normal(size=n) * x[:, None] / 4 + rng.normal(size=(9, n))
        low, high = bootstrap_t_interval(float(weights @ y.mean(axis=1)), weights @ y[:, draws].mean(axis=2), n)
        covered += low <= 1.0 <= high
    assert covered / 300 >= 0.93
