"""A user's own results: a table of batch size, learning rate, seed and score is enough."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import polars as pl

from sgdscope.analysis.derived import momentum_of
from sgdscope.analysis.rate_groups import grouped
from sgdscope.analysis.score_limits import PERCENT
from sgdscope.analysis.tables import StudyTables, Tables
from sgdscope.analysis.trial_table import Records
from sgdscope.budget import MOST_EXAMPLES
from sgdscope.errors import InputError, did_you_mean
from sgdscope.importing.long_form import COUNTERS, by_run
from sgdscope.importing.naming import goal_of, is_accuracy, listed, metric, named, plain, with_pairs
from sgdscope.importing.sources import read_source
from sgdscope.importing.table import TextTable, number
from sgdscope.records import WorkloadRecord
from sgdscope.store import TRIALS_SCHEMA
from sgdscope.study import Declaration

# Names, and what stands for one that is not given.
NAMES = {"workload": "results", "budget": "budget", "optimizer": "sgd"}
CELL_AND_TRIAL = ("workload", "budget", "optimizer", "batch_size", "learning_rate", "seed")
OUTCOME = ("diverged", "score", "validation_score", "train_loss", "steps")
# What `export` adds, the same in every row of a workload, so that a table says what its study says.
STATED_TEXT = ("score_name", "score_goal", "chosen_on")
STATED_NUMBERS = (
    "score_margin",
    "constant_score",
    "constant_loss",
    "train_examples",
    "validation_examples",
    "test_examples",
    "batch_multiple",
    "l2",
)

# All that a column can be.
ROLES = (
    *("batch_size", "learning_rate", "seed", "score", "validation_score", "train_loss", "optimizer", "momentum"),
    *("steps", "budget", "workload", "status", "state", "diverged", "test_score", *STATED_TEXT, *STATED_NUMBERS),
)
# Which of the values along training is a run's.
Value = Literal["last", "best"]
# What trackers and schedulers call the end of a run that went well: W&B finished, Optuna COMPLETE, MLflow FINISHED, Ray
# Tune TERMINATED, Slurm and Hydra COMPLETED, Kubernetes Succeeded; and what people write.
COMPLETE = frozenset(
    ("complete", "completed", "finished", "success", "succeeded", "successful", "done", "ok", "terminated")
)
# States in which a run has no result, by the same programs.
WITHOUT_RESULT = frozenset(
    (
        *("failed", "fail", "failure", "error", "errored", "crashed", "killed", "died", "lost", "stopped", "aborted"),
        *("cancelled", "canceled", "interrupted", "timeout", "out_of_memory", "oom", "node_fail", "boot_fail"),
        *(
            "deadline",
            "preempted",
            "preempting",
            "pruned",
            "paused",
            "suspended",
            "requeued",
            "revoked",
            "skipped",
            "deleted",
        ),
        *("running", "active", "in progress", "in_progress", "pending", "waiting", "queued", "scheduled", "created"),
        *("starting", "unfinished"),
    )
)
# Of how many steps or devices a batch is made.
PARTS_OF_A_BATCH = (
    *("gradient_accumulation_steps", "accumulate_grad_batches", "grad_accum_steps", "gradient_accumulation"),
    *("grad_accumulation_steps", "world_size", "num_devices", "n_devices", "num_gpus", "n_gpus"),
)
# How Python names a class.
CLASS = re.compile(r"(?:<class ')?(?:[a-z_]\w*\.)+([A-Za-z_]\w*)(?:'>)?")
YES = ("true", "yes", "1", "1.0", "y", "t")
# Scores and losses beyond this have no variance that a float holds.
LARGEST = 1e100
# A score that falls wherever the training loss falls is to be minimised; an accuracy does the opposite.
LIKE_A_LOSS = 0.8
FEWEST_TO_COMPARE = 10
# How deep a curve must lie between its ends to be a valley, as a share of its range.
VALLEY = 0.2


@dataclass(frozen=True)
class Results:
    """A user's table, read: ``trials`` as :class:`Tables` takes them, and what the table says of its workloads.

    Args:
        trials: One row a trial that has an outcome.
        stated: What is stated of each workload, by its name, as :meth:`Result.export` writes it.
        notices: What was left out, dropped or merged, one sentence each.
        taken: How many runs were read, and from which columns.
    """

    trials: pl.DataFrame
    stated: Mapping[str, Mapping[str, Any]]
    notices: tuple[str, ...] = ()
    taken: str = ""

    @property
    def score_margin(self) -> dict[str, float]:
        """The margin δ that the table states of each workload, where it states one."""
        return {name: of["score_margin"] for name, of in self.stated.items() if "score_margin" in of}


def read_results(
    path: str | Path,
    columns: Mapping[str, str] | None = None,
    value: Value = "last",
    minimize: bool | None = None,
) -> Results:
    """Read trials that were trained elsewhere, in any of the forms of :func:`sgdscope.importing.sources.read_source`.

    Columns that are read: ``batch_size``, ``learning_rate`` and ``score`` (or ``test_score``) are needed, one row a
    trial. ``seed`` pairs trials; where there is none, the trials of each learning rate are numbered. ``optimizer``,
    ``budget`` and ``workload`` are names, the first ``sgd`` where there is none, with ``momentum`` where there is a
    column of it. ``validation_score`` chooses the learning rate in place of the score, ``train_loss`` is the loss of
    the whole training split, ``steps`` the number of updates. ``status`` (or ``state``) tells how a trial ended. Other
    columns are not read, except those that ``sgdscope export`` adds.

    Columns of other names are taken by :func:`sgdscope.importing.naming.named`, such as ``config.lr``.

    A trial has diverged where its status says so, and only there. Rows of other states than complete and diverged, and
    rows without a score, are left out and counted.

    Args:
        path: The file or folder.
        columns: Names of columns by ours. Default: they are guessed.
        value: Which of the values along training is a trial's score, ``last`` or ``best``. Default: ``last``.
        minimize: Whether a smaller score is better. Default: by the score's name.

    Returns:
        The trials that have an outcome, what the table states of its workloads, and sentences on what was left out.

    Raises:
        InputError: If nothing can be read there, a column is missing or holds what it cannot, or two rows contradict
            each other.
    """
    if value not in get_args(Value):
        raise InputError(f"value: {value!r} is neither last nor best.")
    whole = read_source(Path(path))
    whole, names, doubts = _columns(whole, columns or {})
    points, whole = len(whole.lines), by_run(whole, names)
    if len(whole.lines) < points:
        doubts.append(f"The {points:,} rows are points along the training of {len(whole.lines):,} runs.")
    table, names = _named(whole, names, columns or {}, value, minimize)
    if not table.lines:
        raise InputError(f"{path} holds no trials: it has a heading and no rows.")
    table, left_out = _with_state(table)
    comma = table.decimal_comma(["learning_rate", "score", "validation_score", "train_loss", *STATED_NUMBERS])
    table = _with_parameters(table, left_out)
    table, scores = _with_score(table, comma, left_out)
    notices = [*doubts, *_left_out_sentence(left_out, len(table.lines), table.rows)]
    if not table.lines:
        raise InputError(f"{path} holds no trials with a result. {' '.join(notices)}")
    trials = _trials(table, comma, scores)
    if "seed" not in table.columns:
        notices.append(
            "No column is a seed. The trials of each learning rate are numbered in their order, and trials of the same "
            "number are compared as pairs."
        )
    trials, repeated = _without_repeats(trials, table, whole, set(names.values()))
    stated = _stated(table, comma)
    if repeated:
        rows = "1 row repeats another row and is" if repeated == 1 else f"{repeated} rows repeat other rows and are"
        notices.append(f"{rows} left out.")
    notices += _misspelt(whole, names, doubts)
    taken = _taken(whole, names, len(trials), value)
    trials, merged = grouped(trials)
    twice = trials.filter(trials.select(CELL_AND_TRIAL).is_duplicated()).sort(CELL_AND_TRIAL)
    if not twice.is_empty():
        first, second = (table.at(row) for row in sorted(twice["row"][:2]))
        raise InputError(
            f"{path}: {first} and {second} hold the same trial: their learning rates agree to 1 part in 1,000 and "
            f"their seeds are equal. Keep one of them."
        )
    factor = {name: 1 / (1 - (momentum_of(name) or 0.0)) for name in trials["optimizer"].unique()}
    effective = pl.col("learning_rate") * pl.col("optimizer").replace_strict(factor)
    trials = trials.drop("row").insert_column(6, effective.alias("effective_learning_rate"))
    return Results(trials, stated, (*notices, *merged), taken)


def study_tables(tables: Tables, name: str) -> StudyTables:
    """Return the tables of trials that were trained elsewhere as those of a study, as far as its report needs it.

    Args:
        tables: What the trials show.
        name: What the study is called.
    """
    trials = tables.trials
    lacking = {name: kind for name, kind in TRIALS_SCHEMA.items() if name not in trials.columns}
    by_order = {name: trials[name].unique(maintain_order=True).to_list() for name in ("optimizer", "budget")}
    return StudyTables(
        trials.with_columns(**{name: pl.lit(None, kind) for name, kind in lacking.items()}),
        tables.records,
        tables.score_margin,
        declaration=_Elsewhere(
            name=name,
            workloads=tuple(tables.records.values()),
            optimizers=by_order["optimizer"],
            budgets=by_order["budget"],
            batch_sizes=tuple(trials["batch_size"].unique().sort()),
            seeds=trials["seed"].n_unique(),
            schedule="unknown, as the runs were made elsewhere",  # type: ignore[arg-type]
        ),
        pending=0,
        cells_waiting=0,
    )


class _Elsewhere(Declaration):
    """What was trained elsewhere, in its own words: nothing of it is planned here, so nothing is checked."""

    def __post_init__(self) -> None:
        pass


def records_of(
    results: Results, minimize: bool | None = None, constant_score: float | None = None, examples: int | None = None
) -> Records:
    """Return what the workloads of a user's table are, by name, as far as it needs to be known.

    Scores of which larger are better count as accuracies between 0 and 1, and as percentages between 0 and 100. The
    training loss of a diverged trial counts as that of the constant baseline where the table states it, and as the
    largest that was measured otherwise. What is given here goes before what the table states.

    Args:
        results: A user's table.
        minimize: Whether a smaller score is better. Default: by the table and the score's name.
        constant_score: The score of the constant baseline, as which a diverged trial counts, in the table's units.
        examples: Size of the training split, for the temperature.

    Raises:
        InputError: If a number cannot be what it stands for, trials diverged and no constant baseline is known, or the
            scores look as if smaller were better and neither the table nor ``minimize`` says so.
    """
    if constant_score is not None and not abs(constant_score) <= LARGEST:
        raise InputError(f"--constant-score {constant_score} is not a finite number. Give a constant baseline's score.")
    if examples is not None and not 0 < examples <= MOST_EXAMPLES:
        raise InputError(
            f"--examples {examples} is not a number of training examples. Give a whole number from 1 to "
            f"{MOST_EXAMPLES:,}."
        )
    given = {"constant_score": constant_score, "train_examples": examples}
    given = {key: value for key, value in given.items() if value is not None}
    records = {}
    for (name,), trials in results.trials.group_by("workload", maintain_order=True):
        records[str(name)] = _record(str(name), trials, {**results.stated.get(str(name), {}), **given}, minimize)
    return records


def check_margin(margin: float | None, trials: pl.DataFrame) -> float | None:
    """Return a margin of scores as it is.

    Raises:
        InputError: If it is not positive, or not smaller than the range of the scores.
    """
    if margin is None:
        return None
    if not 0 < margin < math.inf:
        raise InputError(f"--score-margin {margin:g} is not a positive number. Give the largest difference to ignore.")
    scores = trials["test_score"].drop_nulls().to_numpy()
    if scores.size and margin >= np.ptp(scores) > 0:
        raise InputError(
            f"--score-margin {margin:g} is as large as the range of all scores, {scores.min():.4g} to "
            f"{scores.max():.4g}, so that no difference could matter. Give a smaller margin."
        )
    return margin


# ── Columns and rows ─────────────────────────────────────────────────────────────────────────────────────────


def _columns(table: TextTable, chosen: Mapping[str, str]) -> tuple[TextTable, dict[str, str], list[str]]:
    """Return a table, which of its columns holds what, and which others may be meant.

    Raises:
        InputError: If a column that is needed is missing, or several may be meant.
    """
    try:
        return table, *named(table, ROLES, chosen)
    except InputError:  # what the names of the runs say is the last resort
        more = with_pairs(table)
        if len(more.columns) == len(table.columns):
            raise
        return more, *named(more, ROLES, chosen)


def _named(
    table: TextTable, names: Mapping[str, str], chosen: Mapping[str, str], value: Value, minimize: bool | None
) -> tuple[TextTable, dict[str, str]]:
    """Return a table with the columns by our names, and whose they are; with the best values along training if asked.

    Raises:
        InputError: If the batch size is not that of an update, or there is no best value.
    """
    _check_whole_batch(table, names["batch_size"])
    found = {ours: table.columns[theirs] for ours, theirs in names.items()}
    score = names["score"]
    goal = table.goals.get(score) or goal_of(score)
    if minimize is not None:
        goal = "minimize" if minimize else "maximize"
    if value == "best":
        if score not in table.along:
            raise InputError(f"value: {table.path} holds one value of {score} for each run, so there is no best one.")
        for ours in ("score", "validation_score"):
            if (theirs := names.get(ours, "")) in table.along:
                found[ours] = [_best(points, goal, theirs) for points in table.along[theirs]]
    if goal and not {"score_name", "score_goal"} & set(found):
        found["score_goal"] = [goal] * len(table.lines)
    if not {"score_name", "score_goal"} & set(chosen) and "score_name" not in found and not is_accuracy(score):
        found["score_name"] = [metric(score).name] * len(table.lines)
    for optional in ("validation_score", "train_loss", "steps", "status"):
        if not any(found.get(optional, [])):
            found.pop(optional, None)
    kept = {ours: theirs for ours, theirs in names.items() if ours in found and ours not in ("test_score", "state")}
    return replace(table, columns=found), kept


def _check_whole_batch(table: TextTable, theirs: str) -> None:
    """Refuse a batch size of one device, or of one step of several, as the batch size of an update."""
    if plain(theirs).startswith(("effective", "global", "total")):
        return
    for name, texts in table.columns.items():
        if plain(name) in PARTS_OF_A_BATCH and any(text not in (None, "", "1", "1.0") for text in texts):
            raise InputError(
                f"{table.path}: {theirs} is not the whole batch of an update, since {name} is not 1. Add a column "
                f"effective_batch_size with the product."
            )


def _best(points: Sequence[float], goal: str, name: str) -> str | None:
    """Return the best value along training; of a run that has none, nothing."""
    if not goal:
        raise InputError(
            f"value: the name {name!r} does not say whether larger values are better, so no best one can be taken. "
            f"Give --minimize or --maximize, or use the last ones."
        )
    known = [point for point in points if math.isfinite(point)]
    return repr(min(known) if goal == "minimize" else max(known)) if known else None


def _misspelt(table: TextTable, names: Mapping[str, str], doubts: Sequence[str]) -> list[str]:
    """Return a sentence for each column that is not used, and whose name is near to one that was not found."""
    missing = [ours for ours in ROLES if ours not in names]
    ours = {*names.values(), *TRIALS_SCHEMA}  # an exported table of a study has more than is used
    ours |= {theirs for theirs in table.columns if plain(theirs) in COUNTERS}
    unused = [theirs for theirs in table.columns if theirs not in ours and not table.is_store]
    unused = [theirs for theirs in unused if not re.search(r"[./:]", theirs) and theirs not in " ".join(doubts)]
    near = {theirs: meant for theirs in unused if (meant := did_you_mean(theirs, missing))}
    return [
        f"Column {theirs!r} is not used.{meant} Then rename it, or use --columns." for theirs, meant in near.items()
    ]


def _taken(table: TextTable, names: Mapping[str, str], runs: int, value: Value) -> str:
    """Say how many runs were read, from which columns."""
    order = {ours: place for place, ours in enumerate(ROLES)}
    shown = [
        ours if ours == theirs.strip().lower() else f"{ours}={theirs}"
        for ours, theirs in sorted(names.items(), key=lambda item: order[item[0]])
        if ours not in (*STATED_TEXT, *STATED_NUMBERS)
    ]
    of = f"{runs:,} of {len(table.lines):,} {table.rows}"
    along = any(names.get(ours) in table.along for ours in ("score", "validation_score"))
    which = f" Scores are the {value} values along training." if along else ""
    flattered = " The best of many values is too good by chance." if along and value == "best" else ""
    return f"Read {of} of {table.path}: {', '.join(shown)}. Change columns with --columns.{which}{flattered}"


def _with_state(table: TextTable) -> tuple[TextTable, Counter[str]]:
    """Return the rows that are complete or diverged, and how many of each other state there were."""
    left_out: Counter[str] = Counter()
    rows, diverged = [], []
    flagged = [(text or "").strip().lower() in YES for text in table.columns.get("diverged", [])]
    for row, state in enumerate(table.columns.get("status", ["complete"] * len(table.lines))):
        known = (state or "").strip().lower()
        if known in COMPLETE or known == "diverged":
            rows.append(row)
            diverged.append("yes" if known == "diverged" or (flagged and flagged[row]) else None)
        elif not known:
            left_out["without a status"] += 1
        elif known.split()[0].rstrip("+") in WITHOUT_RESULT or known in WITHOUT_RESULT:
            left_out[known] += 1
        else:
            left_out[f"of the unknown status {state!r}"] += 1
    kept = table.of(rows)
    kept.columns["diverged"] = list(diverged)
    return kept, left_out


def _with_parameters(table: TextTable, left_out: Counter[str]) -> TextTable:
    """Return the runs of a tool that have a batch size and a learning rate; parents of others do not."""
    if not table.is_store:
        return table
    rows = []
    for row in range(len(table.lines)):
        lacks = [
            name
            for name in ("batch_size", "learning_rate", "seed")
            if not table.columns.get(name, "x" * (row + 1))[row]
        ]
        if lacks:
            left_out[f"without a {lacks[0].replace('_', ' ')}"] += 1
        else:
            rows.append(row)
    return table.of(rows)


def _with_score(table: TextTable, comma: bool, left_out: Counter[str]) -> tuple[TextTable, list[float]]:
    """Return the rows that have an outcome, and their scores, NaN where they diverged.

    In a table that ``export`` wrote, which has the constant baseline's loss, a complete trial whose score alone is
    missing counts by its training loss, as in its study.
    """
    diverged = [bool(value) for value in table.columns["diverged"]]
    scores = table.numbers("score", comma)
    chosen_by = table.numbers("validation_score", comma) if "validation_score" in table.columns else scores
    losses = table.numbers("train_loss", comma) if {"train_loss", "constant_loss"} <= set(table.columns) else []
    rows = []
    for row, (score, other) in enumerate(zip(scores, chosen_by, strict=True)):
        if losses and math.isfinite(losses[row]) and not (math.isfinite(score) and math.isfinite(other)):
            rows.append(row)
        elif not diverged[row] and not math.isfinite(score):
            left_out["without a score"] += 1
        elif not diverged[row] and not math.isfinite(other):
            left_out["without a validation score"] += 1
        else:
            rows.append(row)
            if not diverged[row] and max(abs(score), abs(other)) > LARGEST:
                raise InputError(f"{table.path}: score {score:g} in {table.at(row)} is too large to compare.")
    return table.of(rows), [math.nan if diverged[row] else scores[row] for row in rows]


def _left_out_sentence(left_out: Counter[str], kept: int, what: str) -> list[str]:
    total = left_out.total()
    if not total:
        return []
    parts = listed([f"{count} {state}" for state, count in left_out.most_common()])
    return [f"{total} of {kept + total} {what} are left out: {parts}."]


def _trials(table: TextTable, comma: bool, scores: list[float]) -> pl.DataFrame:
    sizes = _checked(table, comma, "batch_size", lambda value: 1 <= value <= MOST_EXAMPLES and value == int(value))
    rates = _checked(table, comma, "learning_rate", lambda value: 1e-30 <= value <= 1e30)
    columns: dict[str, Any] = {
        name: [value or default for value in table.columns.get(name, [None] * len(scores))]
        for name, default in NAMES.items()
    }
    columns["optimizer"] = _optimizers(table, comma, columns["optimizer"])
    diverged = [bool(value) for value in table.columns["diverged"]]
    outcomes = {"train_loss": [math.nan] * len(scores), "steps": [math.nan] * len(scores)}
    for name in ("train_loss", "validation_score"):
        if name in table.columns:
            values = table.numbers(name, comma)
            outcomes[name] = [math.nan if gone else value for value, gone in zip(values, diverged, strict=True)]
    if "steps" in table.columns:
        outcomes["steps"] = _checked(
            table, comma, "steps", lambda value: math.isnan(value) or (0 <= value < 2**53 and value == int(value))
        )
    trials = pl.DataFrame(
        columns
        | {
            "row": range(len(scores)),
            "batch_size": [int(size) for size in sizes],
            "learning_rate": rates,
            "seed": _seeds(table, comma) if "seed" in table.columns else [0] * len(scores),
            "diverged": diverged,
            "train_loss": outcomes["train_loss"],
            "validation_score": outcomes.get("validation_score", scores),
            "test_score": scores,
            "steps": outcomes["steps"],
        },
        schema_overrides={"batch_size": pl.Int64, "seed": pl.Int64, "learning_rate": pl.Float64},
        strict=False,
    )
    if "seed" not in table.columns:
        trials = trials.with_columns(
            seed=pl.int_range(pl.len()).over([name for name in CELL_AND_TRIAL if name != "seed"])
        )
    finite = [pl.when(pl.col(c).is_finite()).then(pl.col(c)) for c in ("train_loss", "validation_score", "test_score")]
    return trials.select(
        "row",
        *CELL_AND_TRIAL,
        pl.when("diverged").then(pl.lit("diverged")).otherwise(pl.lit("complete")).alias("status"),
        pl.when(pl.col("steps").is_finite()).then(pl.col("steps")).cast(pl.Int64),
        *finite,
    )


def _optimizers(table: TextTable, comma: bool, names: Sequence[str]) -> list[str]:
    """Return optimizers by our names where they are ours: ``SGD`` with a momentum of 0.9 is ``momentum:0.9``."""
    bare = [CLASS.fullmatch(name) for name in names]  # as torch.optim.SGD
    plain = [match[1] if match else name for match, name in zip(bare, names, strict=True)]
    plain = ["sgd" if name.lower() == "sgd" else name for name in plain]
    if "momentum" not in table.columns:
        return plain
    momenta = _shares(table, "momentum", comma)
    return [
        f"momentum:{momentum:g}" if name == "sgd" and 0 < momentum < 1 else name
        for name, momentum in zip(plain, momenta, strict=True)
    ]


def _shares(table: TextTable, name: str, comma: bool) -> list[float]:
    """Return a column of parameters as numbers, percentages as shares of 1."""
    values = table.numbers(name, comma)
    percent = [bool(text and text.endswith("%")) for text in table.columns[name]]
    return [value / 100 if share else value for value, share in zip(values, percent, strict=True)]


def _checked(table: TextTable, comma: bool, name: str, right: Any) -> list[float]:
    values = _shares(table, name, comma)
    needs = {
        "batch_size": f"a whole number from 1 to {MOST_EXAMPLES:,}",
        "learning_rate": "a number between 1e-30 and 1e30",
        "steps": "a whole number of updates",
    }[name]
    for row, value in enumerate(values):
        if not (right(value) if math.isfinite(value) or name == "steps" else False):
            text = table.columns[name][row]
            held = "is empty" if text is None else f"{text!r} is wrong"
            raise InputError(f"{table.path}: {name} {held} in {table.at(row)}. It must be {needs}.")
    return values


def _seeds(table: TextTable, comma: bool) -> list[int]:
    """Return seeds as numbers: as they are where all are whole numbers of 64 bits, otherwise numbered in order."""
    texts = table.columns["seed"]
    for row, text in enumerate(texts):
        if text is None:
            raise InputError(f"{table.path}: seed is empty in {table.at(row)}. It must be a number or a name.")
    found: list[int | str] = []
    for text in texts:
        value = number(text or "", comma)
        whole = value is not None and abs(value) < 2**53 and value == int(value)
        if re.fullmatch(r"[+-]?\d{1,18}", text or ""):
            found.append(int(text or ""))
        else:
            found.append(int(value) if whole and value is not None else str(text))
    if all(isinstance(seed, int) for seed in found):
        return [int(seed) for seed in found]
    order = {seed: place for place, seed in enumerate(sorted(set(found), key=lambda seed: (str(type(seed)), seed)))}
    return [order[seed] for seed in found]


def _without_repeats(
    trials: pl.DataFrame, table: TextTable, whole: TextTable, taken: Collection[str]
) -> tuple[pl.DataFrame, int]:
    """Return the trials without rows that repeat another one, and how many did; refuse rows that contradict another."""
    alike = [name for name in trials.columns if name != "row"]
    if "seed" not in table.columns:  # numbers tell rows apart that repeat each other
        rows = {line: number for number, line in enumerate(whole.lines)}
        every = list(zip(*whole.columns.values(), strict=True))
        text = [str(every[rows[table.lines[row]]]) for row in trials["row"]]
        kept = trials.with_columns(text=pl.Series(text)).unique("text", keep="first", maintain_order=True).drop("text")
    else:
        kept = trials.unique(alike, keep="first", maintain_order=True)
    twice = kept.filter(kept.select(CELL_AND_TRIAL).is_duplicated()).sort(*CELL_AND_TRIAL, "row")
    if not twice.is_empty():
        which = ", ".join(f"{name} {value}" for name, value in twice.select(CELL_AND_TRIAL).row(0, named=True).items())
        first, second = (int(row) for row in twice["row"][:2])
        differ = _differing(whole, taken, table.lines[first], table.lines[second])
        raise InputError(
            f"{table.path}: the trial of {which} is there twice with different results, in {table.at(first)} and "
            f"{table.at(second)}. Keep one of them.{differ}"
        )
    return kept, len(trials) - len(kept)


def _differing(whole: TextTable, taken: Collection[str], first: int | str, second: int | str) -> str:
    """Say which columns that are not read tell two rows apart, as far as they may be parameters."""
    rows = [list(whole.lines).index(line) for line in (first, second)]
    names = [
        name for name, cells in whole.columns.items()
        if name and name not in {*whole.along, *taken} and cells[rows[0]] != cells[rows[1]]
        and not any(re.match(r"\d{4}-\d{2}-\d{2}", text or "") for text in cells)  # when a run began is no parameter
        and 1 < len(set(cells)) <= max(2, len(cells) // 4)
    ]  # fmt: skip
    if not names:
        return ""
    return (
        f" If they differ in {listed(names)}, give --columns workload={names[0]}, which analyzes each value by itself."
    )


def _stated(table: TextTable, comma: bool) -> dict[str, dict[str, Any]]:
    """Return what the rows of each workload state of it, which must be the same in all of them."""
    columns: dict[str, list[Any]] = {name: table.columns[name] for name in STATED_TEXT if name in table.columns}
    columns |= {name: table.numbers(name, comma) for name in STATED_NUMBERS if name in table.columns}
    workloads = [name or NAMES["workload"] for name in table.columns.get("workload", [None] * len(table.lines))]
    stated: dict[str, dict[str, Any]] = {name: {} for name in workloads}
    for name, values in columns.items():
        for row, (workload, value) in enumerate(zip(workloads, values, strict=True)):
            if value is None or (isinstance(value, float) and not math.isfinite(value)):
                continue
            if stated[workload].setdefault(name, value) != value:
                raise InputError(
                    f"{table.path}: {name} is {stated[workload][name]} and {value} ({table.at(row)}). It must be the "
                    f"same in all rows of a workload."
                )
    return stated


# ── What a workload is ───────────────────────────────────────────────────────────────────────────────────────


def _record(name: str, trials: pl.DataFrame, stated: Mapping[str, Any], minimize: bool | None) -> WorkloadRecord:
    scores = trials["test_score"].drop_nulls().to_numpy()
    called, goal = stated.get("score_name"), str(stated.get("score_goal", "")).lower()
    if goal not in ("", "maximize", "minimize"):
        raise InputError(f"score_goal {goal!r} is neither maximize nor minimize.")
    if minimize is not None:
        goal = "minimize" if minimize else "maximize"
    elif not goal and called:
        goal = goal_of(str(called))
    down = goal == "minimize"
    constant = stated.get("constant_score")
    diverged = int((trials["status"] == "diverged").sum())
    if diverged and constant is None:
        which = "1 trial diverged" if diverged == 1 else f"{diverged} trials diverged"
        raise InputError(
            f"{which}. Give --constant-score, the score of a constant baseline, as which a diverged trial counts."
        )
    if not down and not goal:
        _check_direction(name, trials, scores)
    if scores.size and not down and called in (None, "accuracy", PERCENT):
        whole = 1.0 if scores.max() <= 1 else 100.0
        if scores.min() >= 0 and scores.max() <= whole:
            if whole == 100 and called is None:
                _check_one_unit(name, trials, float(scores.max()))
            called = "accuracy" if whole == 1 else PERCENT
            if constant is not None and not 0 <= constant <= whole:
                raise InputError(
                    f"--constant-score {constant:g} is no accuracy between 0 and {whole:g}, as scores are."
                )
    losses = trials["train_loss"].drop_nulls().to_numpy()
    worst = float(losses.max()) if losses.size else math.nan
    validated = not trials["validation_score"].equals(trials["test_score"], null_equal=True)
    sizes = (int(stated.get(f"{split}_examples", 0)) for split in ("train", "validation", "test"))
    return WorkloadRecord(
        name=name,
        version="",
        fields=(("l2", stated["l2"]),) if "l2" in stated else (),
        data_sha256="",
        examples=tuple(sizes),  # type: ignore[arg-type]
        score_name=str(called or "score"),
        score_goal="minimize" if down else "maximize",
        constant_loss=stated.get("constant_loss", worst),
        constant_score=math.nan if constant is None else constant,
        ghost_batch_size=int(stated.get("batch_multiple", 1)),
        chosen_on="test" if stated.get("chosen_on", "validation" if validated else "test") == "test" else "validation",
    )


def _check_direction(name: str, trials: pl.DataFrame, scores: np.ndarray) -> None:
    """Refuse scores that behave as a loss does, or that no accuracy reaches, where nothing says which are better."""
    reason = ""
    both = trials.filter(pl.col("test_score").is_not_null() & pl.col("train_loss").is_not_null())
    if len(both) >= FEWEST_TO_COMPARE:
        rank = both.select(pl.corr("test_score", "train_loss", method="spearman")).item()
        if rank > LIKE_A_LOSS:
            reason = f"they rise with the training loss (rank correlation {rank:.2f})"
    valleys, hills = _valleys_and_hills(trials)
    if valleys > hills and valleys >= 2:
        reason = f"they are lowest between the learning rates tried in {valleys} cells and highest in {hills}"
    elif not reason and scores.size and (scores.max() > 100 or scores.min() < 0):
        reason = f"they lie between {scores.min():.4g} and {scores.max():.4g}, so that they are no accuracies"
    if reason:
        raise InputError(
            f"The scores of {name!r} may be better where they are smaller: {reason}. Give --minimize or --maximize."
        )


def _check_one_unit(name: str, trials: pl.DataFrame, highest: float) -> None:
    """Refuse percentages among which are cells of fractions: none of their scores exceeds 1."""
    best = trials.group_by("budget", "optimizer", "batch_size").agg(pl.col("test_score").max()).drop_nulls()
    low = best.filter(pl.col("test_score") <= 1).sort("optimizer", "batch_size")
    if not low.is_empty():
        _, optimizer, size, score = low.row(0)
        raise InputError(
            f"The scores of {name!r} reach {highest:.4g}, but at batch size {size} with {optimizer} "
            f"none exceeds {score:.4g}. If those are fractions, multiply them by 100. If all are percentages, add a "
            f"column score_name that says {PERCENT}."
        )


def _valleys_and_hills(trials: pl.DataFrame) -> tuple[int, int]:
    """Return in how many cells the scores are clearly lowest, or highest, between the lowest and highest rates."""
    valleys = hills = 0
    for _, cell in trials.group_by("budget", "optimizer", "batch_size", maintain_order=True):
        by_rate = cell.group_by("learning_rate").agg(pl.col("test_score").mean()).drop_nulls().sort("learning_rate")
        means = by_rate["test_score"].to_numpy()
        depth = VALLEY * np.ptp(means) if len(means) >= 3 else 0.0
        if depth:
            ends = means[0], means[-1]
            valleys += bool(min(ends) - means.min() >= depth and max(ends) == means.max())
            hills += bool(means.max() - max(ends) >= depth and min(ends) == means.min())
    return valleys, hills
