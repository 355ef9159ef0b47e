"""What is advised in words, against what was planted."""

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

import sgdscope as sg
from sgdscope.advice.advice import Advice
from sgdscope.analysis.tables import StudyTables, Tables
from sgdscope.budget import Epochs
from sgdscope.report.text.advice import costs_table, further_sentences, option_sentence, print_advice, rates_table
from sgdscope.report.text.commands import extended, words_of
from sgdscope.report.text.recommendation import recommendation, to_decide
from sgdscope.studies import get, origin_of
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
    t = found.tables
    about = {"declaration": DECLARATION, "pending": 0, "cells_waiting": 0} | result
    tables = StudyTables(t.trials, t.records, 0.01, **about)
    print_advice(found, tables, Path("f"), None, console)
    return console.export_text()


def recommended(found):
    (part,) = found.tables.parts
    return [str(said) for said in recommendation(found, part)]


@pytest.mark.usefixtures("quick")
def test_sentences_say_what_was_planted():
    sgd, momentum, against = recommended(advice(sgd=falling, momentum_9=lambda x: 0.0))
    assert re.match(
        r"sgd: use batch size 64 and learning rate 0\.\d+ \[0\.\d+, 0\.\d+\]: "
        r"test accuracy [\d.]+ \[[\d.]+, [\d.]+\] %, 0\.48 s a trial\. "
        r"Equivalent at 4 to 64; worse at 128 and larger\. 64 is the fastest of the equivalent ones\.$",
        sgd,
    )
    assert momentum.startswith("momentum:0.9: use batch size 1024 and ")
    assert momentum.endswith(
        "It is the largest tried: larger ones may be as good and faster. Equivalent at every batch size."
    )
    # No recommendation rests on runs that are too short for momentum's steady state.
    short = "better at 256 and larger, where runs are too short for momentum's steady state"
    assert against.startswith(
        f"momentum:0.9 against sgd at equal batch sizes: better at 128; {short}; equivalent at 4 to 64. "
        "At the recommended batch sizes, 1024 against 64: equivalent ("
    )


@pytest.mark.usefixtures("quick")
def test_a_batch_size_that_is_only_its_own_reference_is_called_a_guess():
    """With two seeds nothing is confirmed: the fastest whose estimate lies within the margin is guessed."""
    found = advice(n=2, sgd=falling)
    equivalent = found.costs.filter(verdict="equivalent")["batch_size"].to_list()
    assert len(equivalent) == 1
    (said,) = recommended(found)
    row = found.recommended.row(0, named=True)
    possible = found.costs.filter(pl.col("verdict") != "worse", pl.col("difference") > -0.01)
    assert row["batch_size"] == possible["batch_size"].max()
    assert row["basis"] == "best guess"
    assert said.startswith(f"sgd: best guess, not confirmed: batch size {row['batch_size']} and learning rate")
    assert "quivalent" not in said


@pytest.mark.usefixtures("quick")
def test_the_smallest_batch_size_is_said_to_be_the_smallest_tried():
    (said,) = recommended(advice(sgd=lambda x: 0.1 * (x - 2)))
    assert "batch size 4 and learning rate" in said
    assert "It is the smallest tried: smaller ones may be better. " in said


@pytest.mark.usefixtures("quick")
def test_where_the_best_rates_lie_at_an_edge_the_best_mean_is_guessed_and_the_edge_named():
    every = advice(sgd=falling).tables
    best = every.optima.filter(criterion="score")["learning_rate"].min()
    trials = every.trials.filter(pl.col("learning_rate") <= best)
    found = Advice(Tables(trials, {"simulated": RECORD}, 0.01))
    assert set(found.costs["verdict"]) == {"at the edge"}
    (said,) = recommended(found)
    best = found.tables.optima.filter(criterion="score").sort("test_score")[-1]
    assert said.startswith(f"sgd: best guess, not confirmed: batch size {best['batch_size'][0]} and")
    reaches = "the best rate's interval reaches the edge of the rates tried"
    assert said.endswith(f"Not compared ({reaches}) at every batch size.")


