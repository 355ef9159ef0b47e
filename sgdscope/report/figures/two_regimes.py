"""Optimal learning rate against batch size up to the full batch, with both regimes shaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from sgdscope.analysis.edges import listed
from sgdscope.analysis.regimes import FEWEST_IN_REGIME, batch_sizes_to_add, regime_limits
from sgdscope.analysis.tables import Tables
from sgdscope.analysis.transitions import IDENTIFIED, NOWHERE, THROUGHOUT
from sgdscope.budget import MOST_EXAMPLES
from sgdscope.report.figures import style
from sgdscope.report.figures.effective_rates import effective_rates, fitted_lines, rate_points
from sgdscope.report.figures.figure import Figure, counted, has_scores, plain_first, seeds, several_batch_sizes

# What a study says of its transition where the regimes are known, or it lies in one of them.
KNOWN = (IDENTIFIED, NOWHERE, THROUGHOUT)
# Of the two regimes: the bands are pale, and stand beside each other, never on one another.
BANDS = {"noise-dominated": "#56b4e9", "curvature-dominated": "#e6b800"}


def figure(part: Tables) -> Figure | None:
    """Return the figure; None with one batch size or without scores."""
    if not several_batch_sizes(part) or not has_scores(part.optima):
        return None
    return Figure(
        "two-regimes",
        "The two regimes",
        " ".join(regime_sentences(part))
        or f"The transition batch size is too uncertain to separate the regimes ({seeds(part.curves)}).",
        f"The same learning rates, up to the full batch of {part.record.examples[0]:,} examples. Noise-dominated: "
        f"below the 95 % interval of SGD's transition batch size. Curvature-dominated: above that of the optimizer's "
        f"own. Not shaded: in neither. Arrow: the interval reaches the edge of the rates tried.",
        "regimes",
        chart(part),
    )


def regime_sentences(part: Tables) -> list[str]:
    """Say which batch sizes are in which regime, and which to add to a regime with few.

    One regime ends at SGD's transition and the other begins at the optimizer's own: what is unknown is not said.
    """
    said = []
    multiple, most = part.record.batch_multiple, part.record.examples[0] or MOST_EXAMPLES
    for row in plain_first(part.transitions.filter(criterion="score")).iter_rows(named=True):
        mine = part.regimes.filter(optimizer=row["optimizer"])
        low, high = regime_limits(part.transitions, row["workload"], row["budget"], row["optimizer"])
        add = batch_sizes_to_add(mine["batch_size"].to_list(), low, high, range(multiple, most + 1, multiple))
        members = {
            regime: mine.filter(regime=regime)["batch_size"].to_list()
            for regime, limit in (("noise", low), ("curvature", high))
            if limit is not None
        }
        if not members:
            continue
        parts = [f"{regime}-dominated at {listed(sizes) or 'no batch size'}" for regime, sizes in members.items()]
        said.append(f"{row['optimizer']} is {' and '.join(parts)} (95 %, {counted(row['n'])}).")
        few = [regime for regime, sizes in members.items() if len(sizes) < FEWEST_IN_REGIME]
        wanted = sorted({size for regime in few for size in add[regime]})
        if few:
            text = f"At least {FEWEST_IN_REGIME} batch sizes are needed in each regime: "
            said[-1] += f" {text}{f'add {listed(wanted)}' if wanted else 'none can be added'}."
    return said


def chart(part: Tables) -> style.HConcatChart:
    """Return log ε*/(1 − m) against log B up to N, both regimes shaded, one panel for each optimizer."""
    return style.side_by_side(panels(part))


def panels(part: Tables, y: alt.Y | None = None, more_sizes: Sequence[int] = ()) -> list[style.LayerChart]:
    """Return the panel of each optimizer; with an axis of rates and more batch sizes where studies share both axes."""
    rows = effective_rates(part.optima.filter(criterion="score"))
    sizes = [*part.trials["batch_size"], *more_sizes]
    smallest, largest = min(sizes), max(*sizes, part.record.examples[0])
    scale = alt.Scale(type="log", base=2, domain=[smallest, largest])
    x = alt.X("batch_size:Q", title="batch size B", scale=scale, axis=alt.Axis(grid=False, labelOverlap=True))
    return [_panel(part, rows, name, (x, y), smallest, largest) for name in style.optimizers(part.optima)]


def _panel(
    part: Tables,
    every: pl.DataFrame,
    optimizer: str,
    axes: tuple[alt.X, alt.Y | None],
    smallest: int,
    largest: int,
) -> style.LayerChart:
    x, y = axes
    rows, known = every.filter(optimizer=optimizer), part.transitions.filter(pl.col("status").is_in(KNOWN))
    low, high = regime_limits(known, part.record.name, part.trials["budget"][0], optimizer)
    ends = [(smallest, min(low or smallest, largest)), (high, largest)]
    bands = pl.DataFrame(
        [(regime, *end) for regime, end in zip(BANDS, ends, strict=True)],
        schema={"regime": pl.String, "batch_size": pl.Float64, "to": pl.Float64},
        orient="row",
    ).filter(pl.col("batch_size") < pl.col("to"))
    colour = style.by_optimizer(every, alt.Color, style.COLOURS)
    colour.legend = None  # the panel's title says it
    layers: list[Any] = []
    if not bands.is_empty():
        shades = alt.Scale(domain=list(BANDS), range=list(BANDS.values()))
        fill = alt.Fill("regime:N", title=None, scale=shades, legend=style.LEGEND)
        layers.append(alt.Chart(bands).mark_rect(opacity=0.22).encode(x=x, x2="to:Q", fill=fill))
    lines = fitted_lines(rows, part.transitions.filter(optimizer=optimizer), up_to=largest)
    if not lines.is_empty():
        fitted = alt.Chart(lines).mark_line(opacity=0.85).encode(x=x, color=colour)
        layers.append(fitted.encode(y="effective_learning_rate:Q"))
    layers += [style.batch_size_columns(rows, x), *rate_points(rows, x, colour, y)]
    panel: style.LayerChart = style.layered(*layers).properties(title=optimizer)
    return panel
