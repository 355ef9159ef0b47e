"""The command line: run · plan · status · report · export · claims · advise · figures · analyze · data · list.

Exit codes: 0 done, 1 finished with failed trials, 2 bad input, 130 interrupted and safe to run again.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, OmitSubcommandPrefixes, Positional, arg

from sgdscope.errors import InputError

if TYPE_CHECKING:
    from sgdscope.analysis.tables import Tables
    from sgdscope.study import Study

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

Text = str | None
Texts = tuple[str, ...] | None
StudyName = Annotated[Positional[str], arg(metavar="STUDY")]
Folder = Annotated[Positional[Path], arg(metavar="DIR")]


@dataclass(frozen=True)
class Fields:
    """Fields of the study that the command line changes; each reads as the study's own field does."""

    optimizers: Annotated[Texts, arg(metavar="NAME ...")] = None
    """sgd, momentum, momentum:M, adam or adamw, the last two with numbers as in adam:beta2=0.99."""
    batch_sizes: Annotated[Texts, arg(metavar="B ...")] = None
    """Examples per parameter update."""
    learning_rates: Annotated[Texts, arg(metavar="RATE ...")] = None
    """Initial learning rates to try, instead of a search."""
    budgets: Annotated[Texts, arg(metavar="epochs:N|steps:N|unlimited:N:N ...")] = None
    """The compute budgets of a trial."""
    seeds: Annotated[Text, arg(metavar="N")] = None
    """How many seeds."""

    microbatch_size: Annotated[Text, arg(metavar="N")] = None
    """The most examples of a device's forward pass, where a batch does not fit in memory."""
    devices_per_trial: Annotated[Text, arg(metavar="N")] = None
    """How many devices share each trial, each taking a part of every batch."""
    schedule: Annotated[Text, arg(metavar="NAME")] = None
    """How the learning rate falls along the budget: halving, constant, cosine, wsd or wsd:WARMUP:DECAY."""
    compute_dtype: Annotated[Text, arg(metavar="float32|bfloat16")] = None
    """In what numbers the matrix products of gradients are taken; bfloat16 is for GPUs, and slower on a CPU."""

    def applied_to(self, study: Study) -> Study:
        """Return the study with the fields that were given."""
        from sgdscope.budget import parse_budget
        from sgdscope.optimizers import parse_optimizer
        from sgdscope.schedules import parse_schedule

        readers: dict[str, Callable[[Any], Any]] = {
            "optimizers": lambda texts: tuple(map(parse_optimizer, texts)),
            "batch_sizes": lambda texts: tuple(_number("batch_sizes", text, int) for text in texts),
            "learning_rates": lambda texts: tuple(_number("learning_rates", text, float) for text in texts),
            "budgets": lambda texts: tuple(map(parse_budget, texts)),
            "seeds": lambda text: _number("seeds", text, int),
            "microbatch_size": lambda text: _number("microbatch_size", text, int),
            "devices_per_trial": lambda text: _number("devices_per_trial", text, int),
            "schedule": parse_schedule,
            "compute_dtype": lambda text: text,
        }
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        return study.changed({name: readers[name](value) for name, value in given.items()}) if given else study


@dataclass(frozen=True)
class Source:
    """Which form of a built-in study on a published data set is meant."""

    profile: Annotated[Text, arg(metavar="small|full")] = None
    """How large a built-in study on a published data set is; small unless told otherwise."""
    data: Annotated[Path | None, arg(metavar="DIR")] = None
    """Where its data are; SGDSCOPE_DATA, or the user's cache folder, unless told otherwise."""
    train_on_all: FlagCreatePairsOff[bool] = False
    """Train on all examples and choose on the test set, rather than hold out a validation split."""


