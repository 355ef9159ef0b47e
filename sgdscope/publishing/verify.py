"""``sgdscope verify``: computes everything that was published again, from the trials, and compares every number."""

from __future__ import annotations

import difflib
import json
import math
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

import polars as pl

from sgdscope.errors import InputError
from sgdscope.publishing import datapackage
from sgdscope.publishing.contents import DICTIONARY, REPORT, STUDY, TABLES, tables_of, write_report
from sgdscope.publishing.publish import dictionary, texts, title_of
from sgdscope.result import Result
from sgdscope.version import __version__

# Another processor or version of a library sums in another order: numbers agree to so much.
RELATIVE, SHOWN = 1e-6, 1e-3
DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)
TAG = re.compile(r"<[^>]+>|<[^>]*$|^[^<]*>")
SCRIPT = re.compile(r"<script>.*?</script>|<style>.*?</style>", re.DOTALL)
# What authors complete, and what stands there for them.
EDITED, AUTHORS = ("README.md", "CITATION.cff"), "THEIRNAMES"
OTHER_VERSION = (
    "It was published by sgdscope {} and is verified by {}: the words of the report are not compared, only its tables. "
    "README.md, CITATION.cff, dictionary.csv and datapackage.json are not verified."
)
NUMBER = re.compile(r"(\d+(?:[.,]\d+)*(?:e[+-]?\d+)?)")


@dataclass(frozen=True)
class Verified:
    """What was compared.

    Args:
        files: How many files were compared by their SHA-256.
        tables: How many tables were computed again.
        numbers: How many numbers of tables and of the report were compared.
        wrong: What differs, one sentence each; empty where all agrees.
        notices: What could not be compared.
    """

    files: int
    tables: int
    numbers: int
    wrong: tuple[str, ...]
    notices: tuple[str, ...]


def verify(folder: str | Path) -> Verified:
    """Compute all that was published of a study again from its trials, and compare every number.

    Files are compared by SHA-256 with what ``datapackage.json`` states, and what it states is compared as well. Numbers
    of tables agree to 1e-6, and numbers on the page and in ``README.md`` to the last digit that is shown. Lines that
    the authors added, and files that do not follow from the trials, are named as not verified.

    Args:
        folder: What ``sgdscope publish`` wrote.

    Raises:
        InputError: If the folder is no published study.
    """
    folder = Path(folder)
    if not (folder / datapackage.PACKAGE).is_file() or not (folder / STUDY).is_dir():
        raise InputError(f"{folder} is not what `sgdscope publish` writes: it lacks {datapackage.PACKAGE} or {STUDY}.")
    try:
        package = datapackage.read(folder)
        resources = {of["path"]: of["hash"] for of in package["resources"]}
        made_by, created = package["versions"]["sgdscope"], datetime.fromisoformat(package["created"]).date()
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / datapackage.PACKAGE} is damaged ({type(error).__name__}).") from error
    wrong = list(_files(folder, resources))
    result = Result(folder / STUDY)
    if result.damaged:
        wrong += [f"{path} is damaged." for path in result.damaged]
    compared = 0
    tables = tables_of(result)
    same = made_by == __version__
    for name, table in tables.items():
        for path in (folder / TABLES / f"{name}.parquet", folder / TABLES / f"{name}.csv"):
            if path.is_file():
                compared += sum(table[column].len() for column, kind in table.schema.items() if kind.is_numeric())
                wrong += _table(path, table)
            elif path.suffix == ".parquet" or pl.Binary not in table.dtypes:
                wrong.append(f"{path} is missing.")
    counted, differ = _report(folder, same)
    notices = [] if same else [OTHER_VERSION.format(made_by, __version__)]
    notices += [
        f"{path} does not follow from the trials: it is not verified."
        for path in resources if not _is_written(path, tables) and (folder / path).is_file()
    ]  # fmt: skip
    if same:
        if (folder / DICTIONARY).is_file():
            differ += _table(folder / DICTIONARY, dictionary(tables))
        for name, text in texts(result, tables, AUTHORS, created).items():
            said, added = _lines(folder / name, text)
            counted += len(NUMBER.findall(text))
            differ += said
            notices += added
        differ += _description(package, datapackage.described(folder, title_of(result), tables), tables)
    return Verified(len(resources), len(tables), compared + counted, (*wrong, *differ), tuple(notices))


