"""Batch sizes against their plateau and momentum against SGD, with what is planted between them."""

import math

import numpy as np
import polars as pl
import pytest

from sgdscope.analysis.comparisons import (
    COMPARISONS_SCHEMA,
    RATE_DIFFERENCES_SCHEMA,
    comparisons,
    octaves_between,
    rate_differences,
)
from sgdscope.analysis.rate_choice import scores_by_batch_size
from sgdscope.analysis.score_limits import thresholds
from sgdscope.analysis.sweep import Cells
from sgdscope.analysis.trial_table import by_optimizer
from sgdscope.stats.equivalence import equivalence
from sgdscope.testing.simulated import BATCH_SIZES, PLATEAU, RECORD, SimulatedCell, Truth, simulate, trial_table

RECORDS = {RECORD.name: RECORD}
NOISE, CURVATURE = BATCH_SIZES[:4], BATCH_SIZES[-3:]
# The grids of two optimizers lie apart by up to half an octave, at which a quarter of the height is lost.
SURE = {"spread": 0.001, "height": 0.004, "loss_spread": 0.02}
# Momentum's rates are a tenth of SGD's where effective rates are the same.
M = 0.9


def falling(x):
    return 0.02 * max(0.0, x - 7.4)


def scaled(study, factor):
    return {
        size: SimulatedCell(of.rates * factor, of.validation_score, of.test_score, of.train_loss, of.diverged)
        for size, of in study.items()
    }


def table(momentum_lost=falling, octaves=0.0, seed=0, n=6, **fields):
    """SGD, whose score falls, and momentum, whose effective rates lie some octaves above SGD's."""
    rng = np.random.default_rng(seed)
    truth = {**SURE, **fields}
    sgd = simulate(rng, n, Truth(**truth, lost=falling))
    momentum = scaled(simulate(rng, n, Truth(**truth, lost=momentum_lost)), 2**octaves * (1 - M))
    return trial_table({"sgd": sgd, "momentum:0.9": momentum})


def regimes_of(trials):
    where = dict.fromkeys(NOISE, "noise") | dict.fromkeys(CURVATURE, "curvature")
    return pl.DataFrame(
        [
            key | {"batch_size": size, "regime": where.get(size, "unassigned")}
            for key, members in by_optimizer(trials)
            for size in members
        ]
    )


def rows(found, **values):
    return found.filter(pl.all_horizontal(pl.col(name) == value for name, value in values.items()))


# ── Scores ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_equal_optimizers_are_called_equal_and_unequal_ones_are_not():
    equal, unequal = (
        comparisons(trials, regimes_of(trials), RECORDS)
        for trials in (table(n=15), table(momentum_lost=lambda x: 0.0, n=15))
    )
    for found in (equal, unequal):
        assert dict(found.schema) == COMPARISONS_SCHEMA
        assert set(rows(found, regime="noise")["verdict"]) == {"supported"}
    # In the curvature-dominated regime both fall, so that there is no plateau.
    assert set(rows(equal, regime="curvature", compared_with="plateau")["verdict"]) == {"contradicted"}
    assert set(rows(equal, regime="curvature", compared_with="sgd")["verdict"]) == {"supported"}
    leads = rows(unequal, regime="curvature", compared_with="sgd")
    assert set(leads["verdict"]) == {"contradicted"}
    assert leads["batch_size"].to_list() == list(CURVATURE)
    for size, difference, low, high in leads.select("batch_size", "difference", "low95", "high95").rows():
        assert difference == pytest.approx(falling(math.log2(size)), abs=0.004)
        assert low < difference < high


def test_the_rows_are_those_of_the_scores():
    trials = table(momentum_lost=lambda x: 0.0)
    found = comparisons(trials, regimes_of(trials), RECORDS)
    scores = {
        key["optimizer"]: {size: of.scores for size, of in scores_by_batch_size(members, RECORD).items()}
        for key, members in by_optimizer(trials)
    }
    assert set(rows(found, compared_with="sgd")["optimizer"]) == {"momentum:0.9"}
    for regime, sizes in (("noise", NOISE), ("curvature", CURVATURE)):
        for optimizer, mine in scores.items():
            plateau = sum(mine[size] for size in sizes) / len(sizes)
            groups = {"plateau": [mine[size] - plateau for size in sizes]}
            if optimizer != "sgd":
                groups["sgd"] = [mine[size] - scores["sgd"][size] for size in sizes]
            for compared_with, differences in groups.items():
                of = rows(found, optimizer=optimizer, regime=regime, compared_with=compared_with)
                margin = max(0.05 * (1 - np.mean([mine[size] for size in sizes])), 2 / 517)
                assert of["margin"].to_list() == pytest.approx([margin] * len(sizes))
                expected = equivalence(np.array(differences), margin)
                np.testing.assert_allclose(of["difference"], expected.mean, atol=1e-12)
                np.testing.assert_allclose(of["p_equivalent"], expected.p_equivalent)
                np.testing.assert_allclose(of["p_beyond"], expected.p_beyond)
                assert set(of["verdict"]) == {expected.verdict}
                assert set(of["n"]) == {6}


