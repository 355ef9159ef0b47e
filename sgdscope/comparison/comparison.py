"""Two or more studies side by side, from Python or for the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import polars as pl

from sgdscope import atomic
from sgdscope.comparison.claim_verdicts import CLAIM_VERDICTS_COLUMNS, claim_verdicts
from sgdscope.comparison.matching import matched
from sgdscope.comparison.rate_difference import RATE_DIFFERENCE_COLUMNS, rate_difference
from sgdscope.comparison.score_difference import SCORE_DIFFERENCE_COLUMNS, margin_of, score_difference
from sgdscope.comparison.side import sides_of
from sgdscope.comparison.transition_difference import TRANSITION_DIFFERENCE_COLUMNS, transition_difference
from sgdscope.comparison.what_differs import sentence, unequal_efforts, what_differs
from sgdscope.errors import InputError
from sgdscope.frames import Columns, described, finite, table
from sgdscope.records import WorkloadRecord
from sgdscope.report.export import Format, check_format, write_figures
from sgdscope.result import Analysis, FigureMap, write_table

COLUMNS: dict[str, Columns] = {
    "score_difference": SCORE_DIFFERENCE_COLUMNS,
    "rate_difference": RATE_DIFFERENCE_COLUMNS,
    "transition_difference": TRANSITION_DIFFERENCE_COLUMNS,
    "claim_verdicts": CLAIM_VERDICTS_COLUMNS,
}
PAGE = "compare.html"


def compare(*studies: str | Path | Analysis) -> Comparison:
    """Compare two or more studies that differ in one thing, such as the schedule, the labels or the network.

    The first study is the reference. Scores are compared seed by seed where both studies share seeds. Trials are
    compared where workload, budget, optimizer and batch size are the same. Where each study has one workload, budget or
    optimizer of its own, these are compared.

    Args:
        *studies: Folders of studies, results of :func:`~sgdscope.run` or :func:`~sgdscope.load`, or tables of
            :func:`~sgdscope.load_table`.

    Returns:
        The comparison: one table for each question, sentences, figures and a page.

    Raises:
        InputError: If there are fewer than two studies, nothing of them can be compared, or their scores or margins
            differ.

    >>> import polars as pl
    >>> import sgdscope as sg
    >>> grid = [(b, rate, seed) for b in (16, 256) for rate in (0.1, 0.2, 0.4) for seed in (0, 1, 2)]
    >>> sweep = pl.DataFrame(grid, ["batch_size", "learning_rate", "seed"], orient="row").with_columns(
    ...     score=0.9 - (pl.col("learning_rate").log() + 1.6).abs() / 10 - pl.col("seed") / 1000
    ... )
    >>> sweep.write_csv("before.csv")
    >>> sweep.with_columns(score=pl.col("score") + 0.05).write_csv("after.csv")
    >>> comparison = sg.compare(sg.load_table("before.csv"), sg.load_table("after.csv"))
    >>> comparison.score_difference.drop_nulls("batch_size").select("batch_size", "verdict").rows()
    [(16, 'better'), (256, 'better')]
    """
    return Comparison(studies)


class Comparison:
    """Two or more studies side by side. :func:`compare` returns one.

    Every table is a polars DataFrame, and compares each study with the first one, the reference.

    Args:
        studies: The studies: folders, results or tables.

    Attributes:
        names: The studies' names in the comparison.
        what_differs: What differs in what was trained, one thing each.
        unequal_efforts: What differs in how it was measured, such as the number of seeds.
        notices: What is compared with nothing, was left out or is missing, one sentence each.
        sentences: What differs and what it changes, one sentence for each question.
        score_difference: The difference in best score by batch size, with verdicts.
        rate_difference: The difference between optimal learning rates by batch size, in octaves, with verdicts.
        transition_difference: The transition batch sizes and their ratios.
        claim_verdicts: The verdicts on the paper's claims in each study.
        figures: The figures by id on common axes, each an Altair chart.

    >>> import polars as pl
    >>> import sgdscope as sg
    >>> grid = [(b, rate, seed) for b in (16, 256) for rate in (0.1, 0.2, 0.4) for seed in (0, 1, 2)]
    >>> sweep = pl.DataFrame(grid, ["batch_size", "learning_rate", "seed"], orient="row").with_columns(
    ...     score=0.9 - (pl.col("learning_rate").log() + 1.6).abs() / 10 - pl.col("seed") / 1000
    ... )
    >>> sweep.write_csv("one.csv")
    >>> sweep.with_columns(optimizer=pl.lit("adam")).write_csv("two.csv")
    >>> comparison = sg.compare("one.csv", "two.csv")
    >>> comparison
    Comparison(one, two)
    >>> comparison.what_differs
    ['the optimizer: sgd against adam']
    """

    def __init__(self, studies: Sequence[str | Path | Analysis]) -> None:
        self.sides = sides_of(studies)
        self.names = [side.name for side in self.sides]
        self.matched, alone = matched(self.sides)
        for of in self.matched:
            margin_of(self.sides, of)  # refuses margins that differ before anything is computed
        self.what_differs = what_differs(self.sides, self.matched)
        self.unequal_efforts = unequal_efforts(self.sides)
        self.notices = [*alone, *dict.fromkeys(notice for side in self.sides for notice in side.notices)]

    @property
    def record(self) -> WorkloadRecord:
        """What the first workload that is compared is in the first study."""
        return self.sides[0].tables.records[self.matched[0].keys[0]["workload"]]

    @property
    def what_differs_sentence(self) -> str:
        """What differs between the studies, in one sentence."""
        return sentence(self.sides, self.what_differs)

    @cached_property
    def sentences(self) -> list[str]:
        """What differs and what it changes, one sentence for each question."""
        from sgdscope.comparison.words import sentences

        return sentences(self)

    @table
    def score_difference(self) -> pl.DataFrame:
        """The difference in best score from the first study, one row for each study, optimizer and batch size."""
        return score_difference(self.sides, self.matched)

    @table
    def rate_difference(self) -> pl.DataFrame:
        """By how many octaves the optimal learning rate differs; a row without a batch size is the mean over all."""
        return rate_difference(self.sides, self.matched)

    @table
    def transition_difference(self) -> pl.DataFrame:
        """The transition batch sizes, by the score, one row for each study and optimizer."""
        return transition_difference(self.sides, self.matched)

    @table
    def claim_verdicts(self) -> pl.DataFrame:
        """The verdicts on the paper's claims, one row for each study and claim."""
        return claim_verdicts(self.sides)

    @cached_property
    def figures(self) -> FigureMap:
        """The figures by id, such as ``figures["best-score"]``, one colour for each study."""
        from sgdscope.comparison.figures import figures_of

        return FigureMap({name: figure.chart for name, figure in figures_of(self).items()}, None)

    def tables(self) -> dict[str, pl.DataFrame]:
        """Return every table by its name."""
        return {name: getattr(self, name) for name in COLUMNS}

    def describe(self, table: str) -> pl.DataFrame:
        """Describe the columns of a table.

        Args:
            table: Name of the table, such as ``score_difference``.

        Returns:
            One row for each column: ``column``, ``description`` and ``unit``.

        Raises:
            InputError: If there is no table of that name.
        """
        if table not in COLUMNS:
            raise InputError(f"{table!r} is not a table of a comparison. The tables are {', '.join(COLUMNS)}.")
        return described(COLUMNS[table])

    def save_figures(self, folder: str | Path, format: Format = "svg") -> list[Path]:  # noqa: A002
        """Write the figures into a folder, each as wide as a paper's column or page, and return their paths.

        Args:
            folder: The folder, made where there is none.
            format: ``svg``, ``png`` or ``pdf``. Default: ``svg``.
        """
        check_format(format)
        return write_figures(self.figures, Path(folder), format)

    def save(self, folder: str | Path) -> list[Path]:
        """Write the page, ``compare.html``, and every table as ``.csv`` into a folder, and return their paths.

        Args:
            folder: The folder, made where there is none.

        Raises:
            InputError: If the folder cannot be written.
        """
        from sgdscope.comparison.page import page

        folder = Path(folder)
        html = page(self)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            atomic.replace(folder / PAGE, html.encode(errors="replace"))
        except OSError as error:
            raise InputError(f"{folder} cannot be written: {error.strerror}.") from error
        return [folder / PAGE, *(write_table(rows, folder / f"{name}.csv") for name, rows in self.tables().items())]

    def as_json(self) -> str:
        """Return all tables and sentences as JSON; numbers that are not finite are null."""
        told = {
            name: getattr(self, name) for name in ("names", "what_differs", "unequal_efforts", "sentences", "notices")
        }
        rows = {name: [finite(row) for row in of.rows(named=True)] for name, of in self.tables().items()}
        return json.dumps(told | rows, indent=1, allow_nan=False)

    def __repr__(self) -> str:
        return f"Comparison({', '.join(self.names)})"