@dataclass(frozen=True)
class Run:
    """Train what a study still lacks, print what it found, and write its page.

    Safe to interrupt: the same command goes on from what was committed.
    """

    study: StudyName
    """A built-in study's name, or the path of a Python file that defines `study`."""
    source: OmitArgPrefixes[Source]
    fields: OmitArgPrefixes[Fields]
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """The study's folder; sgdscope-NAME unless told otherwise."""
    verbose: FlagCreatePairsOff[bool] = False
    """Show what was compiled, and how long it took."""

    def __call__(self, console: Console) -> int:
        """Run the command."""
        from sgdscope.report.summary import unlimited_sentences
        from sgdscope.result import run
        from sgdscope.training.distributed import exit_together
        from sgdscope.training.jax_setup import configure_jax

        study = _load(self.study, self.source, self.fields)
        folder = self.out or Path(f"sgdscope-{study.name}")
        configure_jax()
        with exit_together():
            result = run(study, folder, Console(stderr=True))
        ran = result.ran
        assert ran is not None  # noqa: S101 - run() always says what it did
        if self.verbose:
            for program in ran.compile_times:
                console.print(f"compiled {program.program}: traced in {program.trace:.2f} s, {program.compile:.2f} s")
            total = sum(program.trace + program.compile for program in ran.compile_times)
            console.print(f"compiled {len(ran.compile_times)} programs in {total:.1f} s, beside training")
        if ran.failed == len(result.trials):
            _say(f"All {ran.failed} trials failed; running the same command again tries them again.")
            return FAILED
        result.check_not_empty()
        _print_findings(result.tables, console)
        for sentence in unlimited_sentences(result.tables.unlimited, result.tables.records):
            console.print(sentence, highlight=False, markup=False, soft_wrap=True)
        page = result.report(folder / "report.html")
        did = f"trained {ran.trained} trials in {ran.seconds:.0f} s" if ran.trained else "nothing was left to train"
        console.print(f"{did}; page: {page}", highlight=False, markup=False, soft_wrap=True)
        if ran.failed:
            _say(f"{ran.failed} trials failed; running the same command again tries them again.")
        return FAILED if ran.failed else DONE


@dataclass(frozen=True)
class Plan:
    """Tell what a study will cost, from a timed probe of a few seconds; trains nothing."""

    study: StudyName
    """A built-in study's name, or the path of a Python file that defines `study`."""
    source: OmitArgPrefixes[Source]
    fields: OmitArgPrefixes[Fields]
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """A folder that holds part of the study: only the rest is counted."""

    def __call__(self, console: Console) -> int:
        """Run the command."""
        from sgdscope.engine.local import plan_study
        from sgdscope.engine.plan import costs_of, expansion
        from sgdscope.engine.progress import duration
        from sgdscope.training.jax_setup import configure_jax

        study = _load(self.study, self.source, self.fields)
        configure_jax()
        costs = costs_of(study)
        console.print(expansion(study.declaration(), costs), highlight=False, markup=False, soft_wrap=True)
        console.print()
        plan = plan_study(study, self.out, costs)
        lengths = {"workloads": study.workloads, "budgets": study.budgets}
        product = " × ".join(
            [name for name, values in lengths.items() if len(values) > 1] + ["optimizers × batch sizes"]
        )
        about = "" if study.learning_rates else "about "
        console.print(f"cells      {plan.cells}  ({product} still to do)", highlight=False)
        console.print(f"trials     {about}{plan.trials:,}", highlight=False)
        console.print(f"updates    {about}{plan.updates:,}", highlight=False)
        console.print(f"examples   {about}{plan.examples:,}", highlight=False)
        console.print(f"operations {about}{plan.operations:.2g}, of matrix products and convolutions", highlight=False)
        if plan.bytes:
            console.print(f"data       about {plan.bytes / 1e9:,.3g} GB read", highlight=False)
        if plan.seconds is not None:
            hours = plan.seconds / 3600
            console.print(f"device     about {hours:.2g} hours of this machine", highlight=False)
        console.print(f"time       about {duration(plan.seconds or 0.0)}, compiling not counted", highlight=False)
        return DONE


@dataclass(frozen=True)
class Status:
    """Tell what a study's folder holds and what is missing."""

    folder: Folder
    """The study's folder."""

    def __call__(self, console: Console) -> int:
        """Run the command."""
        from sgdscope.result import Result

        result = Result(self.folder)
        declaration = result.declaration
        counts = dict(result.trials["status"].value_counts().sort("status").iter_rows())
        ended = ", ".join(f"{count} {status}" for status, count in counts.items()) or "none"
        text = [
            f"study      {declaration.name}: {', '.join(record.name for record in declaration.workloads)}; "
            f"{', '.join(map(str, declaration.optimizers))}; batch sizes "
            f"{', '.join(map(str, declaration.batch_sizes))}; {', '.join(map(str, declaration.budgets))}; "
            f"{declaration.seeds} seeds",
            f"trials     {ended}; {result.tables.pending} pending",
        ]
        text += [f"damaged    {path}: its trials count as missing and will be trained again" for path in result.damaged]
        if result.finished:
            text.append("state      finished")
        else:
            waiting = result.tables.cells_waiting
            more = f", and {waiting} cells wait for them" if waiting else ""
            text.append(f"state      not finished: {result.tables.pending} trials are known to be missing{more}")
        for line in text:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        return DONE


