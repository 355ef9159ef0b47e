"""Test score against temperature."""

from __future__ import annotations

import altair as alt
import polars as pl

from sgdscope.analysis.tables import Tables
from sgdscope.report.figures.against_learning_rate import against_learning_rate, near_best
from sgdscope.report.figures.change import lines_of_optimizers
from sgdscope.report.figures.figure import BASELINE, Figure, means, seeds
from sgdscope.report.figures.optimal_temperature import NOT_COUNTED, has_temperature, optimal_temperatures
from sgdscope.report.figures.style import HConcatChart, decades_axis, extent


def figure(part: Tables) -> Figure | None:
    """Return the figure; None without scores or without a temperature."""
    if not has_temperature(part):
        return None
    return Figure(
        "score-by-temperature",
        f"Test {part.record.score_name} against temperature",
        sentence(part),
        f"One line for each batch size: the lines coincide where noise alone decides the score. {means(part.curves)} "
        f"{BASELINE} {NOT_COUNTED}",
        "curves",
        chart(part),
    )


def sentence(part: Tables) -> str:
    """Say up to which batch size one temperature is in the intervals of all the optima."""
    rows = optimal_temperatures(part.optima)
    known = rows.filter(pl.col("temperature_high").is_not_null(), censored="")
    said = []
    for name, mine in lines_of_optimizers(known):
        common = mine.sort("batch_size").filter(
            pl.col("temperature_low").cum_max() <= pl.col("temperature_high").cum_min()
        )
        said.append(f"from batch size {common['batch_size'][0]} to {common['batch_size'][-1]} with {name}")
    if not said:
        return f"Optimal temperatures cannot be compared: they have no intervals ({seeds(part.curves)})."
    return f"One temperature lies in the 95 % intervals of all optima {' and '.join(said)} ({seeds(rows)})."


def chart(part: Tables) -> HConcatChart:
    """Return the test score against temperature ε(N/B − 1)/(N(1 − m)), without the full batch, which has none."""
    curves = part.curves.filter(pl.col("temperature") > 0)
    x = alt.X(
        "temperature:Q",
        title="temperature ε(N/B − 1)/(N(1 − m))",
        scale=alt.Scale(type="log", domain=extent(curves["temperature"]), nice=False, padding=8),
        axis=decades_axis(curves["temperature"], log_format="~e", labelOverlap=True),
    )
    return against_learning_rate(curves, "test_score", near_best(part), x)