def _files(folder: Path, resources: dict[str, str]) -> Iterator[str]:
    for path, stated in resources.items():
        if not (folder / path).is_file():
            yield f"{path} is missing."
        elif path not in EDITED and datapackage.digest(folder / path) != stated:
            yield f"{path} is not the file that was published: its SHA-256 differs."
    here = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for path in sorted(here - set(resources) - {datapackage.PACKAGE}):
        if not Path(path).name.startswith("."):
            yield f"{path} was not published: {datapackage.PACKAGE} does not name it."


def _is_written(path: str, tables: Iterable[str]) -> bool:
    """Return whether ``publish`` writes a file of this name."""
    known = {f"{TABLES}/{name}.{kind}" for name in tables for kind in ("csv", "parquet")}
    return path in (REPORT, DICTIONARY, *EDITED, *known) or path.startswith(f"{STUDY}/")


def _lines(path: Path, again: str) -> tuple[list[str], list[str]]:
    """Return what differs between a text and the same one written again, and which lines its authors added."""
    if not path.is_file():
        return [], []  # it is missing, which is said already
    theirs = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    mine = [line.strip() for line in again.splitlines() if line.strip()]
    free = [re.compile(re.escape(line).replace(AUTHORS, ".*")) for line in mine if AUTHORS in line]
    added = [line for line in theirs if not any(like.fullmatch(line) for like in free)]
    wrong = []
    for line in mine:
        if AUTHORS in line:
            continue
        same = next((known for known in added if _alike_as_shown(known, line)), None)
        near = difflib.get_close_matches(line, added, 1, 0.6)
        if same is not None:
            added.remove(same)
        elif near:
            wrong.append(f"{path.name} says {near[0]!r}; computed again, it is {line!r}.")
            added.remove(near[0])
        else:
            wrong.append(f"{path.name} lacks the line {line!r}.")
    lines = f"{len(added)} line{'s' * (len(added) > 1)}"
    return wrong, [f"{path.name} has {lines} of its authors, not verified: {added[0]!r}."] if added else []


def _alike_as_shown(theirs: str, mine: str) -> bool:
    """Return whether two lines say the same, numbers as far as they are shown."""
    if theirs == mine:
        return True
    a, b = NUMBER.split(theirs), NUMBER.split(mine)
    return len(a) == len(b) and all(
        x == y or (place % 2 and abs(_read(x) - _read(y)) <= 1.01 * _unit(y))
        for place, (x, y) in enumerate(zip(a, b, strict=True))
    )


def _description(theirs: dict[str, Any], mine: dict[str, Any], tables: Iterable[str]) -> Iterator[str]:
    """Name what the description states otherwise than the same one written again."""
    for key in ("$schema", "name", "title"):
        if theirs.get(key) != mine[key]:
            yield f"{datapackage.PACKAGE}: {key} is {theirs.get(key)!r}; computed again, it is {mine[key]!r}."
    stated = {of["path"]: of for of in theirs["resources"]}
    for of in (of for of in mine["resources"] if _is_written(of["path"], tables)):
        known = stated.get(of["path"], of)  # a file that is not stated is said already
        unlike = [key for key in of if key != "hash" and known.get(key) != of[key]]
        if unlike and not (unlike == ["bytes"] and of["path"] in EDITED):
            yield f"{datapackage.PACKAGE}: {unlike[0]} of {of['path']} differs from what its trials give."


def _table(path: Path, table: pl.DataFrame) -> list[str]:
    """Return what differs between a published table and the same one computed again."""
    try:
        if path.suffix == ".parquet":
            known = pl.read_parquet(path)
        else:
            known = pl.read_csv(path, schema_overrides=dict(table.schema))
    except pl.exceptions.PolarsError as error:
        return [f"{path.name} cannot be read: {str(error).splitlines()[0]}."]
    if known.columns != table.columns or len(known) != len(table):
        sizes = [f"{len(of)} rows of {len(of.columns)} columns" for of in (known, table)]
        return [f"{path.name} has {sizes[0]}; computed again, {sizes[1]}."]
    wrong = []
    for name in table.columns:
        mine, theirs = table[name].to_list(), known[name].to_list()
        unlike = [row for row, (a, b) in enumerate(zip(mine, theirs, strict=True)) if not _alike(a, b, RELATIVE)]
        if unlike:
            row = unlike[0]
            wrong.append(
                f"{path.name}: {name} differs in {len(unlike)} rows. Row {row + 1} says {theirs[row]}; computed again, "
                f"it is {mine[row]}."
            )
    return wrong