@dataclass(frozen=True)
class Report:
    """Write the page of a study's folder again, or its figures as files, as wide as a paper's column."""

    folder: Folder
    """The study's folder."""
    out: Annotated[Path | None, arg(metavar="PATH")] = None
    """The page, or the folder of the files; report.html or figures in the study's folder unless told otherwise."""
    format: Literal["html", "svg", "png", "pdf"] = "html"
    """The page, or what kind of files."""

    def __call__(self, console: Console) -> int:
        """Run the command."""
        from sgdscope.result import Result

        result = Result(self.folder)
        if self.format == "html":
            paths = [result.report(self.out or self.folder / "report.html")]
        else:
            paths = result.figures(self.out or self.folder / "figures", self.format)
        for path in paths:
            console.print(str(path), highlight=False, markup=False, soft_wrap=True)
        return DONE


@dataclass(frozen=True)
class Export:
    """Write the trial table of a study's folder."""

    folder: Folder
    """The study's folder."""
    file: Annotated[Positional[Path], arg(metavar="FILE")]
    """The table; .csv or .parquet, by the name's ending."""

    def __call__(self, console: Console) -> int:
        """Run the command."""
        from sgdscope.result import Result

        path = Result(self.folder).export(self.file)
        console.print(str(path), highlight=False, markup=False, soft_wrap=True)
        return DONE


