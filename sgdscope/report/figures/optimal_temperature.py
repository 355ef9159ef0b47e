"""Temperature at the optimal learning rate against batch size."""

from __future__ import annotations

import altair as alt
import polars as pl

from sgdscope.analysis.tables import Tables
from sgdscope.report.figures.against_batch_size import against_batch_size
from sgdscope.report.figures.change import changes, lines_of_optimizers, plainly
from sgdscope.report.figures.figure import EDGE, Figure, has_scores, several_batch_sizes
from sgdscope.report.figures.style import LayerChart, decades_axis, drawable

NOT_COUNTED = (
    "The temperature does not count noise of augmentation, dropout and ghost batches; the full batch has none."
)


def figure(part: Tables) -> Figure | None:
    """Return the figure; None with one batch size, without scores or without a temperature."""
    if not several_batch_sizes(part) or not has_temperature(part):
        return None
    return Figure(
        "optimal-temperature",
        "Optimal temperature against batch size",
        sentence(part),
        f"Temperature at the optimal learning rate for the score. It is level if the learning rate grows in proportion "
        f"to the batch size. Bars: 95 % intervals. {EDGE} {NOT_COUNTED}",
        "optima",
        chart(part),
    )


def sentence(part: Tables) -> str:
    """Say how the temperature changes from the smallest batch size to the largest."""
    lines = lines_of_optimizers(optimal_temperatures(part.optima))
    return changes("Optimal temperature against batch size", lines, "temperature", "batch_size", plainly)


def chart(part: Tables) -> LayerChart:
    """Return the temperature at the rate that is best for the score, with the interval of the rate."""
    rows = optimal_temperatures(part.optima)
    y = alt.Y(
        "temperature:Q",
        title="temperature ε*(N/B − 1)/(N(1 − m))",
        scale=alt.Scale(type="log", nice=False, padding=12),
        axis=decades_axis(rows["temperature"], log_format="~e"),
    )
    return against_batch_size(rows, "temperature", y, "down", "up")


def has_temperature(part: Tables) -> bool:
    """Return whether a temperature and a score are known."""
    return bool((part.curves["temperature"] > 0).any()) and has_scores(part.optima)


def optimal_temperatures(optima: pl.DataFrame) -> pl.DataFrame:
    """Return the score's optima at which the temperature is known and not 0, with its interval."""
    factor = pl.col("temperature") / pl.col("learning_rate")
    rows = drawable(
        optima.filter(pl.col("criterion") == "score", pl.col("temperature") > 0).with_columns(
            temperature_low=factor * pl.col("learning_rate_low"), temperature_high=factor * pl.col("learning_rate_high")
        )
    )
    return rows.with_columns(temperature_low=pl.when(pl.col("temperature_high").is_not_null()).then("temperature_low"))
