"""What a study has found: its tables, charts and page, from Python or a notebook."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from sgdscope import atomic
from sgdscope.analysis.coefficients import with_chosen_coefficients
from sgdscope.analysis.derived import l2_of
from sgdscope.analysis.tables import COLUMNS, StudyTables, Tables
from sgdscope.converters import whole
from sgdscope.engine.search import search
from sgdscope.errors import InputError
from sgdscope.frames import described, table
from sgdscope.store import CIRCUMSTANCES, Store, check_not_of_a_study, ended, stopped_at_once
from sgdscope.study import Declaration, Study

if TYPE_CHECKING:
    from rich.console import Console

    from sgdscope.advice.advice import Advice
    from sgdscope.engine.run import Ran
    from sgdscope.records import WorkloadRecord


def run(
    study: Study,
    folder: str | Path,
    console: Console | None = None,
    *,
    until_decided: bool = False,
    seconds: float | None = None,
    command: Sequence[str] | None = None,
) -> Result:
    """Train what ``folder`` lacks of ``study``, and return what it has found.

    Interrupting is safe: the same call goes on from the packs that were committed.

    Args:
        study: what is asked.
        folder: a new folder, or one that holds this study or a smaller one of its kind.
        console: a rich console for progress; the standard error stream unless told otherwise.
        until_decided: Whether cells with an open question get more seeds at the looks that are declared in
            :data:`sgdscope.seeds.LOOKS`, by :func:`sgdscope.advice.until_decided.raised`. Default: False.
        seconds: After how many seconds to stop, with all that was trained committed. Default: never.
        command: The words after ``sgdscope run`` that ask for this, which the folder keeps.

    Raises:
        InputError: for what the user can put right, in one sentence.
    """
    from sgdscope.advice.until_decided import raised
    from sgdscope.engine.run import train_study

    ends_at = math.inf if seconds is None else time.monotonic() + seconds

    def trained(study: Study) -> Ran:
        left = None if seconds is None else ends_at - time.monotonic()
        return train_study(study, folder, console, command, seconds=left)

    ran = trained(study)
    result = Result(folder, ran)
    while until_decided and result.finished and not ran.out_of_time:
        more = raised(result.declaration, result.tables)
        if not more:
            break
        study = study.extended_to(replace(result.declaration, seeds_at=more))
        ran = ran.then(trained(study))
        result = Result(folder, ran)
    return result


class Result:
    """A study's folder, read: every table is a polars DataFrame.

    Args:
        folder: the folder of a study, finished or not; files of it that are damaged are named in ``damaged``.
        ran: what the run that made it did, where there was one.

    ``contents`` is all that the folder holds, and ``found`` where the study's search stands.
    """

    def __init__(self, folder: str | Path, ran: Ran | None = None) -> None:
        self.folder = Path(folder)
        self.ran = ran
        declaration = Store(folder).declaration()
        self.contents = contents = Store(folder).read()
        self.found = found = search(declaration, contents.trials)
        wanted = [trial.id for trial in found.trials]
        self.damaged = contents.damaged
        self.notices = contents.notices("count as missing and will be trained again")
        records = {record.name: record for record in declaration.workloads}
        self._all_trials = contents.trials.filter(pl.col("trial_id").is_in(wanted))
        self.tables = StudyTables(
            with_chosen_coefficients(self._all_trials, declaration.optimizers, records),
            records,
            declaration.score_margin,
            contents.correctness,
            contents.measurements,
            declaration=declaration,
            pending=len(found.pending),
            cells_waiting=len(found.waiting),
        )

    def tell(self, say: Callable[[str], None]) -> None:
        """Say, a sentence each, which files of the folder are damaged, are not the study's, or are missing."""
        for path in self.damaged:
            say(f"{path} is damaged: its trials count as missing and will be trained again.")
        for notice in self.notices:
            say(notice)

    @property
    def declaration(self) -> Declaration:
        """The study as its folder declares it."""
        return self.tables.declaration

    @table
    def trials(self) -> pl.DataFrame:
        """One row for each trial of the study that has ended, with every value of a searched coefficient."""
        return self._all_trials

    @table
    def measurements(self) -> pl.DataFrame:
        """One row for each measured number: trial, step, examples seen, split, metric, value."""
        mine = self.contents.measurements.join(self.trials.select("trial_id"), on="trial_id", how="semi")
        return mine.sort("trial_id", "step", "split", "metric")

    @table
    def correctness(self) -> pl.DataFrame:
        """Which examples each trial scored 1 on: trial, split, examples, bits; without rows where scores are others.

        :func:`sgdscope.analysis.test_set.correct` unpacks them.
        """
        mine = self.contents.correctness.join(self.trials.select("trial_id"), on="trial_id", how="semi")
        return mine.sort("trial_id", "split")

    @property
    def curves(self) -> pl.DataFrame:
        """One row for each cell and learning rate: n, diverged, means and intervals."""
        return self.tables.curves

    @property
    def optima(self) -> pl.DataFrame:
        """Two rows for each cell, the learning rates that are best for the score and for the training loss."""
        return self.tables.optima

    @property
    def transitions(self) -> pl.DataFrame:
        """One row for each optimizer and criterion: the batch size at which the learning rate stops growing."""
        return self.tables.transitions

    @table
    def claims(self) -> pl.DataFrame:
        """What this study says of each claim: one row for each number that it rests on."""
        from sgdscope.claims.decide import claims

        return claims(self.tables)

    def describe(self, table: str) -> pl.DataFrame:
        """Describe the columns of a table of the study.

        Args:
            table: Name of the table, such as ``optima``.

        Returns:
            One row for each column: ``column``, ``description`` and ``unit``.

        Raises:
            InputError: If the study has no table of that name.
        """
        from sgdscope.claims.decide import CLAIMS_COLUMNS

        known = COLUMNS | {"claims": CLAIMS_COLUMNS}
        if table not in known:
            raise InputError(f"{table!r} is not a table of a study. The tables are {', '.join(known)}.")
        return described(known[table])

    @property
    def charts(self) -> dict[str, Any]:
        """The figures of the report by name, such as ``best-score``, each an Altair chart."""
        from sgdscope.report.export import page_figures

        self.check_not_empty()
        return page_figures(self.tables)

    def advice(self, *batch_sizes: int) -> Advice:
        """Return what the study advises, with the learning rates for the batch sizes that are asked for.

        Raises:
            InputError: where nothing can be shown, or a batch size is too far from those measured; see
                :func:`sgdscope.advice.predicted_rates.rate_for`.
        """
        from sgdscope.advice.advice import Advice

        self.check_not_empty()
        sizes = tuple(whole("batch_sizes", size, least=1) for size in batch_sizes)
        found = Advice(self.tables, sizes, self.declaration.learning_rates)
        if batch_sizes:
            found.rates  # noqa: B018 - what cannot be answered is said before anything else
        return found

    def report(self, path: str | Path) -> Path:
        """Write one self-contained page that opens offline, and return its path."""
        from sgdscope.report.page.page import write_page

        check_page_name(Path(path))
        self.check_not_empty()
        return write_page(self.tables, Path(path), self.folder)

    def figures(self, folder: str | Path, kind: Literal["svg", "png", "pdf"]) -> list[Path]:
        """Write the figures of the page into a folder, each as wide as a paper's column or page; return their paths."""
        from sgdscope.report.export import check_format, page_figures, write_figures

        check_format(kind)
        self.check_not_empty()
        return write_figures(page_figures(self.tables), Path(folder), kind)

    def export(self, path: str | Path) -> Path:
        """Write the trial table as ``.csv`` or ``.parquet``, by the name's ending, and return its path.

        Each row also states what ``sgdscope analyze`` must know of its workload to come to the study's own verdicts:
        name and goal of the score, the margin if the study declares one, score and loss of the constant baseline, the
        sizes of the splits, on which split learning rates are chosen, of what batch sizes are multiples, and the
        coefficient of an L2 penalty. Of a searched coefficient it has the trials of the chosen value, as the study's
        verdicts do; :attr:`trials` has all.
        """
        check_table_name(Path(path))
        margin = self.declaration.score_margin
        stated = pl.DataFrame(
            [
                {
                    "workload": record.name,
                    "score_name": record.score_name,
                    "score_goal": record.score_goal,
                    "score_margin": margin,
                    "constant_score": record.constant_score,
                    "constant_loss": record.constant_loss,
                    "train_examples": record.examples[0],
                    "validation_examples": record.examples[1],
                    "test_examples": record.examples[2],
                    "chosen_on": record.chosen_on,
                    "batch_multiple": record.batch_multiple,
                    "l2": l2_of(record),
                }
                for record in self.tables.records.values()
            ],
            schema_overrides={"score_margin": pl.Float64, "l2": pl.Float64},
        )
        return write_table(
            self.tables.trials.join(stated, on="workload", how="left", maintain_order="left"), Path(path)
        )

    @property
    def finished(self) -> bool:
        """Whether every cell's search has ended."""
        return self.tables.finished

    def numbers(self) -> pl.DataFrame:
        """Return the trial table without how the trials were run: equal for equal studies, bit for bit on the CPU."""
        return self.trials.drop(CIRCUMSTANCES)

    def _repr_html_(self) -> str:
        """Return what a notebook shows of it."""
        from sgdscope.report.page.notebook import notebook_html

        return notebook_html(self.tables)

    def __repr__(self) -> str:
        state = "finished" if self.finished else f"{self.tables.pending} trials known to be missing"
        return f"Result({str(self.folder)!r}: {self.declaration.name}, {len(self.trials)} trials, {state})"

    def check_not_empty(self) -> None:
        """Raise InputError where nothing can be shown."""
        if ended(self.trials).is_empty():
            raise InputError(f"{self.folder} has no finished trials yet; run the study first.")
        if self.optima.is_empty():
            trials = ended(self.trials)
            if (trials["diverged_at_step"] == 0).all():
                raise InputError(
                    f"{self.folder}: the loss is not finite at initialization, in any trial and at any learning rate. "
                    f"Check `init` and `loss`, and look for log(0), a division by 0, or exp of a large number."
                )
            at_once = (
                " All diverged with their first update: if lower learning rates do so too, the gradient is not finite "
                "at initialization."
                if stopped_at_once(trials)
                else ""
            )
            raise InputError(
                f"{self.folder}: too many trials diverged at every learning rate for any to be the best; "
                f"try lower learning rates.{at_once}"
            )


