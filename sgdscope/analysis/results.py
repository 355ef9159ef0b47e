"""Anybody's results: a table of batch size, learning rate, seed and score is enough."""

from __future__ import annotations

import math
from pathlib import Path

import polars as pl

from sgdscope.analysis.curves import Records
from sgdscope.analysis.dynamics import momentum_of
from sgdscope.errors import InputError
from sgdscope.workloads.base import WorkloadRecord

NEEDED = ("batch_size", "learning_rate", "seed", "score")
# What may be there: names, and numbers.
NAMES = {"workload": "results", "budget": "budget", "optimizer": "sgd"}
NUMBERS = ("train_loss", "validation_score", "steps")
CELL_AND_TRIAL = ("workload", "budget", "optimizer", "batch_size", "learning_rate", "seed")


def read_results(path: str | Path) -> pl.DataFrame:
    """Read a table of trials from a ``.csv`` or ``.parquet`` file.

    Args:
        path: its columns ``batch_size``, ``learning_rate``, ``seed`` and ``score`` (or ``test_score``) are needed, one
            row a trial. ``optimizer``, ``budget`` and ``workload`` are names, the first ``sgd`` where there is none;
            ``validation_score`` chooses the learning rate in place of the score, ``train_loss`` is the loss of the
            whole training split, ``steps`` the number of updates. Other columns are not read. A score that is empty
            or not finite, or a ``status`` of ``diverged``, is a trial that diverged.

    Returns:
        A table as :class:`Tables` takes it.

    Raises:
        InputError: where the file is none, a column is missing or holds what it cannot, or a trial is there twice.
    """
    path = Path(path)
    table = _read(path)
    if "score" not in table.columns and "test_score" in table.columns:
        table = table.rename({"test_score": "score"})
    missing = [name for name in NEEDED if name not in table.columns]
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}; it needs {', '.join(NEEDED)}, one row a trial.")
    if table.is_empty():
        raise InputError(f"{path} holds no trials.")
    for name, default in NAMES.items():
        given = pl.col(name).cast(pl.String).fill_null(default) if name in table.columns else pl.lit(default)
        table = table.with_columns(given.alias(name))
    table = _numbers(table, path)
    twice = table.filter(table.select(CELL_AND_TRIAL).is_duplicated())
    if not twice.is_empty():
        which = ", ".join(f"{name} {value}" for name, value in twice.select(CELL_AND_TRIAL).row(0, named=True).items())
        raise InputError(f"{path}: the trial of {which} is there twice.")
    factor = {name: 1 / (1 - (momentum_of(name) or 0.0)) for name in table["optimizer"].unique()}
    return table.select(
        *CELL_AND_TRIAL,
        (pl.col("learning_rate") * pl.col("optimizer").replace_strict(factor)).alias("effective_learning_rate"),
        pl.when(pl.col("diverged")).then(pl.lit("diverged")).otherwise(pl.lit("complete")).alias("status"),
        pl.col("steps").cast(pl.Int64),
        *(
            pl.when(pl.col("diverged")).then(None).otherwise(pl.col(source)).alias(name)
            for name, source in {
                "train_loss": "train_loss",
                "validation_score": "validation_score" if "validation_score" in table.columns else "score",
                "test_score": "score",
            }.items()
        ),
    )


def records_of(
    trials: pl.DataFrame,
    minimize: bool = False,
    constant_score: float | None = None,
    examples: int = 0,
    validated: bool = False,
) -> Records:
    """Return what the workloads of somebody's table are, by name, as far as it needs to be known.

    Scores between 0 and 1 of which larger are better count as accuracies. The loss of a diverged trial counts as the
    largest that was measured.

    Args:
        trials: a table of trials.
        minimize: whether a smaller score is better.
        constant_score: what the constant predictor scores, as which a diverged trial counts.
        examples: of the training split, where known, for the temperature.
        validated: whether the learning rate is chosen by another split than the one whose score is reported.

    Raises:
        InputError: where trials diverged and nobody says what they count as.
    """
    diverged = int((trials["status"] == "diverged").sum())
    if diverged and constant_score is None:
        raise InputError(
            f"{diverged} trials diverged; say by constant_score what they count as, the score of a constant predictor."
        )
    scores = trials["test_score"].drop_nulls()
    share = not minimize and len(scores) > 0 and float(scores.min()) >= 0 and float(scores.max()) <= 1  # type: ignore[arg-type]
    losses = trials["train_loss"].drop_nulls()
    worst = float(losses.max()) if len(losses) else math.nan  # type: ignore[arg-type]
    return {
        name: WorkloadRecord(
            name=name,
            version="",
            fields=(),
            data_sha256="",
            examples=(examples, 0, 0),
            score_name="accuracy" if share else "score",
            score_goal="minimize" if minimize else "maximize",
            constant_loss=worst,
            constant_score=math.nan if constant_score is None else constant_score,
            chosen_on="validation" if validated else "test",
        )
        for name in trials["workload"].unique()
    }


def _read(path: Path) -> pl.DataFrame:
    if path.suffix not in (".csv", ".parquet"):
        raise InputError(f"{path} must end in .csv or .parquet.")
    try:
        table = pl.read_csv(path) if path.suffix == ".csv" else pl.read_parquet(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path} cannot be read as a table: {str(error).splitlines()[0]}.") from error
    return table


def _numbers(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    for name in ("score", *NUMBERS):
        if name in table.columns:
            table = table.with_columns(_as_number(table[name], path))
        elif name != "validation_score":
            table = table.with_columns(pl.lit(None, pl.Float64).alias(name))
    for name in ("batch_size", "learning_rate", "seed"):
        values = _as_number(table[name], path)
        wrong = values.is_null() | ~values.is_finite() | (values <= 0 if name != "seed" else values < 0)
        if name != "learning_rate":
            wrong |= values != values.round()
        if wrong.any():
            raise InputError(f"{path}: {name} {table[name].filter(wrong)[0]!r} in row {wrong.arg_max()} cannot be one.")
        table = table.with_columns(values if name == "learning_rate" else values.cast(pl.Int64))
    gone = pl.col("score").is_null() | ~pl.col("score").is_finite()
    if "status" in table.columns:
        gone |= pl.col("status") == "diverged"
    return table.with_columns(gone.alias("diverged"))


def _as_number(values: pl.Series, path: Path) -> pl.Series:
    try:
        return values.cast(pl.Float64).alias(values.name)
    except pl.exceptions.PolarsError:
        words = values.filter(values.cast(pl.Float64, strict=False).is_null() & values.is_not_null())
        raise InputError(f"{path}: {values.name} {words[0]!r} is not a number.") from None
