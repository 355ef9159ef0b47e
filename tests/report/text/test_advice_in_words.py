"""What is advised in words, against what was planted."""

import io
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from sgdscope.advice.advice import Advice
from sgdscope.analysis.tables import Tables
from sgdscope.budget import Epochs
from sgdscope.report.text.advice import (
    batch_size_sentences,
    command,
    costs_table,
    further_sentences,
    momentum_sentences,
    print_advice,
    rates_table,
)
from sgdscope.studies import Origin, get, origin_of
from sgdscope.study import Declaration
from sgdscope.testing import simulated

RECORD = simulated.RECORD
DECLARATION = Declaration(
    name="mine", workloads=[RECORD], batch_sizes=simulated.BATCH_SIZES, budgets=[Epochs(30)], seeds=10
)


def falling(x):
    return 0.02 * max(0.0, x - 6)


def advice(n=10, batch_sizes=(), **lost):
    rng = np.random.default_rng(0)
    truths = {name.replace("_", ":0."): simulated.Truth(lost=of, spread=0.004) for name, of in lost.items()}
    trials = simulated.trial_table({name: simulated.simulate(rng, n, truth) for name, truth in truths.items()})
    seconds = pl.col("steps") * 0.001 + 1e-6 * (pl.col("seed") % 6) * pl.col("steps")  # six packs
    trials = trials.with_columns(seconds=seconds, method=pl.lit("map"), device=pl.lit("cpu"), devices=pl.lit(2))
    return Advice(Tables(trials, {"simulated": RECORD}, 0.01), batch_sizes)


def printed(found, width=80, **result):
    console = Console(width=width, record=True, file=io.StringIO())
    about = {"declaration": DECLARATION, "folder": Path("f"), "finished": True} | result
    print_advice(found, SimpleNamespace(**about), about["folder"], None, console)
    return console.export_text()


@pytest.mark.usefixtures("quick")
def test_sentences_say_what_was_planted_with_n_and_margin():
    found = advice(sgd=falling, momentum_9=lambda x: 0.0)
    sgd, momentum = batch_size_sentences(found.costs, found.tables.optima, RECORD)
    assert sgd.startswith("sgd: use batch size 64 with learning rate 0.")
    assert "A trial takes 0.48 [0.48, 0.48] s (6 packs)." in sgd
    assert "is equivalent at 4, 8, 16, 32 and 64; worse at 128, 256, 512 and 1024 (margin 1 point, 95 %, 10 s" in sgd
    assert momentum.startswith("momentum:0.9: use batch size 1024 with")
    equal, best = momentum_sentences(found.leads, found.costs, RECORD)
    # No recommendation rests on runs that are too short for momentum's steady state.
    short = "better, in runs too short for momentum's steady state, at 256, 512 and 1024"
    assert f"better at 128; {short}; equivalent at 4, 8, 16, 32 and 64 (margin 1 point" in equal
    assert "Holm's correction, 10 seeds). Runs are too short for momentum's steady state at 256, 512 and 1024." in equal
    assert re.search(r": equivalent \([+−].* points, 10 seeds\)\.", best)


@pytest.mark.usefixtures("quick")
def test_the_whole_fits_into_80_columns_and_says_its_scope():
    said = printed(advice(sgd=falling, momentum_9=falling, batch_sizes=(4, 48, 2)))
    tables = [line for line in said.splitlines() if line.startswith(("sgd  ", "momentum:0.9  ", "─"))]
    assert len(tables) == 2 * 9 + 3 * 4 + 2
    assert max(map(len, tables)) <= 80
    assert said.startswith("simulated at epochs:30, for this test set, 2 × cpu, 10 seeds:")
    assert "* extrapolated" in said
    for line in tables:
        if "test score" in line or "training loss" in line:
            assert ("*" in line) == (" 2 " in line[:20])


@pytest.mark.usefixtures("quick")
def test_what_is_not_known_is_left_out_and_what_is_not_finished_said():
    found = advice(n=1, sgd=falling)
    timeless = Advice(Tables(found.tables.trials.drop("seconds"), {"simulated": RECORD}, 0.01))
    said = printed(timeless, finished=False)
    assert "not timed" in said
    assert "A trial takes" not in said
    assert "The study is not finished" in said
    assert "- 5 seeds (" in said
    assert "nan" not in said


