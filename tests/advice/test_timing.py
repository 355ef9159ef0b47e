import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sgdscope.advice.timing import median_interval, seconds_at, seconds_by_batch_size


def trials(*packs, budget="epochs:1", **how):
    """Each pack is (batch size, its elapsed seconds, the updates of each of its trials)."""
    rows = []
    for size, elapsed, updates in packs:
        for made in updates:
            row = {"workload": "w", "budget": budget, "optimizer": "sgd", "batch_size": size, "status": "complete"}
            row |= {"steps": made, "seconds": elapsed * made / sum(updates)}
            rows.append(row | {"method": "map", "device": "cpu", "devices": 2} | how)
    return pl.DataFrame(rows)


def test_packs_are_told_apart_by_their_seconds_an_update_and_the_median_is_over_them():
    """Three packs at batch size 8, of which one is small and slow: their trials take 1, 2 and 9 seconds."""
    table = seconds_by_batch_size(trials((8, 20.0, [10] * 20), (8, 40.0, [10] * 20), (8, 9.0, [10]), (16, 3.0, [5, 5])))
    assert table["batch_size"].to_list() == [8, 16]
    assert table["packs"].to_list() == [3, 1]
    assert table["trials"].to_list() == [41, 2]
    assert table["seconds"].to_list() == pytest.approx([2.0, 1.5])
    assert (table["seconds_low"][0], table["seconds_high"][0]) == pytest.approx((1.0, 9.0))
    assert (table["seconds_low"][1], table["seconds_high"][1]) == (0.0, math.inf)
    assert table["relative"].to_list() == pytest.approx([2 / 1.5, 1.0])


def test_trials_that_diverged_or_failed_or_ran_on_another_device_do_not_count():
    most = trials((8, 20.0, [10] * 20))
    other = trials((8, 100.0, [10] * 10), device="gpu", method="vmap", devices=1)
    stopped = trials((8, 50.0, [1, 1])).with_columns(status=pl.Series(["diverged", "failed"]))
    table = seconds_by_batch_size(pl.concat([most, other, stopped]))
    assert table.row(0, named=True)["device"] == "cpu"
    assert table["seconds"].to_list() == pytest.approx([1.0])
    assert table["trials"].to_list() == [20]


def test_a_rule_that_takes_longer_has_its_own_seconds():
    """K-FAC's updates take ten times as long as SGD's, and its trials say so."""
    both = [trials((8, 4.0, [10, 10])), trials((8, 40.0, [10, 10])).with_columns(optimizer=pl.lit("kfac"))]
    table = seconds_by_batch_size(pl.concat(both))
    assert dict(table.select("optimizer", "seconds").rows()) == pytest.approx({"kfac": 20.0, "sgd": 2.0})
    assert table["relative"].to_list() == [1.0, 1.0]


def test_budgets_have_their_own_cheapest_and_a_table_without_seconds_has_none():
    both = pl.concat([trials((8, 4.0, [10, 10])), trials((8, 8.0, [20, 20]), budget="epochs:2")])
    assert seconds_by_batch_size(both)["relative"].to_list() == [1.0, 1.0]
    assert seconds_by_batch_size(both.drop("seconds")).is_empty()
    assert seconds_by_batch_size(both.with_columns(seconds=pl.lit(None, pl.Float64))).is_empty()


@given(st.integers(2, 60))
def test_the_order_statistics_are_the_narrowest_that_hold_the_median_in_95_percent(n):
    _, low, high = median_interval(np.arange(n, dtype=float))
    assert low + high == n - 1
    missed = [2 * stats.binom.cdf(k, n, 0.5) for k in (low, low + 1)]
    assert n < 6 or missed[0] <= 0.05 < missed[1]
    assert n >= 6 or low == 0


def test_the_interval_of_the_median_holds_it():
    rng = np.random.default_rng(0)
    for n in (6, 9, 20):
        held = [low <= 0.5 <= high for _, low, high in (median_interval(rng.random(n)) for _ in range(1000))]
        assert np.mean(held) >= 0.94


@given(st.floats(0.1, 4), st.floats(-2, 2), st.integers(1, 2**12))
def test_a_power_law_is_followed_everywhere(factor, power, size):
    sizes = [4, 64, 256]
    timed = pl.DataFrame({"batch_size": sizes, "seconds": [factor * s**power for s in sizes]})
    assert seconds_at(timed, size) == pytest.approx(factor * size**power)


def test_one_timing_is_taken_everywhere_and_none_is_none():
    timed = pl.DataFrame({"batch_size": [4], "seconds": [2.0]})
    assert seconds_at(timed, 64) == 2.0
    assert seconds_at(timed.clear(), 64) is None
