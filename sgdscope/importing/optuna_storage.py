"""A storage of Optuna: its SQLite file, or its journal.

The tables and operations are those of ``optuna.storages`` 3 to 5: `RDBStorage
<https://optuna.readthedocs.io/en/stable/reference/generated/optuna.storages.RDBStorage.html>`_ and `JournalStorage
<https://optuna.readthedocs.io/en/stable/reference/generated/optuna.storages.JournalStorage.html>`_.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sgdscope.importing.table import TextTable, of_rows

STATES = ("RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING")
DIRECTIONS = {1: "minimize", 2: "maximize", "MINIMIZE": "minimize", "MAXIMIZE": "maximize"}
CREATE_STUDY, DELETE_STUDY = 0, 1
CREATE_TRIAL, SET_PARAM, SET_STATE, SET_INTERMEDIATE, SET_USER_ATTR = range(4, 9)


@dataclass
class _Trial:
    """A trial of a study: ``params`` and ``user_attrs`` by name, ``values`` one an objective."""

    study: int
    number: int
    state: str = "RUNNING"
    params: dict[str, Any] = field(default_factory=dict)
    user_attrs: dict[str, Any] = field(default_factory=dict)
    values: list[float] = field(default_factory=list)
    along: dict[int, float] = field(default_factory=dict)


def read_optuna_sqlite(path: Path, connection: sqlite3.Connection) -> TextTable:
    """Read the trials of all studies in an SQLite file."""
    studies = dict(connection.execute("select study_id, study_name from studies"))
    directions: dict[int, list[Any]] = {study: [] for study in studies}
    for study, direction in connection.execute(
        "select study_id, direction from study_directions order by study_id, objective"
    ):
        directions[study].append(direction)
    trials = {
        key: _Trial(study, number, state)
        for key, study, number, state in connection.execute("select trial_id, study_id, number, state from trials")
    }
    for key, name, value, distribution in connection.execute(
        "select trial_id, param_name, param_value, distribution_json from trial_params"
    ):
        trials[key].params[name] = _outside(value, distribution)
    for key, name, text in connection.execute("select trial_id, key, value_json from trial_user_attributes"):
        trials[key].user_attrs[name] = json.loads(text)
    for key, value in connection.execute("select trial_id, value from trial_values order by trial_id, objective"):
        trials[key].values.append(math.nan if value is None else value)
    for key, step, value in connection.execute(
        "select trial_id, step, intermediate_value from trial_intermediate_values"
    ):
        trials[key].along[step] = math.nan if value is None else value
    return _table(path, studies, directions, list(trials.values()))


def read_optuna_journal(path: Path) -> TextTable:
    """Read the trials of all studies in a journal. A last line that is cut short was not yet written."""
    studies: dict[int, str] = {}
    directions: dict[int, list[Any]] = {}
    trials: list[_Trial] = []
    numbers: dict[int, int] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        operation = entry["op_code"]
        if operation == CREATE_STUDY:
            if entry["study_name"] not in studies.values():
                study = len(directions)
                studies[study], directions[study], numbers[study] = entry["study_name"], entry["directions"], 0
        elif operation == DELETE_STUDY:
            studies.pop(entry["study_id"], None)
        elif operation == CREATE_TRIAL:
            trials.append(_created(entry, numbers))
        elif operation in (SET_PARAM, SET_STATE, SET_INTERMEDIATE, SET_USER_ATTR):
            trial = trials[entry["trial_id"]]
            if trial.state not in ("RUNNING", "WAITING"):
                continue  # what comes after a trial's end does not count
            if operation == SET_PARAM:
                trial.params[entry["param_name"]] = _outside(entry["param_value_internal"], entry["distribution"])
            elif operation == SET_STATE:
                trial.state, trial.values = STATES[entry["state"]], entry["values"] or []
            elif operation == SET_INTERMEDIATE:
                trial.along[entry["step"]] = entry["intermediate_value"]
            else:
                trial.user_attrs |= entry["user_attr"]
    return _table(path, studies, directions, [trial for trial in trials if trial.study in studies])


def _created(entry: dict[str, Any], numbers: dict[int, int]) -> _Trial:
    study = entry["study_id"]
    numbers[study] = numbers.get(study, 0) + 1
    of = entry.get("distributions", {})
    value = [] if entry.get("value") is None else [entry["value"]]
    return _Trial(
        study,
        numbers[study] - 1,
        STATES[entry.get("state", 0)],
        {name: _outside(inside, of[name]) for name, inside in entry.get("params", {}).items()},
        dict(entry.get("user_attrs", {})),
        entry.get("values") or value,
        {int(step): number for step, number in entry.get("intermediate_values", {}).items()},
    )


def _outside(value: float, distribution: str) -> Any:
    """Return a parameter's value, which a storage keeps as a number."""
    of = json.loads(distribution)
    if "choices" in of["attributes"]:
        return of["attributes"]["choices"][int(value)]
    return int(value) if of["name"].startswith("Int") else value


def _table(
    path: Path, studies: dict[int, str], directions: Mapping[int, Sequence[Any]], trials: Sequence[_Trial]
) -> TextTable:
    rows = []
    for trial in trials:
        names = ["value"] if len(trial.values) == 1 else [f"value.{n}" for n in range(len(trial.values))]
        row: dict[str, Any] = {"state": trial.state, "params": trial.params, "user_attrs": trial.user_attrs}
        row |= dict(zip(names, trial.values, strict=True))
        if len(studies) > 1:
            row["workload"] = studies[trial.study]
        rows.append(row)
    along = [[value for _, value in sorted(trial.along.items())] for trial in trials]
    lines = [f"{studies[trial.study]} {trial.number}" for trial in trials]
    by_study = {study: DIRECTIONS.get(of[0]) for study, of in directions.items() if len(of) == 1}
    goals = {goal for goal in by_study.values() if goal}
    if len(goals) > 1:
        for row, trial in zip(rows, trials, strict=True):
            row["score_goal"] = by_study.get(trial.study)
    return of_rows(
        path, rows, lines, "run", along={"value": along} if any(along) else {},
        goals={"value": goals.pop()} if len(goals) == 1 else {},
    )  # fmt: skip
