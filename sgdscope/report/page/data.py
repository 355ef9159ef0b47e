"""What the page's script reads: specifications, and their data and the tables as columns, each once."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import markupsafe
import polars as pl

from sgdscope.analysis.tables import COLUMNS
from sgdscope.frames import Columns

# As many digits as any figure shows, and a table needs.
DIGITS = 5


class Embedded:
    """What is gathered of the figures of a page.

    Equal data are kept once: Altair names them by their content.
    """

    def __init__(self) -> None:
        self._panels: dict[str, dict[str, Any]] = {}
        self._data: dict[str, dict[str, list[Any]]] = {}

    def add(self, key: str, chart: Any, description: str) -> list[str]:
        """Add a chart, and return the keys of its panels: each is drawn by itself, so that they can wrap.

        ``description`` is what is read out in its place.
        """
        spec = chart.to_dict(validate=False)  # what tests have drawn is valid, and checking takes seconds
        self._data |= {name: columns(rows) for name, rows in spec.pop("datasets").items()}
        panels = spec.get("hconcat", [spec])
        keys = [key if len(panels) == 1 else f"{key}:{number + 1}" for number in range(len(panels))]
        for name, panel in zip(keys, panels, strict=True):
            shown = {part: value for part, value in panel.items() if part not in ("config", "width")}
            if "data" in spec:  # of a single panel, or of several that have the same
                shown.setdefault("data", spec["data"])
            shown |= {"$schema": spec["$schema"], "params": spec["params"], "description": description}
            text = json.dumps(shown)
            self._panels[name] = {"spec": shown, "data": [name for name in self._data if f'"{name}"' in text]}
        return keys

    def json(self, tables: Mapping[str, pl.DataFrame], described: Mapping[str, Columns] = COLUMNS) -> markupsafe.Markup:
        """Return all that was added, and tables with their described columns, as JSON for a script element."""
        of_tables = {name: columns(table.rows(named=True)) for name, table in tables.items()}
        tooltips = {
            name: {column: known.description for column, known in described[name].items() if column in table.columns}
            for name, table in tables.items()
        }
        return script_safe(
            json.dumps(
                {"panels": self._panels, "data": self._data, "tables": of_tables, "descriptions": tooltips},
                allow_nan=False,
                ensure_ascii=False,
                separators=(",", ":"),
            )
        )


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return rows as columns, whose numbers have as many digits as are shown; what is not finite is null.

    >>> columns([{"a": 1 / 3, "b": "x"}, {"a": math.inf}])
    {'a': [0.33333, None], 'b': ['x', None]}
    """
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [_short(row.get(name)) for row in rows] for name in names}


def script_safe(text: str) -> markupsafe.Markup:
    """Escape JSON for a script element: a study's own words cannot end it."""
    return markupsafe.Markup(text.replace("<", "\\u003c"))  # noqa: S704


def _short(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short.is_integer() and abs(short) < 10**DIGITS else short
