"""The tables of a study, each computed when it is first asked for: what the report is made from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import polars as pl

from sgdscope.analysis.choosing import choosing, paper_mode
from sgdscope.analysis.comparisons import comparisons, rate_differences
from sgdscope.analysis.curves import Records
from sgdscope.analysis.optimum import learning_rate_curves, optima
from sgdscope.analysis.regimes import regime_of_batch_sizes, regimes
from sgdscope.analysis.slopes import sharpness, slopes
from sgdscope.analysis.thresholds import thresholds
from sgdscope.study import Declaration


@dataclass(frozen=True)
class StudyTables:
    """What is declared, the trials that have ended, and what follows from them.

    Args:
        declaration: the study.
        trials: one row for each trial of the study that has ended.
        pending: how many trials the search is known to want still.
        cells_waiting: how many cells' searches have not begun.
    """

    declaration: Declaration
    trials: pl.DataFrame
    pending: int
    cells_waiting: int

    @property
    def finished(self) -> bool:
        """Whether every cell's search has ended."""
        return self.cells_waiting == 0 and self.pending == 0

    @property
    def records(self) -> Records:
        """What the study's workloads are, by name."""
        return {record.name: record for record in self.declaration.workloads}

    @cached_property
    def curves(self) -> pl.DataFrame:
        """One row for each cell and learning rate: n, diverged, means and intervals."""
        return learning_rate_curves(self.trials, self.records)

    @cached_property
    def optima(self) -> pl.DataFrame:
        """Two rows for each cell, the learning rates that are best for the score and for the training loss."""
        return optima(self.trials, self.records)

    @cached_property
    def regimes(self) -> pl.DataFrame:
        """One row for each optimizer and criterion, B_ε: the batch size at which the learning rate stops growing."""
        return regimes(self.trials, self.records)

    @cached_property
    def regime_of_batch_sizes(self) -> pl.DataFrame:
        """One row for each optimizer and batch size: noise-dominated, curvature-dominated or unassigned."""
        return regime_of_batch_sizes(self.regimes, self.trials)

    @cached_property
    def slopes(self) -> pl.DataFrame:
        """How the optimal learning rate grows with the batch size, one row for each optimizer, criterion and regime."""
        return slopes(self.trials, self.regime_of_batch_sizes, self.records)

    @cached_property
    def sharpness(self) -> pl.DataFrame:
        """How sharply the optimal learning rate bends, one row for each optimizer and criterion."""
        return sharpness(self.trials, self.records)

    @cached_property
    def thresholds(self) -> pl.DataFrame:
        """B_score, where the plateau of the score ends, and B_mom, where momentum begins to lead."""
        return thresholds(self.trials, self.records)

    @cached_property
    def comparisons(self) -> pl.DataFrame:
        """Differences in score from the plateau and from SGD, one row for each batch size of a regime."""
        return comparisons(self.trials, self.regime_of_batch_sizes, self.records)

    @cached_property
    def rate_differences(self) -> pl.DataFrame:
        """By how many octaves momentum's effective rate lies above SGD's, one row for each regime and criterion."""
        return rate_differences(self.trials, self.regime_of_batch_sizes, self.records)

    @cached_property
    def choosing(self) -> pl.DataFrame:
        """Each cell's best score by the three ways of choosing and reporting."""
        return choosing(self.trials, self.records)

    @cached_property
    def paper_mode(self) -> pl.DataFrame:
        """The mean of the best 12 of 15 trials beside the plain figures, one row for each cell and learning rate."""
        return paper_mode(self.trials, self.records)
