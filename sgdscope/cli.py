"""The command line: run · plan · status · report · export · claims · advise · figures · analyze · data · list.

Exit codes: 0 done, 1 finished with failed trials, 2 bad input, 130 interrupted and safe to run again.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args, get_type_hints

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, OmitSubcommandPrefixes, Positional, arg

from sgdscope.converters import shown
from sgdscope.errors import InputError, did_you_mean
from sgdscope.terminal import OBEYED, Terminal, outputs, print_line, print_table, print_text, visible

if TYPE_CHECKING:
    from sgdscope.analysis.tables import Tables
    from sgdscope.result import Result
    from sgdscope.store import Store
    from sgdscope.study import Study

DATA_COMMANDS = ("fetch", "check")
DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def option(metavar: str | None, otherwise: str) -> Any:
    """Say how an option reads, and what is meant where it is not given."""
    return arg(metavar=metavar, help_behavior_hint=f"({otherwise})")


Text = str | None
Texts = tuple[str, ...] | None
StudyName = Annotated[Positional[str], arg(metavar="STUDY")]
Folder = Annotated[Positional[Path], arg(metavar="DIR")]


@dataclass(frozen=True)
class Fields:
    """What the study varies. An option replaces what the study declares."""

    optimizers: Annotated[Texts, option("NAME ...", "default: the study's")] = None
    """sgd, momentum, momentum:M, adam or adamw, the last two with numbers as in adam:beta2=0.99."""
    batch_sizes: Annotated[Texts, option("B ...", "default: the study's")] = None
    """Examples per parameter update."""
    learning_rates: Annotated[Texts, option("RATE ...", "default: they are searched")] = None
    """Initial learning rates to try."""
    budgets: Annotated[Texts, option("epochs:N|steps:N|unlimited:N:N ...", "default: the study's")] = None
    """The compute budgets of a trial."""
    seeds: Annotated[Text, option("N|SEARCH,NEAR_BEST,BEST", "default: the study's")] = None
    """How many seeds; 5,10,30 is 5 at every rate, 10 beside the best and 30 at the best."""
    first_seed: Annotated[Text, option("N", "default: the study's")] = None
    """The number of the first seed. Another number draws other seeds."""
    seeds_at: Annotated[Texts, option("OPTIMIZER@B=SEEDS ...", "default: the study's")] = None
    """More seeds at single optimizers and batch sizes, such as sgd@256=5,10,60."""

    microbatch_size: Annotated[Text, option("N", "default: the whole batch")] = None
    """The most examples of a device's forward pass, where a batch does not fit in memory."""
    devices_per_trial: Annotated[Text, option("N", "default: 1")] = None
    """How many devices share each trial, each taking a part of every batch."""
    schedule: Annotated[Text, option("NAME", "default: the study's")] = None
    """How the learning rate falls along the budget: halving, constant, cosine, wsd or wsd:WARMUP:DECAY."""
    compute_dtype: Annotated[Text, option("float32|bfloat16", "default: float32")] = None
    """In what numbers the matrix products of gradients are taken; bfloat16 is for GPUs, and slower on a CPU."""

    def applied_to(self, study: Study) -> Study:
        """Return the study with the fields that were given."""
        from sgdscope.budget import parse_budget
        from sgdscope.optimizers import parse_optimizer
        from sgdscope.schedules import parse_schedule
        from sgdscope.seeds import parse_seeds, parse_seeds_at

        readers: dict[str, Callable[[Any], Any]] = {
            "optimizers": lambda texts: tuple(map(parse_optimizer, texts)),
            "batch_sizes": lambda texts: tuple(_number("batch_sizes", text, int) for text in texts),
            "learning_rates": lambda texts: tuple(_number("learning_rates", text, float) for text in texts),
            "budgets": lambda texts: tuple(map(parse_budget, texts)),
            "seeds": parse_seeds,
            "first_seed": lambda text: _number("first_seed", text, int),
            "seeds_at": lambda texts: tuple(map(parse_seeds_at, texts)),
            "microbatch_size": lambda text: _number("microbatch_size", text, int),
            "devices_per_trial": lambda text: _number("devices_per_trial", text, int),
            "schedule": parse_schedule,
            "compute_dtype": lambda text: text,
        }
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        return study.changed({name: readers[name](value) for name, value in given.items()}) if given else study


