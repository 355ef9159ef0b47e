"""The description of what is published, as a `Data Package <https://datapackage.org/standard/data-package/>`_."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from sgdscope.publishing.contents import DESCRIBED, ROWS, TABLES
from sgdscope.version import __version__

PACKAGE = "datapackage.json"
PROFILE = "https://datapackage.org/profiles/2.0/datapackage.json"
TYPES = {pl.Int64: "integer", pl.Float64: "number", pl.String: "string", pl.Boolean: "boolean"}
MEDIA = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".cff": "application/yaml",
}
# What takes part in the numbers, beside the trials' own versions, which stand in their table.
LIBRARIES = ("jax", "jaxlib", "numpy", "optax", "polars", "scipy", "altair")


def described(folder: Path, title: str, tables: dict[str, pl.DataFrame]) -> dict[str, Any]:
    """Return the description of all files of a folder, with their sizes and SHA-256, and of the tables' columns."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != PACKAGE)
    return {
        "$schema": PROFILE,
        "name": slug(title),
        "title": title,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "resources": [_resource(folder, path, tables) for path in files],
    }


def versions() -> dict[str, str]:
    """Return the versions of what computes the tables."""
    found = {"sgdscope": __version__, "python": platform.python_version()}
    return found | {name: version(name) for name in LIBRARIES}


def read(folder: Path) -> dict[str, Any]:
    """Return the description that a folder holds."""
    package: dict[str, Any] = json.loads((folder / PACKAGE).read_text(encoding="utf-8"))
    return package


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, as a Data Package writes it."""
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def slug(text: str) -> str:
    """Return a text as a name of a Data Package.

    >>> slug("Study/0a1b.parquet")
    'study-0a1b.parquet'
    """
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-")


def _resource(folder: Path, path: Path, tables: dict[str, pl.DataFrame]) -> dict[str, Any]:
    where = path.relative_to(folder).as_posix()
    of = {
        "name": slug(where),
        "path": where,
        "type": "file",  # to programs that read tables, .parquet files are further copies
        "format": path.suffix.removeprefix("."),
        "mediatype": MEDIA.get(path.suffix, "application/octet-stream"),
        "bytes": path.stat().st_size,
        "hash": digest(path),
    }
    if path.suffix == ".csv" and path.parent.name == TABLES and path.stem in tables:
        fields = [_field(path.stem, name, kind) for name, kind in tables[path.stem].schema.items()]
        of |= {"type": "table", "encoding": "utf-8", "schema": {"fields": fields}}
    if path.parent.name == TABLES and path.stem in ROWS:
        of["description"] = ROWS[path.stem]
    return of


def _field(table: str, name: str, kind: Any) -> dict[str, str]:
    column = DESCRIBED[table][name]
    field = {"name": name, "type": TYPES.get(kind, "any"), "description": column.description}
    return field | ({"unit": column.unit} if column.unit else {})
