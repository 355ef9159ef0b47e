"""The value of a searched coefficient is chosen in each cell on the validation split alone."""

import numpy as np
import polars as pl
import pytest

from sgdscope.analysis.coefficients import with_chosen_coefficients
from sgdscope.analysis.optima import optima
from sgdscope.budget import Epochs, Steps
from sgdscope.engine.search import search
from sgdscope.errors import InputError
from sgdscope.optimizers import SGD, AdamW, Values
from sgdscope.store import TRIALS_SCHEMA
from sgdscope.study import Declaration, Study
from sgdscope.workloads.digits import digits

DECLARED = AdamW(weight_decay=Values(0, 0.1, 1))


@pytest.fixture(scope="module")
def record():
    return digits(hidden=8).record()


def rows(trial_row, optimizer, validation, test, rates=(0.5, 1.0), seeds=6, noise=0.01, batch_size=32):
    """Trials whose mean score falls with the distance to the rate 1, from these scores on."""
    rng = np.random.default_rng(len(optimizer))
    return [
        trial_row(
            workload="digits", optimizer=optimizer, batch_size=batch_size, learning_rate=rate, seed=seed,
            validation_score=validation - 0.1 * abs(rate - 1) + noise * rng.normal(), test_score=test, train_loss=0.5,
        )
        for rate in rates
        for seed in range(seeds)
    ]  # fmt: skip


def table(*parts):
    return pl.DataFrame([row for part in parts for row in part], schema=TRIALS_SCHEMA)


def test_the_best_by_the_validation_score_is_chosen_whatever_the_test_score_says(trial_row, record):
    trials = table(
        rows(trial_row, "adamw:weight_decay=0", 0.6, 0.99),
        rows(trial_row, "adamw:weight_decay=0.1", 0.9, 0.5),
        rows(trial_row, "adamw:weight_decay=1", 0.899, 0.98),
        rows(trial_row, "sgd", 0.7, 0.7),
    )
    found = with_chosen_coefficients(trials, (DECLARED, SGD()), {"digits": record})
    assert found.group_by("optimizer", "coefficient").len().sort("optimizer").rows() == [
        (str(DECLARED), 0.1, 12),
        ("sgd", None, 12),
    ]
    row = optima(found, {"digits": record}).row(
        by_predicate=(pl.col("criterion") == "score") & pl.col("coefficient").is_not_null(), named=True
    )
    assert (row["optimizer"], row["coefficient"], row["learning_rate"]) == (str(DECLARED), 0.1, 1.0)
    assert row["coefficient_contenders"] == "0.1|1"  # 0 is far behind, and 1 within chance
    assert row["test_score"] == 0.5


def test_each_batch_size_chooses_for_itself_and_what_diverges_is_not_chosen(trial_row, record):
    diverged = [
        row | {"status": "diverged", "validation_score": None} for row in rows(trial_row, "adamw:weight_decay=1", 1, 1)
    ]
    trials = table(
        rows(trial_row, "adamw:weight_decay=0", 0.6, 0.6),
        diverged,
        rows(trial_row, "adamw:weight_decay=0", 0.6, 0.6, batch_size=64),
        rows(trial_row, "adamw:weight_decay=0.1", 0.9, 0.9, batch_size=64),
    )
    found = with_chosen_coefficients(trials, (DECLARED,), {"digits": record})
    assert found.select("batch_size", "coefficient").unique().sort("batch_size").rows() == [(32, 0.0), (64, 0.1)]


def test_without_a_searched_coefficient_the_table_is_what_it_was(trial_row, record):
    trials = table(rows(trial_row, "sgd", 0.7, 0.7))
    assert with_chosen_coefficients(trials, (SGD(),), {"digits": record}) is trials


# ── In a study ───────────────────────────────────────────────────────────────────────────────────────────


def declaration(*optimizers, **changes):
    fields = {"batch_sizes": (32,), "budgets": Epochs(1), "optimizers": optimizers, "seeds": 2} | changes
    return Study(name="s", workloads=digits(hidden=8), **fields).declaration()


def test_each_value_is_searched_with_its_own_rates_and_is_part_of_a_trials_id():
    declared = declaration(DECLARED, learning_rates=(0.01, 0.1))
    trials = search(declared, pl.DataFrame(schema=TRIALS_SCHEMA)).trials
    assert len({trial.id for trial in trials}) == len(trials) == 3 * 2 * 2
    alone = declaration(AdamW(weight_decay=0.1), learning_rates=(0.01, 0.1))
    assert {t.id for t in search(alone, pl.DataFrame(schema=TRIALS_SCHEMA)).trials} < {trial.id for trial in trials}


def test_a_folder_keeps_it_and_can_be_extended_by_further_values():
    declared = declaration(SGD(), DECLARED)
    assert Declaration.from_json(declared.to_json()) == declared
    more = declaration(SGD(), AdamW(weight_decay=Values(0, 0.1, 1, 2)))
    assert declared.differences(more) == []
    assert more.differences(declared) != []
    assert declaration(AdamW(weight_decay=0.1)).differences(declaration(DECLARED)) == []


def test_one_coefficient_is_searched_and_not_two():
    with pytest.raises(InputError, match="search one coefficient"):
        declaration(AdamW(beta1=Values(0.8, 0.9), weight_decay=Values(0, 1)), budgets=Steps(2))
