"""The page of a study that is being trained: cells, curves so far, and the time that is left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import markupsafe
import numpy as np
import polars as pl
import vl_convert

from sgdscope import atomic
from sgdscope.engine.standing import standing
from sgdscope.formatting import duration
from sgdscope.report.figures import optimal_learning_rate, score_by_learning_rate
from sgdscope.report.page.templates import rendered_plain
from sgdscope.result import Result
from sgdscope.store import SCHEMAS, Store, ended
from sgdscope.study import Trial

# How often a browser asks for the page again.
REFRESH_SECONDS = 5
PANEL_WIDTH = 260


@dataclass(frozen=True)
class LivePage:
    """A page, and whether the study is finished, after which it does not change."""

    html: str
    finished: bool


def state_of(folder: Path) -> tuple[str, ...]:
    """Return the names of a study's commits: what is computed from them changes only with them."""
    declared = Store(folder)
    return tuple(sorted(atomic.names(declared.folder / "trials"))) if declared.exists else ()


def live_page(folder: Path, report: str = "", refreshing: bool = True) -> LivePage:
    """Return the page of a study as it is now.

    Args:
        folder: The study's folder.
        report: Where the page's reader finds the report. Default: nowhere.
        refreshing: Whether the page asks for itself again until the study is finished. Default: True.
    """
    if not Store(folder).exists:
        html = rendered_plain("live.html.jinja", name=folder.resolve().name, refresh=REFRESH_SECONDS, begun=False)
        return LivePage(html, finished=False)
    result = Result(folder)
    trials, wanted = result.trials, result.found.trials
    where = standing(result.declaration, wanted, trials)
    done, pending = len(ended(trials)), result.found.pending
    left = seconds_left(trials, pending)
    rows = [
        {"names": names, "cells": [(size, share, f"{share:.0%}") for size, share in shares.items()]}
        for names, shares in where.shares.items()
    ]
    devices = trials.drop_nulls("device").select("device", "devices").unique().sort("device", "devices")
    html = rendered_plain(
        "live.html.jinja",
        name=result.declaration.name,
        refresh=REFRESH_SECONDS if refreshing and not result.finished else None,
        begun=True,
        finished=result.finished,
        done=done,
        known=len(wanted),
        waiting=len(result.found.waiting),
        left="" if left is None else duration(left),
        last=_last_commit(folder),
        devices=", ".join(f"{row['devices']} × {row['device']}" for row in devices.iter_rows(named=True)),
        failed=[
            f"{count} failed: {error}"
            for error, count in trials.filter(status="failed")["error"].value_counts().sort("error").iter_rows()
        ],
        best=where.best[:1].upper() + where.best[1:],
        sizes=list(result.declaration.batch_sizes),
        rows=rows,
        parted=len({names[:2] for names in where.shares}) > 1,
        curves=[] if result.optima.is_empty() else list(_curves(result)),
        report=report if not result.optima.is_empty() else "",
        damaged=[f"{path.name} is damaged: its trials count as missing." for path in result.damaged],
    )
    return LivePage(html, result.finished)


def seconds_left(trials: pl.DataFrame, pending: list[Trial]) -> float | None:
    """Return the seconds that pending trials take, as those that have ended did; None where none has.

    A batch size that has no time yet takes that of the nearest one, by the logarithm.

    Args:
        trials: A table of trials.
        pending: The trials that are known to be wanted.
    """
    timed = trials.filter((pl.col("seconds") > 0) & (pl.col("steps") > 0))
    if timed.is_empty():
        return None
    pace = {
        (row["workload"], row["batch_size"]): row["pace"]
        for row in timed.group_by("workload", "batch_size")
        .agg(pace=(pl.col("seconds") / pl.col("steps")).median())
        .iter_rows(named=True)
    }
    return float(sum(trial.updates * _pace_of(trial, pace) for trial in pending))


def _pace_of(trial: Trial, pace: Mapping[tuple[str, int], float]) -> float:
    mine = [key for key in pace if key[0] == trial.workload.name] or list(pace)
    return pace[min(mine, key=lambda key: abs(np.log2(key[1] / trial.batch_size)))]


def _last_commit(folder: Path) -> str:
    times = [path.stat().st_mtime for path in (folder / next(reversed(SCHEMAS))).glob("*.parquet")]
    return time.strftime("%H:%M:%S", time.localtime(max(times))) if times else ""


def _curves(result: Result) -> Any:
    """Yield the title and the drawings of each workload and budget."""
    for part in result.tables.parts:
        figures = [module.figure(part) for module in (score_by_learning_rate, optimal_learning_rate)]
        yield part.title, [(figure.title, _drawn(figure.chart)) for figure in figures if figure is not None]


def _drawn(chart: Any) -> markupsafe.Markup:
    """Return a chart as a drawing inside the page, which needs no script."""
    spec = chart.to_dict(validate=False)
    for panel in spec.get("hconcat", [spec]):
        panel["width"] = PANEL_WIDTH
    return markupsafe.Markup(vl_convert.vegalite_to_svg(spec))  # noqa: S704 - Vega escapes the words in it
