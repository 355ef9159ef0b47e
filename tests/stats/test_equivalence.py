"""Two one-sided tests against scipy and statsmodels; power and false verdicts against simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from sgdscope.stats.equivalence import ALPHA, chance_to_show, equivalence, pairs_of, seeds_to_confirm
from sgdscope.stats.intervals import holm

TWO_PICTURES = 2 / 517  # of the digits' test split


def power(deviation, margin, n):
    """How probable it is that n seeds call two equal scores the same."""
    return chance_to_show([margin, margin], deviation, ALPHA, n)


@st.composite
def paired(draw):
    k, n = draw(st.integers(1, 6)), draw(st.integers(2, 12))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    return rng.normal(rng.uniform(-1, 1, (k, 1)), draw(st.sampled_from([0.1, 1.0])), (k, n))


def naive_holm(p_values):
    """By the definition: the i-th smallest of k times k − i + 1, and never less than a smaller one's."""
    order = sorted(range(len(p_values)), key=lambda k: p_values[k])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, k in enumerate(order):
        largest = max(largest, min(1.0, p_values[k] * (len(p_values) - place)))
        adjusted[k] = largest
    return adjusted


# ── The tests ────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=40)
@given(paired(), st.floats(0.05, 1.5))
def test_p_values_and_intervals_are_those_of_scipy(values, margin):
    found = equivalence(values, margin)
    beyond = []
    for k, row in enumerate(values):
        lower = stats.ttest_1samp(row, -margin, alternative="greater").pvalue
        upper = stats.ttest_1samp(row, margin, alternative="less").pvalue
        assert found.p_equivalent[k] == pytest.approx(max(lower, upper), abs=1e-12)
        nearer = math.copysign(margin, row.mean())
        outside = stats.ttest_1samp(row, nearer, alternative="greater" if nearer > 0 else "less").pvalue
        beyond.append(min(1.0, 2 * outside))
        for level in (90, 95):
            expected = stats.ttest_1samp(row, 0).confidence_interval(level / 100)
            np.testing.assert_allclose(
                [getattr(found, f"low{level}")[k], getattr(found, f"high{level}")[k]], expected, rtol=1e-9
            )
    np.testing.assert_allclose(found.p_beyond, naive_holm(beyond), atol=1e-12)
    # The two tests pass at 5 % just where the 90 % interval lies within the margin.
    inside = (found.low90 > -margin) & (found.high90 < margin)
    assert ((found.p_equivalent < 0.05) == inside).all()


def test_the_two_tests_are_those_of_statsmodels():
    weightstats = pytest.importorskip("statsmodels.stats.weightstats")
    values = np.random.default_rng(0).normal(0.1, 1.0, (5, 9))
    for margin in (0.3, 1.0):
        expected = [weightstats.DescrStatsW(row).ttost_mean(-margin, margin)[0] for row in values]
        np.testing.assert_allclose(equivalence(values, margin).p_equivalent, expected, rtol=1e-9)


@settings(max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_as_defined(p_values):
    np.testing.assert_allclose(holm(np.array(p_values)), naive_holm(p_values), atol=1e-15)


def test_holm_is_that_of_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p_values = np.random.default_rng(0).uniform(0, 0.2, 8)
    np.testing.assert_allclose(holm(p_values), multitest.multipletests(p_values, method="holm")[1])


@settings(max_examples=40)
@given(paired(), st.floats(0.05, 1.5))
def test_the_smallest_margin_is_where_all_comparisons_begin_to_pass(values, margin):
    found = equivalence(values, margin)
    assert (found.verdict == "supported") == (found.smallest_margin < margin)
    assert equivalence(values, found.smallest_margin * 1.001).verdict == "supported"
    assert equivalence(values, found.smallest_margin * 0.999).verdict != "supported"


@settings(max_examples=40)
@given(paired(), st.floats(0.05, 1.5))
def test_which_of_the_two_is_subtracted_does_not_matter(values, margin):
    forth, back = equivalence(values, margin), equivalence(-values, margin)
    assert forth.verdict == back.verdict
    np.testing.assert_allclose(forth.p_equivalent, back.p_equivalent)
    np.testing.assert_allclose(forth.low95, -back.high95)


def test_one_seed_decides_nothing():
    found = equivalence(np.array([[0.0], [5.0]]), 1.0)
    assert found.verdict == "inconclusive"
    assert found.smallest_margin == math.inf


@pytest.mark.parametrize(("difference", "verdict"), [(0.5, "supported"), (-2.0, "contradicted"), (1.0, "inconclusive")])
def test_seeds_that_agree_decide_but_at_the_margin(difference, verdict):
    found = equivalence(np.array([[0.0] * 3, [difference] * 3]), 1.0)
    assert found.verdict == verdict


# ── How often it is wrong ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("n", [5, 15])
@pytest.mark.parametrize("side", [-1, 1])
def test_a_difference_at_the_margin_is_called_equal_in_no_more_than_a_twentieth(n, side):
    """A second comparison, which is equal, cannot make it more often: all must pass."""
    rng = np.random.default_rng(n)
    values = rng.normal(0, 0.3, (20_000, n)) + side
    alone = equivalence(values, 1.0).p_equivalent < 0.05
    assert alone.mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 20_000)
    equal = rng.normal(0, 0.3, (500, n))
    together = [
        equivalence(np.stack([row, other]), 1.0).verdict for row, other in zip(values[:500], equal, strict=True)
    ]
    assert np.mean([verdict == "supported" for verdict in together]) <= alone[:500].mean()


