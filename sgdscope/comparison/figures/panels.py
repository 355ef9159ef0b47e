"""What the figures of a comparison share: one panel for each optimizer, one colour for each study, common axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from sgdscope.comparison.matching import Matched
from sgdscope.report.figures import style

if TYPE_CHECKING:
    from sgdscope.comparison.comparison import Comparison

Panel = tuple[str, pl.DataFrame]
# How much of its height stays free above and below the marks of an axis that panels share.
FREE = 0.04


def parts_of(comparison: Comparison) -> dict[str, list[Matched]]:
    """Return the trials of each workload and budget that are compared, by their title."""
    parts: dict[str, list[Matched]] = {}
    for of in comparison.matched:
        parts.setdefault(f"{of.value('workload')} at {of.value('budget')}", []).append(of)
    return parts


def optima_of(comparison: Comparison, part: Sequence[Matched], criterion: str) -> list[Panel]:
    """Return the optima of each optimizer, with the studies in place of the optimizers."""
    lines = pl.Enum(comparison.names)
    panels = []
    for of in part:
        rows = [
            side.tables.optima.filter(**key, criterion=criterion).with_columns(optimizer=pl.lit(side.name, lines))
            for side, key in zip(comparison.sides, of.keys, strict=True)
        ]
        panels.append((of.value("optimizer"), pl.concat(rows)))
    return [panel for panel in panels if not panel[1].is_empty()]


def has_several_batch_sizes(panels: Sequence[Panel]) -> bool:
    """Return whether there is anything to draw against batch size."""
    return any(rows["batch_size"].n_unique() > 1 for _, rows in panels)


def beside(panels: Sequence[Panel], draw: Callable[[str, pl.DataFrame], style.LayerChart]) -> Any:
    """Return a chart of each panel, beside each other where there are several."""
    charts = [draw(name, rows).properties(title=name) for name, rows in panels]
    return charts[0] if len(charts) == 1 else style.side_by_side(charts)


def sizes_of(panels: Sequence[Panel]) -> dict[str, Any]:
    """Return the scale that gives all panels the batch sizes of all."""
    return {"domain": style.extent(pl.concat([rows["batch_size"] for _, rows in panels]))}


def common(panels: Sequence[Panel], *columns: str, log: bool = False) -> dict[str, Any]:
    """Return the scale that gives all panels the numbers of all, with their intervals."""
    numbers = pl.concat([rows[name].cast(pl.Float64) for _, rows in panels for name in columns])
    low, high = style.extent(numbers.filter(numbers.is_finite()))
    if log:
        factor = (high / low) ** FREE if high > low else 2.0
        return {"domain": [low / factor, high * factor]}
    free = FREE * (high - low) or abs(high) or 1.0
    return {"domain": [low - free, high + free]}
