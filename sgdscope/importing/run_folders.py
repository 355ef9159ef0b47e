"""Folders of runs: a multirun of Hydra, and the event files of TensorBoard.

A run of Hydra is a folder with ``.hydra/config.yaml``; its results are the numbers in its JSON and CSV files and its
event files. A run of TensorBoard is a folder with event files; its parameters are its HParams, a ``hparams.yaml``
beside them, or its name.
"""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import yaml

from sgdscope.errors import InputError
from sgdscope.importing.event_files import Events, read_events
from sgdscope.importing.table import TextTable, flattened, number, of_rows

CONFIG, OVERRIDES = ".hydra/config.yaml", ".hydra/overrides.yaml"
REFERENCE = re.compile(r"\$\{([\w.]+)\}")
# What Keras and others call the folders of one run's splits.
OF_A_SPLIT = ("train", "training", "validation", "val", "valid", "eval", "test")
EVENTS = "*tfevents*"


def is_hydra_multirun(folder: Path) -> bool:
    """Return whether there are runs of Hydra in a folder."""
    return next(folder.rglob(CONFIG), None) is not None


def read_hydra_multirun(folder: Path) -> TextTable:
    """Read the runs of Hydra in a folder.

    Raises:
        InputError: If no run has a result.
    """
    rows, along = [], []
    runs = sorted((path.parents[1] for path in folder.rglob(CONFIG)), key=_in_order)
    for run in runs:
        points: dict[str, list[float]] = {}
        for path in sorted(run.rglob("*")):
            if path.suffix in (".json", ".jsonl", ".csv") and ".hydra" not in path.parts and path.is_file():
                points |= _numbers(path)
        for part in _event_folders(run):
            prefix = "" if part == run else f"{part.relative_to(run).as_posix()}/"
            points |= {prefix + name: values for name, values in read_events(part).scalars.items()}
        rows.append(_configured(run))
        along.append(points)
    if not any(along):
        raise InputError(
            f"{folder} holds {len(runs)} runs of Hydra and no results. Each run must write its metrics into its output "
            f"folder, as .json, .jsonl, .csv or event files of TensorBoard."
        )
    return _table(folder, runs, rows, along)


def _configured(run: Path) -> dict[str, Any]:
    """Return the configuration of a run, and the choices of whole groups, such as ``optimizer=adam``, beside it.

    A value ``${a.b}`` is that of ``a.b``. What only Hydra can resolve stays as it is written.
    """
    config = flattened(yaml.safe_load((run / CONFIG).read_text()) or {})
    for name, value in config.items():
        for _ in range(len(config)):
            reference = REFERENCE.fullmatch(value) if isinstance(value, str) else None
            if reference is None or reference[1] not in config:
                break
            value = config[reference[1]]
        config[name] = value
    kept = run / OVERRIDES
    said = yaml.safe_load(kept.read_text()) or [] if kept.is_file() else []
    pairs = [str(text).lstrip("+").partition("=") for text in said]
    groups = {name.partition("@")[0]: value for name, _, value in pairs if not name.startswith("~")}
    return {"config": config, "overrides": {name: of for name, of in groups.items() if name not in config}}


def has_events(folder: Path) -> bool:
    """Return whether there are event files in a folder."""
    return next(folder.rglob(EVENTS), None) is not None


def read_tensorboard(folder: Path) -> TextTable:
    """Read the runs of TensorBoard in a folder."""
    found = {part: read_events(part) for part in _event_folders(folder)}
    runs = _joined(found, folder)
    rows = []
    for run, events in runs.items():
        kept = run / "hparams.yaml"
        beside = yaml.load(kept.read_text(), _Plain) if kept.is_file() else None  # noqa: S506 - makes no objects
        rows.append({"name": run.relative_to(folder).as_posix(), "hparams": {**(beside or {}), **events.hparams}})
    return _table(folder, list(runs), rows, [events.scalars for events in runs.values()])


class _Plain(yaml.SafeLoader):  # type: ignore[misc]
    """Reads what else names Python's types, as Lightning writes it, as text."""


_Plain.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, tag, node: str(node.value))


def _joined(found: dict[Path, Events], folder: Path) -> dict[Path, Events]:
    """Return the runs: what lies in folders of splits, or in the one folder of HParams, belongs to the folder above."""
    runs: dict[Path, Events] = {}
    for part, events in sorted(found.items(), key=lambda item: _in_order(item[0])):
        above = found.get(part.parent)
        beside = [other for other, of in found.items() if other.parent == part.parent and of.hparams]
        if part == folder:
            run, prefix = part, ""
        elif part.name in OF_A_SPLIT:
            run, prefix = part.parent, f"{part.name}/"
        elif events.hparams and above and above.scalars and not above.hparams and len(beside) == 1:
            run, prefix = part.parent, ""
        else:
            run, prefix = part, ""
        known = runs.setdefault(run, Events({}, {}))
        known.hparams.update(events.hparams)
        for name, values in events.scalars.items():
            known.scalars.setdefault(prefix + name, values)
    return runs


def _event_folders(folder: Path) -> list[Path]:
    return sorted({path.parent for path in folder.rglob(EVENTS)}, key=_in_order)


def _in_order(path: Path) -> list[tuple[int, float, str]]:
    """Sort folders whose names are numbers by their numbers."""
    return [(0, float(part), "") if part.isdecimal() else (1, 0.0, part) for part in path.parts]


def _numbers(path: Path) -> dict[str, list[float]]:
    """Return the numbers in a file that a run wrote: of an object those of it, of lines all that they say in order."""
    text = path.read_text(encoding="utf-8", errors="replace")
    rows: list[Any] = []
    if path.suffix == ".csv":
        rows = list(csv.DictReader(text.splitlines()))
    else:
        for part in [text] if path.suffix == ".json" else text.splitlines():
            try:
                rows.append(json.loads(part))
            except ValueError:
                continue  # a file that is none of its results
    rows = [row for outer in rows for row in (outer if isinstance(outer, list) else [outer])]
    points: dict[str, list[float]] = {}
    for row in rows:
        for name, value in flattened(row).items() if isinstance(row, dict) else ():
            known = number(str(value)) if value is not None and not isinstance(value, bool | list) else None
            if known is not None:
                points.setdefault(name, []).append(known)
    return points


def _table(
    folder: Path, runs: list[Path], rows: list[dict[str, Any]], along: list[dict[str, list[float]]]
) -> TextTable:
    names = dict.fromkeys(name for of in along for name in of)
    curves = {f"metrics.{name}": [of.get(name, []) for of in along] for name in names}
    last = [{name: of[row][-1] if of[row] else math.nan for name, of in curves.items()} for row in range(len(rows))]
    lines = [run.relative_to(folder).as_posix() for run in runs]
    return of_rows(folder, [row | of for row, of in zip(rows, last, strict=True)], lines, "run", along=curves)
