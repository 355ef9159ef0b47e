"""What is said beside each figure, against what was planted."""

import json
import re
from dataclasses import replace

import polars as pl

from sgdscope.report.figures import (
    best_score,
    figures_against_epochs,
    figures_of,
    score_by_epochs,
    score_by_learning_rate,
    score_by_temperature,
    training_loss,
)
from sgdscope.report.figures.against_epochs import several_epochs
from sgdscope.report.page.overview import facts, limits


def test_every_figure_says_what_to_see_with_n_in_the_order_of_the_talk(study_tables):
    figures = figures_of(study_tables.parts[0])
    assert [figure.name for figure in figures] == [
        "best-score", "difference-from-sgd", "failures", "optimal-learning-rate", "two-regimes", "training-loss",
        "score-by-learning-rate", "loss-by-learning-rate", "loss-along-training", "score-along-training",
        "noise-scale", "sharpness", "optimal-temperature", "score-by-temperature",
    ]  # fmt: skip
    for figure in [*figures, *figures_against_epochs(study_tables, "simulated")]:
        assert ("failed to train" if figure.name == "failures" else "4 seeds") in figure.sentence, figure.name
        assert "nan" not in figure.sentence
        assert hasattr(study_tables, figure.table)


def test_what_changes_is_called_rising_or_falling_and_what_does_not_is_not(study_tables):
    """Planted: the score falls above 128, the rate grows up to 79, and the training loss is the same everywhere."""
    part = study_tables.parts[0]
    score, interval = best_score.sentence(part), r"\[[\d.]+, [\d.]+\] %"
    assert len(re.findall(rf"falls from 97\.\d {interval} at 4 to 91\.\d\d? {interval} at 1024", score)) == 2
    rates = score_by_learning_rate.sentence(part)
    assert len(re.findall("rises from", rates)) == 2
    assert training_loss.sentence(part).count("does not change significantly") == 2
    diverged = part.trials.filter(status="diverged").height
    assert f"{diverged} of {part.trials.height} trials diverged." in rates


def test_of_many_cells_it_is_said_how_many_change(study_tables):
    part = study_tables.parts[0].optima.with_columns(budget=pl.lit("epochs:30"))
    later = part.with_columns(
        budget=pl.lit("epochs:60"),
        **{f"test_score{end}": pl.col(f"test_score{end}") + 0.5 for end in ("", "_low", "_high")},
    )
    said = score_by_epochs.sentence(several_epochs(pl.concat([part, later])), study_tables.parts[0].record)
    assert said == (
        "Test accuracy against epochs: 18 of 18 lines rise, 0 fall, 0 do not change significantly (95 %, 4 seeds)."
    )


def test_a_temperature_is_common_as_far_as_the_rate_grows_in_proportion(study_tables):
    said = score_by_temperature.sentence(study_tables.parts[0])
    sizes = [int(size) for size in re.findall(r"to (\d+) with", said)]
    assert len(sizes) == 2
    assert all(64 <= size <= 256 for size in sizes)


def test_a_study_of_one_batch_size_has_no_figure_against_batch_size(study_tables):
    _, longer = study_tables.parts
    kinds = [figure.name for figure in figures_of(longer)]
    assert "best-score" not in kinds
    assert "optimal-temperature" not in kinds
    assert "score-by-learning-rate" in kinds


def test_of_two_moments_there_is_no_curve(study_tables):
    part = study_tables.parts[0]
    ends = (pl.col("step") == 0) | (pl.col("step") == pl.col("step").max().over("trial_id"))
    kinds = [figure.name for figure in figures_of(replace(part, measurements=part.measurements.filter(ends)))]
    assert "loss-along-training" not in kinds
    assert "score-along-training" not in kinds
    assert "noise-scale" in kinds


def test_of_one_seed_there_is_no_interval_and_nothing_rises_or_falls(study_tables):
    part = study_tables.parts[0]
    first = part.trials.filter(seed=0)
    mine = part.measurements.join(first, on="trial_id", how="semi")
    figures = figures_of(replace(part, trials=first, measurements=mine))
    assert {"best-score", "loss-along-training", "score-by-temperature"} <= {figure.name for figure in figures}
    for figure in figures:
        assert ("failed to train" if figure.name == "failures" else "1 seed") in figure.sentence
        if figure.name != "optimal-learning-rate":  # which says what the terminal says
            assert not re.search(r"\binf\b|\bnan\b|rises|falls from", figure.sentence)


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
    rows = {heading: cells for heading, *cells in limits(study_tables.parts[0])}
    assert rows[""] == ["sgd", "momentum:0.9"]
    transitions = study_tables.parts[0].transitions.filter(criterion="score", optimizer="sgd").row(0, named=True)
    assert rows["Transition batch size, test score"][0] == (
        f"{transitions['transition']:.0f} [{transitions['transition_low']:.0f}, {transitions['transition_high']:.0f}]"
    )
    assert rows["Largest equivalent batch size"][0] == "128"
    assert rows["First batch size better than SGD"] == ["", "none"]
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
    assert not any("equivalent" in row[0] for row in limits(at_steps))
    assert "plateau" not in str(figures_of(at_steps)[0].chart.to_dict(validate=False)["datasets"])
