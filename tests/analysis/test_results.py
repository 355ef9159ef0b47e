"""Anybody's table of trials: what is read, what is refused, and that it gives what the study's own table gives."""

import math

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from sgdscope.analysis import simulated
from sgdscope.analysis.results import read_results, records_of
from sgdscope.analysis.tables import TABLES, Tables
from sgdscope.errors import InputError


@pytest.fixture(scope="module")
def trials():
    rng = np.random.default_rng(0)
    sizes = (4, 16, 64, 256)
    studies = {name: simulated.simulate(rng, 4, simulated.Truth(), sizes) for name in ("sgd", "momentum:0.9")}
    return simulated.trial_table(studies)


def written(tmp_path, text, name="table.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_four_columns_are_enough(tmp_path):
    path = written(tmp_path, "batch_size,learning_rate,seed,score,remark\n8,0.5,0,0.9,x\n8,1,0,,y\n16,0.5,0,nan,z\n")
    table = read_results(path)
    assert table["status"].to_list() == ["complete", "diverged", "diverged"]
    assert table["test_score"].to_list() == [0.9, None, None]
    assert table.select("workload", "budget", "optimizer").unique().rows() == [("results", "budget", "sgd")]
    assert table["effective_learning_rate"].to_list() == [0.5, 1.0, 0.5]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_it_gives_what_the_studys_own_table_gives(tmp_path, trials, ending):
    path = tmp_path / f"mine.{ending}"
    (trials.write_csv if ending == "csv" else trials.write_parquet)(path)
    read = read_results(path)
    own = Tables(trials, {"simulated": simulated.RECORD}, score_margin=0.004)
    records = records_of(read, constant_score=0.11, examples=1024, validated=True)
    theirs = Tables(read, records, score_margin=0.004)
    for name in ("curves", "optima", "regimes", "slopes", "thresholds", "choosing"):
        assert_frame_equal(getattr(theirs, name), getattr(own, name))


def test_every_table_has_its_name(trials):
    tables = Tables(trials, {"simulated": simulated.RECORD})
    assert set(tables.all()) == set(TABLES)
    for name, table in tables.all().items():
        assert {"workload", "budget", "optimizer"} <= set(table.columns), name


def test_momentum_has_its_effective_rate_and_others_are_taken_as_they_are(tmp_path):
    rows = "8,0.5,0,0.9,momentum:0.9\n8,0.5,0,0.9,adam\n8,0.5,0,0.9,sgd\n"
    table = read_results(written(tmp_path, "batch_size,learning_rate,seed,score,optimizer\n" + rows))
    assert table["effective_learning_rate"].to_list() == pytest.approx([5.0, 0.5, 0.5])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("batch_size,learning_rate,seed\n1,2,3\n", "no column 'score'"),
        ("batch_size,learning_rate,seed,score\n", "holds no trials"),
        ("batch_size,learning_rate,seed,score\n8,fast,0,1\n", "learning_rate 'fast' is not a number"),
        ("batch_size,learning_rate,seed,score\n8,1,0,good\n", "score 'good' is not a number"),
        ("batch_size,learning_rate,seed,score\n8,1,0,1\n0,1,0,1\n", "batch_size 0 in row 1"),
        ("batch_size,learning_rate,seed,score\n8.5,1,0,1\n", "batch_size 8.5 in row 0"),
        ("batch_size,learning_rate,seed,score\n8,-1,0,1\n", "learning_rate -1 in row 0"),
        ("batch_size,learning_rate,seed,score\n8,,0,1\n8,1,0,1\n", "learning_rate None in row 0"),
        ("batch_size,learning_rate,seed,score\n8,1,0,1\n8,1,0,0.5\n", "is there twice"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, said):
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=r"table\.csv") as caught:
        read_results(path)
    assert said in str(caught.value)


def test_files_that_are_no_tables_are_refused(tmp_path):
    for path, said in (
        (tmp_path / "nowhere.csv", "does not exist"),
        (written(tmp_path, "x", "table.txt"), "must end in .csv or .parquet"),
        (written(tmp_path, "no parquet", "table.parquet"), "cannot be read as a table"),
        (written(tmp_path, "", "empty.csv"), "cannot be read as a table"),
    ):
        with pytest.raises(InputError, match=said):
            read_results(path)


def test_somebody_must_say_what_a_diverged_trial_counts_as(tmp_path):
    table = read_results(written(tmp_path, "batch_size,learning_rate,seed,score\n8,1,0,\n8,0.5,0,0.9\n"))
    with pytest.raises(InputError, match="1 trials diverged"):
        records_of(table)
    assert records_of(table, constant_score=0.1)["results"].constant_score == 0.1


@pytest.mark.usefixtures("quick")
def test_a_table_without_the_constant_predictors_score_has_its_bends_all_the_same(trials):
    known, unknown = (Tables(trials, records_of(trials, constant_score=score, validated=True)) for score in (0.1, None))
    assert set(known.regimes["status"]) != {"too few batch sizes"}
    assert_frame_equal(unknown.regimes, known.regimes)
    assert_frame_equal(unknown.regime_of_batch_sizes, known.regime_of_batch_sizes)


def test_a_score_beyond_one_is_no_accuracy(tmp_path):
    table = read_results(written(tmp_path, "batch_size,learning_rate,seed,score\n8,1,0,90.0\n8,0.5,0,91.0\n"))
    assert records_of(table)["results"].score_name == "score"
    assert records_of(table, minimize=True)["results"].score_goal == "minimize"
    assert math.isnan(records_of(table)["results"].constant_score)


def test_workloads_and_budgets_are_parts_of_their_own(trials):
    later = trials.with_columns(budget=pl.lit("epochs:120"))
    steps = trials.with_columns(budget=pl.lit("steps:9"))
    tables = Tables(pl.concat([steps, later, trials]), {"simulated": simulated.RECORD})
    assert [part.title for part in tables.parts] == [
        "simulated at epochs:30",
        "simulated at epochs:120",
        "simulated at steps:9",
    ]
    assert_frame_equal(tables.parts[0].regimes, Tables(trials, tables.records).regimes)
