"""What a study has found: its tables, charts and page, from Python or a notebook."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from sgdscope.analysis.optimum import learning_rate_curves, optima
from sgdscope.analysis.regimes import regimes
from sgdscope.engine.search import rounds
from sgdscope.errors import InputError
from sgdscope.store import CIRCUMSTANCES, Store
from sgdscope.study import Declaration, Study

if TYPE_CHECKING:
    from rich.console import Console

    from sgdscope.engine.local import Ran
    from sgdscope.report.charts import Charts


def run(study: Study, folder: str | Path, console: Console | None = None) -> Result:
    """Train what ``folder`` lacks of ``study``, and return what it has found.

    Interrupting is safe: the same call goes on from the packs that were committed.

    Args:
        study: what is asked.
        folder: a new folder, or one that holds this study or a smaller one of its kind.
        console: a rich console for progress; the standard error stream unless told otherwise.

    Raises:
        InputError: for what the user can put right, in one sentence.
    """
    from sgdscope.engine.local import train_study

    return Result(folder, train_study(study, folder, console))


class Result:
    """A study's folder, read: every table is a polars DataFrame.

    Args:
        folder: the folder of a study, finished or not.
        ran: what the run that made it did, where there was one.
    """

    def __init__(self, folder: str | Path, ran: Ran | None = None) -> None:
        self.folder = Path(folder)
        self.ran = ran
        self.declaration: Declaration = Store(folder).declaration()
        self._contents = Store(folder).read()
        self._rounds = rounds(self.declaration, self._contents.trials)

    @cached_property
    def trials(self) -> pl.DataFrame:
        """One row for each trial of the study that has ended."""
        ids = [trial.id for cell in self._rounds for trial in cell.trials]
        return self._contents.trials.filter(pl.col("trial_id").is_in(ids))

    @cached_property
    def measurements(self) -> pl.DataFrame:
        """One row for each measured number: trial, step, examples seen, split, metric, value."""
        return self._contents.measurements.join(self.trials.select("trial_id"), on="trial_id", how="semi").sort(
            "trial_id", "step", "split", "metric"
        )

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

    @property
    def charts(self) -> Charts:
        """The figures, each an Altair chart."""
        from sgdscope.report.charts import Charts

        self.check_not_empty()
        return Charts(self.curves, self.optima, self.regimes, self.declaration)

    def report(self, path: str | Path) -> Path:
        """Write one self-contained page that opens offline, and return its path."""
        from sgdscope.report.page import write_page

        self.check_not_empty()
        return write_page(self, Path(path))

    def export(self, path: str | Path) -> Path:
        """Write the trial table as ``.csv`` or ``.parquet``, by the name's ending, and return its path."""
        path = Path(path)
        try:
            if path.suffix == ".csv":
                self.trials.write_csv(path)
            elif path.suffix == ".parquet":
                self.trials.write_parquet(path)
            else:
                raise InputError(f"{path} must end in .csv or .parquet.")
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error
        return path

    @property
    def pending(self) -> int:
        """How many trials the search is known to want still."""
        return sum(len(cell.pending) for cell in self._rounds)

    @property
    def cells_waiting(self) -> int:
        """How many cells' searches have not begun, since they start from what a neighbour has yet to tell."""
        return len(self.declaration.optimizers) * len(self.declaration.batch_sizes) - len(self._rounds)

    @property
    def finished(self) -> bool:
        """Whether every cell's search has ended."""
        return self.cells_waiting == 0 and self.pending == 0

    @property
    def damaged(self) -> list[Path]:
        """The files of the folder that failed their check."""
        return self._contents.damaged

    def numbers(self) -> pl.DataFrame:
        """Return the trial table without how the trials were run: equal for equal studies, bit for bit on the CPU."""
        return self.trials.drop(CIRCUMSTANCES)

    def check_not_empty(self) -> None:
        """Raise InputError where nothing can be shown."""
        if self.trials.filter(pl.col("status").is_in(["complete", "diverged"])).is_empty():
            raise InputError(f"{self.folder} has no finished trials yet; run the study first.")
        if self.optima.is_empty():
            raise InputError(
                f"{self.folder}: too many trials diverged at every learning rate for any to be the best; "
                f"try lower learning rates."
            )
