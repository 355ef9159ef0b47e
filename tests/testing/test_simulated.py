"""The simulated studies hold what is planted in them: they are the oracle of the other tests."""

import math

import numpy as np
import polars as pl
import pytest

from sgdscope.analysis.curve import curve
from sgdscope.testing.simulated import (
    BATCH_SIZES,
    LAWS,
    LOWEST_LOG_LOSS,
    PLATEAU,
    RECORD,
    SHAPES,
    Truth,
    simulate,
    trial_table,
)

# Enough seeds that a mean over them is sure to a hundredth of their spread.
MANY = 10_000


def studied(n=MANY, sizes=(64,), seed=0, **fields):
    truth = Truth(**fields)
    return truth, simulate(np.random.default_rng(seed), n, truth, sizes)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "collapse"])
def test_means_and_spreads_are_those_planted(shape):
    truth, study = studied(shape=shape, lost=lambda x: 0.01)
    cell, octaves = study[64], np.log2(study[64].rates)
    for column in ("validation_score", "test_score"):
        values = getattr(cell, column)
        # The grain of 1/256 adds its own variance; scores far below are unbiased by clipping at 1.
        np.testing.assert_allclose(values.mean(axis=1), truth.mean_score(64, octaves), atol=4e-4)
        pictures = RECORD.examples[1 if column == "validation_score" else 2]
        spread = math.hypot(truth.spread, 1 / pictures / math.sqrt(12))
        np.testing.assert_allclose(values.std(axis=1), spread, rtol=0.05)
        np.testing.assert_allclose(values * pictures, np.round(values * pictures), atol=1e-9)
    losses = np.log(cell.train_loss)
    np.testing.assert_allclose(losses.mean(axis=1), truth.mean_log_loss(64, octaves), atol=0.01)
    np.testing.assert_allclose(losses.std(axis=1), truth.loss_spread, rtol=0.05)


def test_the_means_are_as_declared():
    """An octave from the optimum a symmetric curve loses its height, an asymmetric one above it three times that."""
    for shape, below, above in (("symmetric", 1, 1), ("asymmetric", 1, 3), ("cliff", 1, 1), ("flat", 0.1, 0.1)):
        truth = Truth(shape=shape, lost=lambda x: 0.002 * x)
        octaves = truth.octave(64) + np.array([-1.0, 0.0, 1.0])
        np.testing.assert_allclose(
            PLATEAU - 0.012 - truth.mean_score(64, octaves), [0.004 * below, 0, 0.004 * above], atol=1e-12
        )
        np.testing.assert_allclose(
            truth.mean_log_loss(64, octaves) - LOWEST_LOG_LOSS, [0.3 * below, 0, 0.3 * above], atol=1e-12
        )


def test_trials_diverge_above_a_cliff_and_nowhere_else():
    truth, study = studied(shape="cliff")
    shares, planted = study[64].diverged.mean(axis=1), truth.diverging(64, np.log2(study[64].rates))
    np.testing.assert_allclose(shares, planted, atol=0.02)
    at = truth.diverging(64, truth.octave(64) + np.array([-1, 0, 0.75, 2]))
    np.testing.assert_allclose(at, [0, 0.0025, 0.5, 1], atol=1e-3)
    for shape in ("symmetric", "asymmetric", "flat"):
        assert not studied(100, shape=shape)[1][64].diverged.any()


def test_trials_collapse_to_the_constant_baseline_with_a_finite_loss():
    truth, study = studied(2000, shape="collapse")
    found = study[64].curve("validation_score")
    assert not found.diverged.any()
    np.testing.assert_allclose(found.collapsed.mean(axis=1), truth.failing(64, found.octaves), atol=0.04)
    assert np.abs(study[64].validation_score[found.collapsed].mean() - RECORD.constant_score) < 0.005
    assert np.isfinite(study[64].train_loss).all()


def test_validation_and_test_share_the_luck_of_the_network():
    for luck in (0.0, 0.7):
        _, study = studied(luck=luck, shared=0.0)
        scores = study[64].validation_score[3], study[64].test_score[3]
        assert np.corrcoef(*scores)[0, 1] == pytest.approx(luck, abs=0.06)


