"""A tracking store of MLflow: its SQLite file, or its folder ``mlruns``.

The tables and files are those of `MLflow's backend stores <https://mlflow.org/docs/latest/self-hosting/architecture/
backend-store/>`_ 1 to 3.
"""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml

from sgdscope.importing.table import TextTable, of_rows

# mlflow.entities.RunStatus, which the folder keeps as a number.
STATES = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
Points = list[tuple[int, int, float]]


def read_mlflow_sqlite(path: Path, connection: sqlite3.Connection) -> TextTable:
    """Read the runs of all experiments in an SQLite file."""
    rows: dict[str, dict[str, Any]] = {}
    metrics: dict[str, dict[str, Points]] = {}
    for run, name, state, stage, experiment in connection.execute(
        "select r.run_uuid, r.name, r.status, r.lifecycle_stage, e.name from runs r "
        "join experiments e on e.experiment_id = r.experiment_id order by r.start_time, r.run_uuid"
    ):
        rows[run] = {"name": name, "state": state if stage == "active" else stage, "experiment": experiment}
        metrics[run] = defaultdict(list)
    for kind in ("params", "tags"):
        for run, key, value in connection.execute(f"select run_uuid, key, value from {kind}"):  # noqa: S608 - our own words
            if run in rows and not key.startswith("mlflow."):
                rows[run][f"{kind}.{key}"] = value
    for run, key, value, time, step, is_nan in connection.execute(
        "select run_uuid, key, value, timestamp, step, is_nan from metrics"
    ):
        if run in rows:
            metrics[run][key].append((step, time, math.nan if is_nan else value))
    return _table(path, rows, metrics)


def is_mlflow_folder(folder: Path) -> bool:
    """Return whether a folder is ``mlruns``: it holds experiments, and these hold runs."""
    return any(folder.glob("*/*/meta.yaml"))


def read_mlflow_folder(folder: Path) -> TextTable:
    """Read the runs of all experiments in a folder."""
    rows: dict[str, dict[str, Any]] = {}
    metrics: dict[str, dict[str, Points]] = {}
    for meta in sorted(folder.glob("*/*/meta.yaml")):
        run, of = meta.parent, yaml.safe_load(meta.read_text())
        if "status" not in of:  # of a trace or a model
            continue
        experiment = run.parent / "meta.yaml"
        known = yaml.safe_load(experiment.read_text()) if experiment.is_file() else {}
        rows[run.name] = {
            "name": of.get("run_name"),
            "state": STATES.get(of["status"], of["status"]) if of.get("lifecycle_stage", "active") == "active"
            else of["lifecycle_stage"],
            "start": of.get("start_time"),
            "experiment": known.get("name", run.parent.name),
        }  # fmt: skip
        for kind in ("params", "tags"):
            for file in _files(run / kind):
                key = file.relative_to(run / kind).as_posix()
                if not key.startswith("mlflow."):
                    rows[run.name][f"{kind}.{key}"] = file.read_text()
        metrics[run.name] = {}
        for file in _files(run / "metrics"):
            points = [line.split() for line in file.read_text().splitlines() if line.strip()]
            key = file.relative_to(run / "metrics").as_posix()
            metrics[run.name][key] = [
                (int(point[2]) if len(point) > 2 else place, int(point[0]), float(point[1]))
                for place, point in enumerate(points)
            ]
    order = sorted(rows, key=lambda run: (rows[run].pop("start") or 0, run))
    return _table(folder, {run: rows[run] for run in order}, metrics)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _table(path: Path, rows: dict[str, dict[str, Any]], metrics: dict[str, dict[str, Points]]) -> TextTable:
    """Return the runs, each metric by its last value; experiments are workloads where there are several."""
    names = dict.fromkeys(name for of in metrics.values() for name in of)
    along = {
        f"metrics.{name}": [[value for _, _, value in sorted(metrics[run].get(name, []))] for run in rows]
        for name in names
    }
    several = len({row["experiment"] for row in rows.values()}) > 1
    for number, row in enumerate(rows.values()):
        experiment = row.pop("experiment")
        row |= {name: values[number][-1] for name, values in along.items() if values[number]}
        row |= {"workload": experiment} if several else {}
    return of_rows(path, list(rows.values()), list(rows), "run", along=along)
