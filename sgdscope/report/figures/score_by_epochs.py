"""Best test score against epochs."""

from __future__ import annotations

import polars as pl

from sgdscope.analysis.tables import Tables
from sgdscope.formatting import score
from sgdscope.records import WorkloadRecord
from sgdscope.report.figures.against_epochs import against_epochs, lines_of_cells, several_epochs
from sgdscope.report.figures.change import changes
from sgdscope.report.figures.figure import EDGE, Figure, has_scores, how_chosen, means
from sgdscope.report.figures.style import LayerChart, score_axis


def figure(tables: Tables, workload: str) -> Figure | None:
    """Return the figure of a workload; None without scores at several epoch budgets."""
    rows, record = several_epochs(tables.optima.filter(workload=workload)), tables.records[workload]
    if rows.is_empty() or not has_scores(rows):
        return None
    return Figure(
        "score-by-epochs",
        f"Best test {record.score_name} against epochs",
        sentence(rows, record),
        f"At each budget: {how_chosen(record)} {means(rows)} {EDGE}",
        "optima",
        chart(rows, record),
    )


def sentence(rows: pl.DataFrame, record: WorkloadRecord) -> str:
    """Say how the best score changes from the fewest epochs to the most."""
    return changes(
        f"Test {record.score_name} against epochs",
        lines_of_cells(rows.filter(criterion="score")),
        "test_score",
        "epochs",
        lambda value, low, high: score(value, low, high, record.in_percent),
    )


def chart(rows: pl.DataFrame, record: WorkloadRecord) -> LayerChart:
    """Return the mean test score at the best rate against the epoch budget, one line for each optimizer and batch size.

    Args:
        rows: Optima of several epoch budgets, also of several workloads with one score.
        record: One of the workloads.
    """
    better = "up" if record.score_sign > 0 else "down"
    scores = rows.filter(criterion="score")
    return against_epochs(scores, "test_score", score_axis(record, zero=False), "case", better, better)
