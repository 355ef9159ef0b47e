"""What is said beside each figure, against what was planted."""

import json
import re
from dataclasses import replace

import polars as pl
import pytest

from sgdscope.report import seen
from sgdscope.report.figures import figures_against_epochs, figures_of
from sgdscope.report.page.overview import bends, facts


def test_every_figure_says_what_to_see_with_n_in_the_order_of_the_talk(study_tables):
    figures = figures_of(study_tables.parts[0])
    assert [figure.kind for figure in figures] == [
        "best-score", "optimal-learning-rate", "two-regimes", "training-loss", "score-by-learning-rate",
        "loss-by-learning-rate", "loss-along-training", "score-along-training", "noise-scale", "optimal-temperature",
        "score-by-temperature",
    ]  # fmt: skip
    for figure in [*figures, *figures_against_epochs(study_tables, "simulated")]:
        assert re.search(r"n = 4", figure.seen), figure.kind
        assert "nan" not in figure.seen
        assert hasattr(study_tables, figure.table)


def test_what_changes_is_called_rising_or_falling_and_what_does_not_is_not(study_tables):
    """Planted: the score falls above 128, the rate grows up to 79, and the training loss is the same everywhere."""
    part = study_tables.parts[0]
    score = seen.best_score(part)
    assert len(re.findall(r"falls from 0\.97\d ±0\.\d{3} at 4 to 0\.91\d ±0\.\d{3} at 1024", score)) == 2
    assert len(re.findall("rises from", seen.best_rate(part, "score"))) == 2
    assert seen.training_loss(part).count("not told apart") == 2
    diverged = part.trials.filter(status="diverged").height
    assert f"Of {part.trials.height} trials {diverged} diverged." in seen.best_rate(part, "score")


def test_of_many_cells_it_is_said_how_many_change(study_tables):
    part = study_tables.parts[0].optima.with_columns(budget=pl.lit("epochs:30"))
    later = part.with_columns(
        budget=pl.lit("epochs:60"),
        **{f"test_score{end}": pl.col(f"test_score{end}") + 0.5 for end in ("", "_low", "_high")},
    )
    said = seen.score_by_epochs(pl.concat([part, later]), "accuracy")
    assert said == "Test accuracy, along the epochs: of 18 cells 18 rise, 0 fall, 0 are not told apart (95 %, n = 4)."


def test_a_temperature_is_common_as_far_as_the_rate_grows_in_proportion(study_tables):
    said = seen.score_by_temperature(study_tables.parts[0])
    sizes = [int(size) for size in re.findall(r"to (\d+) with", said)]
    assert len(sizes) == 2
    assert all(64 <= size <= 256 for size in sizes)


def test_a_study_of_one_batch_size_has_no_figure_against_batch_size(study_tables):
    _, longer = study_tables.parts
    kinds = [figure.kind for figure in figures_of(longer)]
    assert "best-score" not in kinds
    assert "optimal-temperature" not in kinds
    assert "score-by-learning-rate" in kinds


def test_of_two_moments_there_is_no_curve(study_tables):
    part = study_tables.parts[0]
    ends = (pl.col("step") == 0) | (pl.col("step") == pl.col("step").max().over("trial_id"))
    kinds = [figure.kind for figure in figures_of(replace(part, measurements=part.measurements.filter(ends)))]
    assert "loss-along-training" not in kinds
    assert "score-along-training" not in kinds
    assert "noise-scale" in kinds


def test_of_one_seed_there_is_no_interval_and_nothing_rises_or_falls(study_tables):
    part = study_tables.parts[0]
    first = part.trials.filter(seed=0)
    mine = part.measurements.join(first, on="trial_id", how="semi")
    figures = figures_of(replace(part, trials=first, measurements=mine))
    assert {"best-score", "loss-along-training", "score-by-temperature"} <= {figure.kind for figure in figures}
    for figure in figures:
        assert "n = 1" in figure.seen
        if figure.kind != "optimal-learning-rate":  # which says what the terminal says
            assert not re.search(r"\binf\b|\bnan\b|rises|falls from", figure.seen)


def test_an_optimizer_has_one_colour_in_every_figure(study_tables):
    charts = [*figures_of(study_tables.parts[0]), *figures_against_epochs(study_tables, "simulated")]
    colours = {"sgd": set(), "momentum:0.9": set()}
    for figure in charts:
        text = json.dumps(figure.chart.to_dict(validate=False))
        for found in re.findall(r'"scale": (\{"domain": \["sgd"[^{}]*?#[^{}]*\})', text):
            scale = json.loads(found)
            for optimizer, colour in zip(scale["domain"], scale["range"], strict=True):
                colours[optimizer].add(colour)
    assert all(len(mine) == 1 for mine in colours.values())
    assert colours["sgd"] != colours["momentum:0.9"]


def test_the_first_screen_has_the_numbers_of_the_tables(study_tables):
    rows = {heading: cells for heading, *cells in bends(study_tables.parts[0])}
    assert rows[""] == ["sgd", "momentum:0.9"]
    transitions = study_tables.parts[0].transitions.filter(criterion="score", optimizer="sgd").row(0, named=True)
    assert rows["Learning rate for the score bends at"][0] == (
        f"{transitions['transition']:.0f} [{transitions['transition_low']:.0f}, {transitions['transition_high']:.0f}]"
    )
    assert rows["Score is shown to hold to"][0] == "128"
    assert rows["Shown to be ahead of SGD from"] == ["", "none"]
    shown = facts(study_tables)
    assert shown["Trials"] == "988 (605 complete, 383 diverged)"
    assert shown["Device"] == "2 × cpu"
    assert shown["Budget"] == "epochs:30, epochs:60"
    assert shown["Optimizers"] == "sgd, momentum:0.9"
    rounded = replace(study_tables.declaration, compute_dtype="bfloat16")
    assert facts(replace(study_tables, declaration=rounded))["Optimizers"] == "sgd, momentum:0.9; gradients in bfloat16"


def test_at_a_constant_number_of_steps_no_plateau_is_spoken_of(study_tables):
    part = study_tables.parts[0]
    at_steps = replace(part, trials=part.trials.with_columns(budget=pl.lit("steps:100")), measurements=None)
    assert not any("hold" in row[0] for row in bends(at_steps))
    assert "plateau" not in str(figures_of(at_steps)[0].chart.to_dict(validate=False)["datasets"])


@pytest.mark.parametrize(("n", "said"), [((3, 3), "3"), ((2, 5), "2 to 5")])
def test_seeds_are_counted(n, said):
    assert seen.seeds(pl.DataFrame({"n": n})) == said
