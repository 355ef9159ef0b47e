"""Momentum's learning rates against SGD's, with what is planted between them."""

import numpy as np
import polars as pl
import pytest

from sgdscope.analysis.comparisons import octaves_between
from sgdscope.analysis.rate_choice import scores_by_batch_size
from sgdscope.analysis.score_limits import score_limits
from sgdscope.analysis.sweep import Cells, cells_of, pair_on_common_seeds
from sgdscope.analysis.trial_table import by_optimizer
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


def rates_of(trials, criterion="train_loss", sizes=NOISE):
    """The rates of momentum and of SGD at some batch sizes, on the seeds that both have."""
    members = {key["optimizer"]: of for key, of in by_optimizer(trials)}
    pair = pair_on_common_seeds(*(cells_of(members[of], RECORD, criterion) for of in ("momentum:0.9", "sgd")))
    return [cells.of(sizes) for cells in pair]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("octaves", [0.0, 1.5, -1.0])
def test_planted_octaves_between_effective_rates_are_found(octaves):
    trials = table(octaves=octaves)
    for sizes in (NOISE, CURVATURE):
        found = octaves_between(*rates_of(trials, sizes=sizes), M)
        assert found.value == pytest.approx(octaves, abs=0.05)
        assert found.low95 < found.low90 < octaves < found.high90 < found.high95


@pytest.mark.usefixtures("quick")
def test_rates_are_compared_each_on_its_own_seeds():
    trials = table().filter((pl.col("optimizer") == "sgd") | (pl.col("seed") >= 2))
    assert [cells.n for cells in rates_of(trials)] == [4, 6]


@pytest.mark.usefixtures("quick")
def test_where_no_seed_is_common_nothing_is_compared():
    """As where each of two optimizers, or of two batch sizes, has lost another of two trials."""
    trials, of_sgd = table(n=2), pl.col("optimizer") == "sgd"
    apart = trials.filter(of_sgd == (pl.col("seed") == 0))
    assert [cells.n for cells in rates_of(apart)] == [1, 1]
    leads = score_limits(apart, RECORDS).filter(pl.col("quantity") == "B_mom")
    assert set(leads.select("n", "estimate").rows()) == {(0, None)}
    lost = pl.struct("batch_size", "seed").is_in([{"batch_size": 4, "seed": 0}, {"batch_size": 8, "seed": 1}])
    holes = trials.filter(~lost)
    assert [cells.n for cells in rates_of(holes)] == [2, 2]  # a cell that lacks one of two seeds is left out


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
