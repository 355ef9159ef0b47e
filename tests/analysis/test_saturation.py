"""When more epochs gain nothing more: the rule by hand, its error rate by simulation, and the table of a study."""

import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

from sgdscope.analysis.saturation import LEAST_FALL, Outcome, saturated, saturation, stops
from sgdscope.budget import Unlimited
from sgdscope.records import WorkloadRecord
from sgdscope.store import TRIALS_SCHEMA

# One of 100 test examples is more than half a point: the margin is 0.01 throughout.
RECORD = WorkloadRecord("w", "1", (), "0" * 64, (1024, 256, 100), "accuracy", "maximize", 2.3, 0.11)
MARGIN = 0.01
BUDGET = Unlimited(5, 80)  # 5, 10, 20, 40, 80: three looks at the score, four at the loss


def outcomes(values, budget=BUDGET):
    """Outcomes of the first budgets; ``values`` has shape (budgets, seeds)."""
    values = np.asarray(values, float)
    seeds = np.arange(values.shape[1])
    return [Outcome(b.n, seeds, row, float(row.mean())) for b, row in zip(budget.budgets, values, strict=False)]


# ── The rule ─────────────────────────────────────────────────────────────────────────────────────────────────


def bound(differences, level):
    """The one-sided upper bound of a mean, from another library."""
    return stats.ttest_1samp(differences, 0.0, alternative="less").confidence_interval(level).high


def test_the_score_saturates_where_both_gains_are_bounded_below_the_margin():
    noise = np.array([[0.0, 0.002, -0.001, 0.001], [0.001, 0.0, 0.001, -0.002], [0.002, -0.001, 0.0, 0.001]])
    level = 1 - 0.05 / 3
    for gains, saturates in (((0, 0), True), ((0, 0.01), False), ((0.01, 0), False), ((-0.05, -0.1), True)):
        values = 0.9 + noise + np.array([0.0, *gains])[:, None]
        found = saturated(outcomes(values), RECORD, "score", BUDGET)
        upper = max(bound(values[1] - values[0], level), bound(values[2] - values[0], level))
        assert found.upper_bound == pytest.approx(upper)
        assert found.margin == pytest.approx(MARGIN)
        assert (upper < MARGIN) == saturates
        assert found.saturated_at == (5.0 if saturates else None)


def test_two_doublings_are_needed_for_the_score_and_one_for_the_loss():
    values = np.full((1, 4), 0.9)
    assert saturated(outcomes(values), RECORD, "train_loss", BUDGET).saturated_at is None
    values = np.full((2, 4), 0.9)
    assert saturated(outcomes(values), RECORD, "score", BUDGET).saturated_at is None
    assert saturated(outcomes(values), RECORD, "train_loss", BUDGET).saturated_at == 5.0
    assert saturated(outcomes(np.full((3, 4), 0.9)), RECORD, "score", BUDGET).saturated_at == 5.0


def test_the_loss_saturates_where_its_fall_is_bounded_below_a_tenth():
    noise = np.array([0.01, -0.01, 0.02, -0.02])
    for fall in (0.05, 0.2):
        values = np.array([1.0 + noise, 1.5 + 2 * noise, 1.5 + fall + noise])  # minus log losses
        found = saturated(outcomes(values), RECORD, "train_loss", BUDGET)
        upper = bound(values[2] - values[1], 1 - 0.05 / 4)
        assert found.upper_bound == pytest.approx(upper)
        assert found.margin == LEAST_FALL
        assert found.saturated_at == (10.0 if upper < LEAST_FALL else None)
        assert (found.saturated_at is not None) == (fall == 0.05)


def test_a_loss_floor_stops_at_the_first_budget_that_meets_it():
    floor = Unlimited(5, 80, loss_floor=0.01)
    values = -np.log([[0.1, 0.2, 0.1], [0.005, 0.02, 0.01], [1e-4, 1e-4, 1e-4]])  # the second's geometric mean is 0.01
    assert saturated(outcomes(values[:1]), RECORD, "train_loss", floor).saturated_at is None
    for there in (2, 3):
        found = saturated(outcomes(values[:there] + 1e-9), RECORD, "train_loss", floor)
        assert (found.saturated_at, found.upper_bound) == (10.0, None)
    assert saturated(outcomes(values), RECORD, "score", floor).saturated_at is None


def test_the_margin_follows_the_best_score_so_far_in_the_scores_own_sign():
    perplexity = WorkloadRecord("w", "1", (), "0" * 64, (9, 9, 9), "perplexity", "minimize", 7.0, 900.0)
    values = -np.array([[120.0] * 3, [104.0] * 3, [101.0] * 3, [100.0] * 3, [100.0] * 3])
    found = saturated(outcomes(values), perplexity, "score", BUDGET)
    assert found.saturated_at == 20.0  # 101 − 100 is within 2 % of 100, 104 is not
    assert found.margin == pytest.approx(2.0)


def test_one_seed_and_budgets_at_which_everything_diverges_never_say_that_it_has_saturated():
    assert saturated(outcomes(np.full((5, 1), 0.9)), RECORD, "score", BUDGET).saturated_at is None
    without = outcomes(np.full((4, 3), 0.9))
    without[1] = None
    assert saturated(without, RECORD, "score", BUDGET).saturated_at is None


