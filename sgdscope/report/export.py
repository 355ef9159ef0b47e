"""Figures as files, at the width of a paper's column."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import polars as pl
import vl_convert

from sgdscope import atomic
from sgdscope.analysis.tables import Tables
from sgdscope.errors import InputError
from sgdscope.report.figures import (
    best_score,
    figures_against_epochs,
    figures_of,
    optimal_learning_rate,
    rates_by_epochs,
    score_by_epochs,
    training_loss,
    two_regimes,
)
from sgdscope.report.figures.against_epochs import several_epochs
from sgdscope.report.figures.figure import has_scores
from sgdscope.terminal import visible

Format = Literal["svg", "png", "pdf"]
OF_PAPER = (best_score, training_loss, optimal_learning_rate, two_regimes)
PIXELS_PER_INCH = 300
# How many of Vega's pixels an inch of print has, so that marks are as large as they should be; a point is 1/72 inch.
VEGA_PER_INCH, POINTS_PER_INCH = 120, 72
# Of two columns on letter paper; a figure of several panels takes both.
COLUMN_INCHES, PAGE_INCHES = 3.25, 6.75
PANEL_HEIGHT = 240
# How often a figure is drawn to see how wide it is: what its axes take depends a little on its width.
PASSES = 2
# Letters of 7 and 8 points.
SMALL, PLAIN = (size * VEGA_PER_INCH / POINTS_PER_INCH for size in (7, 8))
LEGENDS = {"top": {"anchor": "start", "direction": "vertical"}}
CONFIG: dict[str, Any] = {
    "font": "Helvetica, Arial, sans-serif",
    "axis": {"labelFontSize": SMALL, "titleFontSize": PLAIN, "titleFontWeight": "normal", "gridOpacity": 0.5},
    "legend": {
        "labelFontSize": SMALL,
        "titleFontSize": PLAIN,
        "titleFontWeight": "normal",
        "symbolSize": 40,
        "layout": LEGENDS,
    },
    "title": {"fontSize": PLAIN, "fontWeight": "normal", "anchor": "start", "offset": 4},
    "text": {"fontSize": SMALL},
    "view": {"stroke": None},
    "concat": {"spacing": 14},
}


def talk_figures(tables: Tables) -> dict[str, Any]:
    """Return the paper's figures that the trials are enough for, by name.

    At each constant number of epochs or steps: ``best-score``, ``training-loss``, ``optimal-learning-rate`` and
    ``two-regimes``. Against epochs, all workloads of one score together: ``score-by-epochs``, which has their names
    where there are several scores, and ``rates-by-epochs``.

    Args:
        tables: of one study or of several together, as for networks with and without batch normalization.
    """
    figures: dict[str, Any] = {}
    for part in tables.parts:
        prefix = unused(_name(part), figures)
        drawn = [module.figure(part) for module in OF_PAPER]
        figures |= {f"{prefix}-{figure.name}": figure.chart for figure in drawn if figure}
    rows = several_epochs(tables.optima)
    if not rows.is_empty():
        # Workloads stand side by side where their scores are the same; an accuracy and an error share no axis.
        of_score: dict[tuple[str, str], list[str]] = {}
        for name in rows["workload"].unique(maintain_order=True):
            record = tables.records[name]
            of_score.setdefault((record.score_name, record.score_goal), []).append(name)
        for names in of_score.values():
            suffix = "" if len(of_score) == 1 else f"-{plain('-'.join(names))}"
            mine = several_epochs(tables.optima.filter(pl.col("workload").is_in(names)))
            if has_scores(mine):
                figures[f"score-by-epochs{suffix}"] = score_by_epochs.chart(mine, tables.records[names[0]])
        figures["rates-by-epochs"] = rates_by_epochs.chart(rows)
    return figures


def page_figures(tables: Tables) -> dict[str, Any]:
    """Return all figures of a study's page, by name."""
    figures: dict[str, Any] = {}
    for name in tables.records:
        prefix = f"{unused(plain(name), figures)}-" if len(tables.records) > 1 else ""
        figures |= {f"{prefix}{figure.name}": figure.chart for figure in figures_against_epochs(tables, name)}
    for part in tables.parts:
        prefix = f"{unused(_name(part), figures)}-" if len(tables.parts) > 1 else ""
        figures |= {f"{prefix}{figure.name}": figure.chart for figure in figures_of(part)}
    return figures


