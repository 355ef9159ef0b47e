"""Which trials failed to train: against a count trial by trial, and what follows for rates, tables and sentences."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sgdscope.analysis.collapse import collapsed_trials
from sgdscope.analysis.curve import curve
from sgdscope.analysis.failures import FAILURES_SCHEMA, failure_sentences
from sgdscope.analysis.tables import Tables
from sgdscope.records import WorkloadRecord

RECORD = WorkloadRecord("w", "1", (), "0" * 64, (1024, 256, 500), "accuracy", "maximize", 2.3, 0.1)
CONSTANT = (0.1, 2.3)


def cell(outcomes, size=8, optimizer="sgd"):
    """The trials of a cell from (score, loss) by rate and seed; None for a diverged trial."""
    return pl.DataFrame(
        [
            {"workload": "w", "budget": "epochs:1", "optimizer": optimizer, "batch_size": size, "seed": seed}
            | {"learning_rate": 2.0**octave, "effective_learning_rate": 2.0**octave, "steps": 100}
            | {"status": "complete" if of else "diverged", "train_loss": of and of[1]}
            | {"validation_score": of and of[0], "test_score": of and of[0]}
            for octave, row in enumerate(outcomes)
            for seed, of in enumerate(row)
        ],
        infer_schema_length=None,
    )


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.one_of(st.none(), st.tuples(st.floats(0.1, 1), st.floats(0.01, 9)))),
        min_size=1,
        max_size=20,
    )
)
def test_a_trial_has_collapsed_where_both_gains_are_below_half_of_the_best_mean_gain(trials):
    def gains(of, which):
        return 0.0 if of is None else (of[0] - CONSTANT[0] if which == 0 else CONSTANT[1] - of[1])

    most = [
        max(np.mean([gains(of, which) for k, of in trials if k == rate]) for rate in {k for k, _ in trials})
        for which in (0, 1)
    ]
    dead = most[0] <= 0.05 and most[1] <= 0.023
    telling = [which for which in (0, 1) if most[which] > 0]
    low = [all(gains(of, w) < most[w] / 2 for w in telling) and bool(telling) for _, of in trials]
    expected = [of is not None and (dead or fails) for fails, (_, of) in zip(low, trials, strict=True)]
    columns = [[math.nan if of is None else of[k] for _, of in trials] for k in (0, 1)]
    found = collapsed_trials(
        np.array([2.0**k for k, _ in trials]),
        *map(np.array, columns),
        np.array([of is None for _, of in trials]),
        RECORD,
    )
    assert found.tolist() == expected


@pytest.mark.parametrize("score", [0.12, math.nan])
def test_where_no_rate_beats_the_constant_baseline_each_trial_has_collapsed(score):
    rates, dead = np.repeat([0.1, 1.0], 3), np.full(6, 2.31)
    found = collapsed_trials(rates, np.full(6, score), dead, np.arange(6) == 5, RECORD)
    assert found.tolist() == [True] * 5 + [False]


def test_of_a_table_without_a_constant_baseline_no_trial_collapses():
    unknown = WorkloadRecord("w", "1", (), "", (0, 0, 0), "accuracy", "maximize", math.nan, math.nan)
    assert not collapsed_trials(np.ones(3), np.array([0.1, 0.9, 0.9]), np.ones(3), np.zeros(3, bool), unknown).any()


def test_a_rate_at_which_trials_collapse_is_not_eligible_and_scores_stay_as_measured():
    good, better, dead = (0.9, 0.1), (0.97, 0.01), (0.1, 2.4)
    trials = cell([[good] * 5, [better] * 3 + [dead] * 2, [dead] * 4 + [None]])
    found = curve(trials, RECORD, "score")
    assert found.eligible.tolist() == [True, False, False]
    assert curve(trials, RECORD, "train_loss").eligible.tolist() == [True, False, False]
    tables = Tables(trials, {"w": RECORD})
    assert tables.failures["collapsed"].to_list() == [0, 2, 4]
    assert tables.failures["diverged"].to_list() == [0, 0, 1]
    assert tables.curves["test_score"][2] == pytest.approx(0.1)
    row = tables.optima.filter(criterion="score").row(0, named=True)
    assert (row["learning_rate"], row["collapsed"], row["cell_collapsed"], row["cell_diverged"]) == (1.0, 0, 6, 1)


def test_one_sentence_says_at_which_rates_each_batch_size_fails():
    good, dead = (0.9, 0.1), (0.1, 2.4)
    sizes = {2: 1, 4: 2, 8: 2, 16: 3, 32: 4}  # so many rates train
    trials = pl.concat(
        [cell([[good] * 3] * rates + [[dead, None, dead]] * (4 - rates), size) for size, rates in sizes.items()]
        + [cell([[good] * 3], optimizer="momentum:0.9")]
    )
    assert failure_sentences(Tables(trials, {"w": RECORD}).failures) == [
        "sgd: 24 of 60 trials failed to train. More than 20 % fail from this learning rate on: 2 (batch size 2), 4 "
        "(batch sizes 4 and 8), 8 (batch size 16).",
        "momentum:0.9: all 3 trials trained.",
    ]
    empty = pl.DataFrame(schema=FAILURES_SCHEMA)
    assert failure_sentences(empty) == []


def test_the_share_that_fails_has_the_exact_interval_of_scipy():
    good, dead = (0.9, 0.1), (0.1, 2.4)
    trials = cell([[good] * (5 - failed) + [dead] * failed for failed in (0, 1, 2, 5)])
    assert [round(5 * share) for share in Tables(trials, {"w": RECORD}).failures["failed"]] == [0, 1, 2, 5]
    for row in Tables(trials, {"w": RECORD}).failures.iter_rows(named=True):
        expected = stats.binomtest(row["diverged"] + row["collapsed"], row["n"]).proportion_ci(0.95, "exact")
        assert (row["failed_low"], row["failed_high"]) == pytest.approx(expected)
