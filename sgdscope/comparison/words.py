"""A comparison in words and as a table: a sentence a question, the same on the terminal and on the page."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import polars as pl

from sgdscope.analysis.edges import listed
from sgdscope.analysis.transitions import IDENTIFIED
from sgdscope.formatting import batch_size, estimate, number, points
from sgdscope.report.figures.figure import counted, seeds
from sgdscope.report.text.verdicts import sizes_by_verdict
from sgdscope.terminal import TextTable

if TYPE_CHECKING:
    from sgdscope.comparison.comparison import Comparison

AXES = ("workload", "budget", "optimizer")
DECIDES = ("difference", "decides_low", "decides_high")
DECIDING = "[low, high]: the interval that decides, with Holm's correction"
KEY = ("study", "reference", *AXES)


def sentences(comparison: Comparison) -> list[str]:
    """Say what differs between the studies, and what that changes: a sentence for each question and optimizer."""
    said = [comparison.what_differs_sentence, *effort_sentences(comparison)]
    for question in (score_sentences, rate_sentences, transition_sentences, claim_sentences):
        said += question(comparison)
    return [*said, *comparison.notices]


def effort_sentences(comparison: Comparison) -> list[str]:
    """Say what differs in how the studies were measured."""
    efforts = "; ".join(comparison.unequal_efforts)
    also = "also " if comparison.what_differs else ""
    return [f"They {also}differ in how they were measured: {efforts}."] if efforts else []


def score_sentences(comparison: Comparison) -> list[str]:
    """Say at which batch sizes a study's best score is better, equivalent or worse than the reference's."""
    said = []
    for row, rows in _groups(comparison.score_difference):
        of_sizes = rows.drop_nulls("batch_size")
        how = "compared seed by seed" if rows["paired"].all() else "independent samples (Welch's t test)"
        if rows["paired"].any() and not rows["paired"].all():
            how = "seed by seed where they share seeds, else by Welch's t test"
        in_percent = comparison.record.in_percent
        average = ""
        mixed = {"better", "worse"} <= set(of_sizes["verdict"])  # whose mean would say nothing
        for mean in rows.filter(pl.col("batch_size").is_null() & (not mixed)).iter_rows(named=True):
            by = f"{_deciding(mean, 100.0 if in_percent else 1.0)}{' points' * in_percent}"
            average = f"; on average by {by}, {mean['verdict']}"
        margin = points(row["margin"], in_percent)
        found = f"{sizes_by_verdict(of_sizes) or 'not compared'}{average}"
        said.append(
            f"Best test {comparison.record.score_name}, {_whose(comparison, row)}: {row['study']} against "
            f"{row['reference']} is {found} (margin {margin}, {DECIDING}, {seeds(rows)}, {how})."
        )
    return said or ["Best test score: the studies have no batch size in common."]


def rate_sentences(comparison: Comparison) -> list[str]:
    """Say at which batch sizes a study's optimal learning rate is higher, equivalent or lower."""
    said = []
    for row, rows in _groups(comparison.rate_difference):
        text = f"Optimal learning rate, {_whose(comparison, row)}: {row['study']} against {row['reference']} is "
        of_sizes = rows.drop_nulls("batch_size")
        text += sizes_by_verdict(of_sizes) or "not compared"
        for mean in rows.filter(pl.col("batch_size").is_null()).iter_rows(named=True):
            text += f"; on average by {_deciding(mean, form='z.2f')} octaves, {mean['verdict']}"
        said.append(f"{text} (margin {row['margin']:g} octaves, {DECIDING}, {seeds(rows)}).")
    return said


def transition_sentences(comparison: Comparison) -> list[str]:
    """Say what the transition batch sizes are, and whether they differ by more than a factor of 2."""
    said = []
    for row in comparison.transition_difference.iter_rows(named=True):
        text = f"Transition batch size, {_whose(comparison, row)}: "
        text += f"{_transition(row, '')} with {row['study']}, {_transition(row, 'reference_')} with {row['reference']}"
        if row["difference"] is not None:
            ratio, low, high = (number(2 ** row[name], ".2g") for name in DECIDES)
            text += f"; ratio {ratio} [{low}, {high}]: {row['verdict']} (margin: a factor of 2, {counted(row['n'])})"
        else:
            text += "; not compared"
        said.append(f"{text}.")
    return said


