"""A user's own results: a table of batch size, learning rate, seed and score is enough."""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sgdscope.analysis.derived import momentum_of
from sgdscope.analysis.rate_groups import grouped
from sgdscope.analysis.score_limits import PERCENT
from sgdscope.analysis.text_table import TextTable, number, read_text_table
from sgdscope.analysis.trial_table import Records
from sgdscope.budget import MOST_EXAMPLES
from sgdscope.errors import InputError
from sgdscope.records import WorkloadRecord

NEEDED = ("batch_size", "learning_rate", "seed", "score")
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
        *("deadline", "preempted", "preempting", "pruned", "paused", "suspended", "requeued", "revoked", "skipped"),
        *("running", "active", "in progress", "in_progress", "pending", "waiting", "queued", "scheduled", "created"),
        *("starting", "unfinished"),
    )
)
# What the columns are called elsewhere: named in an error, never taken for them without being asked.
CALLED = {
    "batch_size": ("bs", "batch", "batchsize", "train_batch_size", "per_device_train_batch_size", "minibatch_size"),
    "learning_rate": ("lr", "lr0", "eta", "rate", "step_size", "stepsize", "base_lr", "init_lr", "initial_lr"),
    "seed": ("random_seed", "rng_seed", "random_state", "run", "trial", "repeat", "replicate"),
    "score": (
        *("val_acc", "test_acc", "acc", "accuracy", "val_accuracy", "test_accuracy", "top1", "metric", "value", "f1"),
        *("auc", "test_loss", "val_loss", "eval_loss", "loss", "error", "test_error", "perplexity", "ppl", "result"),
    ),
}
MINIMIZED = re.compile(r"loss|error|perplexity|ppl|nll|entropy|\bmse\b|rmse|\bmae\b|\bwer\b|\bcer\b|\bfid\b|\bbpc\b")
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
    """

    trials: pl.DataFrame
    stated: Mapping[str, Mapping[str, Any]]
    notices: tuple[str, ...] = ()

    @property
    def score_margin(self) -> float | None:
        """The margin δ that the table states; None where it states none."""
        margins = {stated["score_margin"] for stated in self.stated.values() if "score_margin" in stated}
        if len(margins) > 1:
            raise InputError(
                f"score_margin is {' and '.join(f'{margin:g}' for margin in sorted(margins))} in one table. "
                f"Verdicts need one margin: give --score-margin, or analyze the workloads apart."
            )
        return next(iter(margins), None)


def read_results(path: str | Path) -> Results:
    """Read a table of trials from a ``.csv`` or ``.parquet`` file.

    Columns that are read: ``batch_size``, ``learning_rate``, ``seed`` and ``score`` (or ``test_score``) are needed, one
    row a trial. ``optimizer``, ``budget`` and ``workload`` are names, the first ``sgd`` where there is none.
    ``validation_score`` chooses the learning rate in place of the score, ``train_loss`` is the loss of the whole
    training split, ``steps`` the number of updates. ``status`` (or ``state``) tells how a trial ended. Other columns
    are not read, except those that ``sgdscope export`` adds.

    A trial has diverged where its status says so, and only there. Rows of other states than complete and diverged, and
    rows without a score, are left out and counted.

    Args:
        path: The table.

    Returns:
        The trials that have an outcome, what the table states of its workloads, and sentences on what was left out.

    Raises:
        InputError: If the file cannot be read, a column is missing or holds what it cannot, or two rows contradict each
            other.
    """
    table = read_text_table(Path(path))
    table = _named(table)
    if not table.lines:
        raise InputError(f"{path} holds no trials: it has a heading and no rows.")
    table, left_out = _with_state(table)
    comma = table.decimal_comma(["learning_rate", "score", "validation_score", "train_loss", *STATED_NUMBERS])
    table, scores = _with_score(table, comma, left_out)
    notices = _left_out_sentence(left_out, len(table.lines))
    if not table.lines:
        raise InputError(f"{path} holds no trials with a result. {' '.join(notices)}")
    trials = _trials(table, comma, scores)
    trials, repeated = _without_repeats(trials, table)
    stated = _stated(table, comma)
    if repeated:
        rows = "1 row repeats another row and is" if repeated == 1 else f"{repeated} rows repeat other rows and are"
        notices.append(f"{rows} left out.")
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
    return Results(trials, stated, (*notices, *merged))


def records_of(
    results: Results, minimize: bool = False, constant_score: float | None = None, examples: int | None = None
) -> Records:
    """Return what the workloads of a user's table are, by name, as far as it needs to be known.

    Scores of which larger are better count as accuracies between 0 and 1, and as percentages between 0 and 100. The
    training loss of a diverged trial counts as that of the constant baseline where the table states it, and as the
    largest that was measured otherwise. What is given here goes before what the table states.

    Args:
        results: A user's table.
        minimize: Whether a smaller score is better.
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