@dataclass(frozen=True)
class Source:
    """For built-in studies; all but --sweep for those on downloaded data sets, such as lstm."""

    sweep: Annotated[Text, option("steps|epochs", "default: batch sizes at constant epochs")] = None
    """Vary batch sizes at a constant number of steps, or epochs at one batch size."""
    profile: Annotated[Text, option("small|full", "default: small")] = None
    """How large the study is."""
    data: Annotated[Path | None, option("DIR", "default: SGDSCOPE_DATA, or the cache folder")] = None
    """The folder of its data."""
    train_on_all: Annotated[FlagCreatePairsOff[bool], option(None, "default: hold out a validation split")] = False
    """Train on all examples and choose learning rates on the test set."""


@dataclass(frozen=True)
class Run:
    """Train what a study still lacks, print what it found, and write its page.

    Safe to interrupt: the same command goes on from what was committed.
    """

    study: StudyName
    """A built-in study's name, or the path of a Python file that defines `study`."""
    source: Annotated[OmitArgPrefixes[Source], arg(name="data set")]
    fields: Annotated[OmitArgPrefixes[Fields], arg(name="study")]
    out: Annotated[Text, option("DIR", "default: sgdscope-NAME")] = None
    """The study's folder; what it holds of the study is not trained again."""
    until_decided: Annotated[FlagCreatePairsOff[bool], option(None, "default: off")] = False
    """Add seeds where a question is open, at 15, 20, 30, 40, 60 and 100 seeds, until it is decided."""
    for_: Annotated[Text, arg(name="for", metavar="TIME", help_behavior_hint="(default: until it is finished)")] = None
    """Stop after so much time, such as 90s, 2m or 1.5h. What was trained is committed."""
    verbose: Annotated[FlagCreatePairsOff[bool], option(None, "default: off")] = False
    """Show what was compiled, and how long it took."""

    @property
    def words(self) -> list[str]:
        """The words after ``sgdscope run`` that ask for this from any folder, without ``--out``."""
        path = Path(self.study)
        words = [str(path.resolve()) if path.is_file() else self.study]
        for part in (self.source, self.fields):
            for f in fields(part):
                value = getattr(part, f.name)
                value = value.resolve() if isinstance(value, Path) else value
                if value is None or value is False:
                    continue
                values = value if isinstance(value, tuple) else () if value is True else (value,)
                words += [f"--{f.name.replace('_', '-')}", *map(str, values)]
        return words + ["--until-decided"] * self.until_decided

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        study = _load(self.study, self.source, self.fields)

        from sgdscope.report.text.summary import saturation_sentences
        from sgdscope.result import run
        from sgdscope.store import ended
        from sgdscope.streaming.distributed import exit_together

        folder = _given("out", self.out) or Path(f"sgdscope-{OBEYED.sub('-', study.name).replace('/', '-')}")
        limits: dict[str, Any] = {"until_decided": self.until_decided, "seconds": _seconds("for", self.for_)}
        with exit_together():
            result = run(study, folder, Terminal(file=sys.stderr), command=self.words, **limits)
        ran = result.ran
        assert ran is not None  # noqa: S101 - run says what it did
        if ran.out_of_time:
            _say("The time is over. What was trained is committed. Run the same command to resume.")
            if ended(result.trials).is_empty():
                return DONE
        page: Path | InputError | None = None
        if ran.failed < len(result.trials):
            result.check_not_empty()
            try:
                page = result.report(folder / "report.html")
            except InputError as error:  # what was found is said nevertheless
                page = error
        if self.verbose:
            for program in ran.compile_times:
                print_text(
                    console, f"compiled {program.program}: traced in {program.trace:.2f} s, {program.compile:.2f} s"
                )
            total = sum(program.trace + program.compile for program in ran.compile_times)
            print_text(console, f"compiled {len(ran.compile_times)} programs in {total:.1f} s, beside training")
        if page is None:
            _say(f"All {ran.failed} trials failed; running the same command again tries them again.")
            return FAILED
        _print_findings(result.tables, console)
        for sentence in saturation_sentences(result.tables.saturation, result.tables.records):
            print_text(console, sentence)
        if isinstance(page, InputError):
            raise page
        did = f"trained {ran.trained} trials in {ran.seconds:.0f} s" if ran.trained else "nothing was left to train"
        print_text(console, f"{did}; page: {page}")
        if ran.failed:
            _say(f"{ran.failed} trials failed; running the same command again tries them again.")
        return FAILED if ran.failed else DONE


