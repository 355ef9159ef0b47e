"""Gradient noise scale along training, beside the transition batch size."""

from __future__ import annotations

import math

import altair as alt
import polars as pl

from sgdscope.analysis.tables import Tables
from sgdscope.formatting import batch_size
from sgdscope.report.figures import style
from sgdscope.report.figures.along_training import along_the_budget
from sgdscope.report.figures.figure import Figure, counted, plain_first


def figure(part: Tables) -> Figure | None:
    """Return the figure; None where no noise scale was identified."""
    if not part.noise_scale_at_best["identified"].any():
        return None
    return Figure(
        "noise-scale",
        "Gradient noise scale along training",
        " ".join(noise_scale_sentences(part)),
        "The batch size whose gradient has as much noise as signal. At each batch size's optimal learning rate, with "
        "95 % jackknife intervals. No point: the gradient does not differ significantly from 0. Dashed: the transition "
        "batch size, if identified.",
        "noise_scale",
        chart(part),
    )


def noise_scale_sentences(part: Tables) -> list[str]:
    """Say what the gradient noise scale is along training, beside the transition batch size; empty if not measured.

    It is that of plain SGD where it was trained, at the batch size nearest to its transition by the score, or at the
    middle one where none was found, and at the learning rate that is best for the score.
    """
    measured = part.optima.filter(criterion="score").join(
        part.noise_scale, on=["optimizer", "batch_size", "learning_rate"], suffix="_noise"
    )
    if measured.is_empty():
        return []
    who = plain_first(measured)["optimizer"][0]
    sizes = measured.filter(optimizer=who)["batch_size"].unique().sort().to_list()
    near, beside = sizes[(len(sizes) - 1) // 2], ""
    for row in part.transitions.filter(criterion="score", optimizer=who).drop_nulls("transition").iter_rows(named=True):
        if row["transition"] < part.trials["batch_size"].max():
            near = min(sizes, key=lambda size: abs(math.log(size / row["transition"])))
            beside = f" The transition batch size is {_examples(row, 'transition')}, {row['status']}."
    said = []
    for row in measured.filter(optimizer=who, batch_size=near).sort("step").iter_rows(named=True):
        share = row["fraction"]
        when = (
            "at the start"
            if row["step"] == 0
            else "at the end"
            if share == 1
            else f"at {100 * share:.0f} % of the budget"
        )
        said.append(f"{_examples(row, 'noise_scale') if row['identified'] else 'not identified'} {when}")
    ghosts = part.record.ghost_batch_size
    how = f", from differences of ghost batches of {ghosts}" if ghosts > 1 else ""
    return [
        f"{who} at batch size {near}: the gradient noise scale tr Σ/|G|² is {', '.join(said)} "
        f"(95 %, {counted(row['n_noise'])}{how}).{beside} This is context, not a verdict."
    ]


def _examples(row: dict[str, float], name: str) -> str:
    value, low, high = (batch_size(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]"


def chart(part: Tables) -> style.HConcatChart:
    """Return tr Σ/|G|² along training where it is identified, one panel for each optimizer."""
    rows = style.drawable(part.noise_scale_at_best.filter("identified").sort("batch_size"))
    behind = lambda optimizer: _transition(part.transitions.filter(optimizer=optimizer))
    title, ends = "noise scale tr Σ/|G|², examples", rows["noise_scale"]
    return along_the_budget(rows, "noise_scale", title, ends, ("step:Q",), behind)


def _transition(transitions: pl.DataFrame) -> list[alt.Chart]:
    """Return the transition batch size by the score as a line with its interval, if it is identified."""
    found = style.drawable(transitions).filter(criterion="score", status="identified")
    if found.is_empty():
        return []
    base = alt.Chart(found.select("^transition.*$").with_columns(text=pl.lit("transition batch size")))
    text = base.mark_text(align="right", dx=-4, dy=-7, color=style.NEUTRAL)
    return [
        base.mark_rect(opacity=0.12, color=style.NEUTRAL, clip=True).encode(
            y="transition_low:Q", y2="transition_high:Q"
        ),
        base.mark_rule(strokeDash=[5, 4], color=style.NEUTRAL).encode(y="transition:Q"),
        text.encode(y="transition:Q", x=alt.value("width"), text="text:N"),
    ]
