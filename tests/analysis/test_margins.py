import numpy as np
import pytest

from sgdscope.analysis.rate_choice import Chosen, scores_by_batch_size
from sgdscope.analysis.score_limits import margin_of, score_limits, score_margin
from sgdscope.analysis.trial_table import by_optimizer
from sgdscope.records import WorkloadRecord
from sgdscope.testing.simulated import RECORD, Truth, simulate, trial_table


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


def cells_of_sgd(trials):
    return next(members for key, members in by_optimizer(trials) if key["optimizer"] == "sgd")