@dataclass(frozen=True)
class Plan:
    """Tell what a study will cost, from a timed probe of a few seconds; trains nothing."""

    study: StudyName
    """A built-in study's name, or the path of a Python file that defines `study`."""
    source: Annotated[OmitArgPrefixes[Source], arg(name="data set")]
    fields: Annotated[OmitArgPrefixes[Fields], arg(name="study")]
    out: Annotated[Text, option("DIR", "default: nothing is trained yet")] = None
    """A folder that holds part of the study: only the rest is counted."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        study = _load(self.study, self.source, self.fields)

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
        return DONE


@dataclass(frozen=True)
class Status:
    """Tell what a study's folder holds and what is missing."""

    folder: Folder
    """The study's folder."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
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
            f"{declaration.seeds} seeds",
            f"trials     {ended}; {result.tables.pending} pending",
        ]
        beside = len(trials) - len(result.trials)
        if beside:
            text.append(f"beside     {beside} of these trials are not asked for by the study as it is declared now")
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
            text += [f"go on      {command}" for command in _going_on(result, store)]
        for line in text:
            (print_line if line.startswith("go on") else print_text)(console, line)
        return DONE


def _going_on(result: Result, store: Store) -> list[str]:
    """Return the commands that train what is missing, for a shell in the present folder."""
    unfinished = dict.fromkeys(cell.workload.name for cell in result.found.unfinished)
    kept = store.commands()
    recorded = [kept[name] for name in unfinished if name in kept]
    commands = [shlex.join(["sgdscope", "run", *words, "--out", str(store.folder)]) for words in recorded]
    missing = [words[0] for words in recorded if Path(words[0]).is_absolute() and not Path(words[0]).is_file()]
    said = list(dict.fromkeys(commands))
    said += [f"{path} is no longer there: name its new place" for path in dict.fromkeys(missing)]
    unrecorded = [name for name in unfinished if name not in kept]
    if unrecorded:
        from sgdscope.report.text.advice import command
        from sgdscope.studies import origin_of

        origin = origin_of(result.declaration)
        again = f"run the script that trains workload {', '.join(unrecorded)} into this folder again"
        said.append(command(None, result.declaration, store.folder, origin) if origin else again)
    return said


@dataclass(frozen=True)
class Report:
    """Write the page of a study's folder again, or its figures as files, as wide as a paper's column."""

    folder: Folder
    """The study's folder."""
    out: Annotated[Text, option("PATH", "default: report.html or figures in DIR")] = None
    """The page, or the folder of the files."""
    format: Literal["html", "svg", "png", "pdf"] = "html"
    """The page, or what kind of files."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        from sgdscope.result import check_page_name

        out = _given("out", self.out)
        if self.format == "html":
            check_page_name(out)
        result = _read(self.folder)
        if self.format == "html":
            paths = [result.report(out or self.folder / "report.html")]
        else:
            paths = result.figures(out or self.folder / "figures", self.format)
        for path in paths:
            print_line(console, str(path))
        return DONE


@dataclass(frozen=True)
class Export:
    """Write the trial table of a study's folder."""

    folder: Folder
    """The study's folder."""
    file: Annotated[Positional[Path], arg(metavar="FILE")]
    """The table; .csv or .parquet, by the name's ending."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        from sgdscope.result import check_table_name

        check_table_name(self.file)
        print_line(console, str(_read(self.folder).export(self.file)))
        return DONE


@dataclass(frozen=True)
class Claims:
    """Say of each claim of the study whether these folders support it, contradict it or do not decide it.

    Several folders together answer what takes two budgets or workloads.
    """

    folders: Annotated[Positional[tuple[Path, ...]], option("DIR ...", "at least one")]
    """The folders of one study or several."""
    reference: Annotated[float | None, option("SCORE", "default: the first claim is not tested")] = None
    """The score that the architecture's authors published, for the first claim."""
    json: Annotated[FlagCreatePairsOff[bool], option(None, "default: text")] = False
    """Write JSON, for machines."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        from sgdscope.claims.decide import findings
        from sgdscope.report.text.claims import as_json, print_claims
        from sgdscope.result import read_folders

        if self.reference is not None and not math.isfinite(self.reference):
            raise InputError(f"--reference {self.reference} is not a finite number. Give the published score.")
        found = findings(read_folders(self.folders, _say), self.reference)
        if self.json:
            sys.stdout.write(json.dumps(as_json(found), indent=1, allow_nan=False) + "\n")
        else:
            print_claims(found, console)
        return DONE


@dataclass(frozen=True)
class Figures:
    """Write the talk's figures, each a file: against batch size at epochs and at steps, and against epochs.

    Several folders together show workloads side by side, as with and without batch normalization.
    """

    folders: Annotated[Positional[tuple[Path, ...]], option("DIR ...", "at least one")]
    """The folders of one study or several."""
    out: Annotated[str, arg(metavar="DIR")] = "figures"
    """The folder to write them to."""
    format: Literal["svg", "png", "pdf"] = "svg"
    """What kind of file."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        from sgdscope.report.export import talk_figures, write_figures
        from sgdscope.result import read_folders

        out, tables = _given("out", self.out), read_folders(self.folders, _say)
        assert out is not None  # noqa: S101 - it has a default
        for path in write_figures(talk_figures(tables), out, self.format):
            print_line(console, str(path))
        return DONE


