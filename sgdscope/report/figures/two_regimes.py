"""The two regimes: best score and optimal learning rate against batch size, with both regimes shaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from sgdscope.analysis.edges import listed, spans
from sgdscope.analysis.regimes import FEWEST_IN_REGIME, batch_sizes_to_add, regime_limits
from sgdscope.analysis.tables import Tables
from sgdscope.analysis.transitions import IDENTIFIED, NOWHERE, THROUGHOUT
from sgdscope.budget import MOST_EXAMPLES
from sgdscope.report.figures import best_score, optimal_learning_rate, style
from sgdscope.report.figures.figure import Figure, counted, has_scores, plain_first, seeds, several_batch_sizes

# What a study says of its transition where the regimes are known, or it lies in one of them.
KNOWN = (IDENTIFIED, NOWHERE, THROUGHOUT)
# Of the two regimes: pale bands beside each other, of which one is darker in grey, too.
BANDS = {"noise-dominated": "#8fd0f5", "curvature-dominated": "#a86b00"}


def figure(part: Tables) -> Figure | None:
    """Return the figure; None with one batch size or without scores."""
    if not several_batch_sizes(part) or not has_scores(part.optima):
        return None
    return Figure(
        "two-regimes",
        "The two regimes",
        " ".join(regime_sentences(part))
        or f"The transition batch size is too uncertain to separate the regimes ({seeds(part.curves)}).",
        f"Shaded: batch sizes below the 95 % interval of sgd's transition batch size (noise-dominated), and above "
        f"those of all optimizers (curvature-dominated). Lines of learning rates: fitted; with momentum m, the "
        f"effective rate ε/(1 − m). Bars: 95 % intervals over {seeds(part.curves)}. Arrow: the interval reaches the "
        f"edge of the learning rates tried.",
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
        tried = mine["batch_size"].sort().to_list()
        parts = [
            f"{regime}-dominated at {spans(sizes, tried, open_end=regime == 'curvature') or 'no batch size'}"
            for regime, sizes in members.items()
        ]
        said.append(f"{row['optimizer']} is {' and '.join(parts)} (95 %, {counted(row['n'])}).")
        few = [regime for regime, sizes in members.items() if len(sizes) < FEWEST_IN_REGIME]
        wanted = sorted({size for regime in few for size in add[regime]})
        if few:
            more = f"Add batch size{'s' if len(wanted) > 1 else ''} {listed(wanted)}" if wanted else "Try more seeds"
            said[-1] += f" {more}: claims need {FEWEST_IN_REGIME} batch sizes in a regime."
    return said


def chart(part: Tables) -> style.HConcatChart:
    """Return the best score and the effective optimal rate against batch size, both regimes shaded in both panels."""
    names = style.optimizers(part.optima)
    sizes = part.trials["batch_size"].to_list()
    bands = bands_of(part, names, min(sizes), max(sizes))
    panels = [best_score.chart(part), _without_legend(optimal_learning_rate.chart(part))]
    x = style.batch_axis(part.trials)
    for number, panel in enumerate(panels):
        panel.layer[0:0] = shades(bands, x, legend=None if number else style.LEGEND)
    return style.side_by_side(panels)


def bands_of(part: Tables, optimizers: Sequence[str], smallest: int, largest: int) -> pl.DataFrame:
    """Return from which to which batch size both regimes of some optimizers reach, as far as they are known.

    The noise-dominated one ends below the interval of SGD's transition, the curvature-dominated one begins above those
    of all of the optimizers.

    Args:
        part: The tables of one workload and budget.
        optimizers: Which optimizers.
        smallest: The batch size at which the first band begins.
        largest: The batch size at which the last band ends.
    """
    known = part.transitions.filter(pl.col("status").is_in(KNOWN))
    limits = [regime_limits(known, part.record.name, part.trials["budget"][0], name) for name in optimizers]
    highs = [largest if high is None else high for _, high in limits]
    ends = [(smallest, min(limits[0][0] or smallest, largest)), (max(smallest, *highs), largest)]
    return pl.DataFrame(
        [(regime, *end) for regime, end in zip(BANDS, ends, strict=True)],
        schema={"regime": pl.String, "batch_size": pl.Float64, "to": pl.Float64},
        orient="row",
    ).filter(pl.col("batch_size") < pl.col("to"))


def shades(bands: pl.DataFrame, x: alt.X, legend: Any) -> list[alt.Chart]:
    """Return the layer that shades the bands of :func:`bands_of`; none where no regime is known."""
    if bands.is_empty():
        return []
    scale = alt.Scale(domain=list(BANDS), range=list(BANDS.values()))
    fill = alt.Fill("regime:N", title=None, scale=scale, legend=legend)
    return [alt.Chart(bands).mark_rect(opacity=0.22).encode(x=x, x2="to:Q", fill=fill)]


def _without_legend(panel: style.LayerChart) -> style.LayerChart:
    """Return a panel without legends: the one beside it has the same."""
    for layer in panel.layer:
        for name in ("color", "shape", "strokeDash"):
            channel: Any = getattr(layer.encoding, name, alt.Undefined)
            if (
                channel is not alt.Undefined
                and "legend" in channel._kwds
                and channel._kwds["legend"] is not alt.Undefined
            ):
                channel.legend = None
    return panel
