"""What a study has found: its tables, figures and report, from Python or a notebook."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, overload

import polars as pl

from sgdscope import atomic
from sgdscope.analysis.coefficients import with_chosen_coefficients
from sgdscope.analysis.derived import l2_of
from sgdscope.analysis.sharpness import METRICS
from sgdscope.analysis.tables import COLUMNS, StudyTables, Tables
from sgdscope.converters import several, whole
from sgdscope.deprecated import warn
from sgdscope.engine.search import search
from sgdscope.errors import InputError, did_you_mean
from sgdscope.frames import described, table
from sgdscope.store import CIRCUMSTANCES, Store, check_not_of_a_study, ended, stopped_at_once
from sgdscope.study import Declaration, Study

if TYPE_CHECKING:
    from rich.console import Console

    from sgdscope.advice.advice import Advice
    from sgdscope.engine.plan import Plan
    from sgdscope.engine.run import Engine, Ran
    from sgdscope.records import WorkloadRecord

Format = Literal["svg", "png", "pdf"]


def run(
    study: Study,
    folder: str | Path,
    console: Console | None = None,
    *,
    until_decided: bool = False,
    seconds: float | None = None,
    command: Sequence[str] | None = None,
    debug: bool = False,
    engine: Engine = "local",
) -> Result:
    """Train the trials of a study that a folder lacks, and return the study's results.

    Interrupting is safe. The same call resumes from the trials that were committed.

    Args:
        study: The study.
        folder: A new folder, or one that holds this study or a smaller form of it.
        console: A rich console for progress. Default: the standard error stream.
        until_decided: Whether cells with an open question get more seeds at the looks that are declared in
            :data:`sgdscope.seeds.LOOKS`, by :func:`sgdscope.advice.until_decided.raised`. Default: False.
        seconds: After how many seconds to stop, with all that was trained committed. Default: never.
        command: The words after ``sgdscope run`` that ask for this, which the folder keeps. Default: none.
        debug: Whether an error in a trial is raised. Default: the trial is recorded as failed, and the traceback is
            kept in the folder's ``errors``.
        engine: What trains: ``local``, the devices of this process, or ``ray``, those of a Ray cluster.
            ``ray`` needs the extra ``ray``. Default: ``local``.

    Returns:
        The results of the study. ``result.ran`` says how many trials this call trained.

    Raises:
        InputError: If the study, the workload's functions or the folder are not usable.

    >>> import sgdscope as sg
    >>> study = sg.Study(
    ...     name="two-rates", workloads=sg.workloads.digits(), optimizers=sg.SGD(), batch_sizes=512, seeds=2,
    ...     learning_rates=(0.25, 0.5), budgets=sg.Steps(2),
    ... )
    >>> result = sg.run(study, "two-rates")
    >>> len(result.trials)
    4
    """
    from sgdscope.advice.until_decided import raised
    from sgdscope.engine.run import train_study

    ends_at = math.inf if seconds is None else time.monotonic() + seconds

    def trained(study: Study) -> Ran:
        left = None if seconds is None else ends_at - time.monotonic()
        return train_study(study, folder, console, command, seconds=left, debug=debug, engine=engine)

    ran = trained(study)
    result = Result(folder, ran)
    while until_decided and not ran.out_of_time:
        if result.finished:
            more = raised(result.declaration, result.tables)
            if not more:
                break
            study = study.extended_to(replace(result.declaration, seeds_at=more))
        elif not _left_by_another_run(result, study):
            break
        ran = ran.then(trained(study))
        result = Result(folder, ran)
    return result


def _left_by_another_run(result: Result, study: Study) -> bool:
    """Return whether trials of a study that have not failed are left: another run added their seeds."""
    names, failed = {w.name for w in study.workloads}, set(result.contents.trials["trial_id"])
    return any(trial.workload.name in names and trial.id not in failed for trial in result.found.pending)


def plan(study: Study, folder: str | Path | None = None, say: Callable[[str], None] = lambda notice: None) -> Plan:
    """Return the cost of a study, or of the trials that a folder lacks, from a timed probe of a few seconds.

    Args:
        study: The study.
        folder: A folder that holds a part of the study. Default: nothing is trained yet.
        say: Called with each notice about the folder, one sentence each. Default: notices are dropped.

    Returns:
        The numbers of ``cells``, ``trials``, ``updates`` and ``examples``, the floating-point ``operations``, the
        ``seconds`` on this machine, the ``bytes`` that the host reads, and the study written out as ``expansion``.

    Raises:
        InputError: If the study, the workload's functions or the folder are not usable.

    >>> import sgdscope as sg
    >>> study = sg.Study(
    ...     name="two-rates", workloads=sg.workloads.digits(), optimizers=sg.SGD(), batch_sizes=512, seeds=2,
    ...     learning_rates=(0.25, 0.5), budgets=sg.Steps(2),
    ... )
    >>> plan = sg.plan(study)
    >>> plan.trials, plan.updates
    (4, 8)
    """
    from sgdscope.engine.run import plan_study

    return plan_study(study, folder, say)


@overload
def load(folder: str | Path, /) -> Result: ...


@overload
def load(folder: str | Path, /, *folders: str | Path) -> Analysis: ...


def load(folder: str | Path, /, *folders: str | Path) -> Analysis:
    """Return what one study folder or several together have found.

    Claims about several budgets or workloads need several folders. A trial that several folders hold counts once.

    Args:
        folder: The folder of a study, finished or not.
        *folders: Further folders.

    Returns:
        A :class:`Result` for one folder, an :class:`Analysis` for several.

    Raises:
        InputError: If a folder holds no study, or if the folders differ in a workload, margin or schedule.

    >>> import sgdscope as sg
    >>> sg.load("nowhere")
    Traceback (most recent call last):
    sgdscope.errors.InputError: nowhere holds no study: there is no such folder.
    """
    if not folders:
        return Result(folder)
    notices: list[str] = []
    tables = read_folders([folder, *folders], notices.append)
    return Analysis(tables, notices, talk=True)


def load_table(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    value: Literal["last", "best"] = "last",
    minimize: bool | None = None,
    constant_score: float | None = None,
    examples: int | None = None,
    score_margin: float | None = None,
) -> Analysis:
    """Analyze trials that were trained elsewhere.

    The columns ``batch_size``, ``learning_rate``, ``seed`` and ``score`` are enough, one row a trial. Further columns
    are described in :func:`sgdscope.analysis.external_table.read_results`.

    Args:
        path: A table (``.csv``, ``.parquet``, ``.json``, ``.jsonl``), a storage of Optuna, a database or a folder of
            MLflow, a folder of TensorBoard, or a multirun of Hydra.
        columns: Names of columns by ours, such as ``{"batch_size": "bs"}``. Default: they are guessed, and
            ``taken`` says which they are.
        value: Which of a metric's values along training counts, ``"last"`` or ``"best"``. Default: ``"last"``.
        minimize: Whether a smaller score is better. Default: by the score's name.
        constant_score: The score of a constant baseline, in the units of the table. A diverged trial counts with it.
            Default: unknown.
        examples: The size of the training split, from which the temperature follows. Default: unknown.
        score_margin: δ, the largest difference in score to ignore. Default: 2 % of the errors of an accuracy or another
            score that is 1 at best, and 2 % of any other score.

    Returns:
        The tables and figures of the trials. ``taken`` says how many were read and from which columns, and
        ``notices`` which were left out.

    Raises:
        InputError: If the file cannot be read, a column is missing or unusable, or no margin follows from the scores.

    >>> import polars as pl
    >>> import sgdscope as sg
    >>> grid = [(b, rate, seed) for b in (16, 256) for rate in (0.1, 0.2, 0.4) for seed in (0, 1, 2)]
    >>> sweep = pl.DataFrame(grid, ["batch_size", "learning_rate", "seed"], orient="row").with_columns(
    ...     score=0.9 - (pl.col("learning_rate").log() + 1.6).abs() / 10 - pl.col("seed") / 1000
    ... )
    >>> sweep.write_csv("sweep.csv")
    >>> sg.load_table("sweep.csv").optima.filter(criterion="score")["learning_rate"].to_list()
    [0.2, 0.2]
    """
    from sgdscope.analysis.external_table import check_margin, read_results, records_of

    results = read_results(path, columns, value, minimize)
    records = records_of(results, minimize, constant_score, examples)
    margin = results.score_margin if score_margin is None else check_margin(score_margin, results.trials)
    tables = Tables(results.trials, records, margin)
    if (tables.score_limits["margin"] == 0).any():
        raise InputError(
            f"{path}: no margin follows from the scores, since they reach the best or are 0 at the smallest batch "
            f"size. Give --score-margin, the largest difference to ignore."
        )
    if tables.optima.is_empty():
        raise InputError(
            f"{path}: too many trials diverged at every learning rate for any to be the best. Try lower learning rates."
        )
    return Analysis(tables, results.notices, name=Path(path).stem, taken=results.taken)


class FigureMap(dict[str, Any]):
    """The figures of a report by their id, each an Altair chart.

    >>> FigureMap({"best-score": "a chart"}, None)["best-scores"]
    Traceback (most recent call last):
    sgdscope.errors.InputError: there is no figure 'best-scores'. Did you mean best-score?
    """

    def __init__(self, figures: Mapping[str, Any], save: Callable[[str | Path, Format], list[Path]] | None) -> None:
        super().__init__(figures)
        self._save = save

    def __missing__(self, name: str) -> Any:
        meant = did_you_mean(name, self) or f" There are {', '.join(self) or 'none'}."
        raise InputError(f"there is no figure {name!r}.{meant}")

    def __call__(self, folder: str | Path, kind: Format) -> list[Path]:
        """Write the figures, as ``figures`` did where it was a method."""
        warn("Result.figures(folder, kind)", "Result.save_figures(folder, format)")
        assert self._save is not None  # noqa: S101 - a result's always can
        return self._save(folder, kind)

    def __repr__(self) -> str:
        return f"FigureMap({', '.join(self)})"


class Analysis:
    """What trials show: tables, verdicts and figures. :func:`load` and :func:`load_table` return one.

    Every table is a polars DataFrame.

    Args:
        tables: The trials and what follows from them.
        notices: What was left out, merged or missing.
        talk: Whether ``figures`` are those of several studies together. Default: those of a report.
        name: What the report is called. Default: by the workloads.
        taken: How many runs were read, and from which columns. Default: empty, as of a study.

    Attributes:
        tables: Further tables, such as ``tables.regimes``, ``tables.score_limits`` and ``tables.training_curves``.
        notices: What was left out, merged or missing, one sentence each.
        trials: One row for each trial that has ended.
        curves: One row for each cell and learning rate.
        optima: Two rows for each cell: the learning rates with the best score and the best training loss.
        transitions: One row for each optimizer and criterion: the transition batch size.
        recommendation: Which batch size and learning rate to use with each optimizer, in words.
        claims: The verdict on each of the paper's claims, one row for each number that a verdict rests on.
        figures: The figures by id, each an Altair chart.

    >>> import polars as pl
    >>> import sgdscope as sg
    >>> grid = [(b, rate, seed) for b in (16, 256) for rate in (0.1, 0.2, 0.4) for seed in (0, 1, 2)]
    >>> sweep = pl.DataFrame(grid, ["batch_size", "learning_rate", "seed"], orient="row").with_columns(
    ...     score=0.9 - (pl.col("learning_rate").log() + 1.6).abs() / 10 - pl.col("seed") / 1000
    ... )
    >>> sweep.write_parquet("sweep.parquet")
    >>> analysis = sg.load_table("sweep.parquet")
    >>> analysis
    Analysis(18 trials of results)
    >>> "best-score" in analysis.figures
    True
    >>> "use batch size" in analysis.recommendation or "best guess" in analysis.recommendation
    True
    """

    def __init__(
        self, tables: Tables, notices: Sequence[str] = (), talk: bool = False, name: str = "", taken: str = ""
    ) -> None:
        self.tables = tables
        self.notices = tuple(notices)
        self.taken = taken
        self._talk = talk
        self._name = name or ", ".join(tables.records)

    @property
    def trials(self) -> pl.DataFrame:
        """One row for each trial that has ended."""
        return self.tables.trials

    @property
    def curves(self) -> pl.DataFrame:
        """One row for each cell and learning rate: the number of seeds, of diverged trials, means and intervals."""
        return self.tables.curves

    @property
    def optima(self) -> pl.DataFrame:
        """Two rows for each cell: the learning rates with the best score and with the best training loss."""
        return self.tables.optima

    @property
    def transitions(self) -> pl.DataFrame:
        """One row for each optimizer and criterion: the batch size where the optimal learning rate stops growing."""
        return self.tables.transitions

    @table
    def claims(self) -> pl.DataFrame:
        """The verdict on each of the paper's claims: one row for each number that a verdict rests on."""
        from sgdscope.claims.decide import claims

        return claims(self.tables)

    @property
    def recommendation(self) -> str:
        """Which batch size and learning rate to use with each optimizer, in the sentences of the report."""
        from sgdscope.report.text.recommendation import note, recommendation

        said = []
        for part in self.tables.parts:
            sentences = [str(sentence) for sentence in recommendation(self._advice, part)]
            title = [f"{part.title}:"] * (len(self.tables.parts) > 1)
            said.append("\n".join([*title, *sentences, note(self._advice, part)]))
        return "\n\n".join(said)

    def recommend(self, batch_sizes: int | Sequence[int] = ()) -> Advice:
        """Return what to choose: batch size, learning rate, momentum, and further trials.

        Args:
            batch_sizes: One batch size or several to recommend learning rates for, measured or not. Default: all
                that were measured.

        Returns:
            An object with one table for each question: ``recommended`` (the batch size and learning rate to use),
            ``rates`` (the learning rate for each batch size), ``costs`` (the seconds and the score of each batch size),
            ``leads`` (optimizers against SGD), ``seconds`` (the seconds of a trial) and ``further`` (the trials that
            settle most of what is undecided).

        Raises:
            InputError: If there is no finished trial, or a batch size is too far from those that were measured.
        """
        from sgdscope.advice.advice import Advice

        self.check_not_empty()
        sizes = tuple(whole("batch_sizes", size, least=1) for size in several(batch_sizes))
        if not sizes:
            return self._advice
        found = Advice(self.tables, sizes, self._learning_rates)
        found.rates  # noqa: B018 - refuses a batch size before anything else is computed
        return found

    @cached_property
    def _advice(self) -> Advice:
        """What it recommends, for the report, the terminal and Python alike."""
        from sgdscope.advice.advice import Advice

        return Advice(self.tables, (), self._learning_rates)

    @property
    def _learning_rates(self) -> Sequence[float]:
        """The learning rates that were declared, where they were not searched."""
        return ()

    def describe(self, table: str) -> pl.DataFrame:
        """Describe the columns of a table.

        Args:
            table: Name of the table, such as ``optima``.

        Returns:
            One row for each column: ``column``, ``description`` and ``unit``.

        Raises:
            InputError: If there is no table of that name.
        """
        from sgdscope.claims.decide import CLAIMS_COLUMNS

        known = COLUMNS | {"claims": CLAIMS_COLUMNS}
        if table not in known:
            raise InputError(f"{table!r} is not a table of a study. The tables are {', '.join(known)}.")
        return described(known[table])

    @cached_property
    def figures(self) -> FigureMap:
        """The figures by id, such as ``figures["best-score"]``, each an Altair chart.

        Ids begin with the workload and the budget where there are several of them. Of several folders together they
        are the paper's figures.

        Raises:
            InputError: If there is no finished trial.
        """
        from sgdscope.report.export import page_figures, talk_figures

        self.check_not_empty()
        return FigureMap(talk_figures(self.tables) if self._talk else page_figures(self.tables), self.save_figures)

    def save_figures(self, folder: str | Path, format: Format = "svg") -> list[Path]:  # noqa: A002
        """Write the figures into a folder, each as wide as a paper's column or page.

        Args:
            folder: The folder, made where there is none.
            format: ``svg``, ``png`` or ``pdf``. Default: ``svg``.

        Returns:
            The paths of the files, which are named by the figures' ids.

        Raises:
            InputError: If there is no finished trial or no figure, the format is another, or the folder cannot be
                written.
        """
        from sgdscope.report.export import check_format, write_figures

        check_format(format)
        return write_figures(self.figures, Path(folder), format)

    def save_report(self, path: str | Path) -> Path:
        """Write the report, one HTML page that opens offline.

        Args:
            path: The page, ending in ``.html``.

        Returns:
            The path.

        Raises:
            InputError: If there is no finished trial, the name ends otherwise, or the file cannot be written.
        """
        check_page_name(Path(path))
        self.check_not_empty()
        return self._write_page(Path(path))

    def _write_page(self, path: Path) -> Path:
        from sgdscope.analysis.external_table import study_tables
        from sgdscope.report.page.page import write_page

        return write_page(study_tables(self.tables, self._name), path, None, self._advice)

    def save(self, folder: str | Path, beside: Path | None = None) -> list[Path]:
        """Write every table and the advice as ``.csv``, the figures as ``.svg``, and the report into a folder.

        Args:
            folder: The folder, made where there is none.
            beside: A file that is never written over. Default: none.

        Returns:
            The paths of the files.

        Raises:
            InputError: If the folder cannot be written.
        """
        out = Path(folder)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{out} cannot be written: {error.strerror}.") from error
        advice = {name: table for name, table in self._advice.all().items() if not table.is_empty()}
        paths = []
        for name, rows in (self.tables.all() | advice).items():
            path = out / f"{name}.csv"
            if beside is not None and path.exists() and path.samefile(beside):
                raise InputError(f"out: {path} is the table itself. Give another folder.")
            nested = [column for column, kind in rows.schema.items() if kind.is_nested()]
            paths.append(write_table(rows.with_columns(_joined(column) for column in nested), path))
        return [*paths, *self.save_figures(out / "figures"), self.save_report(out / "report.html")]

    def check_not_empty(self) -> None:
        """Raise InputError if nothing can be shown."""
        if self.optima.is_empty():
            raise InputError("no learning rate has enough trials that ended. Give more trials.")

    def __repr__(self) -> str:
        return f"Analysis({len(self.trials)} trials of {', '.join(self.tables.records)})"