def check_format(kind: str) -> None:
    """Refuse a kind of file in which no figure can be written."""
    if kind not in get_args(Format):
        raise InputError(f"{kind!r} is not a format of figures. Use one of {', '.join(get_args(Format))}.")


def write_figures(figures: Mapping[str, Any], folder: Path, kind: Format) -> list[Path]:
    """Write figures into a folder, each as wide as a column of a paper, or as its page, and return their paths.

    Raises:
        InputError: where there are none, or the folder cannot be written.
    """
    check_format(kind)
    if not figures:
        raise InputError("There is no figure to draw. Run several batch sizes at one budget, or several epoch budgets.")
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, chart in figures.items():
            paths.append(folder / f"{name}.{kind}")
            atomic.replace(paths[-1], _converted(at_width(chart), kind))
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}.") from error
    return paths


def at_width(chart: Any) -> dict[str, Any]:
    """Return a chart's specification, made as wide as a column, or as the page where it has several panels.

    How much beside the panels axes and legends take is only known once it is drawn: it is drawn to see.
    """
    spec: dict[str, Any] = _visible(chart.to_dict())
    panels = spec.get("hconcat", [spec])
    wanted = (COLUMN_INCHES if len(panels) == 1 else PAGE_INCHES) * VEGA_PER_INCH
    spec["config"] = CONFIG
    width = 0.8 * wanted / len(panels)
    for _ in range(PASSES):
        for panel in panels:
            panel |= {"width": width, "height": PANEL_HEIGHT}
        width += (wanted - _width(spec)) / len(panels)
        for panel in panels:
            panel["width"] = width
    return spec


def _visible(value: Any) -> Any:
    """Copy a specification, with control characters written out: a drawing that has them is no XML."""
    if isinstance(value, dict):
        return {_visible(key): _visible(of) for key, of in value.items()}
    if isinstance(value, list):
        return [_visible(of) for of in value]
    return visible(value) if isinstance(value, str) else value


def _width(spec: dict[str, Any]) -> float:
    found = re.search(r'width="([\d.]+)"', vl_convert.vegalite_to_svg(spec))
    assert found is not None  # noqa: S101 - every SVG of Vega's says how wide it is
    return float(found[1])


def _converted(spec: dict[str, Any], kind: Format) -> bytes:
    if kind == "svg":
        return _in_points(vl_convert.vegalite_to_svg(spec), "pt").encode()
    if kind == "pdf":  # it counts in points
        pdf: bytes = vl_convert.svg_to_pdf(_in_points(vl_convert.vegalite_to_svg(spec), ""))
        return pdf
    # A PNG is so many times larger as its pixels are denser than Vega's, which count as 72 an inch there.
    png: bytes = vl_convert.vegalite_to_png(spec, scale=POINTS_PER_INCH / VEGA_PER_INCH, ppi=PIXELS_PER_INCH)
    return png


def _in_points(svg: str, unit: str) -> str:
    """Return a drawing of Vega's that says its size in points; what is drawn is scaled with it."""
    head, rest = svg.split(">", 1)

    def points(size: re.Match[str]) -> str:
        return f'{size[1]}="{float(size[2]) * POINTS_PER_INCH / VEGA_PER_INCH:g}{unit}"'

    sized = re.sub(r'\b(width|height)="([\d.]+)"', points, head)
    return f"{sized}>{rest}"


def _name(part: Tables) -> str:
    return plain(f"{part.record.name} {part.trials['budget'][0]}")


def unused(prefix: str, figures: Mapping[str, Any]) -> str:
    """Return a prefix that no figure has yet: names that differ in their signs alone are one in a file's name."""
    found, number = prefix, 1
    while any(name.startswith(f"{found}-") for name in figures):
        number += 1
        found = f"{prefix}-{number}"
    return found


def plain(text: str) -> str:
    """Return a text as a part of a file's name."""
    return re.sub(r"[^\w.]+", "-", text)
