"""Every column of every table has a description, which stands where the table's schema does."""

import numpy as np
import polars as pl
import pytest

import sgdscope as sg
from sgdscope.advice.advice import COSTS_COLUMNS, LEADS_COLUMNS, Advice
from sgdscope.advice.next_trials import FURTHER_COLUMNS
from sgdscope.advice.predicted_rates import RATES_COLUMNS
from sgdscope.advice.recommended import RECOMMENDED_COLUMNS
from sgdscope.advice.timing import SECONDS_COLUMNS
from sgdscope.analysis.tables import COLUMNS, Tables
from sgdscope.claims.decide import CLAIMS_COLUMNS, claims
from sgdscope.errors import InputError
from sgdscope.testing.quadratic import NoisyQuadratic
from sgdscope.testing.simulated import RECORD, Truth, simulate, trial_table

ALL = COLUMNS | {
    "claims": CLAIMS_COLUMNS,
    "recommended": RECOMMENDED_COLUMNS,
    "costs": COSTS_COLUMNS,
    "leads": LEADS_COLUMNS,
    "rates": RATES_COLUMNS,
    "seconds": SECONDS_COLUMNS,
    "further": FURTHER_COLUMNS,
}


@pytest.fixture(scope="module")
def tables():
    rng = np.random.default_rng(0)
    sizes = (4, 16, 64, 256)
    trials = trial_table({name: simulate(rng, 3, Truth(), sizes) for name in ("sgd", "momentum:0.9")})
    return Tables(trials, {"simulated": RECORD}, 0.01)


@pytest.mark.parametrize("name", ALL)
def test_every_column_has_a_description_that_is_a_sentence(name):
    for column in ALL[name].values():
        assert column.description[0] in "`ε" or column.description[0].isupper() or column.description[:8] == "p value "
        assert column.description.endswith(".")
        assert len(column.description.split()) <= 45


def test_the_tables_of_a_study_have_the_columns_that_are_described(tables):
    found = tables.all() | {"claims": claims(tables)} | Advice(tables).all()
    assert {"curves", "optima", "transitions", "regimes", "score_limits", "test_set", "rates"} <= set(found)
    for name, table in found.items():
        assert table.columns == list(ALL[name])
        assert not table.is_empty() or name in ("test_set", "seconds", "further")


def test_a_result_describes_the_columns_of_its_tables(tmp_path):
    study = sg.Study(
        name="q", workloads=NoisyQuadratic().workload(), batch_sizes=(4,), budgets=sg.Epochs(1), seeds=1,
        learning_rates=(0.01,),
    )  # fmt: skip
    result = sg.run(study, tmp_path / "study")
    optima = result.describe("optima")
    assert optima.columns == ["column", "description", "unit"]
    assert optima["column"].to_list() == result.optima.columns
    assert optima.row(by_predicate=pl.col("column") == "batch_size") == (
        "batch_size", "Batch size B: examples per parameter update.", "examples",
    )  # fmt: skip
    for name in ("trials", "measurements", "correctness"):
        assert result.describe(name)["column"].to_list() == getattr(result, name).columns
    with pytest.raises(InputError, match=r"^'winners' is not a table of a study. The tables are trials, measurements,"):
        result.describe("winners")
