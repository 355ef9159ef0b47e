"""The tables of a study, each computed when it is first asked for: what the report is made from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import polars as pl

from sgdscope.analysis.optimum import learning_rate_curves, optima
from sgdscope.analysis.regimes import regimes
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

    @cached_property
    def curves(self) -> pl.DataFrame:
        """One row for each cell and learning rate: n, diverged, means and intervals."""
        return learning_rate_curves(self.trials, self.declaration.workload)

    @cached_property
    def optima(self) -> pl.DataFrame:
        """Two rows for each cell, the learning rates that are best for the score and for the training loss."""
        return optima(self.trials, self.declaration.workload)

    @cached_property
    def regimes(self) -> pl.DataFrame:
        """One row for each optimizer and criterion: the batch size at which the learning rate stops growing."""
        return regimes(self.trials, self.declaration.workload)
