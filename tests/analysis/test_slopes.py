"""Slopes and sharpness of planted laws."""

import math

import numpy as np
import pytest

from sgdscope.analysis.slopes import sharpness_of
from sgdscope.analysis.sweep import Cells
from sgdscope.analysis.transitions import slope_of
from sgdscope.testing.simulated import BATCH_SIZES, LAWS, Truth, simulate

pytestmark = pytest.mark.usefixtures("quick")

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


# ── Sharpness ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(3))
def test_the_smooth_form_is_told_from_the_hinge(seed):
    smooth, hinge = (sharpness_of(cells(law, seed=seed, **SURE)) for law in ("smooth", "linear"))
    assert smooth["k_low"] <= 1 <= smooth["k_high"] < 5
    assert hinge["k_low"] > 1
    assert hinge["k_high"] == math.inf
    for found in (smooth, hinge):
        assert math.log2(found["transition"]) == pytest.approx(6.3, abs=0.2)
        assert found["transition_low"] <= 2**6.3 <= found["transition_high"]
        assert found["k_low"] <= found["k"] <= found["k_high"]


def test_where_nothing_bends_the_bend_is_at_an_edge():
    line, constant = (sharpness_of(cells(law, **SURE)) for law in ("no transition in range", "constant"))
    assert line["transition_high"] >= BATCH_SIZES[-1]
    assert constant["transition_low"] <= BATCH_SIZES[0]


def test_one_seed_says_nothing_of_the_sharpness():
    found = sharpness_of(cells("smooth", n=1, **SURE))
    assert (found["k_low"], found["k_high"]) == (0.0, math.inf)
