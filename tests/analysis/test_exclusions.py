"""Cells that have learned next to nothing, and what they must not move."""

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from sgdscope.analysis.exclusions import learning
from sgdscope.analysis.tables import Tables
from sgdscope.report.text.summary import sentences
from sgdscope.testing.simulated import RECORD, Truth, simulate, trial_table

RECORDS = {RECORD.name: RECORD}
SIZES = {8, 512}


@pytest.fixture(scope="module")
def trials():
    rng = np.random.default_rng(0)
    return trial_table({name: simulate(rng, 3, Truth()) for name in ("sgd", "momentum:0.9")})


@pytest.fixture(scope="module")
def spoilt(trials):
    """At two batch sizes next to nothing was learned, and most at one rate that is nowhere else the best."""
    rate = trials["learning_rate"].max()
    here = pl.col("batch_size").is_in(SIZES)
    gain = pl.when(pl.col("learning_rate") == rate).then(0.02).otherwise(0.0)
    scores = {
        name: pl.when(here).then(RECORD.constant_score + gain).otherwise(name)
        for name in ("validation_score", "test_score")
    }
    return trials.with_columns(**scores)


@pytest.mark.usefixtures("quick")
def test_they_take_part_in_no_fit(trials, spoilt):
    without = Tables(spoilt.filter(~pl.col("batch_size").is_in(SIZES)), RECORDS)
    with_them = Tables(spoilt, RECORDS)
    # Of the losses, too: it is the score that tells whether a network has learned.
    assert_frame_equal(with_them.transitions, without.transitions)
    assert not with_them.transitions.equals(Tables(trials, RECORDS).transitions)
    regime = with_them.regimes
    assert set(regime.filter(pl.col("batch_size").is_in(SIZES))["regime"]) == {"unassigned"}
    assert_frame_equal(regime.filter(~pl.col("batch_size").is_in(SIZES)), without.regimes)


@pytest.mark.usefixtures("quick")
def test_they_are_named(spoilt, trials):
    assert {of.key["optimizer"]: of.unlearned for of in learning(spoilt, RECORDS)} == {
        "sgd": (8, 512),
        "momentum:0.9": (8, 512),
    }
    said = [sentence for sentence in sentences(Tables(spoilt, RECORDS)) if "excluded from fits" in sentence]
    assert sorted(sentence.split(": excluded")[0] for sentence in said) == [
        f"{name} at batch size 8, 512" for name in ("momentum:0.9", "sgd")
    ]
    assert not any("excluded from fits" in sentence for sentence in sentences(Tables(trials, RECORDS)))


def test_a_tenth_of_the_best_gain_of_any_optimizer_is_enough(trials):
    gain = 0.1 * (pl.col("validation_score").max() - RECORD.constant_score)

    def learned(share):
        score = pl.when(pl.col("optimizer") == "sgd").then(RECORD.constant_score + share * gain).otherwise(0.9)
        changed = trials.with_columns(validation_score=score)
        return {of.key["optimizer"]: set(of.learned) for of in learning(changed, RECORDS)}

    best = 0.9 - RECORD.constant_score
    highest = trials["validation_score"].max() - RECORD.constant_score
    everywhere = set(trials["batch_size"])
    assert learned(1.01 * best / highest) == dict.fromkeys(("sgd", "momentum:0.9"), everywhere)
    assert learned(0.99 * best / highest) == {"sgd": set(), "momentum:0.9": everywhere}


def test_a_cell_of_which_no_trial_has_ended_is_neither(trials):
    failed = trials.with_columns(status=pl.when(pl.col("batch_size") == 8).then(pl.lit("failed")).otherwise("status"))
    assert all(8 not in of.learned for of in learning(failed, RECORDS))
    assert all(of.unlearned == () for of in learning(failed, RECORDS))
