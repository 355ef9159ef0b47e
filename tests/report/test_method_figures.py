"""The figures of methods against SGD: which there are, their words, and that they show the tables' numbers."""

from importlib import import_module

import numpy as np
import polars as pl
import pytest

import sgdscope as sg
from sgdscope.analysis.tables import COLUMNS, Tables
from sgdscope.report import figures
from sgdscope.testing.simulated import RECORD, Truth, simulate, trial_table

NAMES = ["best-by-method", "score-by-cost", "loss-by-seconds"]


@pytest.fixture(scope="module")
def part():
    """SGD loses 2 points at 512, SVRG with it, and K-FAC nothing, which takes three times as long."""
    rng = np.random.default_rng(0)
    falls, stays = (lambda x: 0.02 * (x > 8)), (lambda x: 0.0)
    lost = {"sgd": falls, "momentum:0.9": falls, "kfac:damping=0.1|1": stays, "svrg": falls}
    cells = {name: simulate(rng, 6, Truth(spread=0.001, grid=0.5, lost=of), (8, 64, 512)) for name, of in lost.items()}
    seconds = pl.when(pl.col("optimizer").str.starts_with("kfac")).then(3.0).otherwise(1.0)
    trials = trial_table(cells).with_columns(examples=pl.col("steps") * pl.col("batch_size"), seconds=seconds)
    return Tables(trials, {RECORD.name: RECORD}, 0.004)


def test_each_is_the_file_of_its_name_and_draws_its_table(part):
    drawn = {figure.name: figure for figure in figures.figures_of(part)}
    assert [name for name in drawn if name in NAMES] == NAMES
    for name in NAMES:
        assert import_module(f"sgdscope.report.figures.{name.replace('-', '_')}") in figures.OF_METHODS
        assert drawn[name].table in COLUMNS
        import_module(f"sgdscope.analysis.{drawn[name].table}")
        drawn[name].chart.to_dict()
        assert "6 seeds" in drawn[name].sentence
    said = drawn["difference-from-sgd"].sentence
    short = "better at 512, where runs are too short for momentum's steady state"
    assert f"kfac:damping=0.1|1 against sgd: {short}; equivalent at 8 and 64. " in said
    assert "svrg against momentum:0.9: " in said
    assert "better" not in said.split("svrg against momentum:0.9: ")[1]
    assert "the budget holds examples constant" in drawn["score-by-cost"].sentence


def test_there_are_none_without_a_method_beside_sgd_and_its_momentum(part):
    plain = Tables(part.trials.filter(pl.col("optimizer").is_in(["sgd", "momentum:0.9"])), part.records, 0.004)
    assert not {figure.name for figure in figures.figures_of(plain)} & set(NAMES)
    assert "score_by_cost" not in plain.all()


def test_a_table_without_costs_has_no_figure_of_them(planted, tmp_path):
    path = tmp_path / "runs.csv"
    planted(optimizers=("sgd", "adam")).write_csv(path)
    assert "score-by-cost" not in sg.load_table(path).figures