def claim_sentences(comparison: Comparison) -> list[str]:
    """Say which claims have the same verdict, opposite ones, or are not decided in both studies."""
    said = []
    for names, rows in comparison.claim_verdicts.group_by("study", "reference", maintain_order=True):
        mine = {kind: rows.filter(comparison=kind) for kind in ("opposite", "same", "undecided")}
        parts = []
        for row in mine["opposite"].iter_rows(named=True):
            verdicts = f"{row['verdict']} in {names[0]}, {row['reference_verdict']} in {names[1]}"
            parts.append(f"{row['claim']} is {verdicts}")
        same = mine["same"]["claim"].to_list()
        open_ = mine["undecided"]["claim"].to_list()
        parts += [f"{listed(same)} {'has' if len(same) == 1 else 'have'} the same verdict in both"] * bool(same)
        parts += [f"at least one study leaves {listed(open_)} undecided"] * bool(open_)
        opposite = "" if len(mine["opposite"]) else "no verdicts are opposite; "
        said.append(f"Claims, {names[0]} against {names[1]}: {opposite}{'; '.join(parts)}.")
    return said


def table(comparison: Comparison) -> TextTable:
    """Return the table by batch size: both scores, their difference with its verdict, and the same of the rates."""
    in_percent, several = comparison.record.in_percent, _varying(comparison)
    rates = {_place(row): row for row in comparison.rate_difference.iter_rows(named=True)}
    rows = []
    for row in comparison.score_difference.drop_nulls("batch_size").iter_rows(named=True):
        rate = rates.get(_place(row), {})
        scale = 100.0 if in_percent else 1.0
        means = (
            number(scale * row[name], ".2f" if in_percent else ".3g") for name in ("reference_test_score", "test_score")
        )
        found = [number(rate[name]) if rate.get(name) else "" for name in ("reference_learning_rate", "learning_rate")]
        rows.append(
            (
                *(row[name] for name in several),
                str(row["batch_size"]),
                *means,
                _deciding(row, scale),
                row["verdict"],
                *found,
                rate.get("verdict", ""),
            )
        )
    unit = " (%)" * in_percent
    headings = (
        *several, "batch", f"reference{unit}", f"study{unit}", f"difference{' (points)' * in_percent}", "verdict",
        "reference rate", "rate", "rate is",
    )  # fmt: skip
    left = len(several)
    return TextTable(headings, rows, left=left, names=left + 1, caption=CAPTION, left_too=(left + 4, left + 7))


CAPTION = (
    "Difference: the study's score minus the reference's; larger is better. [low, high]: the interval that decides, "
    "with Holm's correction over batch sizes. Rates: optimal learning rates, fitted between the rates tried."
)


def _varying(comparison: Comparison) -> list[str]:
    """Return the columns that tell rows apart beside the batch size; the optimizer in any case."""
    rows = comparison.score_difference
    return [name for name in ("study", *AXES) if name == "optimizer" or rows[name].n_unique() > 1]


def _whose(comparison: Comparison, row: dict[str, Any]) -> str:
    rows = comparison.score_difference
    return ", ".join(row[name] for name in AXES if name == "optimizer" or rows[name].n_unique() > 1)


def _groups(rows: pl.DataFrame) -> list[tuple[dict[str, Any], pl.DataFrame]]:
    """Return the rows of each pair of studies and optimizer, with the first of them."""
    return [(of.row(0, named=True), of) for _, of in rows.group_by(KEY, maintain_order=True)]


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in (*KEY, "batch_size"))


def _deciding(row: dict[str, Any], scale: float = 1.0, form: str = "") -> str:
    """Write a difference with the interval that decides; of one seed there is none."""
    value, low, high = (scale * row[name] for name in DECIDES)
    known = math.isfinite(high - low)
    return estimate(value, low if known else None, high if known else None, form, "+")


def _transition(row: dict[str, Any], whose: str) -> str:
    if row[f"{whose}status"] != IDENTIFIED:
        return str(row[f"{whose}status"] or "not measured")
    at, low, high = (batch_size(row[f"{whose}transition{end}"]) for end in ("", "_low", "_high"))
    return f"{at} [{low}, {high}]"
