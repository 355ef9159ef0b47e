"""Where training fails: the share of trials that diverged or collapsed, by batch size and learning rate."""

from __future__ import annotations

import altair as alt

from sgdscope.analysis.failures import failure_sentences
from sgdscope.analysis.tables import Tables
from sgdscope.report.figures import style
from sgdscope.report.figures.figure import Figure, seeds

# About as wide as the squares of nine batch sizes beside each other may be.
SQUARE = 420


def figure(part: Tables) -> Figure | None:
    """Return the figure; None where every trial trained."""
    if not (part.failures["failed"] > 0).any():
        return None
    return Figure(
        "failures",
        "Where training fails",
        sentence(part),
        f"One square for each batch size and learning rate that was tried, of {seeds(part.failures)}. A trial fails if "
        "it diverges, or if it collapses: it ends with a finite loss, and gains less than half of what the best "
        "learning rate gains over the constant baseline.",
        "failures",
        chart(part),
    )


def sentence(part: Tables) -> str:
    """Say from which learning rates on training fails."""
    return " ".join(failure_sentences(part.failures))


def chart(part: Tables) -> style.HConcatChart:
    """Return squares of batch sizes and learning rates, darker where more trials failed, one panel an optimizer."""
    rows = style.drawable(part.failures)
    panels = []
    for optimizer in style.optimizers(rows):
        mine = rows.filter(optimizer=optimizer)
        share = alt.Color(
            "failed:Q",
            title="failed to train",
            scale=alt.Scale(domain=[0, 1], range=["#d9d9d9", "#a50f15"]),
            legend=alt.Legend(orient="top", format="%", symbolOpacity=1),
        )
        squares = (
            alt.Chart(mine, title=optimizer)
            .mark_square(size=SQUARE)
            .encode(
                x=style.batch_axis(rows),
                y=alt.Y(
                    "learning_rate:Q",
                    title="learning rate ε",
                    scale=alt.Scale(type="log", base=2, nice=False, padding=12),
                    axis=style.octaves_axis(mine["learning_rate"]),
                ),
                color=share,
                opacity=style.stands_out(1),
                tooltip=[
                    alt.Tooltip("batch_size:Q", title="batch size"),
                    alt.Tooltip("learning_rate:Q", title="learning rate", format=".2g"),
                    alt.Tooltip("n:Q", title="trials"),
                    alt.Tooltip("failed:Q", title="failed to train", format=".0%"),
                    alt.Tooltip("failed_low:Q", title="95 % low", format=".0%"),
                    alt.Tooltip("failed_high:Q", title="95 % high", format=".0%"),
                    alt.Tooltip("diverged:Q", title="diverged"),
                    alt.Tooltip("collapsed:Q", title="collapsed"),
                ],
            )
        )
        panels.append(style.layered(squares))
    return style.side_by_side(panels)