class Result(Analysis):
    """The results of a study, read from its folder. :func:`run` and :func:`load` return one.

    Every table is a polars DataFrame.

    Args:
        folder: The folder of a study, finished or not.
        ran: What the run that returns this result did. Default: none.

    Attributes:
        folder: The study's folder.
        declaration: The study as its folder declares it.
        words: The words after ``sgdscope run`` that ask for the study; None where only Python knows it.
        finished: Whether no trial is missing.
        trials: One row for each trial of the study that has ended.
        measurements: One row for each measured number: trial, step, examples seen, split, metric, value.
        correctness: Which examples each trial classified correctly, one bit an example.
        curves: One row for each cell and learning rate.
        optima: Two rows for each cell: the learning rates with the best score and the best training loss.
        transitions: One row for each optimizer and criterion: the transition batch size.
        recommendation: Which batch size and learning rate to use with each optimizer, in words.
        claims: The verdict on each of the paper's claims, one row for each number that a verdict rests on.
        figures: The figures of the report by id, such as ``figures["best-score"]``, each an Altair chart.
        tables: Further tables, such as ``tables.regimes``, ``tables.score_limits`` and ``tables.training_curves``.
        damaged: The folder's files that cannot be read.
        notices: What the folder holds beside the study, or lacks, one sentence each.
        ran: What the run did: ``trained``, ``failed``, ``seconds``; None for a folder that was read.
        contents: All trials and measurements of the folder, also those that the study no longer asks for.
        found: The state of the search for learning rates.

    Raises:
        InputError: If the folder holds no study.

    >>> import sgdscope as sg
    >>> study = sg.Study(
    ...     name="two-rates", workloads=sg.workloads.digits(), optimizers=sg.SGD(), batch_sizes=512, seeds=2,
    ...     learning_rates=(0.25, 0.5), budgets=sg.Steps(2),
    ... )
    >>> sg.run(study, "two-rates").finished
    True
    >>> result = sg.load("two-rates")
    >>> result.trials["learning_rate"].unique(maintain_order=True).to_list()
    [0.25, 0.5]
    >>> str(result.save_report("report.html"))
    'report.html'
    """

    tables: StudyTables

    def __init__(self, folder: str | Path, ran: Ran | None = None) -> None:
        self.folder, self.ran = Path(folder), ran
        declaration = Store(folder).declaration()
        self.contents = contents = Store(folder).read()
        self.found = found = search(declaration, contents.trials)
        wanted = [trial.id for trial in found.trials]
        self.damaged = contents.damaged
        records = {record.name: record for record in declaration.workloads}
        self._all_trials = contents.trials.filter(pl.col("trial_id").is_in(wanted))
        tables = StudyTables(
            with_chosen_coefficients(self._all_trials, declaration.optimizers, records),
            records,
            declaration.score_margin,
            contents.correctness,
            contents.measurements,
            declaration=declaration,
            pending=len(found.pending),
            cells_waiting=len(found.waiting),
        )
        super().__init__(tables, contents.notices("count as missing and will be trained again"))

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
    def _learning_rates(self) -> Sequence[float]:
        return self.declaration.learning_rates

    @cached_property
    def words(self) -> tuple[str, ...] | None:
        """The words after ``sgdscope run`` that ask for the study; None where only Python knows it."""
        from sgdscope.report.text.commands import words_of

        return words_of(self.declaration, Store(self.folder).commands())

    def _write_page(self, path: Path) -> Path:
        from sgdscope.report.page.page import write_page

        return write_page(self.tables, path, self.folder, self._advice, self.words)

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
        """Return the trial table without the columns on how trials were run.

        Equal studies have equal tables, bit for bit on the CPU.
        """
        return self.trials.drop(CIRCUMSTANCES)

    def _repr_html_(self) -> str:
        """Return what a notebook shows of it."""
        from sgdscope.report.page.notebook import notebook_html

        return notebook_html(self.tables, self._advice)

    def __repr__(self) -> str:
        state = "finished" if self.finished else f"{self.tables.pending} trials known to be missing"
        return f"Result({str(self.folder)!r}: {self.declaration.name}, {len(self.trials)} trials, {state})"

    # ── Earlier names ────────────────────────────────────────────────────────────────────────────────────

    def report(self, path: str | Path) -> Path:
        """Write the report; use :meth:`save_report`."""
        warn("Result.report", "Result.save_report")
        return self.save_report(path)

    def advice(self, *batch_sizes: int) -> Advice:
        """Return what the study recommends; use :meth:`recommend`."""
        warn("Result.advice", "Result.recommend")
        return self.recommend(batch_sizes)

    @property
    def charts(self) -> Any:
        """The figures as methods; use ``figures["best-score"]``."""
        warn("Result.charts", 'Result.figures["best-score"]')
        methods = {name.replace("-", "_"): partial(self.figures.get, name) for name in self.figures}
        return SimpleNamespace(**methods)

    def check_not_empty(self) -> None:
        """Raise InputError if nothing can be shown."""
        if ended(self.trials).is_empty():
            raise InputError(f"{self.folder} has no finished trials yet; run the study first.")
        if self.optima.is_empty():
            trials = ended(self.trials)
            if trials["diverged_at_step"].eq_missing(0).all():
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
        InputError: where a folder has nothing to show, or two differ in a workload of one name or in its margin.
    """
    if not folders:
        raise InputError("name at least one folder of a study.")
    results = [Result(folder) for folder in folders]
    records: dict[str, WorkloadRecord] = {}
    margins: dict[str, float] = {}
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
        if (margin := result.declaration.score_margin) is not None:
            for name in result.tables.records:
                if margins.setdefault(name, margin) != margin:
                    raise InputError(
                        f"{result.folder}: its score_margin is {margin:g}, that of another folder with the workload "
                        f"{name!r} is {margins[name]:g}; verdicts need one margin."
                    )
        if result.declaration.schedule != results[0].declaration.schedule:
            raise InputError(
                f"{result.folder}: its learning-rate schedule is {result.declaration.schedule}, that of "
                f"{results[0].folder} is {results[0].declaration.schedule}; give folders of one schedule."
            )
    trials = pl.concat([result.tables.trials for result in results], how="diagonal")
    trials = trials.unique("trial_id", maintain_order=True)
    # Of what was measured along training, what a claim rests on.
    measured = pl.concat([result.contents.measurements for result in results])
    measured = measured.filter(pl.col("metric").is_in(METRICS.keys())).unique(maintain_order=True)
    return Tables(trials, records, margins, measurements=None if measured.is_empty() else measured)


def check_table_name(path: Path) -> None:
    """Refuse a table's name that does not end in .csv or .parquet."""
    if path.suffix not in (".csv", ".parquet"):
        raise InputError(f"{path} must end in .csv or .parquet.")
    check_not_of_a_study(path)


def check_page_name(path: Path | None) -> None:
    """Refuse a name for the page that promises something else than HTML."""
    if path is not None and path.suffix not in ("", ".html", ".htm"):
        raise InputError(
            f"{path} must end in .html, as the page is HTML; `sgdscope figures DIR --format svg`, png or pdf writes "
            f"its figures into a folder."
        )
    if path is not None:
        check_not_of_a_study(path)


def _joined(column: str) -> pl.Expr:
    """Return lists as text, which a ``.csv`` file can hold."""
    return pl.col(column).cast(pl.List(pl.String)).list.join(" ")


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