def _alike(mine: Any, theirs: Any, relative: float) -> bool:
    """Return whether two cells are equal, floats as far as sums in another order are."""
    if isinstance(mine, float) and isinstance(theirs, float):
        both_nan = math.isnan(mine) and math.isnan(theirs)
        return both_nan or math.isclose(mine, theirs, rel_tol=relative, abs_tol=relative * 1e-3)
    return bool(mine == theirs) or (mine in (None, "") and theirs in (None, ""))  # of which .csv makes no difference


def _report(folder: Path, same_version: bool) -> tuple[int, list[str]]:
    """Return how many numbers of the report were compared with the same one written again, and what differs."""
    if not (folder / REPORT).is_file():
        return 0, []  # a file that is missing, which is said already
    published = (folder / REPORT).read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as aside:
        shutil.copytree(folder / STUDY, Path(aside) / STUDY)
        again = write_report(Path(aside)).read_text(encoding="utf-8")
    counted, wrong = 0, []
    (theirs,), (mine,) = ([*map(json.loads, DATA.findall(page))] or [{}] for page in (published, again))
    for name, table in mine["tables"].items():
        for column, values in table.items():
            known = theirs.get("tables", {}).get(name, {}).get(column)
            counted += len(values)
            if known is None or len(known) != len(values):
                wrong += [f"{REPORT}: the table {name} lacks {column}."] if same_version else []
            elif not all(_alike(_float(a), _float(b), SHOWN) for a, b in zip(values, known, strict=True)):
                wrong.append(f"{REPORT}: {column} of the table {name} differs from what its trials give.")
    for name in sorted(set(theirs.get("tables", {})) - set(mine["tables"])):
        wrong.append(f"{REPORT}: its table {name} does not follow from its trials.")
    if same_version:
        if not _same_figures(theirs, mine):
            wrong.append(f"{REPORT}: a figure differs from what its trials give.")
        if SCRIPT.findall(published) != SCRIPT.findall(again):
            wrong.append(f"{REPORT}: its program is not that of this version of sgdscope and its libraries.")
        words, differ = _words(published, again)
        counted += words
        wrong += differ
    return counted, wrong


def _same_figures(theirs: dict[str, Any], mine: dict[str, Any]) -> bool:
    """Return whether the figures of two pages agree. Their data are named by their content, so the order counts."""
    panels = []
    for page in (theirs, mine):
        text = json.dumps(page.get("panels"))
        for place, name in enumerate(page.get("data", {})):
            text = text.replace(name, str(place))
        panels.append(text)
    pairs = list(zip(theirs.get("data", {}).values(), mine["data"].values(), strict=False))
    return (
        panels[0] == panels[1]
        and len(pairs) == len(mine["data"])
        and all(
            list(a) == list(b)
            and all(
                len(a[name]) == len(b[name])
                and all(_alike(_float(x), _float(y), SHOWN) for x, y in zip(a[name], b[name], strict=True))
                for name in a
            )
            for a, b in pairs
        )
    )


def _float(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _words(published: str, again: str) -> tuple[int, list[str]]:
    """Compare what two pages say: the words must be the same, and numbers as far as they are shown."""
    theirs, mine = (NUMBER.split(SCRIPT.sub("", DATA.sub("", page))) for page in (published, again))
    if len(theirs) != len(mine):
        return len(mine) // 2, [f"{REPORT}: its sentences differ from what its trials give."]
    wrong = []
    for place, (a, b) in enumerate(zip(theirs, mine, strict=True)):
        if a == b or (place % 2 and abs(_read(a) - _read(b)) <= 1.01 * _unit(b)):
            continue
        words = (TAG.sub(" ", text).split() for text in (a, b))
        known, right = next(((x, y) for x, y in zip_longest(*words, fillvalue="") if x != y), (a, b))
        before = " ".join(TAG.sub(" ", "".join(theirs[max(0, place - 9) : place])).split())[-60:]
        wrong.append(f"{REPORT} says {known!r} after {before!r}; computed again, it is {right!r}.")
    return len(mine) // 2, wrong


def _unit(text: str) -> float:
    """Return one unit of the last digit that a number shows, by which rounding may differ; 0 of a whole number.

    >>> _unit("98.3"), _unit("1,920")
    (0.1, 0.0)
    """
    digits, _, exponent = text.lower().partition("e")
    decimals = len(digits.partition(".")[2])
    return float(10.0 ** (int(exponent or 0) - decimals)) if decimals else 0.0


def _read(text: str) -> float:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return math.nan
