"""What lies at a path: which of the forms that can be read it has."""

from __future__ import annotations

import contextlib
import csv
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import yaml

from sgdscope.errors import InputError
from sgdscope.importing.delimited import read_delimited
from sgdscope.importing.json_lines import read_json
from sgdscope.importing.mlflow_store import is_mlflow_folder, read_mlflow_folder, read_mlflow_sqlite
from sgdscope.importing.optuna_storage import read_optuna_journal, read_optuna_sqlite
from sgdscope.importing.parquet import read_parquet
from sgdscope.importing.run_folders import has_events, is_hydra_multirun, read_hydra_multirun, read_tensorboard
from sgdscope.importing.table import TextTable

BY_ENDING = {
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".parquet": read_parquet,
    ".json": read_json,
    ".jsonl": read_json,
    ".ndjson": read_json,
}
SQLITE = b"SQLite format 3\0"
WORKBOOKS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")


def read_source(path: Path) -> TextTable:
    """Read runs in any of the forms that are known.

    - a table: ``.csv``, ``.tsv``, ``.parquet``, ``.json``, ``.jsonl`` or ``.ndjson``;
    - Optuna: an SQLite storage or a journal;
    - MLflow: an SQLite file or the folder ``mlruns``;
    - TensorBoard: a folder with a folder of event files for each run;
    - Hydra: the folder of a multirun.

    Args:
        path: The file or folder.

    Raises:
        InputError: If it is none of these, or cannot be read.
    """
    try:
        return _folder(path) if path.is_dir() else _file(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except (
        *(OSError, UnicodeDecodeError, csv.Error, sqlite3.Error),
        pl.exceptions.PolarsError,
        yaml.YAMLError,
    ) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"{path} cannot be read as a table: {reason}.") from error


@contextlib.contextmanager
def _as_written_by(tool: str, path: Path) -> Iterator[None]:
    """Refuse what is not as a tool writes it."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not as {tool} writes it ({type(error).__name__}: {error}).") from error


def _file(path: Path) -> TextTable:
    with path.open("rb") as file:
        first = file.read(4096)
    if first.startswith(SQLITE):
        return _sqlite(path)
    if _is_journal(first):
        with _as_written_by("Optuna", path):
            return read_optuna_journal(path)
    if path.suffix.lower() in WORKBOOKS:
        raise InputError(f"{path} is a workbook. Save its sheet as .csv, and give that file.")
    reader = BY_ENDING.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"{path} must end in .csv or .parquet, in .tsv, .json, .jsonl or .ndjson, or be a storage of Optuna or a "
            f"database of MLflow. Of TensorBoard, Hydra and MLflow's mlruns, give the folder."
        )
    return reader(path)


def _is_journal(first: bytes) -> bool:
    try:
        entry = json.loads(first.splitlines()[0])
    except (ValueError, IndexError):
        return False
    return isinstance(entry, dict) and "op_code" in entry


def _sqlite(path: Path) -> TextTable:
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        tables = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
        if {"trials", "trial_params"} <= tables:
            with _as_written_by("Optuna", path):
                return read_optuna_sqlite(path, connection)
        if {"runs", "params", "metrics"} <= tables:
            return read_mlflow_sqlite(path, connection)
    raise InputError(f"{path} is an SQLite file, but neither a storage of Optuna nor a database of MLflow.")


def _folder(path: Path) -> TextTable:
    if (path / "study.json").is_file():
        raise InputError(f"{path} is the folder of a study. Use `sgdscope show {path}` or `sgdscope report {path}`.")
    if is_hydra_multirun(path):
        return read_hydra_multirun(path)
    for folder in (path, path / "mlruns"):
        if is_mlflow_folder(folder):
            with _as_written_by("MLflow", folder):
                return read_mlflow_folder(folder)
    if is_mlflow_folder(path.parent) and (path / "meta.yaml").is_file():
        raise InputError(f"{path} is one experiment of MLflow. Give the folder above it, {path.parent}.")
    if has_events(path):
        return read_tensorboard(path)
    raise InputError(
        f"{path} holds no runs: neither a multirun of Hydra, nor experiments of MLflow, nor event files of TensorBoard."
    )