def _named(table: TextTable) -> TextTable:
    """Return a table with the columns by our names; refuse one that lacks a column, naming those like it."""
    wanted = {*NEEDED, *NAMES, *OUTCOME, *STATED_TEXT, *STATED_NUMBERS, "test_score", "status", "state"}
    found: dict[str, list[str | None]] = {}
    for name, values in table.columns.items():
        ours = re.sub(r"[\s-]+", "_", name.removesuffix(" (twice)").strip().lower())
        if ours not in wanted:
            continue
        if found.setdefault(ours, values) != values:
            raise InputError(f"{table.path} has two columns {ours!r} that differ. Remove or rename one of them.")
    if "score" not in found and "test_score" in found:
        found["score"] = found["test_score"]
    if "status" not in found and "state" in found:
        found["status"] = found["state"]
    missing = [name for name in NEEDED if name not in found]
    if missing:
        raise InputError(_missing_columns(table, missing))
    for optional in ("validation_score", "train_loss", "steps", "status"):
        if not any(found.get(optional, [])):
            found.pop(optional, None)
    return TextTable(table.path, found, table.lines, table.unit, table.separator)


def _missing_columns(table: TextTable, missing: Sequence[str]) -> str:
    names = [name for name in table.columns if name]
    if names and all(number(name) is not None for name in names[1:] or names):
        return (
            f"{table.path} has no column {missing[0]!r}: its first line holds numbers in place of names. Write a "
            f"heading such as batch_size,learning_rate,seed,score."
        )
    like = {name: close for name in missing if (close := _close(name, names))}
    said = f"{table.path} has no column {_listed([repr(name) for name in missing])}. Its columns are {_listed(names)}."
    if not like:
        return f"{said} Name the columns {_listed(NEEDED)}, one row a trial."
    said += f" Rename {_listed([f'{close} to {name}' for name, close in like.items()])} if that is what they hold"
    if MINIMIZED.search(like.get("score", "").lower()):
        said += ", and give --minimize"
    return f"{said}."


def _close(name: str, columns: Sequence[str]) -> str | None:
    """Return the column that may be meant: by its usual names, also behind a prefix, or by its spelling."""
    bare = {column: re.sub(r"[\s-]+", "_", re.split(r"[./]", column.lower())[-1]) for column in columns}
    bare = {
        column: re.sub(r"^(params?|config|hparams?|metrics?|user_attrs)_", "", text) for column, text in bare.items()
    }
    for known in (name, *CALLED[name]):
        for column, text in bare.items():
            if text == known:
                return column
    close = difflib.get_close_matches(name, list(bare.values()), 1, 0.75)
    return next((column for column, text in bare.items() if text in close), None)


