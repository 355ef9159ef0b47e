"""Decisions over several differences, against scipy's t tests and Holm's procedure taken step by step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sgdscope.stats.decisions import decisions

ALPHA = 0.05
numbers = st.integers(0, 10_000).map(lambda seed: np.random.default_rng(seed))


def stepped(p_values):
    """Which hypotheses Holm's procedure rejects, and at which level each was tested."""
    order, k = np.argsort(p_values), len(p_values)
    rejected, levels, level = np.zeros(k, bool), np.zeros(k), ALPHA / k
    for step, place in enumerate(order):
        level = ALPHA / (k - step)
        if p_values[place] >= level:
            levels[order[step:]] = level
            break
        rejected[place], levels[place] = True, level
    return rejected, levels


def planted(rng):
    """Paired differences of several batch sizes, from none to several margins."""
    k, n = rng.integers(1, 8), rng.integers(3, 12)
    return rng.normal(rng.choice([-3, -1, 0, 0.3, 1, 4], k)[:, None], rng.uniform(0.05, 1.0), (int(k), int(n)))


def decided(values, margin=1.0):
    n = values.shape[1]
    return decisions(values.mean(axis=1), values.std(axis=1, ddof=1) / np.sqrt(n), np.full(len(values), n), margin)


@given(numbers)
def test_decisions_are_those_of_paired_t_tests_with_holms_procedure(rng):
    values = planted(rng)
    found = decided(values)
    above, below, within_low, within_high = (
        np.array([stats.ttest_1samp(row, edge, alternative=side).pvalue for row in values])
        for edge, side in ((1, "greater"), (-1, "less"), (-1, "greater"), (1, "less"))
    )
    beyond, beyond_levels = stepped(np.minimum(1, 2 * np.minimum(above, below)))
    same, same_levels = stepped(np.maximum(within_low, within_high))
    for place, row in enumerate(values):
        direction = "above" if row.mean() > 0 else "below"
        wanted = direction if beyond[place] else "equivalent" if same[place] else "undecided"
        assert found.decision[place] == wanted
        level = {
            "equivalent": 1 - 2 * same_levels[place],
            "undecided": 1 - min(beyond_levels[place], 2 * same_levels[place]),
        }.get(wanted, 1 - beyond_levels[place])
        interval = stats.t.interval(level, len(row) - 1, row.mean(), stats.sem(row))
        assert (found.low[place], found.high[place]) == pytest.approx(interval)
        assert found.level[place] == pytest.approx(level)


@given(numbers)
def test_the_interval_that_decides_lies_where_the_decision_says(rng):
    found = decided(planted(rng))
    for low, high, decision in zip(found.low, found.high, found.decision, strict=True):
        place = "above" if low > 1 else "below" if high < -1 else "equivalent" if low > -1 and high < 1 else "undecided"
        assert place == decision


def test_one_seed_decides_nothing_and_equal_values_decide():
    mean, error = np.array([0.0, 5.0]), np.array([np.inf, np.inf])
    assert decisions(mean, error, np.array([1, 1]), 1.0).decision == ["undecided"] * 2
    assert decisions(mean, np.zeros(2), np.array([3, 3]), 1.0).decision == ["equivalent", "above"]
    assert np.isinf(decisions(mean, error, np.array([1, 1]), 1.0).high).all()