def read_folders(folders: Sequence[str | Path], say: Callable[[str], None] | None = None) -> Tables:
    """Return the tables of several studies together, as claims about several budgets or workloads need them.

    A trial that several folders hold is counted once.

    Args:
        folders: of studies.
        say: told of each folder, a sentence each, what :meth:`Result.tell` does.

    Raises:
        InputError: where a folder has nothing to show, or two have workloads of one name or margins that differ.
    """
    if not folders:
        raise InputError("name at least one folder of a study.")
    results = [Result(folder) for folder in folders]
    records: dict[str, WorkloadRecord] = {}
    for result in results:
        if say is not None:
            result.tell(say)
        result.check_not_empty()
        for name, record in result.tables.records.items():
            if records.setdefault(name, record) != record:
                raise InputError(
                    f"{result.folder}: its workload {name!r} differs from that of another folder; "
                    f"give folders whose workloads of one name are the same."
                )
        if result.tables.score_margin != results[0].tables.score_margin:
            raise InputError(
                f"{result.folder}: its score_margin is {result.tables.score_margin}, that of {results[0].folder} is "
                f"{results[0].tables.score_margin}; verdicts need one margin."
            )
        if result.declaration.schedule != results[0].declaration.schedule:
            raise InputError(
                f"{result.folder}: its learning-rate schedule is {result.declaration.schedule}, that of "
                f"{results[0].folder} is {results[0].declaration.schedule}; give folders of one schedule."
            )
    trials = pl.concat([result.tables.trials for result in results], how="diagonal")
    trials = trials.unique("trial_id", maintain_order=True)
    return Tables(trials, records, results[0].tables.score_margin)


def check_table_name(path: Path) -> None:
    """Refuse a table's name that does not end in .csv or .parquet."""
    if path.suffix not in (".csv", ".parquet"):
        raise InputError(f"{path} must end in .csv or .parquet.")
    check_not_of_a_study(path)


def check_page_name(path: Path | None) -> None:
    """Refuse a name for the page that promises something else than HTML."""
    if path is not None and path.suffix not in ("", ".html", ".htm"):
        raise InputError(
            f"{path} must end in .html, as the page is HTML; `sgdscope report DIR --format svg`, png or pdf writes its "
            f"figures into a folder."
        )
    if path is not None:
        check_not_of_a_study(path)


def write_table(rows: pl.DataFrame, path: Path) -> Path:
    """Write a table as ``.csv`` or ``.parquet``, by the name's ending, and return its path."""
    check_table_name(path)
    content = io.BytesIO()
    if path.suffix == ".csv":
        rows.write_csv(content)
    else:
        rows.write_parquet(content)
    try:
        atomic.replace(path, content.getvalue())
    except OSError as error:
        raise InputError(f"{path} cannot be written: {atomic.why(error)}.") from error
    return path
