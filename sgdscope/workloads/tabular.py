"""A table as a workload: a fully connected network that predicts one column from the others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

from sgdscope.converters import real, whole
from sgdscope.errors import InputError
from sgdscope.models.losses import accuracy, cross_entropy, uniform_cross_entropy
from sgdscope.models.mlp import mlp, mlp_init
from sgdscope.records import SPLITS
from sgdscope.workloads.base import Workload, constant_classifier

# A column of words becomes one input for each word, up to this many words.
MOST_WORDS = 50
# A test split of fewer than 4 rows says nothing.
FEWEST_ROWS = 20
# A column of whole numbers with at most this many values is a class rather than a quantity.
MOST_CLASSES = 20


def classifier(
    x: Any,
    y: Any,
    *,
    name: str = "classifier",
    hidden: Sequence[int] = (64, 64),
    validation: float = 0.2,
    test: float = 0.2,
    split_seed: int = 0,
) -> Workload:
    """Return a workload that predicts the class of each row of a table, by cross-entropy and accuracy.

    Each class is split into training, validation and test rows in the same proportions. Numeric columns are
    standardised with the mean and standard deviation of the training rows; a column of words becomes one input for each
    word.

    Args:
        x: inputs, a numeric array of shape (n, features) or a pandas or polars frame of n rows.
        y: the class of each row, n whole numbers or words.
        name: how tables and the report call the workload. Default: ``"classifier"``.
        hidden: widths of the hidden layers, with rectified linear units. Default: ``(64, 64)``.
        validation: fraction of the rows to choose learning rates on. Default: 0.2.
        test: fraction of the rows to report scores on. Default: 0.2.
        split_seed: seed of the random split. Default: 0.

    Returns:
        The workload.

    Raises:
        InputError: If the rows do not match, values are missing, a column cannot be used or a split would be empty.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(100, 2))
    >>> classifier(x, np.where(x[:, 0] > 0, "right", "left")).record().examples
    (60, 20, 20)
    """
    words = _column("y", y)
    classes, labels = np.unique(words, return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"classifier: y holds the one class {classes[0]!s}. Give at least two classes.")
    rows = _split(labels, validation, test, split_seed)
    inputs = _inputs(x, len(labels), rows["train"])
    splits = {name: {"x": inputs[mine], "label": labels[mine].astype(np.int32)} for name, mine in rows.items()}
    loss, score = constant_classifier(splits["train"]["label"])
    return Workload(
        name=name,
        version="1",
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        init=partial(mlp_init, widths=(inputs.shape[1], *_widths(hidden), len(classes))),
        loss=lambda layers, batch: cross_entropy(mlp(layers, batch["x"]), batch["label"]),
        score=lambda layers, batch: accuracy(mlp(layers, batch["x"]), batch["label"]),
        uniform_loss=lambda layers, state, batch: uniform_cross_entropy(mlp(layers, batch["x"])),
        constant_loss=loss,
        constant_score=score,
        fields={"hidden": "-".join(map(str, hidden))},
    )


def regressor(
    x: Any,
    y: Any,
    *,
    name: str = "regressor",
    hidden: Sequence[int] = (64, 64),
    validation: float = 0.2,
    test: float = 0.2,
    split_seed: int = 0,
) -> Workload:
    """Return a workload that predicts a number for each row of a table, by squared error.

    The network learns the target in units of its standard deviation over the training rows, so the training loss
    of the constant baseline is 1. The score is the root mean squared error in the target's own unit.

    Args:
        x: inputs, as in :func:`classifier`.
        y: the target of each row, n finite numbers.
        name: how tables and the report call the workload. Default: ``"regressor"``.
        hidden: widths of the hidden layers, with rectified linear units. Default: ``(64, 64)``.
        validation: fraction of the rows to choose learning rates on. Default: 0.2.
        test: fraction of the rows to report scores on. Default: 0.2.
        split_seed: seed of the random split. Default: 0.

    Returns:
        The workload.

    Raises:
        InputError: If the rows do not match, values are missing, a column cannot be used or a split would be empty.

    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> workload = regressor(x, 10 * x.sum(axis=1))
    >>> workload.constant_loss, workload.score_name
    (1.0, 'root mean squared error')
    """
    target = _column("y", y)
    if target.dtype.kind not in "biuf":
        raise InputError("regressor: y holds words. Give numbers, or use classifier.")
    target = target.astype(np.float64)
    rows = _split(np.zeros(len(target), int), validation, test, split_seed)
    inputs = _inputs(x, len(target), rows["train"])
    centre, scale = float(target[rows["train"]].mean()), float(target[rows["train"]].std())
    if scale == 0:
        raise InputError(f"regressor: y is {centre:g} in every training row. Give a target that varies.")
    standard = ((target - centre) / scale).astype(np.float32)
    splits = {name: {"x": inputs[mine], "target": standard[mine]} for name, mine in rows.items()}

    def squared_error(layers: Any, batch: Any) -> Any:
        return (mlp(layers, batch["x"])[:, 0] - batch["target"]) ** 2

    return Workload(
        name=name,
        version="1",
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        init=partial(mlp_init, widths=(inputs.shape[1], *_widths(hidden), 1)),
        loss=squared_error,
        score=squared_error,
        score_of_mean=lambda mean: jnp.asarray(scale, jnp.float32) * jnp.sqrt(jax.nn.relu(mean)),
        constant_loss=1.0,
        constant_score=scale,
        score_name="root mean squared error",
        score_goal="minimize",
        fields={"hidden": "-".join(map(str, hidden)), "scale": scale, "centre": centre},
    )


def from_csv(
    path: str | Path,
    target: str,
    *,
    task: Literal["classification", "regression"] | None = None,
    hidden: Sequence[int] = (64, 64),
) -> Workload:
    """Return a workload that predicts one column of a CSV file from all others.

    Args:
        path: the file, with a header.
        target: the name of the column to predict.
        task: ``"classification"`` or ``"regression"``. Default: classification where the target holds words, or at most
            20 distinct whole numbers.
        hidden: widths of the hidden layers. Default: ``(64, 64)``.

    Returns:
        The workload of :func:`classifier` or :func:`regressor`, named after the file.

    Raises:
        InputError: If the file cannot be read, lacks the column or holds values that cannot be used.

    >>> import polars as pl
    >>> import sgdscope as sg
    >>> pl.DataFrame({"area": range(50), "price": [3.5 * area for area in range(50)]}).write_csv("houses.csv")
    >>> sg.workloads.from_csv("houses.csv", "price").name
    'houses'
    """
    path = Path(path)
    try:
        frame = pl.read_csv(path, infer_schema_length=None)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path} cannot be read as a CSV file: {str(error).splitlines()[0]}") from error
    if target not in frame.columns:
        raise InputError(f"{path} has no column {target!r}. Columns: {', '.join(frame.columns)}.")
    x, y = frame.drop(target), frame[target]
    if not x.width:
        raise InputError(f"{path} has no column beside {target!r} to predict it from.")
    if task is None:
        is_class = not y.dtype.is_float() and (not y.dtype.is_integer() or y.n_unique() <= MOST_CLASSES)
        task = "classification" if is_class else "regression"
    make = classifier if task == "classification" else regressor
    return make(x, y, name=path.stem, hidden=hidden)


def _widths(hidden: Sequence[int]) -> tuple[int, ...]:
    return tuple(whole("hidden", width, least=1) for width in hidden)


def _column(name: str, values: Any) -> np.ndarray:
    """Return one value a row, words or finite numbers, none of them missing."""
    series = pl.Series(name, np.asarray(values).reshape(-1) if not isinstance(values, pl.Series) else values)
    if series.dtype == pl.Object:
        series = pl.Series(name, list(values), strict=False)
    _check_complete(name, series)
    return series.cast(pl.String).to_numpy() if series.dtype in (pl.Categorical, pl.Enum) else series.to_numpy()


def _check_complete(name: str, series: pl.Series) -> None:
    missing = series.null_count() + (int(series.is_nan().sum()) if series.dtype.is_float() else 0)
    if missing:
        raise InputError(
            f"Column {name!r} has {missing:,} missing values of {len(series):,}. Fill them or drop those rows first."
        )
    if series.dtype.is_float() and series.is_infinite().any():
        raise InputError(f"Column {name!r} holds infinite values. Replace them or drop those rows first.")


def _inputs(x: Any, n: int, train: np.ndarray) -> np.ndarray:
    """Return the standardised inputs, float32 of shape (n, inputs)."""
    if isinstance(x, pl.DataFrame):
        frame = x
    elif hasattr(x, "columns"):
        frame = pl.DataFrame({str(name): _series(str(name), x[name]) for name in x.columns})
    else:
        array = np.asarray(x)
        if array.ndim != 2:
            raise InputError(f"x has shape {array.shape}. Give an array of shape (n, features), or a frame.")
        frame = pl.DataFrame({f"x{index}": array[:, index] for index in range(array.shape[1])})
    if frame.height != n:
        raise InputError(f"x has {frame.height:,} rows and y has {n:,}. Give one target for each row.")
    columns = [column for series in frame for column in _numbers(series)]
    if not columns:
        raise InputError("x has no columns to learn from.")
    table = np.stack(columns, axis=1)
    scale = table[train].std(axis=0)
    standard: np.ndarray = (table - table[train].mean(axis=0)) / np.where(scale == 0, 1.0, scale)
    return standard.astype(np.float32)


def _series(name: str, values: Any) -> pl.Series:
    array = values.to_numpy()
    return pl.Series(name, list(array), strict=False) if array.dtype == object else pl.Series(name, array)


def _numbers(series: pl.Series) -> list[np.ndarray]:
    """Return a column as numbers: itself, or one column of 0 and 1 for each word."""
    _check_complete(series.name, series)
    if series.dtype.is_numeric() or series.dtype == pl.Boolean:
        return [series.cast(pl.Float64).to_numpy()]
    if series.dtype in (pl.String, pl.Categorical, pl.Enum):
        words = series.cast(pl.String)
        if words.n_unique() > MOST_WORDS:
            raise InputError(
                f"Column {series.name!r} holds {words.n_unique():,} different words; at most {MOST_WORDS} can be used. "
                f"Drop the column, or replace the words by numbers."
            )
        return [(words == word).cast(pl.Float64).to_numpy() for word in sorted(words.unique())]
    raise InputError(f"Column {series.name!r} holds {series.dtype}. Give numbers or words, or drop the column.")


def _split(labels: np.ndarray, validation: float, test: float, seed: int) -> dict[str, np.ndarray]:
    """Return which rows each split holds: of each label the same share, at least one of them for training."""
    shares = [real("validation", validation), real("test", test)]
    if min(shares) <= 0 or sum(shares) >= 1:
        raise InputError(f"validation {validation} and test {test} must be above 0 and below 1 together.")
    rng = np.random.default_rng(whole("split_seed", seed, least=0))
    rows: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for label in np.unique(labels):
        mine = rng.permutation(np.flatnonzero(labels == label))
        held_out = [min(round(len(mine) * share), (len(mine) - 1) // 2) for share in shares]
        parts = np.split(mine, np.cumsum(held_out))
        for split, part in zip(("validation", "test", "train"), parts, strict=True):
            rows[split].append(part)
    # In random order: the order of a table may hold what it should not tell.
    found = {split: rng.permutation(np.concatenate(parts)) for split, parts in rows.items()}
    empty = [split for split, part in found.items() if not len(part)]
    if empty:
        raise InputError(f"{len(labels)} rows leave no {empty[0]} rows. Give more rows.")
    if len(labels) < FEWEST_ROWS:
        raise InputError(f"{len(labels)} rows are too few to train and test on. Give at least {FEWEST_ROWS}.")
    return found
