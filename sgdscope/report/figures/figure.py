"""A figure: a chart with its words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from sgdscope.analysis.tables import Tables
from sgdscope.records import WorkloadRecord
from sgdscope.seeds import Seeds

# What an arrow at a best score or loss means.
EDGE = (
    "Arrow: the best learning rate's interval reaches the edge of the rates tried, and rates beyond it may be better."
)
BASELINE = "A diverged trial counts as the constant baseline."


@dataclass(frozen=True)
class Figure:
    """A chart with its words.

    Args:
        name: Its anchor on the page: the name of the file that makes it, with dashes.
        title: What is drawn against what.
        sentence: What the data show.
        caption: How to read it.
        table: Name of the table with its numbers, which is made by the file of that name in ``analysis``.
        chart: An Altair chart.
    """

    name: str
    title: str
    sentence: str
    caption: str
    table: str
    chart: Any


def several_batch_sizes(part: Tables) -> bool:
    """Return whether there is anything to draw against batch size."""
    return part.trials["batch_size"].n_unique() > 1


def has_scores(optima: pl.DataFrame) -> bool:
    """Return whether a learning rate is best for the score: False if no trial has a score."""
    return "score" in optima["criterion"]


def means(table: pl.DataFrame) -> str:
    """Say what points and bars are."""
    return f"Points: means over {seeds(table)}. Bars: 95 % t intervals."


def how_chosen(record: WorkloadRecord) -> str:
    """Say which learning rate the scores of a workload belong to."""
    if record.chosen_on == "test":
        return (
            "The learning rate is the best on the test split itself, as in the paper, so the reported scores are "
            "optimistic."
        )
    return "The learning rate is the best on the validation split; its test score is reported."


def plain_first(rows: pl.DataFrame, *then: str) -> pl.DataFrame:
    """Sort rows with plain SGD before the other optimizers, as in the figures."""
    return rows.sort(pl.col("optimizer") != "sgd", "optimizer", *then, maintain_order=True)


def counted(n: int) -> str:
    """Return a number of seeds in words.

    >>> counted(5), counted(1)
    ('5 seeds', '1 seed')
    """
    return f"{n} seed{'s' if n != 1 else ''}"


def declared_seeds(seeds: int | Seeds) -> str:
    """Say how many seeds a study declares.

    >>> declared_seeds(1), declared_seeds(Seeds(5, 10, 30))
    ('1 seed', 'seeds 5,10,30')
    """
    return counted(seeds) if isinstance(seeds, int) else f"seeds {seeds}"


def seeds(table: pl.DataFrame) -> str:
    """Say how many seeds a table's rows have.

    >>> seeds(pl.DataFrame({"n": [3, 3]})), seeds(pl.DataFrame({"n": [2, 5]})), seeds(pl.DataFrame({"n": [1]}))
    ('3 seeds', '2 to 5 seeds', '1 seed')
    """
    low, high = min(table["n"].to_list()), max(table["n"].to_list())
    return f"{low} to {high} seeds" if low < high else counted(low)