def _with_state(table: TextTable) -> tuple[TextTable, Counter[str]]:
    """Return the rows that are complete or diverged, and how many of each other state there were."""
    left_out: Counter[str] = Counter()
    rows, diverged = [], []
    for row, state in enumerate(table.columns.get("status", ["complete"] * len(table.lines))):
        plain = (state or "").strip().lower()
        if plain in COMPLETE or plain == "diverged":
            rows.append(row)
            diverged.append("yes" if plain == "diverged" else None)
        elif not plain:
            left_out["without a status"] += 1
        elif plain.split()[0].rstrip("+") in WITHOUT_RESULT or plain in WITHOUT_RESULT:
            left_out[plain] += 1
        else:
            left_out[f"of the unknown status {state!r}"] += 1
    kept = table.of(rows)
    kept.columns["diverged"] = list(diverged)
    return kept, left_out


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


def _left_out_sentence(left_out: Counter[str], kept: int) -> list[str]:
    total = left_out.total()
    if not total:
        return []
    parts = _listed([f"{count} {state}" for state, count in left_out.most_common()])
    return [f"{total} of {kept + total} rows are left out: {parts}."]


def _trials(table: TextTable, comma: bool, scores: list[float]) -> pl.DataFrame:
    sizes = _checked(table, comma, "batch_size", lambda value: 1 <= value <= MOST_EXAMPLES and value == int(value))
    rates = _checked(table, comma, "learning_rate", lambda value: 1e-30 <= value <= 1e30)
    columns: dict[str, Any] = {
        name: [value or default for value in table.columns.get(name, [None] * len(scores))]
        for name, default in NAMES.items()
    }
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
            "seed": _seeds(table, comma),
            "diverged": diverged,
            "train_loss": outcomes["train_loss"],
            "validation_score": outcomes.get("validation_score", scores),
            "test_score": scores,
            "steps": outcomes["steps"],
        },
        schema_overrides={"batch_size": pl.Int64, "seed": pl.Int64, "learning_rate": pl.Float64},
        strict=False,
    )
    finite = [pl.when(pl.col(c).is_finite()).then(pl.col(c)) for c in ("train_loss", "validation_score", "test_score")]
    return trials.select(
        "row",
        *CELL_AND_TRIAL,
        pl.when("diverged").then(pl.lit("diverged")).otherwise(pl.lit("complete")).alias("status"),
        pl.when(pl.col("steps").is_finite()).then(pl.col("steps")).cast(pl.Int64),
        *finite,
    )


def _checked(table: TextTable, comma: bool, name: str, right: Any) -> list[float]:
    values = table.numbers(name, comma)
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


def _without_repeats(trials: pl.DataFrame, table: TextTable) -> tuple[pl.DataFrame, int]:
    """Return the trials without rows that repeat another one, and how many did; refuse rows that contradict another."""
    kept = trials.unique([name for name in trials.columns if name != "row"], keep="first", maintain_order=True)
    twice = kept.filter(kept.select(CELL_AND_TRIAL).is_duplicated()).sort(*CELL_AND_TRIAL, "row")
    if not twice.is_empty():
        which = ", ".join(f"{name} {value}" for name, value in twice.select(CELL_AND_TRIAL).row(0, named=True).items())
        raise InputError(
            f"{table.path}: the trial of {which} is there twice with different results, in {table.at(twice['row'][0])} "
            f"and {table.at(twice['row'][1])}. Keep one of them."
        )
    return kept, len(trials) - len(kept)


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


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names) or "none"


# ── What a workload is ───────────────────────────────────────────────────────────────────────────────────────


def _record(name: str, trials: pl.DataFrame, stated: Mapping[str, Any], minimize: bool) -> WorkloadRecord:
    scores = trials["test_score"].drop_nulls().to_numpy()
    called, goal = stated.get("score_name"), str(stated.get("score_goal", "")).lower()
    if goal not in ("", "maximize", "minimize"):
        raise InputError(f"score_goal {goal!r} is neither maximize nor minimize.")
    if not (minimize or goal) and called and MINIMIZED.search(str(called).lower()):
        goal = "minimize"
    down = minimize or goal == "minimize"
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
            f"The scores of {name!r} may be better where they are smaller: {reason}. Give --minimize, or a column "
            f"score_goal that says maximize."
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
