"""What is said of a study in words, against what was planted in it."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from sgdscope.analysis.tables import Tables
from sgdscope.report.text.summary import regime_sentences, sentences, summary_rows, threshold_sentences
from sgdscope.testing import simulated


def tables(laws, n=8):
    """A study whose optimizers have these laws of the optimal rate, with little noise, half octaves apart."""
    rng = np.random.default_rng(0)
    truths = {name: simulated.Truth(law=law, spread=0.001, grid=0.5) for name, law in laws.items()}
    trials = simulated.trial_table({name: simulated.simulate(rng, n, truth) for name, truth in truths.items()})
    return Tables(trials, {"simulated": simulated.RECORD}, score_margin=0.01)


@pytest.mark.usefixtures("quick")
def test_regimes_are_named_with_their_batch_sizes_as_far_as_bends_are_known():
    """The planted bend is at 2^6.3 = 79, and the training set has 1,024 examples."""
    said = regime_sentences(tables({"sgd": "linear", "momentum:0.9": "linear"}))
    assert [sentence.split(",")[0] for sentence in said] == ["sgd", "momentum:0.9"]
    for sentence in said:
        assert "noise-dominated are 4, 8, 16, 32, 64;" in sentence
        assert "curvature-dominated are 128, 256, 512, 1024 (95 %, n = 8)" in sentence
    own = regime_sentences(tables({"sgd": "constant", "momentum:0.9": "linear"}))
    none = (
        "of the batch sizes: noise-dominated are none (too few to identify it; to add: 2, 1); curvature-dominated are"
    )
    assert own == [
        f"sgd, {none} 4, 8, 16, 32, 64, 128, 256, 512, 1024 (95 %, n = 8).",
        f"momentum:0.9, {none} 128, 256, 512, 1024 (95 %, n = 8).",
    ]
    both = regime_sentences(tables({"sgd": "constant", "momentum:0.9": "constant"}))
    assert [sentence.split(f", {none} ")[1] for sentence in both] == [
        "4, 8, 16, 32, 64, 128, 256, 512, 1024 (95 %, n = 8)."
    ] * 2


@pytest.mark.usefixtures("quick")
def test_that_the_smallest_batch_size_holds_is_not_told_for_a_finding():
    trials = tables({"sgd": "linear"}).trials
    worse = pl.when(pl.col("batch_size") > 4).then(pl.col("test_score") - 0.2).otherwise(pl.col("test_score"))
    said = threshold_sentences(Tables(trials.with_columns(test_score=worse), {"simulated": simulated.RECORD}, 0.01))
    assert "is shown to hold at no batch size beyond 4, the smallest, and to be lost by 8 (to within 0.01, " in said[0]


@pytest.mark.usefixtures("quick")
def test_where_nothing_is_lost_and_nothing_gained_the_sentences_say_so():
    said = threshold_sentences(tables({"sgd": "linear", "momentum:0.9": "linear"}))
    assert "sgd: test accuracy is shown to hold up to batch size 1024, and not shown to be lost at any" in said[0]
    lead = next(sentence for sentence in said if "against sgd:" in sentence)
    assert "shown to be ahead by more than 0.01 at no batch size, and shown not to be up to batch size 1024" in lead


def test_a_rate_is_not_best_for_the_training_loss_without_its_exploded_seeds_being_named():
    rows = [
        {"workload": "w", "budget": "epochs:1", "optimizer": "sgd", "batch_size": 8, "learning_rate": rate}
        | {"seed": seed, "effective_learning_rate": rate, "status": "complete", "steps": 10, "train_loss": loss}
        | {"validation_score": 0.9, "test_score": 0.9}
        for rate, losses in ((0.25, [1e-3] * 5), (0.5, [0.0] * 4 + [50.0]))
        for seed, loss in enumerate(losses)
    ]  # fmt: skip
    record = replace(simulated.RECORD, name="w", constant_loss=0.7)
    exploded = Tables(pl.DataFrame(rows), {"w": record}, None)
    assert summary_rows(exploded)[0][4].endswith("§")
    assert any(
        "learning rate 0.5 has the lowest training loss on average, but 1 of 5 seeds diverged or ended above" in said
        for said in sentences(exploded)
    )
    whole = Tables(pl.DataFrame(rows).with_columns(train_loss=pl.lit(0.0)), {"w": record}, None)
    assert summary_rows(whole)[0][4] == "≤8.3e-08‡"  # both rates tie, so the best one is at an edge of them
    assert not any("on average" in said for said in sentences(whole))


def test_batch_sizes_that_cannot_be_compared_are_not_said_to_be_missing():
    trials = tables({"sgd": "linear"}).trials
    without = trials.with_columns(test_score=pl.lit(None, pl.Float64), validation_score=pl.lit(None, pl.Float64))
    said = sentences(Tables(without, {"simulated": simulated.RECORD}, 0.01))
    assert any("training loss: 0 of 9 batch sizes can be compared, which is too few" in sentence for sentence in said)