@pytest.mark.parametrize("k", [1, 5])
def test_differences_within_the_margin_are_contradicted_in_no_more_than_a_twentieth(k):
    rng = np.random.default_rng(k)
    verdicts = [equivalence(rng.normal(1.0, 0.3, (k, 6)), 1.0).verdict for _ in range(1500)]
    assert np.mean([verdict == "contradicted" for verdict in verdicts]) <= 0.05 + 0.01


@pytest.mark.parametrize("n", [5, 15])
@pytest.mark.parametrize("means", [(0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (0.0, 0.5, 1.0, 0.2)])
def test_scores_of_which_two_lie_the_margin_apart_are_hardly_ever_called_equal(n, means):
    """The mean of all of them lies within the margin of each."""
    rng = np.random.default_rng(n)
    scores = np.array(means)[None, :, None] + rng.normal(0, 0.3, (1500, len(means), n))
    supported = [equivalence(pairs_of(len(of)) @ of, 1.0).verdict == "supported" for of in scores]
    assert np.mean(supported) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1500)
    contradicted = [equivalence(pairs_of(len(of)) @ of, 1.0).verdict == "contradicted" for of in scores]
    assert np.mean(contradicted) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1500)


def test_pairs_are_all_pairs():
    scores = np.random.default_rng(0).normal(size=(4, 3))
    expected = [(scores[i] - scores[j]).tolist() for i in range(4) for j in range(i + 1, 4)]
    assert (pairs_of(4) @ scores).tolist() == expected


@pytest.mark.parametrize(("n", "deviation"), [(5, 1.2), (15, 1.5)])
def test_the_seeds_that_are_said_to_confirm_equal_scores_do_so_in_as_many_studies_as_is_said(n, deviation):
    rng, confirmed, pairs = np.random.default_rng(n), {0.5: [], 0.8: []}, pairs_of(3)
    for _ in range(250):
        scores = deviation * (rng.normal(size=(3, 100)) + rng.normal(size=100))
        if equivalence(pairs @ scores[:, :n], 1.0).verdict != "inconclusive":
            continue
        for chance, seeds in zip(confirmed, seeds_to_confirm(scores[:, :n], pairs, 1.0), strict=True):
            if seeds is not None:
                confirmed[chance].append(equivalence(pairs @ scores[:, :seeds], 1.0).verdict == "supported")
    for chance, of in confirmed.items():
        assert len(of) > 150
        assert np.mean(of) == pytest.approx(chance, abs=0.13)


def test_no_number_of_seeds_is_named_where_scores_are_known_to_differ():
    """They may well be decided, but how soon depends on by how much they differ."""
    scores = np.random.default_rng(3).normal(size=(3, 8)) + np.array([[0.0], [4.0], [0.0]])
    assert equivalence(pairs_of(3) @ scores, 4.0).verdict == "inconclusive"
    assert seeds_to_confirm(scores, pairs_of(3), 4.0) == (None, None)


def test_no_number_of_seeds_is_named_for_one_seed_or_none_that_differ():
    assert seeds_to_confirm(np.zeros((3, 1)), pairs_of(3), 1.0) == (None, None)
    assert seeds_to_confirm(np.ones((3, 5)), pairs_of(3), 1.0) == (None, None)


# ── Power ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("n", [2, 5, 10, 15])
@pytest.mark.parametrize("margin", [0.3, 0.6, 1.0, 2.0])
def test_power_is_how_often_equal_scores_are_called_equal(n, margin):
    rng = np.random.default_rng(n)
    passes = equivalence(rng.normal(0, 1, (10_000, n)), margin).p_equivalent < 0.05
    assert power(1.0, margin, n) == pytest.approx(passes.mean(), abs=4 * 0.5 / 100)


def test_two_digits_scores_are_called_the_same_as_often_as_the_protocol_says():
    """One standard deviation gives all three figures: .26 with 5 seeds, .76 with 10 and .95 with 15."""
    of = lambda deviation, n: power(deviation, TWO_PICTURES, n)
    deviation = optimize.brentq(lambda d: of(d, 10) - 0.76, 1e-4, 1e-1)
    assert of(deviation, 5) == pytest.approx(0.26, abs=0.02)
    assert of(deviation, 15) == pytest.approx(0.95, abs=0.02)


def test_more_seeds_have_more_power():
    """But for what its average over quantiles rounds: the search for the fewest rests on it."""
    powers = [power(1.0, 0.6, n) for n in range(3, 60)]
    assert (np.diff(powers) >= -1e-6).all()
    assert power(0.0, 0.01, 2) == 1