def test_curves_change_with_the_batch_size():
    truth, study = studied(4000, sizes=(4, 1024), changing=1.0, shared=0.0)
    for size, factor in ((4, 1), (1024, 2)):
        octaves = truth.octave(size) + np.array([0.0, 1.0])
        assert PLATEAU - truth.mean_score(size, octaves)[1] == pytest.approx(0.004 * factor)
        assert study[size].test_score[3].std() == pytest.approx(0.006 * factor, rel=0.06)
    turning = Truth(shape="turning")
    for size, steep in ((16, 1), (256, -1)):
        lost = [turning.below(size, np.array([turning.octave(size) + side])).item() for side in (steep, -steep)]
        assert lost == [3.0, 1.0]


def test_missing_trials_are_no_part_of_curves_and_tables():
    _, study = studied(200, missing=0.1)
    cell = study[64]
    assert cell.missing.mean() == pytest.approx(0.1, abs=0.03)
    np.testing.assert_array_equal(cell.curve("test_score").there, ~cell.missing)
    assert trial_table({"sgd": study}).height == (~cell.missing).sum()


def test_the_rates_are_those_that_a_search_leaves():
    """Whole octaves, and beside the best rate by each criterion both half octaves."""
    _, study = studied(5, sizes=(4, 64, 1024), grid=0.0)
    for cell in study.values():
        half = np.round(2 * (np.log2(cell.rates) - np.log2(cell.rates[0]))).astype(int)
        assert set(range(0, 13, 2)) <= set(half)
        for column in ("validation_score", "train_loss"):
            best = half[cell.curve(column).best()[0]]
            assert {best - 1, best + 1} & set(range(13)) <= set(half)


def test_a_seed_has_its_own_part_at_every_rate_and_batch_size():
    truth, study = studied(4000, sizes=(8, 64))
    own = truth.shared * truth.spread**2
    for a, b in (
        (study[8].test_score[2], study[8].test_score[3]),
        (study[8].test_score[3], study[64].test_score[3]),
        (study[8].test_score[3], study[64].validation_score[2]),
    ):
        assert np.cov(a, b)[0, 1] == pytest.approx(own, rel=0.25)


@pytest.mark.parametrize("grid", [1.0, 0.5])
@pytest.mark.parametrize("law", LAWS)
def test_the_optimum_is_bracketed_by_two_octaves(law, grid):
    for seed in range(20):
        truth, study = studied(2, sizes=BATCH_SIZES, seed=seed, law=law, grid=grid)
        phases = set()
        for size, cell in study.items():
            octaves = np.log2(cell.rates)
            np.testing.assert_allclose(np.diff(octaves), grid)
            assert octaves[0] + 2 <= truth.octave(size) <= octaves[-1] - 2
            phases |= {float(np.round(octaves[0] % 1, 6)) % 1}
        assert len(phases) == 1  # one grid for the study


def test_the_laws_are_what_their_names_say():
    x = np.log2(BATCH_SIZES)
    for law, slopes in {
        "linear": (1, 0),
        "square root": (0.5, 0),
        "constant": (0, 0),
        "no transition in range": (1, 1),
    }.items():
        y = [LAWS[law](at) for at in x]
        assert (y[1] - y[0], y[-1] - y[-2]) == (pytest.approx(slopes[0]), pytest.approx(slopes[1]))
    # The hinge and the smooth form have one bend and, far from it, one line.
    for at in (-20.0, 6.3, 40.0):
        gap = LAWS["linear"](at) - LAWS["smooth"](at)
        assert gap == pytest.approx(1.0 if at == 6.3 else 0.0, abs=1e-6)


def test_the_table_holds_the_trials():
    rng = np.random.default_rng(0)
    studies = {name: simulate(rng, 3, Truth(shape="cliff")) for name in ("sgd", "momentum:0.9")}
    table = trial_table(studies)
    assert table.height == 2 * sum(of.diverged.size for of in studies["sgd"].values())
    for name, study in studies.items():
        for size, cell in study.items():
            of = table.filter((pl.col("optimizer") == name) & (pl.col("batch_size") == size))
            for criterion, column in (("score", "validation_score"), ("train_loss", "train_loss")):
                found, expected = curve(of, RECORD, criterion), cell.curve(column)
                np.testing.assert_allclose(found.rates, expected.rates)
                np.testing.assert_allclose(found.goodness, expected.goodness)
                np.testing.assert_array_equal(found.diverged, expected.diverged)
            assert set(of["steps"]) == {30 * 1024 // size}
            factor = 1 if name == "sgd" else 10
            np.testing.assert_allclose(of["effective_learning_rate"], factor * of["learning_rate"])
            assert of.filter(pl.col("status") == "diverged")["test_score"].null_count() == cell.diverged.sum()
