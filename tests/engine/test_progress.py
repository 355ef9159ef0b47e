"""What a run shows of itself on a terminal and in a pipe, and what it says that is done."""

import io
import re

import polars as pl
import pytest
from rich.console import Console

import sgdscope as sg
from sgdscope.engine.progress import MOST_ROWS, RunProgress, cells_table
from sgdscope.engine.search import search
from sgdscope.engine.standing import Standing, standing
from sgdscope.store import TRIALS_SCHEMA
from sgdscope.testing.quadratic import NoisyQuadratic

SIZES = (8, 16)
ROW = ("quadratic", "epochs:1", "sgd")


@pytest.fixture(scope="module")
def declaration():
    study = sg.Study(
        name="s", workloads=NoisyQuadratic().workload(), optimizers=sg.SGD(), batch_sizes=SIZES,
        budgets=sg.Epochs(1), learning_rates=(0.1, 0.2), seeds=2,
    )  # fmt: skip
    return study.declaration()


@pytest.fixture
def ended_trials(declaration, trial_row):
    """Of the smaller batch size all trials, of the larger one."""
    nothing = pl.DataFrame(schema=TRIALS_SCHEMA)
    wanted = search(declaration, nothing).trials
    kept = [trial for trial in wanted if trial.batch_size == SIZES[0]]
    kept += [trial for trial in wanted if trial.batch_size == SIZES[1]][:1]
    rows = [
        trial_row(
            trial_id=trial.id, workload=trial.workload.name, optimizer="sgd", budget="epochs:1",
            batch_size=trial.batch_size, learning_rate=trial.learning_rate, seed=trial.seed,
            validation_score=trial.learning_rate + trial.seed / 100,
        )
        for trial in kept
    ]  # fmt: skip
    return wanted, pl.DataFrame(rows, schema=TRIALS_SCHEMA)


def shown(width=100, **how):
    return Console(file=io.StringIO(), width=width, _environ={}, **how)


def test_shares_are_of_what_is_wanted_and_the_best_has_n_and_an_interval(declaration, ended_trials):
    wanted, trials = ended_trials
    found = standing(declaration, wanted, trials)
    assert list(found.shares.values()) == [{8: 1.0, 16: 0.25}]
    goal = declaration.workloads[0].score_goal
    best = 0.2 if goal == "maximize" else 0.1
    # Scores 0.01 apart: the interval of two seeds is their half distance times t(1) = 12.7 wide to both sides.
    score = {"maximize": "20.5 [14.1, 26.9] %", "minimize": "0.105 [0.041, 0.169]"}[goal]
    assert f"{score} (95 %, 2 seeds) with sgd, batch size 8, learning rate {best}" in found.best


def test_before_anything_has_ended_there_is_no_best_and_no_share(declaration, ended_trials):
    wanted, trials = ended_trials
    found = standing(declaration, wanted, trials.clear())
    assert found.best == ""
    assert list(found.shares.values()) == [{8: 0.0, 16: 0.0}]
    one_seed = trials.filter(seed=0)
    assert standing(declaration, wanted, one_seed).best == ""


def test_a_terminal_shows_one_display_with_cells_and_best():
    console = shown(force_terminal=True)
    with RunProgress(console, "mine") as progress:
        assert progress.is_redrawn
        progress.show(3, 10, 65.0)
        progress.show_cells(Standing({ROW: {8: 1.0, 16: 0.5, 32: 0.0}}, "best so far: score 0.9"))
        progress.say("a line above it")
    said = console.file.getvalue()
    for part in ("mine", "3 of about 10 trials, about 1 min 5 s left", "██", "▒▒", "··", "best so far", "a line above"):
        assert part in said


def test_a_pipe_gets_plain_lines_alone():
    console = shown()
    with RunProgress(console, "mine") as progress:
        assert not progress.is_redrawn
        progress.show(0, 10, None)
        progress.show(3, 10, 65.0)
        progress.show(4, 10, 60.0)  # too soon after the one before
        progress.show_cells(Standing({ROW: {8: 1.0}}, "best"))
    lines = console.file.getvalue().splitlines()
    assert lines == [
        "0 s: 0 of about 10 trials, estimating the remaining time …",
        "0 s: 3 of about 10 trials, about 1 min 5 s left",
    ]


def test_of_many_rows_those_are_shown_in_which_the_run_is():
    rows = {("w", f"epochs:{number}", "sgd"): {8: float(number < 20)} for number in range(40)}
    console = shown()
    console.print(cells_table(Standing(rows, ""), 100))
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 1 + MOST_ROWS
    assert "epochs:20" in lines[1]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_width_cuts_a_number(width):
    sizes = [2**k for k in range(2, 15)]
    rows = {("w", "epochs:1", name): dict.fromkeys(sizes, 0.5) for name in ("sgd", "momentum:0.9")}
    console = shown(width=width)
    console.print(cells_table(Standing(rows, ""), width))
    said = console.file.getvalue()
    assert [int(word) for word in said.split() if word.isdecimal()] == sizes
    assert max(map(len, said.splitlines())) <= width
    live = shown(width=width, force_terminal=True)
    with RunProgress(live, "mine") as progress:
        progress.show(1234, 12345, 65.0)
        progress.show_cells(Standing(rows, "best so far: accuracy 0.982 ±0.006"))
    words = set(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", " ", live.file.getvalue()).split())
    assert {"1234", "12345", "5", "0.982", "±0.006", *map(str, sizes)} <= words
