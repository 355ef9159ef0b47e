"""A score that is not finite at a finite loss is a missing score, and no divergence."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from rich.console import Console

import sgdscope as sg
from sgdscope.analysis.external_table import read_results, records_of
from sgdscope.analysis.tables import Tables
from sgdscope.report.text.summary import headings, sentences, summary_rows
from sgdscope.store import ended


def split(n, seed):
    x = np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)
    return {"x": x, "y": (x[:, 0] > 0).astype(np.float32)}


def margin(p, batch):
    return (2.0 * batch["y"] - 1.0) * (batch["x"] @ p["w"])


def study(score, **fields):
    workload = sg.Workload(
        name="w", version="1", train=split(64, 0), validation=split(32, 1), test=split(32, 2),
        init=lambda key: {"w": 0.1 * jax.random.normal(key, (3,))}, score=score,
        loss=lambda p, batch: jax.nn.softplus(-margin(p, batch)), constant_loss=0.69, constant_score=0.5,
    )  # fmt: skip
    plain = {"batch_sizes": (4, 16), "learning_rates": (0.1, 0.5), "seeds": 2, "optimizers": sg.SGD()}
    return sg.Study(name="s", workloads=workload, budgets=sg.Epochs(3), **(plain | fields))


def right(p, batch):
    return (margin(p, batch) > 0).astype(jnp.float32)


def finite_up_to(limit):
    return lambda p, batch: jnp.where(jnp.abs(p["w"]).max() > limit, jnp.nan, right(p, batch))


def quietly(asked, folder):
    return sg.run(asked, folder, Console(file=io.StringIO()))


@pytest.mark.parametrize("score", [finite_up_to(0.0), lambda p, batch: right(p, batch) / 0.0])
def test_a_trial_without_a_score_keeps_its_training_loss_and_is_complete(score, tmp_path):
    whole, without = quietly(study(right), tmp_path / "a"), quietly(study(score), tmp_path / "b")
    assert set(without.trials["status"]) == {"complete"}
    assert without.trials["train_loss"].equals(whole.trials["train_loss"])
    assert without.trials["test_score"].null_count() == len(without.trials)
    assert set(without.trials["error"]) == {"the score is not finite on: train, validation, test"}
    (said, *_) = [sentence for sentence in sentences(without.tables) if "no score" in sentence]
    assert said.startswith("8 of 8 trials have no score: it is not finite, though the training loss is.")
    assert not any("rates" in sentence and "lower" in sentence for sentence in sentences(without.tables))
    of_loss = without.optima.filter(criterion="train_loss").drop("without_score")
    for name in ("learning_rate", "train_loss", "diverged"):
        assert of_loss[name].equals(whole.optima.filter(criterion="train_loss")[name])
    assert [row[2] for row in summary_rows(without.tables)] == ["not finite", "not finite"]
    assert "no score: it is not finite" in without.save_report(tmp_path / "page.html").read_text()


def test_rates_without_a_score_are_left_out_of_the_score_alone(tmp_path):
    asked = study(finite_up_to(1.0), learning_rates=(), seeds=3)
    found = quietly(asked, tmp_path)
    assert found.finished
    without = found.curves.filter(pl.col("without_score") > 0)
    assert without.height
    best = found.optima.filter(criterion="score")
    assert best.join(without, on=["batch_size", "learning_rate"]).is_empty()
    assert (best["test_score"] > 0.6).all()
    losses = found.optima.filter(criterion="train_loss")
    assert losses.join(without, on=["batch_size", "learning_rate"]).height == 2  # large rates train best here
    assert (found.trials["status"] == "complete").all()
    # Means of scores are of the trials that have one: the constant predictor stands for none of them.
    row = found.curves.filter(pl.col("without_score") == 0).row(0, named=True)
    mine = ended(found.trials).filter(batch_size=row["batch_size"], learning_rate=row["learning_rate"])
    assert row["test_score"] == pytest.approx(mine["test_score"].mean())


@pytest.mark.parametrize("score", [finite_up_to(0.5), finite_up_to(0.0)])
def test_an_exported_table_says_what_its_study_says(score, tmp_path):
    found = quietly(study(score, seeds=3), tmp_path / "study")
    assert found.trials["test_score"].null_count() > 0
    found.export(tmp_path / "trials.csv")
    read = read_results(tmp_path / "trials.csv")
    assert read.notices == ()
    theirs = Tables(read.trials, records_of(read), read.score_margin)
    # A table has no record of which examples were right, from which the interval for new test data comes.
    more = len(headings(found.tables)) - len(headings(theirs))
    assert summary_rows(theirs) == [(*row[:3], *row[3 + more :]) for row in summary_rows(found.tables)]
    assert sentences(theirs) == sentences(found.tables)


def test_a_perplexity_that_overflows_with_its_loss_is_divergence(tmp_path):
    loss = lambda p, batch: 1000.0 * jax.nn.softplus(-margin(p, batch))
    workload = sg.Workload(
        name="w", version="1", train=split(64, 0), validation=split(32, 1), test=split(32, 2),
        init=lambda key: {"w": 0.1 * jax.random.normal(key, (3,))}, loss=loss, score=loss, score_of_mean=jnp.exp,
        score_goal="minimize", constant_loss=0.69, constant_score=2.0,
    )  # fmt: skip
    asked = sg.Study(
        name="s", workloads=workload, batch_sizes=4, learning_rates=(1e-9,), seeds=1, budgets=sg.Steps(2),
        optimizers=sg.SGD(),
    )  # fmt: skip
    assert quietly(asked, tmp_path).trials["status"].to_list() == ["diverged"]