@pytest.mark.usefixtures("quick")
def test_what_is_open_has_one_command_with_its_price():
    found = advice(n=4, sgd=falling)
    assert to_decide(found, DECLARATION, ("digits",), Path("f"), finished=False) == (
        "The study is not finished. Resume it first:", "sgdscope run digits --out f"
    )  # fmt: skip
    said, command = to_decide(found, DECLARATION, ("digits",), Path("f"), finished=True)
    assert re.fullmatch(r"To decide more, add seeds where a question is open \(about [\d,]+ trials, .*\):", said)
    assert command == "sgdscope run digits --out f --until-decided"
    nothing = advice(sgd=lambda x: 0.0).tables
    decided = Advice(Tables(nothing.trials, {"simulated": RECORD}, 0.5))
    assert not decided.further.filter(field="seeds_at").height


@pytest.mark.usefixtures("quick")
def test_the_whole_fits_into_80_columns_and_says_its_scope():
    said = printed(advice(sgd=falling, momentum_9=falling, batch_sizes=(4, 48, 2)))
    tables = [line for line in said.splitlines() if line.startswith(("sgd  ", "momentum:0.9  ", "─"))]
    assert len(tables) == 2 * 9 + 3 * 4 + 2
    assert max(map(len, tables)) <= 80
    assert said.startswith("simulated at epochs:30, 2 × cpu:")
    assert "95 % intervals over 10 seeds, for this test set" in said.replace("\n", " ")
    assert "* extrapolated" in said
    for line in tables:
        if "test score" in line or "training loss" in line:
            assert ("*" in line) == (" 2 " in line[:20])


@pytest.mark.usefixtures("quick")
def test_what_is_not_known_is_left_out_and_what_is_not_finished_said():
    found = advice(n=1, sgd=falling)
    timeless = Advice(Tables(found.tables.trials.drop("seconds"), {"simulated": RECORD}, 0.01))
    said = printed(timeless)
    assert "not timed" in said
    assert " s a trial" not in said
    assert "- seeds up to 5 (" in said
    assert "nan" not in said
    unfinished = printed(timeless, pending=3)
    assert "The study is not finished" in unfinished
    assert "- seeds up to 5 (" not in unfinished


@pytest.mark.usefixtures("quick")
def test_one_batch_size_and_scores_that_chose_their_rates_are_said():
    trials = advice(sgd=falling).tables.trials.filter(batch_size=64)
    said = printed(Advice(Tables(trials, {"simulated": RECORD}, 0.01), (64,)))
    assert "No other batch size was run." in said
    assert "too few batch sizes" in said


def test_the_tables_have_a_row_for_each_cell_and_rate():
    found = advice(n=4, sgd=falling, batch_sizes=(4, 5))
    assert len(costs_table(found.costs, RECORD).rows) == 9
    assert len(rates_table(found.rates).rows) == 2 * 2


def options(*rows):
    names = ("field", "added", "questions", "trials", "seconds")
    named = [dict(zip(names, row, strict=True)) for row in rows]
    return pl.DataFrame([row | {"settles": [f"q{row['added'][0]:g}"], "cells": []} for row in named])


def test_of_the_same_kind_only_ways_that_settle_more_are_said():
    rows = [("seeds", [12.0], 3, 20, 4.0), ("seeds", [11.0], 1, 10, 2.0), ("batch_sizes", [2.0], 1, 9, 9.0)]
    rows += [("seeds", [40.0], 4, 300, 60.0), ("seeds", [90.0], 5, 800, 160.0)]
    said = [sentence for sentence, _ in further_sentences(options(*rows), None, Path("f"))]
    assert [line for line in said if line.startswith("- ")] == [
        "- seeds up to 12 (20 trials, about 4 s): q12.",
        "- batch size 2 (9 trials, about 9 s): q2.",
        "- seeds up to 40 (300 trials, about 1 min 0 s): q40.",
    ]
    assert said[-1] == "More ways: 2, with --json."
    assert further_sentences(options(rows[0]).clear(), None, Path("f")) == [
        ("No open question is known to be decided by further trials.", "")
    ]