@dataclass(frozen=True)
class Analyze:
    """Analyze a table of your own trials: batch_size, learning_rate, seed and score are enough.

    One row a trial. Further columns that are read: optimizer (sgd, momentum:M or any other name), budget, workload,
    validation_score, which then chooses the learning rate, train_loss, steps, and status (or state). A trial diverged
    where its status is diverged; rows of other states than complete, and rows without a score, are left out.
    """

    file: Annotated[Positional[Path], arg(metavar="FILE")]
    """The table; .csv or .parquet, by the name's ending."""
    minimize: Annotated[FlagCreatePairsOff[bool], option(None, "default: a larger score is better")] = False
    """A smaller score is better."""
    constant_score: Annotated[float | None, option("SCORE", "default: not known")] = None
    """The score of a constant baseline, as which a diverged trial counts, in the units of the table."""
    examples: Annotated[int | None, option("N", "default: not known")] = None
    """The size of the training split, for the temperature."""
    score_margin: Annotated[float | None, option("SCORE", "default: 5 %")] = None
    """The largest difference in score to ignore; 5 % of an accuracy's errors, or of another score, unless given."""
    out: Annotated[Text, option("DIR", "default: no table is written")] = None
    """A folder to write every table to, as .csv."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        from sgdscope.analysis.external_table import check_margin, read_results, records_of
        from sgdscope.analysis.tables import Tables
        from sgdscope.result import write_table

        out = _given("out", self.out)
        results = read_results(self.file)
        records = records_of(results, self.minimize, self.constant_score, self.examples)
        margin = results.score_margin if self.score_margin is None else check_margin(self.score_margin, results.trials)
        tables = Tables(results.trials, records, margin)
        if (tables.score_limits["margin"] == 0).any():
            raise InputError(
                f"{self.file}: no margin follows from the scores, since they reach the best or are 0 at the smallest "
                f"batch size. Give --score-margin, the largest difference to ignore."
            )
        if tables.optima.is_empty():
            raise InputError(
                f"{self.file}: too many trials diverged at every learning rate for any to be the best. Try lower "
                f"learning rates."
            )
        paths = []
        if out is not None:
            try:
                out.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"{out} cannot be written: {error.strerror}.") from error
            for name, table in tables.all().items():
                path = out / f"{name}.csv"
                if path.exists() and path.samefile(self.file):
                    raise InputError(f"out: {path} is the table itself; name another folder.")
                paths.append(write_table(table, path))
        for notice in results.notices:
            print_text(console, notice)
        _print_findings(tables, console)
        for path in paths:
            print_line(console, str(path))
        return DONE


@dataclass(frozen=True)
class Advise:
    """Say what a study advises: batch size, learning rate, momentum, their cost, and which trials would tell more."""

    folder: Folder
    """The study's folder."""
    batch_sizes: Annotated[Texts, option("B ...", "default: none")] = None
    """Batch sizes to give learning rates for, measured or not."""
    json: Annotated[FlagCreatePairsOff[bool], option(None, "default: text")] = False
    """Print the tables as JSON instead."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        from sgdscope.report.text.advice import as_json, print_advice
        from sgdscope.studies import origin_of

        result = _read(self.folder)
        advice = result.advice(*(int(_number("batch_sizes", text, int)) for text in self.batch_sizes or ()))
        origin = origin_of(result.declaration)
        if self.json:
            sys.stdout.write(as_json(advice, result.declaration, result.folder, origin) + "\n")
        else:
            print_advice(advice, result.tables, result.folder, origin, console)
        return DONE


@dataclass(frozen=True)
class Fetch:
    """Fetch a published data set; what is there and right is left alone."""

    name: Annotated[Positional[str], arg(metavar="NAME")]
    """mnist, cifar10 or ptb."""
    data: Annotated[Path | None, option("DIR", "default: SGDSCOPE_DATA, or the cache folder")] = None
    """The folder to fetch to."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        from sgdscope.data.download import fetch

        folder = fetch(self.name, self.data, Terminal(file=sys.stderr))
        print_line(console, str(folder))
        return DONE


