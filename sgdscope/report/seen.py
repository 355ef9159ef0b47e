"""What to see in each figure: one sentence a figure, made from the tables that it draws."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import polars as pl

from sgdscope.analysis.edges import listed
from sgdscope.analysis.tables import Tables
from sgdscope.analysis.trial_table import CELL
from sgdscope.formatting import interval, number, with_half_width
from sgdscope.report.charts.by_batch_size import optimal_temperatures
from sgdscope.report.text.summary import (
    noise_scale_sentences,
    plain_first,
    regime_sentences,
    transition_sentences,
)

# What the words between two numbers mean; it stands with the rules.
CHANGES = (
    "That something rises or falls, in the sentence beside a figure, says that its 95 % intervals at the two ends do "
    "not overlap; otherwise the two are not told apart."
)
# Of more lines than this it is said how many change, and not each by itself.
MOST_SAID = 3


class Change(NamedTuple):
    """What becomes of a number from one end of an axis to the other: ``rises``, ``falls`` or neither, and in words."""

    kind: str
    text: str


def best_score(part: Tables) -> str:
    """Say how the best score changes from the smallest batch size to the largest."""
    return _over_batch_sizes(part, f"Test {part.record.score_name}", "score", "test_score", _score)


def training_loss(part: Tables) -> str:
    """Say how the best training loss changes from the smallest batch size to the largest."""
    return _over_batch_sizes(part, "Training loss", "train_loss", "train_loss", _loss)


def best_rate(part: Tables, criterion: str) -> str:
    """Say how the best learning rate changes from the smallest batch size to the largest, and how many diverged."""
    what = f"{part.record.chosen_on} {part.record.score_name}" if criterion == "score" else "training loss"
    said = _over_batch_sizes(part, f"Best learning rate for the {what}", criterion, "learning_rate", _rate)
    diverged = int(part.curves["diverged"].sum())
    return f"{said} Of {int(part.curves['n'].sum()):,} trials {diverged:,} diverged."


def optimal_learning_rate(part: Tables) -> str:
    """Say where the learning rate for the score bends."""
    return " ".join(transition_sentences(part, "score"))


def two_regimes(part: Tables) -> str:
    """Say which batch sizes are in which regime."""
    unknown = (
        f"Where the learning rate bends is not known well enough to tell the regimes apart (n = {seeds(part.curves)})."
    )
    return " ".join(regime_sentences(part)) or unknown


def optimal_temperature(part: Tables) -> str:
    """Say how the temperature at the best rate changes from the smallest batch size to the largest."""
    rows = optimal_temperatures(part.optima)
    changes = [_change(name, mine, "temperature", "batch_size", _rate) for name, mine in _by_optimizer(rows)]
    return _said("Temperature at the best learning rate, along the batch size", changes, rows)


def score_by_temperature(part: Tables) -> str:
    """Say up to which batch size one temperature is in the intervals of all the optima."""
    rows = optimal_temperatures(part.optima)
    said = []
    for name, mine in _by_optimizer(rows.filter(pl.col("temperature_high").is_not_null(), censored="")):
        common = mine.sort("batch_size").filter(
            pl.col("temperature_low").cum_max() <= pl.col("temperature_high").cum_min()
        )
        said.append("from batch size {} to {} with {}".format(common["batch_size"][0], common["batch_size"][-1], name))
    if not said:
        none = "there is no interval inside the rates tried to compare optimal temperatures by."
        return f"With n = {seeds(part.curves)} {none}"
    return f"One temperature is in all 95 % intervals of the optimum {', and '.join(said)} (n = {seeds(rows)})."


def along_training(part: Tables, metric: str) -> str:
    """Say what the smallest and the largest batch size end with."""
    curves = part.training_curves.filter(metric=metric)
    last = curves.filter(pl.col("step") == pl.col("step").max().over("optimizer", "batch_size"))
    edges = part.optima.filter(criterion="score").select(*CELL, "censored")
    last = last.join(edges, on=CELL, how="left", maintain_order="left").with_columns(pl.col("censored").fill_null(""))
    what, say = ("Minibatch loss", _loss) if metric == "minibatch_loss" else (f"Test {part.record.score_name}", _score)
    changes = [_change(name, mine, "value", "batch_size", say) for name, mine in _by_optimizer(last)]
    return _said(f"{what} after the last update, along the batch size", changes, last)


def noise_scale(part: Tables) -> str:
    """Say what the noise scale is, beside the bend."""
    return " ".join(noise_scale_sentences(part))


def score_by_epochs(optima: pl.DataFrame, score_name: str) -> str:
    """Say how the best score changes from the fewest epochs to the most."""
    rows = _epochs(optima).filter(criterion="score")
    changes = [_change(name, mine, "test_score", "epochs", _score) for name, mine in _by_cell(rows)]
    return _said(f"Test {score_name}, along the epochs", changes, rows)


def rates_by_epochs(optima: pl.DataFrame) -> str:
    """Say how both optimal learning rates change from the fewest epochs to the most."""
    said = []
    for criterion, what in (("score", "the test score"), ("train_loss", "the training loss")):
        rows = _epochs(optima).filter(criterion=criterion)
        changes = [_change(name, mine, "learning_rate", "epochs", _rate) for name, mine in _by_cell(rows)]
        said += [_said(f"Learning rate for {what}, along the epochs", changes, rows)] if changes else []
    return " ".join(said)


def seeds(table: pl.DataFrame) -> str:
    """Say how many seeds there are: n, or from which to which."""
    counts = table["n"].to_list()
    return f"{max(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def _over_batch_sizes(part: Tables, what: str, criterion: str, value: str, say: Callable[..., str]) -> str:
    rows = part.optima.filter(criterion=criterion)
    changes = [_change(name, mine, value, "batch_size", say) for name, mine in _by_optimizer(rows)]
    return _said(f"{what}, along the batch size", changes, rows)


def _said(what: str, changes: Sequence[Change], rows: pl.DataFrame) -> str:
    """Say each change, or of many how many there are of each kind."""
    text = "; ".join(change.text for change in changes)
    if len(changes) > MOST_SAID:
        counts = Counter(change.kind for change in changes)
        text = (
            f"of {len(changes)} cells {counts['rises']} rise, {counts['falls']} fall, {counts['']} are not told apart"
        )
    return f"{what}: {text} (95 %, n = {seeds(rows)})."


def _change(name: str, rows: pl.DataFrame, value: str, along: str, say: Callable[[dict[str, Any], str], str]) -> Change:
    # Where a best rate lies at an edge of the rates tried, what is best is not known.
    inside = rows.filter(pl.col("censored") == "").sort(along)
    edges = [f"{at:g}" for at in rows.filter(pl.col("censored") != "")[along].sort()]
    out = f" ({listed(edges)} left out, at the edge of the rates tried)" if edges else ""
    if inside.is_empty():
        return Change("", f"{name}{out}")
    first, last = inside.row(0, named=True), inside.row(-1, named=True)
    a, b = (f"{say(row, value)} at {row[along]:g}" for row in (first, last))
    if len(inside) == 1:
        return Change("", f"{name} {a}{out}")
    kind = ""
    if all(_has_interval(row, value) for row in (first, last)):
        kind = "rises" if first[f"{value}_high"] < last[f"{value}_low"] else kind
        kind = "falls" if first[f"{value}_low"] > last[f"{value}_high"] else kind
    return Change(kind, (f"{name} {kind} from {a} to {b}" if kind else f"{name} {a} and {b}, not told apart") + out)


def _has_interval(row: dict[str, Any], value: str) -> bool:
    """With one seed there is none."""
    high = row[f"{value}_high"]
    return high is not None and math.isfinite(high)


def _by_optimizer(rows: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    names = plain_first(rows)["optimizer"].unique(maintain_order=True)
    return [(name, rows.filter(optimizer=name)) for name in names]


def _by_cell(rows: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    groups = plain_first(rows, "batch_size").group_by("optimizer", "batch_size", maintain_order=True)
    return [(f"{optimizer} at batch size {size}", mine) for (optimizer, size), mine in groups]


def _epochs(optima: pl.DataFrame) -> pl.DataFrame:
    return optima.with_columns(epochs=pl.col("budget").str.strip_prefix("epochs:").cast(pl.Float64))


def _score(row: dict[str, Any], value: str) -> str:
    if not _has_interval(row, value):
        return number(row[value], ".3f")
    return with_half_width(row[value], row[f"{value}_high"] - row[value])


def _loss(row: dict[str, Any], value: str) -> str:
    factor = f" ×÷{number(row[f'{value}_high'] / row[value])}" if _has_interval(row, value) else ""
    return f"{number(row[value])}{factor}"


def _rate(row: dict[str, Any], value: str) -> str:
    low, high = row[f"{value}_low"], row[f"{value}_high"]
    return number(row[value]) + (f" {interval(low, high)}" if _has_interval(row, value) else "")