@dataclass(frozen=True)
class Claims:
    """Say of each claim of the study whether these folders support it, contradict it or do not decide it.

    Several folders together answer what takes two budgets or workloads.
    """

    folders: Annotated[Positional[tuple[Path, ...]], arg(metavar="DIR ...")]
    """The folders of one study or several."""
    reference: Annotated[float | None, arg(metavar="SCORE")] = None
    """The score that the architecture's authors published, for the first claim."""
    json: FlagCreatePairsOff[bool] = False
    """Write JSON, for machines."""

    def __call__(self, console: Console) -> int:
        """Run the command."""
        from sgdscope.analysis.claims import findings
        from sgdscope.report.claims import as_json, print_claims
        from sgdscope.result import read_folders

        found = findings(read_folders(self.folders), self.reference)
        if self.json:
            sys.stdout.write(json.dumps(as_json(found), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        else:
            print_claims(found, console)
        return DONE


@dataclass(frozen=True)
class Figures:
    """Write the talk's figures, each a file: against batch size at epochs and at steps, and against epochs.

    Several folders together show workloads side by side, as with and without batch normalization.
    """

    folders: Annotated[Positional[tuple[Path, ...]], arg(metavar="DIR ...")]
    """The folders of one study or several."""
    out: Annotated[Path, arg(metavar="DIR")] = Path("figures")
    """The folder to write them to."""
    format: Literal["svg", "png", "pdf"] = "svg"
    """What kind of file."""

    def __call__(self, console: Console) -> int:
        """Run the command."""
        from sgdscope.report.files import talk_figures, write_figures
        from sgdscope.result import read_folders

        for path in write_figures(talk_figures(read_folders(self.folders)), self.out, self.format):
            console.print(str(path), highlight=False, markup=False, soft_wrap=True)
        return DONE


@dataclass(frozen=True)
class Analyze:
    """Say what a table of anybody's trials shows: batch_size, learning_rate, seed and score are enough.

    One row a trial. Further columns that are read: optimizer (sgd, momentum:M or any other name), budget, workload,
    validation_score, which then chooses the learning rate, train_loss, steps, and status, where diverged is one.
    """

    file: Annotated[Positional[Path], arg(metavar="FILE")]
    """The table; .csv or .parquet, by the name's ending."""
    minimize: FlagCreatePairsOff[bool] = False
    """A smaller score is better."""
    constant_score: Annotated[float | None, arg(metavar="SCORE")] = None
    """What a constant predictor scores, as which a diverged trial counts."""
    examples: Annotated[int, arg(metavar="N")] = 0
    """The size of the training split, for the temperature."""
    score_margin: Annotated[float | None, arg(metavar="SCORE")] = None
    """How much of a score is too little to matter; 5 % of an accuracy's errors, or of another score, unless given."""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """A folder to write every table to, as .csv."""

    def __call__(self, console: Console) -> int:
        """Run the command."""
        from sgdscope.analysis.results import read_results, records_of
        from sgdscope.analysis.tables import Tables
        from sgdscope.result import write_table

        trials = read_results(self.file)
        validated = not trials["validation_score"].equals(trials["test_score"], null_equal=True)
        records = records_of(trials, self.minimize, self.constant_score, self.examples, validated)
        tables = Tables(trials, records, self.score_margin)
        _print_findings(tables, console)
        if self.out is not None:
            try:
                self.out.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"{self.out} cannot be written: {error.strerror}.") from error
            for name, table in tables.all().items():
                path = write_table(table, self.out / f"{name}.csv")
                console.print(str(path), highlight=False, markup=False, soft_wrap=True)
        return DONE


@dataclass(frozen=True)
class Advise:
    """Say what a study advises: batch size, learning rate, momentum, their cost, and which trials would tell more."""

    folder: Folder
    """The study's folder."""
    batch_sizes: Annotated[Texts, arg(metavar="B ...")] = None
    """Batch sizes to give learning rates for, measured or not."""
    json: FlagCreatePairsOff[bool] = False
    """Print the tables as JSON instead."""

    def __call__(self, console: Console) -> int:
        """Run the command."""
        from sgdscope.report.advice import as_json, print_advice
        from sgdscope.result import Result
        from sgdscope.studies import origin_of

        result = Result(self.folder)
        advice = result.advice(*(int(_number("batch_sizes", text, int)) for text in self.batch_sizes or ()))
        origin = origin_of(result.declaration)
        if self.json:
            sys.stdout.write(as_json(advice, result, origin) + "\n")
        else:
            print_advice(advice, result, origin, console)
        return DONE


@dataclass(frozen=True)
class Fetch:
    """Fetch a published data set; what is there and right is left alone."""

    name: Annotated[Positional[str], arg(metavar="NAME")]
    """mnist, cifar10 or ptb."""
    data: Annotated[Path | None, arg(metavar="DIR")] = None
    """The folder to fetch to; SGDSCOPE_DATA, or the user's cache folder, unless told otherwise."""

    def __call__(self, console: Console) -> int:
        """Run the command."""
        from sgdscope.data.download import fetch

        folder = fetch(self.name, self.data, Console(stderr=True))
        console.print(str(folder), highlight=False, markup=False, soft_wrap=True)
        return DONE


@dataclass(frozen=True)
class Check:
    """Tell which published data sets are there; exits with 2 where one is there that is incomplete or wrong."""

    data: Annotated[Path | None, arg(metavar="DIR")] = None
    """Where to look; SGDSCOPE_DATA, or the user's cache folder, unless told otherwise."""

    def __call__(self, console: Console) -> int:
        """Run the command."""
        from sgdscope.data.download import DATA_SETS
        from sgdscope.data.files import check, find

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
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        return code


@dataclass(frozen=True)
class Data:
    """Fetch the published data sets, or check those that are there."""

    command: OmitArgPrefixes[Fetch | Check]

    def __call__(self, console: Console) -> int:
        """Run the command."""
        return self.command(console)


@dataclass(frozen=True)
class List:
    """List the built-in studies."""

    def __call__(self, console: Console) -> int:
        """Run the command."""
        from importlib import import_module

        from sgdscope.studies import BUILT_IN

        for name in BUILT_IN:
            first_line = (import_module(f"sgdscope.studies.{name}").__doc__ or "").splitlines()[0]
            console.print(f"{name}  {first_line}", highlight=False, markup=False, soft_wrap=True)
        return DONE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    console = Console()
    try:
        return _parsed(arguments)(console)
    except InputError as error:
        _say(str(error))
        return BAD_INPUT
    except KeyboardInterrupt:
        _say("Interrupted; what was committed is safe, and the same command goes on from there.")
        return INTERRUPTED


Command = Run | Plan | Status | Report | Export | Claims | Advise | Figures | Analyze | Data | List


def _parsed(arguments: Sequence[str] | None) -> Command:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            command: Command = tyro.cli(
                Command,
                prog="sgdscope",
                description="Measure how stochastic gradient descent behaves at each batch size.",
                args=arguments,
                config=(OmitSubcommandPrefixes,),
            )
            return command
    except SystemExit as stop:
        if stop.code in (None, 0):
            raise
        raise InputError(_sentence(said.getvalue())) from None


def _sentence(box: str) -> str:
    """Say the message in tyro's box, which has a title and rules between its parts, as one sentence."""
    lines = [line.strip("│╭╮╰╯ ") for line in box.splitlines()]
    rules = [set(line) <= {"─", "-"} for line in lines]
    first = rules.index(False, 1) if any(rules[1:2]) else 1
    said = lines[first : rules.index(True, first)]
    return f"{' '.join(said).rstrip('.')}; sgdscope --help tells what there is."


def _print_findings(tables: Tables, console: Console) -> None:
    from sgdscope.report.summary import sentences, summary_table

    console.print(summary_table(tables))
    for part in tables.parts:
        said = sentences(part)
        title = [f"{part.title}:"] if said and len(tables.parts) > 1 else []
        for sentence in title + said:
            console.print(sentence, highlight=False, markup=False, soft_wrap=True)


def _load(name: str, source: Source, changes: Fields) -> Study:
    from sgdscope.studies import load_study

    return changes.applied_to(load_study(name, source.profile, source.data, source.train_on_all))


def _number(field: str, text: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise InputError(f"{field}: {text!r} is not {what}.") from None


def _say(text: str) -> None:
    sys.stderr.write(f"sgdscope: {text}\n")


if __name__ == "__main__":
    sys.exit(main())