@dataclass(frozen=True)
class Check:
    """Tell which published data sets are there; exits with 2 where one is there that is incomplete or wrong."""

    data: Annotated[Path | None, option("DIR", "default: SGDSCOPE_DATA, or the cache folder")] = None
    """Where to look."""

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
                line = f"{name} is there and right: {found}"
            except InputError as error:
                line = str(error)
                code = BAD_INPUT if found else code
            print_text(console, line)
        return code


@dataclass(frozen=True)
class Data:
    """Fetch the published data sets, or check those that are there."""

    command: OmitArgPrefixes[Fetch | Check]

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        return self.command(console)


@dataclass(frozen=True)
class List:
    """List the built-in studies."""

    def __call__(self, console: Terminal) -> int:
        """Run the command."""
        from importlib import import_module

        from sgdscope.studies import BUILT_IN

        _load_jax()
        for name in BUILT_IN:
            first_line = (import_module(f"sgdscope.studies.{name}").__doc__ or "").splitlines()[0]
            print_text(console, f"{name}  {first_line}")
        return DONE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Where nobody reads its output any more, as after ``| head``, the command does its work nevertheless.
    """
    with outputs() as (out, _):
        code = _run(arguments)
        out.flush()
        if out.error and not isinstance(out.error, BrokenPipeError):
            _say(f"The output cannot be written: {out.error.strerror}.")
            code = code or BAD_INPUT
    return code


def _run(arguments: Sequence[str] | None) -> int:
    try:
        return _parsed(arguments)(Terminal(file=sys.stdout))
    except InputError as error:
        _say(str(error))
        return BAD_INPUT
    except KeyboardInterrupt:
        _say("Interrupted; what was committed is safe, and the same command goes on from there.")
        return INTERRUPTED


Command = Run | Plan | Status | Report | Export | Claims | Advise | Figures | Analyze | Data | List


def _parsed(arguments: Sequence[str] | None) -> Command:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["--version"]:
        from sgdscope.version import __version__

        sys.stdout.write(f"sgdscope {__version__}\n")
        raise SystemExit(DONE)
    commands = {kind.__name__.lower(): kind for kind in get_args(Command)}
    if given and not given[0].startswith("-") and given[0] not in commands:
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
                description="Measure how SGD behaves at each batch size. `sgdscope --version` prints the version.",
                args=arguments,
                config=(OmitSubcommandPrefixes,),
            )
            return command
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
            meant = did_you_mean(name, known) or f" sgdscope {given[0]} --help tells what there is."
            return f"{shown(word)} is not an option of sgdscope {given[0]}.{meant}"
    return None


def _options(command: type) -> list[str]:
    """Return the options of a command, and of the parts and commands that it has."""
    names = ["--help"]
    for name, kind in get_type_hints(command).items():
        parts = [part for part in (kind, *get_args(kind)) if is_dataclass(part)]
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
    return f"{' '.join(said).rstrip('.')}; sgdscope --help tells what there is."


def _print_findings(tables: Tables, console: Terminal) -> None:
    from sgdscope.report.text.summary import sentences, summary_table

    print_table(console, summary_table(tables))
    for part in tables.parts:
        said = sentences(part)
        title = [f"{part.title}:"] if said and len(tables.parts) > 1 else []
        for sentence in title + said:
            print_text(console, sentence)


def _load(name: str, source: Source, changes: Fields) -> Study:
    from sgdscope.studies import load_study

    _load_jax()
    from sgdscope.training.jax_setup import configure_jax

    configure_jax()  # before a study's file makes an array, which starts JAX
    return changes.applied_to(load_study(name, source.profile, source.data, source.train_on_all, source.sweep))


def _read(folder: Path) -> Result:
    """Return a study's folder, with a word on what was found in it that is damaged or not the study's."""
    from sgdscope.result import Result

    result = Result(folder)
    result.tell(_say)
    return result


def _given(field: str, text: str | None) -> Path | None:
    """Return a path that was given; an empty one, as an unset variable gives it, does not mean the current folder."""
    if text is not None and not text.strip():
        raise InputError(f"{field}: {text!r} names nothing; the current folder is '.'.")
    return None if text is None else Path(text)


def _load_jax() -> None:
    """Load JAX, which reads its options then, before anything else can fail for them."""
    try:
        import jax  # noqa: F401
    except Exception as error:
        raise InputError(f"JAX cannot be loaded: {type(error).__name__}: {error}") from error


def _number(field: str, text: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise InputError(f"{field}: {text!r} is not {what}.") from None


def _seconds(field: str, text: str | None) -> float | None:
    """Read a time such as 90s, 2m or 1.5h, in seconds."""
    if text is None:
        return None
    try:
        seconds = float(text[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[text[-1:]]
    except (KeyError, ValueError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InputError(f"{field}: {shown(text)} is not a time. Write a number and s, m, h or d, such as 90s or 2h.")
    return seconds


def _say(text: str) -> None:
    sys.stderr.write(f"sgdscope: {visible(text)}\n")


if __name__ == "__main__":
    sys.exit(main())
