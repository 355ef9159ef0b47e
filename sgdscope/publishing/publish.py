"""``sgdscope publish``: a study, its tables and its report in one folder."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl

from sgdscope import atomic
from sgdscope.errors import InputError
from sgdscope.publishing import datapackage
from sgdscope.publishing.contents import DESCRIBED, DICTIONARY, ROWS, STUDY, TABLES, tables_of, write_report
from sgdscope.report.page.overview import headline
from sgdscope.result import Result
from sgdscope.store import COMMIT, SCHEMAS
from sgdscope.version import __version__

CITATION = """\
cff-version: 1.2.0
message: If you use these data, please cite them and the paper that they build on.
type: dataset
title: {title}
authors:
  - name: {authors}
date-released: {date}
references:
  - type: software
    title: "sgdscope: measure how stochastic gradient descent behaves at each batch size"
    authors:
      - name: The sgdscope developers
    version: {version}
  - type: conference-paper
    title: On the Generalization Benefit of Noise in Stochastic Gradient Descent
    authors:
      - family-names: Smith
        given-names: Samuel L.
      - family-names: Elsen
        given-names: Erich
      - family-names: De
        given-names: Soham
    collection-title: Proceedings of the 37th International Conference on Machine Learning
    year: 2020
    identifiers:
      - type: other
        value: arXiv:2006.15081
"""
README = """\
# {title}
{headline}

| file | content |
| --- | --- |
| `report.html` | The report. It opens offline. |
| `tables/` | Every table, as CSV and as Parquet. |
| `dictionary.csv` | What each column of each table holds, and its unit. |
| `study/` | The declaration of the study, and its trials as they were committed. |
| `datapackage.json` | All files with their sizes and SHA-256, the columns of the tables, and the versions that computed them, as a [Data Package](https://datapackage.org). |
| `CITATION.cff` | How to cite these data. Replace the name of the authors by yours. |

{tables}

## Check it
All tables and the report follow from the trials in `study/`. With sgdscope {version}, this command computes them again and compares every number:

    sgdscope verify .

## Cite it
{authors}. {title}. {year}. Measured with sgdscope {version}.
"""  # noqa: E501 - lines of a table


def publish(folder: str | Path, out: str | Path) -> Path:
    """Write a study's report, tables, trials and their description into a new folder that can be uploaded as it is.

    Args:
        folder: The study's folder.
        out: The new folder.

    Returns:
        The new folder.

    Raises:
        InputError: If the study has no finished trial, or the new folder holds something or cannot be written.
    """
    result, out = Result(folder), Path(out)
    result.check_not_empty()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not empty. Name a new folder.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f"{out.name}.") as aside:
            made = Path(aside) / out.name
            _write(result, made)
            made.replace(out)
    except OSError as error:
        raise InputError(f"out: {out} cannot be written: {atomic.why(error)}.") from error
    return out


def title_of(result: Result) -> str:
    """Return what the published data of a study are called."""
    return f"SGD study {result.declaration.name}"


def dictionary(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Return what each column of each table holds."""
    rows = [
        (table, name, str(rows.schema[name]), DESCRIBED[table][name].description, DESCRIBED[table][name].unit)
        for table, rows in tables.items()
        for name in rows.columns
    ]
    return pl.DataFrame(rows, ["table", "column", "type", "description", "unit"], orient="row")


def texts(result: Result, tables: Mapping[str, pl.DataFrame], authors: str, day: date) -> dict[str, str]:
    """Return what the folder holds and how to cite it, by the names of their files.

    Args:
        result: The study.
        tables: Its tables by name.
        authors: Who made it.
        day: When it was published.
    """
    known = {"title": title_of(result), "authors": authors, "version": __version__}
    listed = "\n".join(f"- `{name}`: {len(rows):,} rows. {ROWS[name]}" for name, rows in tables.items())
    quoted = {name: json.dumps(text, ensure_ascii=False) for name, text in known.items()}
    return {
        "README.md": README.format(**known, headline=headline(result.tables), tables=listed, year=day.year),
        "CITATION.cff": CITATION.format(**quoted, date=day.isoformat()),
    }


def _write(result: Result, out: Path) -> None:
    _copy(result.folder, out / STUDY)
    result = Result(out / STUDY)
    tables = tables_of(result)
    (out / TABLES).mkdir()
    for name, table in tables.items():
        table.write_parquet(out / TABLES / f"{name}.parquet")
        if pl.Binary not in table.dtypes:
            table.write_csv(out / TABLES / f"{name}.csv")
    dictionary(tables).write_csv(out / DICTIONARY)
    write_report(out)
    title = title_of(result)
    for name, text in texts(result, tables, f"The authors of {title}", datetime.now(UTC).date()).items():
        (out / name).write_text(text, encoding="utf-8")
    package = datapackage.described(out, title, tables)
    (out / datapackage.PACKAGE).write_text(json.dumps(package, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _copy(folder: Path, out: Path) -> None:
    """Copy a study's declaration and its commits; the commands without this machine's folders."""
    out.mkdir(parents=True)
    for name in ("study.json", "programs.json"):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)
    commands = folder / "commands.json"
    if commands.is_file():
        kept = json.loads(commands.read_text(encoding="utf-8"))
        plain = {name: [_without_folder(word) for word in words] for name, words in kept.items()}
        (out / "commands.json").write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    for part in SCHEMAS:
        (out / part).mkdir()
        for path in (folder / part).glob("*.parquet"):
            if COMMIT.fullmatch(path.name):
                shutil.copyfile(path, out / part / path.name)


def _without_folder(word: str) -> str:
    return Path(word).name if Path(word).is_absolute() else word
