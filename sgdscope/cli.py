"""The command line.

Commands: run, work, plan, show, watch, report, figures, claims, advise, compare, analyze, export, publish, verify,
data, studies.

Exit codes: 0 done, 1 finished with failed trials, 2 bad input, 70 a defect of sgdscope, 130 interrupted (Ctrl-C), 143
terminated (SIGTERM); after both it is safe to run the same command again.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args, get_type_hints

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, OmitSubcommandPrefixes, Positional, arg
from tyro.constructors import PrimitiveConstructorSpec

from sgdscope.budget import Budget, parse_budget
from sgdscope.converters import shown
from sgdscope.errors import InputError, Terminated, did_you_mean, keep_traceback
from sgdscope.formatting import exact
from sgdscope.optimizers import Optimizer, parse_optimizer
from sgdscope.schedules import Schedule, parse_schedule
from sgdscope.seeds import Seeds, SeedsAt, parse_seeds, parse_seeds_at
from sgdscope.terminal import OBEYED, Terminal, TextTable, outputs, print_line, print_table, print_text, visible

if TYPE_CHECKING:
    from sgdscope.analysis.tables import Tables
    from sgdscope.result import Analysis, Result
    from sgdscope.store import Store
    from sgdscope.study import Study

DATA_COMMANDS = ("fetch", "check")
QUICK_SEEDS = 5
DONE, FAILED, BAD_INPUT, DEFECT, INTERRUPTED, TERMINATED = 0, 1, 2, 70, 130, 143
# What is said where no trial was trained, by whether the time was over.
NOTHING_TRAINED = ("nothing was left to train", "no trial was finished in the time")
TIME_OVER = "The time is over. What was trained is committed. Run the same command to resume."
SOME_FAILED = "{} trials failed. Run the same command again to retry them."
# Commands and options of earlier versions, and what does their work now.
REPLACED = {"status": "show", "list": "studies"}
REPLACED_OPTIONS = {("report", "--format"): "`sgdscope figures DIR --format svg`, png or pdf writes figures."}


class _RefusedError(Exception):
    """An option's value that cannot be read. It is no ValueError, which tyro would tell in words of its own."""


def option(metavar: str | None, otherwise: str) -> Any:
    """Name the values of an option, and its default in a user's words."""
    return arg(metavar=metavar, help_behavior_hint=f"({otherwise})")


def read_by(reader: Callable[[str], Any]) -> Any:
    """Read each word after an option with a function that raises InputError."""

    def value(words: list[str]) -> Any:
        try:
            return reader(words[0])
        except InputError as error:
            raise _RefusedError(str(error)) from error

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="WORD",
        instance_from_str=value,
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(value)],
    )


def whole_number(field: str) -> Any:
    """Read each word after an option as a whole number."""
    return read_by(lambda text: _number(field, text, int, "a whole number"))


def number(field: str) -> Any:
    """Read each word after an option as a number."""
    return read_by(lambda text: _number(field, text, float, "a number"))