@pytest.mark.parametrize("n", [5, 10, 15])
@pytest.mark.parametrize(
    "gains",
    [
        (0.0, 1.0, 1.0),  # at the first look all of the margin is to be gained by 2E, and stays
        (0.0, 0.0, 1.0),  # by 4E alone
        (0.0, 1.0, 0.0),  # by 2E alone
        (0.0, 1.0, 2.0, 3.0, 4.0),  # at every look
        (0.0, 0.0, 1.0, 1.0, 2.0),
    ],
)
def test_it_is_called_saturated_too_early_in_at_most_one_study_of_twenty(n, gains):
    """The true gain of each E over max(2E, 4E) is exactly the margin, the hardest case, wherever it is looked at."""
    rng, studies = np.random.default_rng(n), 1000
    budget = Unlimited(1, 2 ** (len(gains) - 1))
    wrong = 0
    for _ in range(studies):
        seed, each = rng.normal(0, 0.004, n), rng.normal(0, 0.004, (len(gains), n))
        found = saturated(
            outcomes(0.9 + MARGIN * np.array(gains)[:, None] + seed + each, budget), RECORD, "score", budget
        )
        epochs = found.saturated_at
        if epochs is not None:
            at = round(math.log2(epochs))
            wrong += max(gains[at + 1 : at + 3]) - gains[at] >= 1.0
    assert wrong / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


@pytest.mark.parametrize("n", [5, 10, 15])
def test_a_falling_loss_is_called_saturated_in_at_most_one_study_of_twenty(n):
    rng, studies = np.random.default_rng(n), 1000
    falls = LEAST_FALL * np.arange(5)[:, None]
    wrong = sum(
        saturated(outcomes(falls + rng.normal(0, 0.1, (5, n))), RECORD, "train_loss", BUDGET).saturated_at is not None
        for _ in range(studies)
    )
    assert wrong / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


# ── From a table of trials ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def trials(trial_row):
    """Rates 0.5 and 1: validation prefers 0.5, the training loss 1; both have stopped at 5, as 10 and 20 show."""
    rows = []
    for epochs, test, loss in ((5, 0.900, 0.10), (10, 0.902, 0.099), (20, 0.890, 0.098), (80, 0.99, 1e-9)):
        for seed in range(4):
            wobble = 0.001 * (-1) ** seed
            common = {"optimizer": "sgd", "batch_size": 8, "budget": f"epochs:{epochs}", "seed": seed}
            rows += [
                trial_row(
                    **common, learning_rate=0.5, effective_learning_rate=0.5, train_loss=2 * loss,
                    validation_score=test + wobble, test_score=test + wobble * (epochs + 1) / epochs,
                ),
                trial_row(
                    **common, learning_rate=1.0, effective_learning_rate=1.0, train_loss=loss * (1 + wobble),
                    validation_score=0.5, test_score=0.999,
                ),
            ]  # fmt: skip
    return pl.DataFrame(rows, schema=TRIALS_SCHEMA)


def test_the_table_has_the_maximum_over_budgets_and_the_later_fall(trials):
    table = saturation(trials, {"w": RECORD}, BUDGET)
    score, loss = table.rows(named=True)
    assert (score["criterion"], loss["criterion"]) == ("score", "train_loss")
    # 80 epochs are of another question: 40 were not tried.
    for row in (score, loss):
        assert (row["epochs_tried"], row["saturated_at"], row["ceiling_reached"], row["n"]) == (20.0, 5.0, False, 4)
        assert row["upper_bound"] < row["margin"]
    assert (score["best_epochs"], loss["best_epochs"]) == (10.0, 20.0)
    assert score["best"] == pytest.approx(0.902)
    scores = 0.902 + 0.001 * 1.1 * np.array([1, -1, 1, -1])
    half = stats.t.ppf(0.975, 3) * scores.std(ddof=1) / 2
    assert (score["best_low"], score["best_high"]) == pytest.approx((0.902 - half, 0.902 + half))
    assert score["later_fall"] == pytest.approx(0.012)
    assert score["later_fall_low"] < 0.012 < score["later_fall_high"]
    assert (loss["later_fall"], loss["later_fall_low"]) == (0.0, 0.0)
    assert loss["best"] == pytest.approx(0.098 * math.exp(np.log([1.001, 0.999, 1.001, 0.999]).mean()))
    assert loss["best_low"] < loss["best"] < loss["best_high"]


def test_it_stops_where_both_criteria_have():
    flat, rising = outcomes(np.full((4, 3), 0.9)), outcomes(np.arange(12.0).reshape(4, 3))
    for score, loss, after in ((flat, flat, 3), (rising, flat, None), (flat, rising, None)):
        stopped = [stops({"score": score[:k], "train_loss": loss[:k]}, RECORD, BUDGET) for k in range(5)]
        assert stopped == [after is not None and k >= after for k in range(5)]


def test_a_ceiling_that_was_reached_is_told(trials):
    better = 0.05 * (pl.col("budget") == "epochs:20")
    short = trials.with_columns(pl.col("test_score") + better, pl.col("validation_score") + better)
    score, loss = saturation(short, {"w": RECORD}, Unlimited(5, 20)).rows(named=True)
    assert (score["saturated_at"], score["ceiling_reached"], score["best_epochs"]) == (None, True, 20.0)
    assert (loss["saturated_at"], loss["ceiling_reached"]) == (5.0, False)


def test_where_everything_diverged_there_is_a_row_without_numbers(trials):
    gone = trials.with_columns(status=pl.lit("diverged"), train_loss=None, test_score=None, validation_score=None).cast(
        TRIALS_SCHEMA
    )
    for row in saturation(gone, {"w": RECORD}, BUDGET).rows(named=True):
        assert (row["saturated_at"], row["best"], row["epochs_tried"]) == (None, None, 20.0)
    assert saturation(trials.clear(), {"w": RECORD}, BUDGET).is_empty()
