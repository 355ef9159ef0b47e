"""Both optimal learning rates against epochs."""

from __future__ import annotations

import polars as pl

from sgdscope.analysis.tables import Tables
from sgdscope.report.figures.against_epochs import against_epochs, lines_of_cells, several_epochs
from sgdscope.report.figures.change import changes, plainly
from sgdscope.report.figures.effective_rates import effective_rates, rate_axis
from sgdscope.report.figures.figure import Figure
from sgdscope.report.figures.style import LayerChart

CRITERIA = {"score": "test score", "train_loss": "training loss"}


def figure(tables: Tables, workload: str) -> Figure | None:
    """Return the figure of a workload; None without several epoch budgets."""
    rows = several_epochs(tables.optima.filter(workload=workload))
    if rows.is_empty():
        return None
    return Figure(
        "rates-by-epochs",
        "Optimal learning rates against epochs",
        sentence(rows),
        "The learning rates with the best score and with the lowest training loss, with 95 % intervals; with momentum "
        "m, the effective rates. Arrow: the interval reaches the edge of the rates tried.",
        "optima",
        chart(rows),
    )


def sentence(rows: pl.DataFrame) -> str:
    """Say how both optimal learning rates change from the fewest epochs to the most."""
    said = [
        changes(
            f"Best learning rate for the {what} against epochs",
            lines_of_cells(mine),
            "learning_rate",
            "epochs",
            plainly,
        )
        for criterion, what in CRITERIA.items()
        if not (mine := rows.filter(criterion=criterion)).is_empty()
    ]
    return " ".join(said)


def chart(rows: pl.DataFrame) -> LayerChart:
    """Return the optimal effective learning rates by both criteria against the epoch budget, with 95 % intervals."""
    rates = effective_rates(rows).with_columns(
        effective_learning_rate_low=pl.col("effective_low"),
        effective_learning_rate_high=pl.col("effective_high"),
        criterion=pl.col("criterion").replace(CRITERIA),
    )
    return against_epochs(rates, "effective_learning_rate", rate_axis(rates), "criterion", "down", "up")
