"""How much better than SGD each method is, against batch size."""

from __future__ import annotations

import altair as alt
import polars as pl

from sgdscope.analysis.tables import Tables
from sgdscope.formatting import score
from sgdscope.report.figures import style
from sgdscope.report.figures.figure import Figure, seeds


def figure(part: Tables) -> Figure | None:
    """Return the figure; None without a method beside SGD and its momentum."""
    rows = compared(part)
    if rows.is_empty():
        return None
    return Figure(
        "advantage-over-sgd",
        "Advantage over SGD against batch size",
        sentence(part),
        f"Difference in test {part.record.score_name}, seed by seed, to SGD at the same batch size; above 0 the method "
        f"is better. SVRG and regularized methods are compared with SGD of the same momentum. Each has its best "
        f"learning rate by the validation split. Points: means over {seeds(rows)}. Bars: 95 % t intervals. All read "
        f"as many examples in as many updates; gradients and seconds are in the table.",
        "advantage_over_sgd",
        chart(part),
    )


def compared(part: Tables) -> pl.DataFrame:
    """Return the rows that have an advantage with an interval."""
    rows = style.drawable(part.advantage_over_sgd)
    return rows.drop_nulls(["advantage", "advantage_low"])


def sentence(part: Tables) -> str:
    """Say for each method at which batch sizes it is better and worse than SGD."""
    rows, said = compared(part), []
    for name in style.optimizers(rows):
        mine = rows.filter(optimizer=name).sort("batch_size")
        better = mine.filter(pl.col("advantage_low") > 0)["batch_size"].to_list()
        worse = mine.filter(pl.col("advantage_high") < 0)["batch_size"].to_list()
        parts = [f"{verb} at {', '.join(map(str, at))}" for verb, at in (("better", better), ("worse", worse)) if at]
        last = mine.row(-1, named=True)
        value, low, high = (last[f"advantage{end}"] for end in ("", "_low", "_high"))
        written, baseline = score(value, low, high, part.record.in_percent, sign="+"), last["baseline"]
        said.append(
            f"{name} is {' and '.join(parts) or 'undecided at every batch size'} against {baseline}, and at "
            f"{last['batch_size']} by {written} (95 %, {seeds(mine)})."
        )
    return " ".join(said)


def chart(part: Tables) -> style.LayerChart:
    """Return the mean advantage with its 95 % t interval, one line for each method."""
    rows = compared(part)
    x, colour = style.batch_axis(rows), style.by_optimizer(rows, alt.Color, style.COLOURS)
    axis = alt.Axis(format="~%") if part.record.in_percent else alt.Axis()
    y = alt.Y("advantage:Q", title=f"test {part.record.score_name} above SGD's", axis=axis)
    base = alt.Chart(rows).encode(x=x, color=colour)
    zero = alt.Chart(pl.DataFrame({"zero": [0.0]})).mark_rule(color=style.NEUTRAL).encode(y="zero:Q")
    line = base.mark_line(opacity=0.55).encode(y=y, strokeDash=style.by_optimizer(rows, alt.StrokeDash, style.DASHES))
    bars = base.mark_rule().encode(
        y=alt.Y("advantage_low:Q"), y2="advantage_high:Q", opacity=style.stands_out(0.7, 0.25)
    )
    points = base.mark_point(filled=True, size=70).encode(
        y=y,
        shape=style.by_optimizer(rows, alt.Shape, style.SHAPES),
        opacity=style.stands_out(1, 0.45),
        tooltip=[*style.cell_tooltip(), "baseline:N", *(
            alt.Tooltip(f"advantage{end}:Q", format=".3~g") for end in ("", "_low", "_high")
        ), *costs_tooltip()],
    )  # fmt: skip
    return style.layered(style.batch_size_columns(rows, x), zero, bars, line, points)


def costs_tooltip() -> list[alt.Tooltip]:
    """Return the tooltip's lines of what a training run costs."""
    return [alt.Tooltip(f"{name}:Q", format=",.4~g") for name in ("examples", "updates", "gradients", "seconds")]
