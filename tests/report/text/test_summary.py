"""What is said of a study in words, against what was planted in it."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from sgdscope.analysis.tables import Tables
from sgdscope.report.figures.two_regimes import regime_sentences
from sgdscope.report.text.summary import caption, sentences, summary_rows
from sgdscope.testing import simulated


def tables(laws, n=8):
    """A study whose optimizers have these laws of the optimal rate, with little noise, half octaves apart."""
    rng = np.random.default_rng(0)
    truths = {name: simulated.Truth(law=law, spread=0.001, grid=0.5) for name, law in laws.items()}
    trials = simulated.trial_table({name: simulated.simulate(rng, n, truth) for name, truth in truths.items()})
    return Tables(trials, {"simulated": simulated.RECORD}, score_margin=0.01)


@pytest.mark.usefixtures("quick")
def test_regimes_are_named_with_their_batch_sizes_as_far_as_bends_are_known():
    """The planted bend is at 2^6.3 = 79, and the training set has 1,024 examples.

    64 lies in the bend's interval, as it does with 30 seeds: between rates half an octave apart an optimum strays by an
    eighth of an octave, which no seed tells.
    """
    said = regime_sentences(tables({"sgd": "linear", "momentum:0.9": "linear"}))
    assert said == [
        f"{name} is noise-dominated at 4 to 32 and curvature-dominated at 128 and larger (95 %, 8 seeds)."
        for name in ("sgd", "momentum:0.9")
    ]
    own = regime_sentences(tables({"sgd": "constant", "momentum:0.9": "linear"}))
    text = (
        "{} is noise-dominated at no batch size and curvature-dominated at {} (95 %, 8 seeds). Add batch sizes 1 and "
    )
    text += "2: claims need 3 batch sizes in a regime."
    every, large = "4 and larger", "128 and larger"
    assert own == [text.format("sgd", every), text.format("momentum:0.9", large)]
    both = regime_sentences(tables({"sgd": "constant", "momentum:0.9": "constant"}))
    assert both == [text.format("sgd", every), text.format("momentum:0.9", every)]


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
    assert any("training loss: 0 of 9 batch sizes can be compared. The transition" in sentence for sentence in said)


@pytest.mark.usefixtures("quick")
def test_the_caption_counts_failures_only_where_there_are_some():
    found = tables({"sgd": "linear"}, n=3)
    counts = {name: int(found.curves[name].sum()) for name in ("diverged", "collapsed")}
    said = [f"{count} {name}" for name, count in counts.items() if count]
    assert f" trials {' and '.join(said) or 'none did'}. " in caption(found)
    assert " 0 " not in caption(found)