@pytest.mark.usefixtures("quick")
def test_one_batch_size_and_scores_that_chose_their_rates_are_said():
    trials = advice(sgd=falling).tables.trials.filter(batch_size=64)
    said = printed(Advice(Tables(trials, {"simulated": RECORD}, 0.01), (64,)))
    assert "sgd: only batch size 64 was run; nothing to compare it with." in said
    assert "too few batch sizes" in said


def test_the_tables_have_a_row_for_each_cell_and_rate():
    found = advice(n=4, sgd=falling, batch_sizes=(4, 5))
    assert len(costs_table(found.costs, RECORD).rows) == 9
    assert len(rates_table(found.rates).rows) == 2 * 2


def options(*rows):
    names = ("field", "added", "questions", "trials", "seconds")
    return pl.DataFrame([dict(zip(names, row, strict=True)) | {"settles": [f"q{row[1][0]:g}"]} for row in rows])


def test_of_the_same_kind_only_ways_that_settle_more_are_said():
    rows = [("seeds", [12.0], 3, 20, 4.0), ("seeds", [11.0], 1, 10, 2.0), ("batch_sizes", [2.0], 1, 9, 9.0)]
    rows += [("seeds", [40.0], 4, 300, 60.0), ("seeds", [90.0], 5, 800, 160.0)]
    said = further_sentences(options(*rows), DECLARATION, Path("f"), None)
    assert [line for line in said if line.startswith("- ")] == [
        "- 12 seeds (20 trials, about 4 s): q12.",
        "- batch size 2 (9 trials, about 9 s): q2.",
        "- 40 seeds (300 trials, about 1 min 0 s): q40.",
    ]
    assert said[-1] == "More ways: 2, with --json."
    assert further_sentences(options(rows[0]).clear(), DECLARATION, Path("f"), None) == [
        "No open question is known to be decided by further trials."
    ]


def test_commands_name_the_study_with_what_differs_from_it_and_what_is_added():
    seeds, sizes, rates = options(
        ("seeds", [12.0], 1, 1, None), ("batch_sizes", [2.0, 96.0], 1, 1, None), ("learning_rates", [0.1], 1, 1, None)
    ).rows(named=True)
    folder = Path("my folder")
    assert command(seeds, DECLARATION, folder, None) == "sgdscope run STUDY --out 'my folder' --seeds 12"
    theirs = {"batch_sizes": DECLARATION.batch_sizes, "budgets": (Epochs(5),), "optimizers": DECLARATION.optimizers}
    origin = Origin(("digits",), theirs | {"seeds": (5,)})
    said = command(sizes, DECLARATION, folder, origin)
    assert said == (
        "sgdscope run digits --out 'my folder' --batch-sizes 2 4 8 16 32 64 96 128 256 512 1024 --budgets epochs:30 "
        "--seeds 10"
    )
    grid = Declaration(**(vars(DECLARATION) | {"learning_rates": [0.2, 10 / 3]}))
    assert command(rates, grid, folder, None).endswith("--learning-rates 0.1 0.2 3.3333333333333335")


def test_built_in_studies_are_known_by_their_names():
    def named(name, record=RECORD):
        return Declaration(**(vars(DECLARATION) | {"name": name, "workloads": [record]}))

    study = get("digits", sweep="steps")
    assert origin_of(study.declaration()).words == ("digits", "--sweep", "steps")
    assert origin_of(study.declaration()).fields["seeds"] == (study.seeds,)
    assert origin_of(named("digits")) is None  # another's workload
    assert origin_of(named("mine")) is None
    found = {origin_of(named(f"{name}-{profile}")).words for name in ("lstm", "wide-resnet") for profile in ("small",)}
    assert found == {("lstm", "--profile", "small"), ("wide_resnet", "--profile", "small")}
    assert origin_of(named("autoencoder-full-steps")).words == ("autoencoder", "--sweep", "steps", "--profile", "full")