def test_commands_name_the_study_and_what_is_added_alone():
    seeds, sizes, rates = options(
        ("seeds", [12.0], 1, 1, None),
        ("batch_sizes", [2.0, 96.0], 1, 1, None),
        ("learning_rates", [10 / 3], 1, 1, None),
    ).rows(named=True)
    folder, digits = Path("my folder"), ("digits", "--seeds", "5", "--batch-sizes", "4", "8")
    assert extended(digits, folder, seeds) == ("sgdscope run digits --seeds 12 --batch-sizes 4 8 --out 'my folder'")
    assert extended(digits, folder, sizes) == ("sgdscope run digits --seeds 5 --batch-sizes 4 8 2 96 --out 'my folder'")
    assert extended(("digits", "--quick"), folder, seeds) == "sgdscope run digits --out 'my folder' --seeds 12"
    assert extended(digits, folder, rates).endswith(" --out 'my folder' --learning-rates 3.3333333333333335")
    assert extended(None, folder, seeds) == "sg.run(dataclasses.replace(study, seeds=12), 'my folder')"
    cells = seeds | {"field": "seeds_at", "cells": ["sgd@8=5,10,30", "sgd@16=5,10,30"]}
    assert extended(digits, folder, cells).endswith(" --seeds-at sgd@8=5,10,30 sgd@16=5,10,30")
    in_python = "(*study.seeds_at, sg.SeedsAt('sgd', 8, sg.Seeds(5, 10, 30, 5)), "
    assert in_python in extended(None, folder, cells)
    assert option_sentence(cells).startswith("seeds up to 30 at batch sizes 8 and 16 with sgd (1 trials)")


def test_a_folders_own_words_name_it_before_a_built_in_study_does():
    study = get("digits").declaration()
    assert words_of(study, {}) == ("digits",)
    kept = {"digits": ["/a/study.py", "--seeds", "5", "--until-decided"]}
    assert words_of(study, kept) == ("/a/study.py", "--seeds", "5")
    assert words_of(DECLARATION, {}) is None


def test_a_built_in_study_is_named_with_the_fields_in_which_a_folder_differs():
    study = get("digits")
    smaller = replace(study, seeds=3, batch_sizes=(64, 128), first_seed=7, schedule=sg.Cosine()).declaration()
    assert origin_of(smaller) == (
        "digits", "--batch-sizes", "64", "128", "--seeds", "3", "--first-seed", "7", "--schedule", "cosine"
    )  # fmt: skip
    larger = replace(study, seeds=30, batch_sizes=(1, *study.batch_sizes), learning_rates=(0.1, 0.2)).declaration()
    assert origin_of(larger) == ("digits", "--learning-rates", "0.1", "0.2")  # what a folder has beside is kept


def test_built_in_studies_are_known_by_their_names():
    def named(name, workload=RECORD.name):
        record = replace(RECORD, name=workload)
        return Declaration(**(vars(DECLARATION) | {"name": name, "workloads": [record]}))

    study = get("digits", sweep="steps")
    assert origin_of(study.declaration()) == ("digits", "--sweep", "steps")
    assert origin_of(named("digits")) is None  # another's workload
    assert origin_of(named("mine")) is None
    assert origin_of(named("lstm-laptop", "lstm")) == ("lstm", "--profile", "laptop")
    assert origin_of(named("wide-resnet-laptop", "wide_resnet")) == ("wide_resnet", "--profile", "laptop")
    steps = named("autoencoder-full-steps", "autoencoder")
    assert origin_of(steps) == ("autoencoder", "--sweep", "steps", "--profile", "full")
    assert origin_of(named("lstm-laptop")) is None