def _number(field: str, text: str, kind: Callable[[str], Any], what: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise InputError(f"{field}: {shown(text)} is not {what}.") from None


def parse_duration(text: str) -> float:
    """Read a time such as 90s, 2m or 1.5h, in seconds."""
    try:
        seconds = float(text[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[text[-1:]]
    except (KeyError, ValueError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InputError(f"for: {shown(text)} is not a time. Write a number and s, m, h or d, such as 90s or 2h.")
    return seconds


def parse_column(text: str) -> tuple[str, str]:
    """Read a column's name by ours, such as batch_size=bs."""
    ours, equals, theirs = text.partition("=")
    if not (ours and equals and theirs):
        raise InputError(f"columns: {shown(text)} names no column. Write our name and yours, such as batch_size=bs.")
    return ours, theirs


For = Annotated[
    Annotated[float, read_by(parse_duration)] | None,
    arg(name="for", metavar="TIME", help_behavior_hint="(default: until it is finished)"),
]
Text = str | None
StudyName = Annotated[Positional[str | None], arg(metavar="STUDY", help_behavior_hint="(or --csv)")]
Folder = Annotated[Positional[Path], arg(metavar="DIR")]
ITS_OWN = "default: the study's"


@dataclass(frozen=True)
class Fields:
    """What the study varies. An option replaces what the study declares."""

    optimizers: Annotated[
        tuple[Annotated[Optimizer, read_by(parse_optimizer)], ...] | None, option("NAME ...", ITS_OWN)
    ] = None
    """sgd, momentum, momentum:M, or adam, adamw, kfac, svrg, alpha_svrg, gradient_penalty, l2 or sam with numbers, as
    in adam:beta2=0.99 or kfac:damping=0.1|1, which searches the damping."""
    batch_sizes: Annotated[tuple[Annotated[int, whole_number("batch_sizes")], ...] | None, option("B ...", ITS_OWN)] = (
        None
    )
    """Examples per parameter update."""
    learning_rates: Annotated[
        tuple[Annotated[float, number("learning_rates")], ...] | None, option("RATE ...", "default: they are searched")
    ] = None
    """Initial learning rates to try."""
    budgets: Annotated[
        tuple[Annotated[Budget, read_by(parse_budget)], ...] | None,
        option("epochs:N|steps:N|unlimited:N:N ...", ITS_OWN),
    ] = None
    """The compute budgets of a trial."""
    seeds: Annotated[
        Annotated[int | Seeds, read_by(parse_seeds)] | None, option("N|SEARCH,NEAR_BEST,BEST", ITS_OWN)
    ] = None
    """The number of seeds. 5,10,30 is 5 at every rate, 10 beside the best and 30 at the best."""
    first_seed: Annotated[Annotated[int, whole_number("first_seed")] | None, option("N", ITS_OWN)] = None
    """The number of the first seed. Another number draws other seeds."""
    seeds_at: Annotated[
        tuple[Annotated[SeedsAt, read_by(parse_seeds_at)], ...] | None, option("OPTIMIZER@B=SEEDS ...", ITS_OWN)
    ] = None
    """More seeds at single optimizers and batch sizes, such as sgd@256=5,10,60."""
    schedule: Annotated[Annotated[Schedule, read_by(parse_schedule)] | None, option("NAME", ITS_OWN)] = None
    """How the learning rate changes along the budget: halving, constant, cosine, wsd or wsd:WARMUP:DECAY."""
    score_margin: Annotated[Annotated[float, number("score_margin")] | None, option("SCORE", ITS_OWN)] = None
    """The largest difference in score to ignore, in units of the score."""
    evaluate_at: Annotated[
        tuple[Annotated[float, number("evaluate_at")], ...] | None, option("PART ...", "default: 0.5 1")
    ] = None
    """The fractions of the budget at which a trial is evaluated. The last is 1."""
    noise_scale_at: Annotated[
        tuple[Annotated[float, number("noise_scale_at")], ...] | None, option("PART ...", "default: never")
    ] = None
    """The fractions of the budget at which the gradient noise scale is estimated."""
    sharpness_at: Annotated[
        tuple[Annotated[float, number("sharpness_at")], ...] | None, option("PART ...", "default: never")
    ] = None
    """The fractions of the budget at which the sharpness, λ_max of the Hessian, is estimated."""
    microbatch_size: Annotated[
        Annotated[int, whole_number("microbatch_size")] | None, option("N", "default: the whole batch")
    ] = None
    """The most examples in a device's forward pass, where a batch does not fit in memory."""
    devices_per_trial: Annotated[
        Annotated[int, whole_number("devices_per_trial")] | None, option("N", "default: 1")
    ] = None
    """The number of devices that share each batch of a trial."""
    compute_dtype: Annotated[Text, option("float32|bfloat16", "default: float32")] = None
    """The type of the matrix products in gradients. bfloat16 is for GPUs, and slower on a CPU."""

    def applied_to(self, study: Study) -> Study:
        """Return the study with the fields that were given."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        return study.changed(given) if given else study


@dataclass(frozen=True)
class Source:
    """Which form of a study. --profile, --data and --train-on-all are for studies on downloaded data sets."""

    sweep: Annotated[Text, option("steps|epochs", "default: batch sizes at constant epochs")] = None
    """Vary batch sizes at a constant number of steps, or epochs at one batch size."""
    profile: Annotated[Text, option("laptop|small|full", "default: the smaller one")] = None
    """The size of the study."""
    data: Annotated[Path | None, option("DIR", "default: SGDSCOPE_DATA, or the cache folder")] = None
    """The folder of the data set."""
    train_on_all: Annotated[FlagCreatePairsOff[bool], option(None, "default: hold out a validation split")] = False
    """Train on all examples and choose learning rates on the test set."""
    quick: Annotated[FlagCreatePairsOff[bool], option(None, "default: the study's seeds")] = False
    """5 seeds at every learning rate. They decide large effects only."""


@dataclass(frozen=True)
class Csv:
    """A CSV file in place of a study: a fully connected network learns to predict one column from the others."""

    csv: Annotated[Path | None, option("FILE", "default: none")] = None
    """The file, with a header."""
    target: Annotated[Text, option("COLUMN", "default: none")] = None
    """The column to predict."""
    task: Annotated[Text, option("classification|regression", "default: by the column")] = None
    """What to predict: a class or a number."""


@dataclass(frozen=True, kw_only=True)
class Debuggable:
    """The option that every command has."""

    debug: Annotated[FlagCreatePairsOff[bool], option(None, "default: off")] = False
    """Raise every error with its traceback, also an error that makes trials fail."""


@dataclass(frozen=True)
class Run(Debuggable):
    """Train the missing trials, print the results, and write the report.

    Safe to interrupt: run the same command again to resume.
    """

    fields: Annotated[OmitArgPrefixes[Fields], arg(name="study")]
    source: Annotated[OmitArgPrefixes[Source], arg(name="built-in study")]
    table: Annotated[OmitArgPrefixes[Csv], arg(name="table")]
    study: StudyName = None
    """A built-in study's name, or the path of a Python file that defines `study`."""
    out: Annotated[Text, option("DIR", "default: sgdscope-NAME")] = None
    """The study's folder. Trials that it holds are not trained again."""
    until_decided: Annotated[FlagCreatePairsOff[bool], option(None, "default: off")] = False
    """Add seeds where a question is open, at 15, 20, 30, 40, 60 and 100 seeds, until it is decided."""
    for_: For = None
    """Stop after this time, such as 90s, 2m or 1.5h. Trained trials are committed."""
    engine: Annotated[Literal["local", "ray"], option("local|ray", "default: local")] = "local"
    """Train on the devices of this machine, or of a Ray cluster, which needs the extra ray."""
    live: Annotated[FlagCreatePairsOff[bool], option(None, "default: off")] = False
    """Keep the page live.html in the folder, which shows the results so far in a browser."""
    log_to: Annotated[
        tuple[Literal["mlflow", "wandb", "tensorboard", "trackio"], ...], option("TRACKER ...", "default: none")
    ] = ()
    """Log the results when training ends to mlflow, wandb, tensorboard or trackio, which are extras."""
    log_each: Annotated[Literal["cell", "trial"], option("cell|trial", "default: cell")] = "cell"
    """Whether a tracker gets a run for each cell, at its best learning rate, or for each trial."""
    verbose: Annotated[FlagCreatePairsOff[bool], option(None, "default: off")] = False
    """Print each compiled program and the time of its compilation."""

    @property
    def words(self) -> list[str]:
        """The words after ``sgdscope run`` that ask for this from any folder, without ``--out``."""
        words = []
        if self.study is not None:
            words = [str(Path(self.study).resolve()) if Path(self.study).is_file() else self.study]
        for part in (self.source, self.table, self.fields):
            for f in fields(part):
                value = getattr(part, f.name)
                value = value.resolve() if isinstance(value, Path) else value
                if value is None or value is False:
                    continue
                values = value if isinstance(value, tuple) else () if value is True else (value,)
                words += [
                    f"--{f.name.replace('_', '-')}",
                    *(exact(each) if isinstance(each, float) else str(each) for each in values),
                ]
        return words + ["--until-decided"] * self.until_decided

    def _page_beside(self, folder: Path) -> contextlib.AbstractContextManager[None]:
        if not self.live:
            return contextlib.nullcontext()
        from sgdscope.live.file import FILE, beside

        _say(f"Open {folder / FILE} in a browser to see the results so far.")
        return beside(folder)

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        study = _load(self.study, self.source, self.table, self.fields)

        from sgdscope.report.text.summary import saturation_sentences
        from sgdscope.result import run
        from sgdscope.store import ended
        from sgdscope.streaming.distributed import exit_together

        if self.log_to:
            from sgdscope.trackers.log import check_installed

            check_installed(self.log_to)
        folder = _given("out", self.out) or Path(f"sgdscope-{OBEYED.sub('-', study.name).replace('/', '-')}")
        with exit_together(), self._page_beside(folder):
            result = run(
                study, folder, Terminal(file=sys.stderr), until_decided=self.until_decided, seconds=self.for_,
                command=self.words, debug=self.debug, engine=self.engine,
            )  # fmt: skip
        ran = result.ran
        assert ran is not None  # noqa: S101 - run says what it did
        if ran.out_of_time:
            _say(TIME_OVER)
            if ended(result.trials).is_empty():
                return DONE
        page: Path | InputError | None = None
        if ran.failed < len(result.trials):
            result.check_not_empty()
            try:
                page = result.save_report(folder / "report.html")
            except InputError as error:  # the results are printed nevertheless
                page = error
        if self.verbose:
            for program in ran.compile_times:
                print_text(
                    console, f"compiled {program.program}: traced in {program.trace:.2f} s, {program.compile:.2f} s"
                )
            total = sum(program.trace + program.compile for program in ran.compile_times)
            print_text(console, f"compiled {len(ran.compile_times)} programs in {total:.1f} s, beside training")
        if page is None:
            _say(f"All {ran.failed} trials failed. Run the same command again to retry them.")
            return FAILED
        _print_findings(result.tables, console)
        for sentence in saturation_sentences(result.tables.saturation, result.tables.records):
            print_text(console, sentence)
        _print_recommendation(result, console)
        console.print()
        did = (
            f"trained {ran.trained} trials in {ran.seconds:.0f} s" if ran.trained else NOTHING_TRAINED[ran.out_of_time]
        )
        if not isinstance(page, InputError):
            print_text(console, f"{did}; report: {page}")
        if self.log_to and not result.optima.is_empty():  # at the end, so that no tracker holds back the results
            from sgdscope.trackers.log import log

            _say(f"Logging to {' and '.join(self.log_to)}. Ctrl+C ends it and leaves the results as they are.")
            log(result, self.log_to, self.log_each, _say)
        if isinstance(page, InputError):
            raise page
        if ran.failed:
            _say(SOME_FAILED.format(ran.failed))
        return FAILED if ran.failed else DONE


@dataclass(frozen=True)
class Work(Debuggable):
    """Join the training of a study, from any machine that sees its folder.

    Each worker trains other trials, and ends when the study is finished.
    """

    folder: Folder
    """The folder of a study that `sgdscope run` began."""
    for_: For = None
    """Stop after this time, such as 90s, 2m or 1.5h. Trained trials are committed."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        from sgdscope.report.text.commands import words_of
        from sgdscope.result import run
        from sgdscope.store import Store
        from sgdscope.streaming.distributed import exit_together

        store = Store(self.folder)
        declaration, kept = store.declaration(), store.commands()
        words = [kept.get(record.name, []) for record in declaration.workloads]
        if not any(words) and (named := words_of(declaration, {})):
            words = [list(named)]
        if not all(words):
            raise InputError(
                f"{self.folder} was begun from Python, so no command is known that declares its study. Run the script "
                f"that began it; it joins the training."
            )
        code, ends_at = DONE, math.inf if self.for_ is None else time.monotonic() + self.for_
        for each in dict.fromkeys(map(tuple, words)):
            if Path(each[0]).is_absolute() and not Path(each[0]).is_file():
                raise InputError(
                    f"{self.folder} was begun with {each[0]}, which is not on this machine. Put it there, or join with "
                    f"`sgdscope run FILE --out {shlex.quote(str(self.folder))}`."
                )
            begun = cast(Run, _parsed(["run", *each]))
            study = _load(begun.study, begun.source, begun.table, begun.fields)
            with exit_together():
                ran = run(
                    study, self.folder, Terminal(file=sys.stderr), until_decided=begun.until_decided,
                    seconds=None if self.for_ is None else ends_at - time.monotonic(), debug=self.debug,
                ).ran  # fmt: skip
            assert ran is not None  # noqa: S101 - run says what it did
            print_text(console, f"trained {ran.trained} trials in {ran.seconds:.0f} s")
            if ran.out_of_time:
                _say(TIME_OVER)
                break
            if ran.failed:
                _say(SOME_FAILED.format(ran.failed))
                code = FAILED
        return code


@dataclass(frozen=True)
class Plan(Debuggable):
    """Estimate the cost of a study from a timed probe of a few seconds.

    Nothing is trained.
    """

    fields: Annotated[OmitArgPrefixes[Fields], arg(name="study")]
    source: Annotated[OmitArgPrefixes[Source], arg(name="built-in study")]
    table: Annotated[OmitArgPrefixes[Csv], arg(name="table")]
    study: StudyName = None
    """A built-in study's name, or the path of a Python file that defines `study`."""
    out: Annotated[Text, option("DIR", "default: nothing is trained yet")] = None
    """A folder that holds part of the study. Only the missing trials are counted."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        study = _load(self.study, self.source, self.table, self.fields)

        from sgdscope.engine.run import plan_study
        from sgdscope.formatting import duration

        out = _given("out", self.out)
        plan = plan_study(study, out, lambda text: print_text(console, text))
        if not plan.cells:
            print_text(console, f"Nothing is left to train: {out} holds all trials of the study.")
            return DONE
        print_text(console, plan.expansion)
        console.print()
        lengths = {"workloads": study.workloads, "budgets": study.budgets}
        product = " × ".join(
            [name for name, values in lengths.items() if len(values) > 1] + ["optimizers × batch sizes"]
        )
        about = "" if study.learning_rates else "about "
        print_text(console, f"cells      {plan.cells}  ({product} still to do)")
        print_text(console, f"trials     {about}{plan.trials:,}")
        print_text(console, f"updates    {about}{plan.updates:,}")
        print_text(console, f"examples   {about}{plan.examples:,}")
        print_text(console, f"operations {about}{plan.operations:.2g}, of matrix products and convolutions")
        if plan.bytes:
            print_text(console, f"data       about {plan.bytes / 1e9:,.3g} GB read")
        if plan.seconds is not None:
            hours = plan.seconds / 3600
            print_text(console, f"device     about {hours:.2g} hours of this machine")
        print_text(console, f"time       about {duration(plan.seconds or 0.0)}")
        for proposal in plan.proposals:
            print_text(console, proposal)
        return DONE


@dataclass(frozen=True)
class Show(Debuggable):
    """Show what a study's folder holds, what is missing, and the results so far."""

    folder: Folder
    """The study's folder."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        from sgdscope.engine.workers import workers_of
        from sgdscope.report.figures.figure import declared_seeds
        from sgdscope.result import Result
        from sgdscope.store import Store

        result, store = Result(self.folder), Store(self.folder)
        declaration, trials = result.declaration, result.contents.trials
        counts = dict(trials["status"].value_counts().sort("status").iter_rows())
        ended = ", ".join(f"{count} {status}" for status, count in counts.items()) or "none"
        text = [
            f"study      {declaration.name}: {', '.join(record.name for record in declaration.workloads)}; "
            f"{', '.join(map(str, declaration.optimizers))}; batch sizes "
            f"{', '.join(map(str, declaration.batch_sizes))}; {', '.join(map(str, declaration.budgets))}; "
            f"{declared_seeds(declaration.seeds)}",
            f"trials     {ended}; {result.tables.pending} pending",
        ]
        beside = len(trials) - len(result.trials)
        if beside:
            text.append(f"beside     {beside} of these trials are not part of the study as it is declared now")
        failed = trials.filter(status="failed")
        text += [
            f"failed     {number} trials: {error}"
            for error, number in failed["error"].value_counts().sort("error").iter_rows()
        ]
        text += [f"damaged    {path}: its trials count as missing and will be trained again" for path in result.damaged]
        text += [f"found      {notice}" for notice in result.notices]
        if result.finished:
            text.append("state      finished")
        else:
            waiting = result.tables.cells_waiting
            more = f", and {waiting} cells wait for them" if waiting else ""
            text.append(f"state      not finished: {result.tables.pending} trials are known to be missing{more}")
            text += [f"resume     {command}" for command in _resuming(result, store)]
        text += [f"worker     {info}" for info in workers_of(self.folder).values()]
        for line in text:
            (print_line if line.startswith("resume") else print_text)(console, line)
        if not result.optima.is_empty():
            console.print()
            _print_findings(result.tables, console)
            _print_recommendation(result, console)
        return DONE


@dataclass(frozen=True)
class Watch(Debuggable):
    """Show a study that is being trained in a browser.

    The page is served to this machine alone, until the study is finished.
    """

    folder: Folder
    """The study's folder."""
    port: Annotated[Annotated[int, whole_number("port")], option("N", "default: a free one")] = 0
    """The port on 127.0.0.1."""
    file: Annotated[FlagCreatePairsOff[bool], option(None, "default: off")] = False
    """Write the page to live.html in the folder, and serve nothing."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        from sgdscope.live.file import FILE, keep
        from sgdscope.live.server import Watch as Server
        from sgdscope.store import Store

        try:
            if _read(self.folder).finished:
                print_text(
                    console, f"{self.folder} is finished. Write its report with `sgdscope report {self.folder}`."
                )
                return DONE
        except InputError as error:
            if Store(self.folder).exists or self.folder.is_file():
                raise
            _say(f"{error} The page shows the study as soon as it begins.")
        with contextlib.suppress(KeyboardInterrupt):
            if self.file:
                print_line(console, str(self.folder / FILE))
                keep(self.folder, threading.Event().wait)
                return DONE
            server = Server(self.folder, self.port)
            print_line(console, server.url)
            port = server.server.server_port
            _say(f"From another machine: ssh -L {port}:127.0.0.1:{port} HOST. Ctrl+C ends it, and not the study.")
            server.serve()
        return DONE


def _resuming(result: Result, store: Store) -> list[str]:
    """Return the commands that train what is missing, for a shell in the present folder."""
    unfinished = dict.fromkeys(cell.workload.name for cell in result.found.unfinished)
    kept = store.commands()
    recorded = [kept[name] for name in unfinished if name in kept]
    commands = [shlex.join(["sgdscope", "run", *words, "--out", str(store.folder)]) for words in recorded]
    missing = [words[0] for words in recorded if Path(words[0]).is_absolute() and not Path(words[0]).is_file()]
    said = list(dict.fromkeys(commands))
    said += [f"{path} is missing: name its new place" for path in dict.fromkeys(missing)]
    unrecorded = [name for name in unfinished if name not in kept]
    if unrecorded:
        from sgdscope.report.text.commands import resumed, words_of

        words = words_of(result.declaration, {})
        again = f"run the script that trains workload {', '.join(unrecorded)} into this folder again"
        said.append(resumed(words, store.folder) if words else again)
    return said


@dataclass(frozen=True)
class Report(Debuggable):
    """Write the HTML report of a study's folder, or of several.

    With --index, also a page that lists all of them with what each recommends.
    """

    folders: Annotated[Positional[tuple[Path, ...]], option("DIR ...", "at least one")]
    """The study folders."""
    index: Annotated[FlagCreatePairsOff[bool], option(None, "default: no page of all")] = False
    """Write a page of all studies, which links their reports."""
    out: Annotated[Text, option("FILE", "default: report.html in DIR, index.html with --index")] = None
    """The HTML file of the report, or of the page of all studies."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        from sgdscope.result import check_page_name

        out = _given("out", self.out)
        check_page_name(out)
        if not self.folders:
            raise InputError("report: name at least one folder of a study.")
        if len(self.folders) > 1 and out is not None and not self.index:
            raise InputError(
                "out: several reports have one file each, in their folders. Leave it out, or give --index."
            )
        written = []
        for folder in self.folders:
            result = _read(folder)
            if self.index and result.optima.is_empty():
                _say(f"{folder} has no results yet: it is listed without a report.")
                written.append((result.tables, folder, False))
                continue
            page = result.save_report(folder / "report.html" if self.index else out or folder / "report.html")
            print_line(console, str(page))
            written.append((result.tables, folder, True))
        if self.index:
            from sgdscope.report.page.index import write_index

            print_line(console, str(write_index(written, out or Path("index.html"))))
        return DONE


@dataclass(frozen=True)
class Export(Debuggable):
    """Write the table of a study's trials."""

    folder: Folder
    """The study's folder."""
    file: Annotated[Positional[Path], arg(metavar="FILE")]
    """The table. The name ends in .csv or .parquet."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        from sgdscope.result import check_table_name

        check_table_name(self.file)
        print_line(console, str(_read(self.folder).export(self.file)))
        return DONE


@dataclass(frozen=True)
class Publish(Debuggable):
    """Write a study as one folder that can be uploaded as it is.

    It holds the report, the tables with a data dictionary, and the trials.
    """

    folder: Folder
    """The study's folder."""
    out: Annotated[Positional[str], arg(metavar="OUT")]
    """The new folder."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        from sgdscope.publishing.publish import publish

        out = _given("out", self.out)
        assert out is not None  # noqa: S101 - it is needed
        _read(self.folder)
        print_line(console, str(publish(self.folder, out)))
        return DONE


@dataclass(frozen=True)
class Verify(Debuggable):
    """Compute a published study again from its trials, and compare every number.

    The exit code is 1 if something differs.
    """

    folder: Annotated[Positional[Path], arg(metavar="OUT")]
    """The folder that publish wrote."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        from sgdscope.publishing.verify import verify

        found = verify(self.folder)
        for sentence in (*found.notices, *found.wrong):
            print_text(console, sentence)
        compared = f"{found.files} files, {found.tables} tables and {found.numbers:,} numbers compared"
        differ = f"{len(found.wrong)} difference{'s' * (len(found.wrong) > 1)}." if found.wrong else "All agree."
        print_text(console, f"{self.folder}: {compared}. {differ}")
        return FAILED if found.wrong else DONE


@dataclass(frozen=True)
class Claims(Debuggable):
    """Test the paper's claims on one or more study folders.

    Claims that compare budgets or workloads need several folders.
    """

    folders: Annotated[Positional[tuple[Path, ...]], option("DIR ...", "at least one")]
    """The study folders."""
    reference: Annotated[float | None, option("SCORE", "default: the first claim is not tested")] = None
    """The score that the authors of the architecture published, for the first claim."""
    json: Annotated[FlagCreatePairsOff[bool], option(None, "default: text")] = False
    """Print JSON."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        from sgdscope.claims.decide import findings
        from sgdscope.report.text.claims import as_json, print_claims
        from sgdscope.result import read_folders

        if self.reference is not None and not math.isfinite(self.reference):
            raise InputError(f"reference: {self.reference} is not a finite number. Give the published score.")
        found = findings(read_folders(self.folders, _say), self.reference)
        if self.json:
            sys.stdout.write(json.dumps(as_json(found), indent=1, allow_nan=False) + "\n")
        else:
            print_claims(found, console)
        return DONE


@dataclass(frozen=True)
class Compare(Debuggable):
    """Compare studies that differ in one thing. The first one is the reference.

    Writes the page compare.html and every table as .csv.
    """

    folders: Annotated[Positional[tuple[Path, ...]], option("DIR ...", "at least two")]
    """The study folders, or tables of trials as .csv or .parquet."""
    out: Annotated[str, arg(metavar="DIR")] = "sgdscope-compare"
    """The folder to write to."""
    json: Annotated[FlagCreatePairsOff[bool], option(None, "default: text")] = False
    """Print JSON."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        from sgdscope.comparison.comparison import compare
        from sgdscope.comparison.words import table

        out = _given("out", self.out)
        assert out is not None  # noqa: S101 - it has a default
        comparison = compare(*self.folders)
        paths = comparison.save(out)
        if self.json:
            sys.stdout.write(comparison.as_json() + "\n")
            return DONE
        for sentence in comparison.sentences:
            print_text(console, sentence)
        print_table(console, table(comparison))
        for path in paths:
            print_line(console, str(path))
        return DONE


@dataclass(frozen=True)
class Figures(Debuggable):
    """Write figures as files, each as wide as a paper's column or page.

    One folder: the figures of its report.

    Several folders: the paper's figures of each, and of all on common axes.
    """

    folders: Annotated[Positional[tuple[Path, ...]], option("DIR ...", "at least one")]
    """The study folders."""
    out: Annotated[str, arg(metavar="DIR")] = "figures"
    """The folder to write the files to."""
    format: Literal["svg", "png", "pdf"] = "svg"
    """The kind of file."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        from sgdscope.comparison.side_by_side import figures_of_folders
        from sgdscope.report.export import write_figures
        from sgdscope.result import Result

        out = _given("out", self.out)
        assert out is not None  # noqa: S101 - it has a default
        if len(self.folders) == 1:
            result = Result(self.folders[0])
            result.tell(_say)
            paths = result.save_figures(out, self.format)
        else:
            paths = write_figures(figures_of_folders(self.folders, _say), out, self.format)
        for path in paths:
            print_line(console, str(path))
        return DONE


@dataclass(frozen=True)
class Analyze(Debuggable):
    """Analyze runs that were made elsewhere.

    - A table with one row for each run: .csv, .parquet, .json or .jsonl.
    - Optuna: an SQLite storage or a journal.
    - MLflow: an SQLite file or the folder mlruns.
    - TensorBoard or Hydra: the folder of the runs.
    - Needed: batch size, learning rate and score. Seeds pair runs.
    """

    path: Annotated[Positional[Path], arg(metavar="PATH")]
    """The file or folder."""
    columns: Annotated[
        tuple[Annotated[tuple[str, str], read_by(parse_column)], ...], option("NAME=COLUMN ...", "default: guessed")
    ] = ()
    """Which column holds what, such as batch_size=bs learning_rate=lr seed=run score=val_acc. Further names:
    optimizer, momentum, validation_score, train_loss, steps, budget, workload, status."""
    value: Annotated[Literal["last", "best"], option("last|best", "default: last")] = "last"
    """Which of the values that a run logged along training is its score. The best is too good by chance."""
    minimize: Annotated[FlagCreatePairsOff[bool], option(None, "default: by the score's name")] = False
    """A smaller score is better."""
    maximize: Annotated[FlagCreatePairsOff[bool], option(None, "default: by the score's name")] = False
    """A larger score is better."""
    constant_score: Annotated[
        Annotated[float, number("constant_score")] | None, option("SCORE", "default: unknown")
    ] = None
    """The score of a constant baseline, in the units of the scores. A diverged run counts with it."""
    examples: Annotated[Annotated[int, whole_number("examples")] | None, option("N", "default: unknown")] = None
    """The size of the training split, for the temperature."""
    score_margin: Annotated[
        Annotated[float, number("score_margin")] | None, option("SCORE", "default: 2 % of an accuracy's errors")
    ] = None
    """The largest difference in score to ignore, in units of the score."""
    out: Annotated[Text, option("DIR", "default: nothing is written")] = None
    """A folder to write the report, the figures as .svg, and every table and the advice as .csv to."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        from sgdscope.result import load_table

        if self.minimize and self.maximize:
            raise InputError("minimize: --maximize is given as well. Give one of them.")
        out = _given("out", self.out)
        found = load_table(
            self.path,
            columns=dict(self.columns),
            value=self.value,
            minimize=self.minimize if self.minimize or self.maximize else None,
            constant_score=self.constant_score,
            examples=self.examples,
            score_margin=self.score_margin,
        )
        paths = [] if out is None else found.save(out, beside=self.path)
        for notice in (found.taken, *found.notices):
            print_text(console, notice)
        _print_findings(found.tables, console)
        _print_recommendation(found, console)
        for path in paths:
            print_line(console, str(path))
        return DONE


@dataclass(frozen=True)
class Advise(Debuggable):
    """Recommend a batch size, a learning rate, momentum, and further trials."""

    folder: Folder
    """The study's folder."""
    batch_sizes: Annotated[
        tuple[Annotated[int, whole_number("batch_sizes")], ...] | None, option("B ...", "default: none")
    ] = None
    """Batch sizes to recommend learning rates for, measured or not."""
    json: Annotated[FlagCreatePairsOff[bool], option(None, "default: text")] = False
    """Print JSON."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        from sgdscope.report.text.advice import as_json, print_advice

        result = _read(self.folder)
        advice = result.recommend(self.batch_sizes or ())
        if self.json:
            sys.stdout.write(as_json(advice, result.folder, result.words) + "\n")
        else:
            print_advice(advice, result.tables, result.folder, result.words, console)
        return DONE


@dataclass(frozen=True)
class Fetch(Debuggable):
    """Download a data set. Verified files are kept."""

    name: Annotated[Positional[str], arg(metavar="NAME")]
    """mnist, cifar10, ptb or fashion_mnist."""
    data: Annotated[Path | None, option("DIR", "default: SGDSCOPE_DATA, or the cache folder")] = None
    """The folder to download to."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        from sgdscope.data.download import fetch

        folder = fetch(self.name, self.data, Terminal(file=sys.stderr))
        print_line(console, str(folder))
        return DONE


@dataclass(frozen=True)
class Check(Debuggable):
    """Verify the downloaded data sets.

    The exit code is 2 if a data set is incomplete or wrong.
    """

    data: Annotated[Path | None, option("DIR", "default: SGDSCOPE_DATA, or the cache folder")] = None
    """The folder of the data sets."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        from sgdscope.data.download import DATA_SETS
        from sgdscope.data.published import check, find

        code = DONE
        for name, data_set in DATA_SETS.items():
            found: Path | None = None
            try:
                found = find(data_set, self.data)
                check(data_set, self.data)
                line = f"{name}: verified ({found})"
            except InputError as error:
                line = str(error)
                code = BAD_INPUT if found else code
            print_text(console, line)
        return code


@dataclass(frozen=True)
class Data:
    """Download the published data sets, or verify the downloaded ones."""

    command: OmitArgPrefixes[Fetch | Check]

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        return self.command(console)


@dataclass(frozen=True)
class Studies(Debuggable):
    """List the built-in studies with their data, models, sweeps and profiles."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        from sgdscope.studies import overview

        _load_jax()
        headings, *rows = overview()
        print_table(console, TextTable(headings, rows, left=len(headings), names=1))
        return DONE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    The command does its work even if its output is no longer read, as after ``| head``.
    """
    with _terminable(), outputs() as (out, _):
        code = _run(arguments)
        out.flush()
        if out.error and not isinstance(out.error, BrokenPipeError):
            _say(f"The output cannot be written: {out.error.strerror}.")
            code = code or BAD_INPUT
    return code


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM raise :class:`Terminated`, so that a worker gives up what it holds, as with Ctrl-C."""

    def end(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Slurm may send it again while this process ends
        raise Terminated

    free = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if free:
        signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if free:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run(arguments: Sequence[str] | None) -> int:
    command: Command | None = None
    try:
        command = _parsed(arguments)
        return command(Terminal(file=sys.stdout))
    except InputError as error:
        if _debugs(command):
            raise
        _say(_as_typed(str(error), command))
        return BAD_INPUT
    except Exception as error:
        if _debugs(command):
            raise
        _say(_defect(error, command))
        return DEFECT
    except KeyboardInterrupt:
        _say("Interrupted. Committed trials are safe. Run the same command again to resume.")
        return INTERRUPTED
    except Terminated:
        _say("Terminated. Committed trials are safe. Run the same command again to resume.")
        return TERMINATED


def _as_typed(said: str, command: Command | None) -> str:
    """Name the option where a sentence begins with the name of the field that the option sets.

    >>> _as_typed("batch_sizes: 0 is below 1.", None)
    '--batch-sizes: 0 is below 1.'
    """
    field, colon, rest = said.partition(": ")
    name = f"--{field.replace('_', '-')}"
    kinds = get_args(Command) if command is None else (type(command),)
    return f"{name}{colon}{rest}" if any(name in _options(kind) for kind in kinds) else said


def _debugs(command: Command | None) -> bool:
    part = command.command if isinstance(command, Data) else command
    return part is not None and part.debug


def _defect(error: Exception, command: Command | None) -> str:
    """Keep the traceback of a defect of sgdscope, in the study's folder where the command has one, and say where."""
    from sgdscope.system import cache_folder

    named = [getattr(command, name, None) for name in ("folder", "out")]
    named += [*getattr(command, "folders", ())]
    studies = [Path(folder) for folder in named if folder and (Path(folder) / "study.json").is_file()]
    path = keep_traceback(error, [folder / "errors" for folder in (*studies, cache_folder())])
    where = f"its traceback is in {path}" if path else "its traceback could not be written; --debug shows it"
    return f"sgdscope failed ({type(error).__name__}), which is a defect of sgdscope: {where}. Please report it."


Command = (
    Run
    | Work
    | Plan
    | Show
    | Watch
    | Report
    | Figures
    | Claims
    | Advise
    | Compare
    | Analyze
    | Export
    | Publish
    | Verify
    | Data
    | Studies
)


def _parsed(arguments: Sequence[str] | None) -> Command:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["--version"]:
        from sgdscope.version import __version__

        sys.stdout.write(f"sgdscope {__version__}\n")
        raise SystemExit(DONE)
    commands = {kind.__name__.lower(): kind for kind in get_args(Command)}
    if given and not given[0].startswith("-") and given[0] not in commands:
        if given[0] in REPLACED:
            now = REPLACED[given[0]]
            raise InputError(
                f"{given[0]} is now called {now}. Did you mean `{shlex.join(['sgdscope', now, *given[1:]])}`?"
            )
        meant = did_you_mean(given[0], commands)
        raise InputError(f"{shown(given[0])} is not a command; there are {', '.join(commands)}.{meant}")
    if given[:1] == ["data"] and len(given) > 1 and not given[1].startswith("-") and given[1] not in DATA_COMMANDS:
        meant = did_you_mean(given[1], DATA_COMMANDS)
        raise InputError(f"{shown(given[1])} is not a command of sgdscope data; there are fetch and check.{meant}")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            command: Command = tyro.cli(
                Command,
                prog="sgdscope",
                description="Measure how SGD behaves at each batch size. --version prints the version.",
                args=arguments,
                config=(OmitSubcommandPrefixes,),
            )
            return command
    except _RefusedError as refused:
        raise InputError(str(refused)) from None
    except SystemExit as stop:
        if stop.code in (None, 0):
            raise
        raise InputError(_unknown_option(given, commands) or _sentence(said.getvalue())) from None


def _unknown_option(given: Sequence[str], commands: Mapping[str, type]) -> str | None:
    """Say which option a command does not have, and which may have been meant; None where each is one of its own."""
    if not given or given[0] not in commands:
        return None
    known = _options(commands[given[0]])
    for word in given[1:]:
        name = word.split("=")[0].replace("_", "-")
        if word.startswith("--") and name not in known:
            now = REPLACED_OPTIONS.get((given[0], name))
            meant = f" {now}" if now else did_you_mean(name, known) or f" See sgdscope {given[0]} --help."
            return f"{shown(word)} is not an option of sgdscope {given[0]}.{meant}"
    return None


def _options(command: type) -> list[str]:
    """Return the options of a command, and of the parts and commands that it has."""
    names = ["--help"]
    for name, kind in get_type_hints(command).items():
        # A value of an option may be a dataclass too, such as Seeds; a part of the command is declared here.
        parts = [part for part in (kind, *get_args(kind)) if is_dataclass(part) and part.__module__ == __name__]
        names += [option for part in parts for option in _options(cast(type, part))] or [
            f"--{name.rstrip('_').replace('_', '-')}"
        ]
    return names


def _sentence(box: str) -> str:
    """Say the message in tyro's box, which has a title and rules between its parts, as one sentence."""
    lines = [line.strip("│╭╮╰╯ ") for line in box.splitlines()]
    rules = [set(line) <= {"─", "-"} for line in lines]
    first = rules.index(False, 1) if any(rules[1:2]) else 1
    said = lines[first : rules.index(True, first)]
    return f"{' '.join(said).rstrip('.')}. See sgdscope --help."


def _print_findings(tables: Tables, console: Terminal) -> None:
    from sgdscope.report.text.summary import sentences, summary_table

    print_table(console, summary_table(tables))
    for part in tables.parts:
        said = sentences(part)
        title = [f"{part.title}:"] if said and len(tables.parts) > 1 else []
        for sentence in title + said:
            print_text(console, sentence)


def _print_recommendation(found: Analysis, console: Terminal) -> None:
    from sgdscope.report.text.advice import print_recommendation
    from sgdscope.result import Result

    folder, words = (found.folder, found.words) if isinstance(found, Result) else (None, None)
    print_recommendation(found.recommend(), found.tables, folder, words, console)


def _load(name: str | None, source: Source, table: Csv, changes: Fields) -> Study:
    from sgdscope.studies import get

    if (name is None) == (table.csv is None):
        raise InputError("Give a study, or --csv FILE and --target COLUMN, and not both.")
    if (table.csv is None) != (table.target is None) or (table.csv is None and table.task is not None):
        raise InputError("--csv FILE and --target COLUMN belong together; --task goes with them.")
    _load_jax()
    from sgdscope.training.jax_setup import configure_jax

    configure_jax()  # before a study's file makes an array, which starts JAX
    if table.csv is not None and table.target is not None:
        if table.task not in (None, "classification", "regression"):
            raise InputError(f"--task: {shown(table.task)} is neither classification nor regression.")
        if any(getattr(source, f.name) for f in fields(source) if f.name != "quick"):
            raise InputError("--sweep, --profile, --data and --train-on-all are for built-in studies, not for --csv.")
        from sgdscope.studies.csv_file import study_of

        study = study_of(table.csv, table.target, cast(Any, table.task))
    else:
        assert name is not None  # noqa: S101 - one of the two is given
        study = get(name, source.profile, source.data, source.train_on_all, source.sweep)
    if source.quick:
        if changes.seeds is not None:
            raise InputError("--quick and --seeds both give a number of seeds. Leave one out.")
        study = study.changed({"seeds": QUICK_SEEDS})
    return changes.applied_to(study)


def _read(folder: Path) -> Result:
    """Return the results in a study's folder, after a notice on each file that is damaged or not the study's."""
    from sgdscope.result import Result

    result = Result(folder)
    result.tell(_say)
    return result


def _given(field: str, text: str | None) -> Path | None:
    """Return a path that was given; an empty one, as an unset variable gives it, does not mean the current folder."""
    if text is not None and not text.strip():
        raise InputError(f"{field}: {text!r} names no folder. The current folder is '.'.")
    return None if text is None else Path(text)


def _load_jax() -> None:
    """Load JAX, which reads its options then, before anything else can fail for them."""
    try:
        import jax  # noqa: F401
    except Exception as error:
        raise InputError(f"JAX cannot be loaded: {type(error).__name__}: {error}") from error


def _say(text: str) -> None:
    sys.stderr.write(f"sgdscope: {visible(text)}\n")


if __name__ == "__main__":
    sys.exit(main())
