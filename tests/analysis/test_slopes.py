"""Slopes and sharpness of planted laws, and which batch sizes their tables take."""

import math
from dataclasses import asdict

import numpy as np
import polars as pl
import pytest

from sgdscope.analysis.slopes import SHARPNESS_SCHEMA, SLOPES_SCHEMA, sharpness, sharpness_of, slope_of, slopes
from sgdscope.analysis.sweep import Cells, cells_of
from sgdscope.analysis.trial_table import by_optimizer
from sgdscope.testing.simulated import BATCH_SIZES, LAWS, RECORD, Truth, simulate, trial_table

pytestmark = pytest.mark.usefixtures("quick")

RECORDS = {RECORD.name: RECORD}
NOISE = BATCH_SIZES[:5]  # below the bend of every law that has one
SURE = {"loss_spread": 0.02}  # of training losses, which are not grainy


def cells(law, n=5, column="train_loss", seed=0, sizes=BATCH_SIZES, **fields):
    study = simulate(np.random.default_rng([seed, n]), n, Truth(law, **fields), sizes)
    return Cells(list(study), [cell.curve(column) for cell in study.values()])


def true_slope(law, sizes):
    x = np.log2(sizes)
    return np.polyfit(x, [LAWS[law](at) for at in x], 1)[0]


# ── Slopes ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("sizes", [NOISE, BATCH_SIZES], ids=["noise", "all"])
def test_a_planted_slope_is_found(law, sizes):
    slope = slope_of(cells(law, sizes=sizes, **SURE))
    planted = true_slope(law, sizes)
    assert slope.value == pytest.approx(planted, abs=0.03)
    assert slope.low95 < slope.low90 < slope.value < slope.high90 < slope.high95
    assert slope.low95 <= planted <= slope.high95


def test_proportional_growth_is_told_from_that_of_the_square_root():
    linear, root = (slope_of(cells(law, sizes=NOISE, **SURE)) for law in ("linear", "square root"))
    zones = (0.75, 1.25), (0.25, 0.75)
    assert [linear.verdict(*zone) for zone in zones] == ["supported", "contradicted"]
    assert [root.verdict(*zone) for zone in zones] == ["contradicted", "supported"]


@pytest.mark.parametrize(("law", "n"), [("linear", 5), ("square root", 10)])
def test_the_interval_covers_the_planted_slope(law, n):
    found = [slope_of(cells(law, n, "validation_score", seed, NOISE)) for seed in range(100)]
    assert np.mean([slope.low95 <= true_slope(law, NOISE) <= slope.high95 for slope in found]) >= 0.93


def regime_table(trials, noise=(), curvature=()):
    where = dict.fromkeys(noise, "noise") | dict.fromkeys(curvature, "curvature")
    return pl.DataFrame(
        [
            key | {"batch_size": size, "regime": where.get(size, "unassigned")}
            for key, members in by_optimizer(trials)
            for size in members
        ]
    )


@pytest.fixture(scope="module")
def trials():
    rng = np.random.default_rng(1)
    return trial_table({name: simulate(rng, 4, Truth(**SURE)) for name in ("sgd", "momentum:0.9")})


def rows(table, **values):
    return table.filter(pl.all_horizontal(pl.col(name) == value for name, value in values.items()))


def test_the_table_is_of_the_batch_sizes_of_each_regime(trials):
    table = slopes(trials, regime_table(trials, NOISE, BATCH_SIZES[-2:]), RECORDS)
    assert dict(table.schema) == SLOPES_SCHEMA
    for key, members in by_optimizer(trials):
        for criterion in ("score", "train_loss"):
            found = cells_of(members, RECORD, criterion)
            of = rows(table, **key, criterion=criterion, warmed_up=False)
            assert of["regime"].to_list() == ["noise", "curvature", "all"]
            assert of["batch_sizes"].to_list() == [5, 2, 9]
            assert of["n"].to_list() == [4] * 3
            expected = asdict(slope_of(found.of(NOISE))), dict.fromkeys(("value", "low90")), asdict(slope_of(found))
            for row, estimate in zip(of.iter_rows(named=True), expected, strict=True):
                assert {name: row[name] for name in estimate} == pytest.approx(estimate)


def test_which_batch_sizes_are_in_a_regime_decides(trials):
    few, more = (
        rows(slopes(trials, regime_table(trials, noise), RECORDS), optimizer="sgd", criterion="train_loss")
        for noise in (BATCH_SIZES[:2], BATCH_SIZES)
    )
    assert rows(few, regime="noise")["value"].to_list() == [None]
    assert rows(more, regime="noise")["value"].to_list() == rows(more, regime="all")["value"].to_list()


def test_momentum_has_a_second_row_without_the_batch_sizes_where_it_did_not_warm_up(trials):
    """Of 30 epochs of 1,024 examples, 256 leaves 120 updates; 0.9 wants 200."""
    table = slopes(trials, regime_table(trials, BATCH_SIZES), RECORDS)
    assert not rows(table, optimizer="sgd", warmed_up=True).height
    warm = rows(table, optimizer="momentum:0.9", criterion="train_loss", warmed_up=True)
    assert warm.select("regime", "batch_sizes").rows() == [("noise", 6), ("curvature", 0), ("all", 6)]
    members = dict(next(members for key, members in by_optimizer(trials) if key["optimizer"] == "momentum:0.9"))
    expected = slope_of(cells_of(members, RECORD, "train_loss").of(BATCH_SIZES[:6]))
    assert rows(warm, regime="noise")["value"][0] == pytest.approx(expected.value)


# ── Sharpness ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(3))
def test_the_smooth_form_is_told_from_the_hinge(seed):
    smooth, hinge = (sharpness_of(cells(law, seed=seed, **SURE)) for law in ("smooth", "linear"))
    assert smooth["k_low"] <= 1 <= smooth["k_high"] < 5
    assert hinge["k_low"] > 1
    assert hinge["k_high"] == math.inf
    for found in (smooth, hinge):
        assert math.log2(found["bend"]) == pytest.approx(6.3, abs=0.2)
        assert found["bend_low"] <= 2**6.3 <= found["bend_high"]
        assert found["k_low"] <= found["k"] <= found["k_high"]


def test_where_nothing_bends_the_bend_is_at_an_edge():
    line, constant = (sharpness_of(cells(law, **SURE)) for law in ("no knee in range", "constant"))
    assert line["bend_high"] >= BATCH_SIZES[-1]
    assert constant["bend_low"] <= BATCH_SIZES[0]


def test_one_seed_says_nothing_of_the_sharpness():
    found = sharpness_of(cells("smooth", n=1, **SURE))
    assert (found["k_low"], found["k_high"]) == (0.0, math.inf)


@pytest.mark.parametrize(("count", "known"), [(3, False), (4, True)])
def test_the_sharpness_takes_four_batch_sizes(trials, count, known):
    table = sharpness(trials.filter(pl.col("batch_size").is_in(BATCH_SIZES[:count])), RECORDS)
    assert dict(table.schema) == SHARPNESS_SCHEMA
    assert table.height == 4
    assert set(table["batch_sizes"]) == {count}
    assert set(table["n"]) == {4}
    assert table["k"].is_not_null().all() == known