def test_batch_sizes_where_momentum_did_not_warm_up_are_marked():
    trials = table()
    found = comparisons(trials, regimes_of(trials), RECORDS)
    marked = rows(found, optimizer="momentum:0.9", warmed_up=False)
    assert set(marked["batch_size"]) == {256, 512, 1024}
    assert set(rows(found, optimizer="sgd")["warmed_up"]) == {True}


def test_only_seeds_that_both_have_are_compared():
    trials = table().filter((pl.col("optimizer") == "sgd") | (pl.col("seed") >= 2))
    found = comparisons(trials, regimes_of(trials), RECORDS)
    counts = found.select("optimizer", "compared_with", "n").unique()
    assert set(counts.rows()) == {("sgd", "plateau", 6), ("momentum:0.9", "plateau", 4), ("momentum:0.9", "sgd", 4)}


@pytest.mark.usefixtures("quick")
def test_where_no_seed_is_common_nothing_is_compared():
    """As where each of two optimizers, or of two batch sizes, has lost another of two trials."""
    trials, of_sgd = table(n=2), pl.col("optimizer") == "sgd"
    apart = trials.filter(of_sgd == (pl.col("seed") == 0))
    assert set(comparisons(apart, regimes_of(apart), RECORDS)["compared_with"]) == {"plateau"}
    assert rate_differences(apart, regimes_of(apart), RECORDS).is_empty()
    leads = thresholds(apart, RECORDS).filter(pl.col("quantity") == "B_mom")
    assert set(leads.select("n", "estimate").rows()) == {(0, None)}
    lost = pl.struct("batch_size", "seed").is_in([{"batch_size": 4, "seed": 0}, {"batch_size": 8, "seed": 1}])
    holes = trials.filter(~lost)
    for of in (comparisons, rate_differences):
        assert of(holes, regimes_of(holes), RECORDS).is_empty()
    assert thresholds(holes, RECORDS).is_empty()


def test_a_declared_margin_is_taken():
    trials = table()
    found = comparisons(trials, regimes_of(trials), RECORDS, margin=0.2)
    assert set(found["margin"]) == {0.2}
    assert set(found["verdict"]) == {"supported"}


def test_what_has_no_regime_gives_empty_tables_with_their_columns():
    trials = table()
    nowhere = regimes_of(trials).with_columns(regime=pl.lit("unassigned"))
    for of, schema in ((comparisons, COMPARISONS_SCHEMA), (rate_differences, RATE_DIFFERENCES_SCHEMA)):
        found = of(trials, nowhere, RECORDS)
        assert (found.height, dict(found.schema)) == (0, schema)
    alone = trials.filter(pl.col("optimizer") == "sgd")
    assert dict(rate_differences(alone, regimes_of(alone), RECORDS).schema) == RATE_DIFFERENCES_SCHEMA


# ── Rates ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("octaves", [0.0, 1.5, -1.0])
def test_planted_octaves_between_effective_rates_are_found(octaves):
    trials = table(octaves=octaves)
    found = rate_differences(trials, regimes_of(trials), RECORDS)
    assert dict(found.schema) == RATE_DIFFERENCES_SCHEMA
    keys = found.select("optimizer", "criterion", "regime", "batch_sizes", "n").rows()
    assert keys == [
        ("momentum:0.9", criterion, regime, sizes, 6)
        for criterion in ("score", "train_loss")
        for regime, sizes in (("noise", 4), ("curvature", 3))
    ]
    for row in rows(found, criterion="train_loss").iter_rows(named=True):
        assert row["value"] == pytest.approx(octaves, abs=0.05)
        assert row["low95"] < row["low90"] < octaves < row["high90"] < row["high95"]


@pytest.mark.usefixtures("quick")
def test_rates_are_compared_on_the_seeds_that_both_have():
    trials = table().filter((pl.col("optimizer") == "sgd") | (pl.col("seed") >= 2))
    assert set(rate_differences(trials, regimes_of(trials), RECORDS)["n"]) == {4}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("law", "shape", "n"), [("linear", "asymmetric", 15), ("constant", "cliff", 15)])
def test_where_the_grid_hides_the_optimum_half_an_octave_is_not_called_nothing(law, shape, n):
    """All batch sizes have their optimum at the same place between two rates, so their mean is not surer than one."""
    held, equal = [], []
    for seed in range(60):
        rng = np.random.default_rng([seed, n])
        studies = [simulate(rng, n, Truth(law, shape), NOISE) for _ in range(2)]
        sgd, momentum = (
            Cells(list(study), [of.curve("validation_score") for of in study.values()])
            for study in (studies[0], scaled(studies[1], 2**0.5))
        )
        between = octaves_between(momentum, sgd, 0.0)
        held.append(between.low95 <= 0.5 <= between.high95)
        equal.append(between.verdict(-0.5, 0.5) == "supported")
    assert np.mean(held) >= 0.93
    assert np.mean(equal) <= 0.05


def test_the_plateau_is_what_was_planted():
    trials = table()
    scores = scores_by_batch_size(next(m for key, m in by_optimizer(trials) if key["optimizer"] == "sgd"), RECORD)
    assert np.mean([scores[size].scores.mean() for size in NOISE]) == pytest.approx(PLATEAU, abs=0.006)
