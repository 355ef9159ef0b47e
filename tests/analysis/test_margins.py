import numpy as np
import pytest

from sgdscope.analysis.rate_choice import Chosen
from sgdscope.analysis.score_limits import margin_of, score_margin
from sgdscope.records import WorkloadRecord


def record(score_name, test_examples, goal="maximize"):
    return WorkloadRecord("w", "1", (), "0" * 64, (1024, 256, test_examples), score_name, goal, 2.3, 0.11)


@pytest.mark.parametrize(
    ("plateau", "test_examples", "margin"),
    [
        (0.80, 1000, 0.01),  # 5 % of the error
        (0.99, 1000, 0.002),  # two pictures are more
        (0.96, 1000, 0.002),  # as much
        (1.00, 517, 2 / 517),
    ],
)
def test_of_an_accuracy_it_is_a_part_of_the_error_and_at_least_two_test_examples(plateau, test_examples, margin):
    assert score_margin(plateau, record("accuracy", test_examples)) == pytest.approx(margin)


@pytest.mark.parametrize(("plateau", "margin"), [(80.0, 4.0), (-2.0, 0.1), (0.5, 0.025)])
def test_of_another_score_it_is_a_part_of_the_score(plateau, margin):
    assert score_margin(plateau, record("perplexity", 10, "minimize")) == pytest.approx(margin)


def test_the_plateau_begins_at_the_smallest_batch_size_and_at_constant_steps_where_the_score_is_best():
    scores = {
        size: Chosen(np.arange(2), np.array([level - 0.01, level + 0.01]))
        for size, level in ((8, 0.60), (64, 0.90), (512, 0.80))
    }
    of = record("accuracy", 10_000)
    assert margin_of(scores, "epochs:30", of, None) == pytest.approx(0.05 * 0.40)
    assert margin_of(scores, "somebody's", of, None) == pytest.approx(0.05 * 0.40)
    assert margin_of(scores, "steps:480", of, None) == pytest.approx(0.05 * 0.10)
    assert margin_of(scores, "steps:480", of, 0.2) == 0.2
