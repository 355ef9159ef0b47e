"""One of the studies that are compared, under the name that the comparison gives it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sgdscope.analysis.tables import Tables
from sgdscope.errors import InputError
from sgdscope.result import Analysis, Result, load_table
from sgdscope.store import Store
from sgdscope.study import Declaration

# Files of trials that were trained elsewhere.
TABLES = (".csv", ".parquet")


@dataclass(frozen=True)
class Side:
    """A study, or a table of trials, with its name in the comparison.

    Args:
        name: As texts and figures call it.
        tables: Its trials and what follows from them.
        declaration: How it was declared. None for a table.
        programs: Fingerprints of its workloads' functions, by version of JAX.
        notices: What was left out, merged or missing.
    """

    name: str
    tables: Tables
    declaration: Declaration | None
    programs: dict[str, str]
    notices: tuple[str, ...]


def sides_of(studies: Sequence[str | Path | Analysis]) -> list[Side]:
    """Return the studies with names that differ.

    Args:
        studies: Folders, results, or tables of trials.

    Raises:
        InputError: If there are fewer than two, or one cannot be read or has nothing to show.
    """
    if len(studies) < 2:
        raise InputError("compare: give two studies or more, such as `sgdscope compare DIR DIR`.")
    found = [_read(study) for study in studies]
    for analysis, _ in found:
        analysis.check_not_empty()
    names = _unlike([name for _, name in found])
    return [_side(name, analysis) for name, (analysis, _) in zip(names, found, strict=True)]


def _read(study: str | Path | Analysis) -> tuple[Analysis, Path]:
    """Return a study, and a path whose last part names it."""
    if isinstance(study, Result):
        return study, study.folder
    if isinstance(study, Analysis):
        return study, Path(", ".join(study.tables.records))
    path = Path(study)
    return (load_table(path) if path.suffix in TABLES else Result(path)), path


def _unlike(paths: Sequence[Path]) -> list[str]:
    """Return the last part of each path, the whole path where two end alike, and a number where two are alike."""
    names = [path.stem if path.suffix in TABLES else (path.name or path.resolve().name) for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    counts, seen = Counter(names), Counter[str]()
    for place, name in enumerate(names):
        seen[name] += 1
        if counts[name] > 1:
            names[place] = f"{name} ({seen[name]})"
    return names


def _side(name: str, analysis: Analysis) -> Side:
    if isinstance(analysis, Result):
        notices = [f"{path} is damaged: its trials count as missing." for path in analysis.damaged]
        notices += [] if analysis.finished else [f"{name} is not finished: its results may change."]
        programs = Store(analysis.folder).programs()
        return Side(name, analysis.tables, analysis.declaration, programs, (*notices, *analysis.notices))
    return Side(name, analysis.tables, None, {}, analysis.notices)
