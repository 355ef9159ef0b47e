import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from sgdscope.analysis.rate_choice import Chosen, scores_by_batch_size
from sgdscope.analysis.score_limits import margin_of, score_limits, score_margin
from sgdscope.analysis.tables import Tables
from sgdscope.analysis.trial_table import by_optimizer
from sgdscope.claims.decide import findings
from sgdscope.claims.finding import SCORE, Finding, in_zone, without_equivalences
from sgdscope.records import WorkloadRecord
from sgdscope.report.figures.best_score import wide_margin_sentences
from sgdscope.stats.intervals import Estimate
from sgdscope.testing.simulated import PLATEAU, RECORD, Truth, simulate, trial_table

MARGIN = 0.004


def test_each_workload_has_its_own_margin_and_one_without_it_that_of_its_scores():
    trials = trial_table({"sgd": simulate(np.random.default_rng(0), 3, Truth())})
    names = ("declared", "other")
    both = pl.concat([trials.with_columns(workload=pl.lit(name)) for name in names])
    records = {name: replace(RECORD, name=name) for name in names}
    found = Tables(both, records, {"declared": 0.02}).score_limits
    alone = {
        name: Tables(both.filter(workload=name), records, margin).score_limits
        for name, margin in (("declared", 0.02), ("other", None))
    }
    assert_frame_equal(found, pl.concat(alone.values()))
    assert set(found.filter(workload="declared")["margin"]) == {0.02}
    assert set(found.filter(workload="other")["margin"]) != {0.02}


def record(score_name, test_examples, goal="maximize"):
    return WorkloadRecord("w", "1", (), "0" * 64, (1024, 256, test_examples), score_name, goal, 2.3, 0.11)


@pytest.mark.parametrize(
    ("plateau", "test_examples", "margin"),
    [
        (0.80, 10_000, 0.004),  # 2 % of the errors
        (0.99, 1000, 0.002),  # two test examples are more
        (0.50, 10_000, 0.005),  # half a point is less
        (0.985, 256, 0.005),  # so it is than two test examples
        (0.9, 100, 0.01),  # and one test example is more than that
        (1.00, 517, 2 / 517),
        (0.60, 0, 0.005),
    ],
)
def test_of_an_accuracy_it_is_a_part_of_the_errors_between_test_examples_and_half_a_point(
    plateau, test_examples, margin
):
    assert score_margin(plateau, record("accuracy", test_examples)) == pytest.approx(margin)
    percent = score_margin(100 * plateau, record("accuracy (%)", test_examples))
    assert percent == pytest.approx(100 * margin)


@pytest.mark.parametrize(("plateau", "margin"), [(80.0, 1.6), (-2.0, 0.04), (0.5, 0.01)])
def test_of_another_score_it_is_a_part_of_the_score(plateau, margin):
    assert score_margin(plateau, record("perplexity", 10, "minimize")) == pytest.approx(margin)


def test_the_plateau_begins_at_the_smallest_batch_size_and_at_constant_steps_where_the_score_is_best():
    scores = {
        size: Chosen(np.arange(2), np.array([level - 0.01, level + 0.01]))
        for size, level in ((8, 0.60), (64, 0.90), (512, 0.80))
    }
    of = record("accuracy", 10_000)
    assert margin_of(scores, "epochs:30", of, None) == pytest.approx(0.005)
    assert margin_of(scores, "somebody's", of, None) == pytest.approx(0.005)
    assert margin_of(scores, "steps:480", of, None) == pytest.approx(0.02 * 0.10)
    assert margin_of(scores, "steps:480", of, 0.2) == 0.2


def test_limits_stand_at_half_and_double_the_margin_and_the_margin_as_a_share_of_the_errors():
    """Against a study that declares each margin by itself."""
    falling = simulate(np.random.default_rng(4), 15, Truth(lost=lambda x: 0.003 * max(0.0, x - 6)))
    ahead = simulate(np.random.default_rng(5), 15, Truth())
    trials = trial_table({"sgd": falling, "momentum:0.9": ahead})
    at = {margin: score_limits(trials, {RECORD.name: RECORD}, margin) for margin in (0.002, 0.004, 0.008)}
    for name, margin in (("low", 0.004), ("low_at_half", 0.002), ("low_at_double", 0.008)):
        assert at[0.004][name].to_list() == at[margin]["low"].to_list()
        high = name.replace("low", "high")
        assert at[0.004][high].to_list() == at[margin]["high"].to_list()
    assert at[0.002]["low"].to_list() != at[0.008]["low"].to_list()
    levels = [chosen.scores.mean() for chosen in scores_by_batch_size(cells_of_sgd(trials), RECORD).values()]
    assert at[0.004]["margin_of_errors"][0] == pytest.approx(0.004 / (1 - levels[0]))


def study(plateau, n=15):
    """Momentum and SGD whose score falls slowly from batch size 64 on, at the accuracy that is given."""
    found = {}
    for seed, optimizer in enumerate(("sgd", "momentum:0.9")):
        truth = Truth(lost=lambda x: PLATEAU - plateau, spread=0.0005, luck=0.0, height=0.002)
        found[optimizer] = simulate(np.random.default_rng(seed), n, truth)
    return Tables(trial_table(found), {RECORD.name: RECORD}, MARGIN)


@pytest.mark.parametrize(("plateau", "wide"), [(0.97, False), (0.993, True)])
def test_a_margin_above_half_of_the_errors_supports_no_equivalence_and_is_said(plateau, wide):
    tables = study(plateau)
    share = tables.score_limits["margin_of_best_errors"][0]
    best = tables.optima.filter(criterion="score", optimizer="sgd")["test_score"].max()
    assert share == pytest.approx(MARGIN / (1 - best))
    assert (share > 0.5) == wide
    said = [sentence for sentence in wide_margin_sentences(tables) if "exceeds half of the errors" in sentence]
    assert len(said) == wide
    of = {f.claim: f for f in findings(tables) if f.optimizer == "sgd" and f.effects}
    assert of["C1"].verdict == ("inconclusive" if wide else "supported")
    assert of["C4"].effects[0].verdict == ("inconclusive" if wide else "contradicted")
    assert all(("exceeds half of the errors" in of[claim].reason) == wide for claim in ("C1", "C4"))
    assert of["C3"].verdict == "supported"
    assert "half of the errors" not in of["C3"].reason


def test_a_wide_margin_leaves_what_exceeds_it():
    over = Estimate(0.01, 0.008, 0.012, 0.007, 0.013)
    kept = in_zone("loss", over, (MARGIN, math.inf), 5, SCORE)
    assert kept.verdict == "supported"
    apart = in_zone("difference", over, (-MARGIN, MARGIN), 5, SCORE)
    assert apart.verdict == "contradicted"
    finding = Finding("C1", effects=(kept, apart))
    assert without_equivalences(finding, MARGIN) == finding


def cells_of_sgd(trials):
    return next(members for key, members in by_optimizer(trials) if key["optimizer"] == "sgd")
