"""Slopes and sharpness of planted laws."""

import math

import numpy as np
import pytest

from sgdscope.analysis.slopes import sharpness_of
from sgdscope.analysis.sweep import Cells
from sgdscope.analysis.transitions import lean_of_slope, slope_of
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
    smooth, hinge = (sharpness_of(cells(law, 15, seed=seed, grid=0.25, **SURE)) for law in ("smooth", "linear"))
    assert smooth["k_low"] <= 1 <= smooth["k_high"]
    assert hinge["k_low"] > 1
    assert hinge["k_high"] == math.inf
    for found in (smooth, hinge):
        assert math.log2(found["transition"]) == pytest.approx(6.3, abs=0.8)
        assert found["transition_low"] <= 2**6.3 <= found["transition_high"]
        assert found["k_low"] <= found["k"] <= found["k_high"]


def test_a_sharp_transition_of_a_square_root_is_sharp():
    root = sharpness_of(cells("square root", 15, grid=0.25, **SURE))
    assert root["k_low"] > 1
    assert root["k_high"] == math.inf


class Planted:
    """Optimal rates of a planted law by batch size, each seed's off by as much as given."""

    def __init__(self, rng, k, slope, n, spread):
        u = 1 / k
        below = 6.4 - np.log2(BATCH_SIZES)  # a knee of the grid
        law = -slope * (u * np.logaddexp2(0, below / u) if u else np.maximum(0, below))
        self.x, self.n, self.bounds, self.bounded = np.log2(BATCH_SIZES), n, None, self
        rates = law + rng.normal(0, spread, (n, len(law)))
        self.vertices = rates.mean(axis=0)[None]
        self.drawn = rates[rng.integers(0, n, (100, n))].mean(axis=1)

    def drawn_vertices(self):
        return self.drawn, None


@pytest.mark.parametrize(("n", "spread"), [(5, 0.2), (15, 0.4)])
@pytest.mark.parametrize("slope", [0.5, 1.0])
def test_a_transition_that_is_not_sharp_is_hardly_ever_called_sharp(slope, n, spread):
    """k = 2 is neither sharp nor smooth, whatever the slope of the law below the transition."""
    rng = np.random.default_rng(n)
    found = [sharpness_of(Planted(rng, 2.0, slope, n, spread)) for _ in range(80)]
    assert sum(of["k_low"] > 3 for of in found) <= 9  # of 80 at 5 %, in 99 of 100 tries
    assert sum(of["k_high"] < 2 for of in found) <= 9


@pytest.mark.parametrize("slope", [0.5, 1.0])
def test_sharp_and_smooth_transitions_are_told_where_rates_are_sure(slope):
    rng = np.random.default_rng(0)
    found = {k: [sharpness_of(Planted(rng, k, slope, 15, 0.05)) for _ in range(30)] for k in (math.inf, 1.0)}
    assert np.mean([of["k_low"] > 3 for of in found[math.inf]]) >= 0.8
    assert np.mean([of["k_high"] < 2 for of in found[1.0]]) >= 0.8


def test_where_nothing_bends_the_bend_is_at_an_edge():
    line, constant = (sharpness_of(cells(law, **SURE)) for law in ("no transition in range", "constant"))
    assert line["transition_high"] >= BATCH_SIZES[-1]
    assert constant["transition_low"] <= BATCH_SIZES[0]


def test_one_seed_says_nothing_of_the_sharpness():
    found = sharpness_of(cells("smooth", n=1, **SURE))
    assert (found["k_low"], found["k_high"]) == (0.0, math.inf)


# ── Curves that lean ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_slope_may_be_wrong_by_what_its_weights_make_of_strays_of_one_sign_on_each_side():
    found = cells("linear", **SURE)
    strays = np.array([float(c.vertex()[1][0]) for c in found.curves])
    weights = (found.x - found.x.mean()) / ((found.x - found.x.mean()) ** 2).sum()
    signs = [np.where(np.arange(9) < place, -1, 1) for place in (3, 4, 5, 6)]
    assert lean_of_slope(found) == pytest.approx(max(abs(weights @ (sign * strays)) for sign in signs))
    expected = [found.vertices[0] + turned * sign * strays for turned in (1, -1) for sign in signs]
    np.testing.assert_allclose(found.leaning(), expected)


def test_fewer_batch_sizes_than_two_regimes_have_do_not_lean():
    found = cells("linear", sizes=NOISE, **SURE)
    assert found.leaning().shape == (0, 5)
    assert lean_of_slope(found) == 0


@pytest.mark.parametrize("seed", range(4))
def test_curves_that_lean_the_other_way_from_some_batch_size_on_keep_their_slope_in_the_interval(seed):
    """Seeds say nothing here: each vertex is off by a tenth of an octave, to one side and then to the other."""
    slope = slope_of(cells("no transition in range", 15, seed=seed, shape="turning", loss_spread=1e-4, grid=0.0))
    assert slope.low95 <= 1.0 <= slope.high95
    assert abs(slope.value - 1.0) > 0.02
    assert slope.high95 - slope.low95 < 0.2
