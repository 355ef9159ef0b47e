"""The talk's figures by name, each from the tables, as files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import polars as pl

from sgdscope.analysis.tables import Tables
from sgdscope.errors import InputError
from sgdscope.report.charts import Charts, best_score_by_epochs, optimal_rates_by_epochs

Format = Literal["svg", "png", "pdf"]
PIXELS_PER_INCH = 200


def talk_figures(tables: Tables) -> dict[str, Any]:
    """Return the figures of the talk that the trials are enough for, by name.

    At each constant number of epochs or steps: ``best-score``, ``training-loss``, ``optimal-learning-rate`` against
    batch size, and ``two-regimes``, the learning rate up to the full batch with both regimes. Against epochs, all
    workloads together: ``score-by-epochs`` and ``rates-by-epochs``, both optimal learning rates.

    Args:
        tables: of one study or of several together, as for networks with and without batch normalization.
    """
    figures: dict[str, Any] = {}
    for part in tables.parts:
        if part.trials["batch_size"].n_unique() > 1 and not part.optima.is_empty():
            charts, prefix = Charts(part), re.sub(r"[^\w.]+", "-", f"{part.record.name} {part.trials['budget'][0]}")
            figures |= {
                f"{prefix}-best-score": charts.best_score(),
                f"{prefix}-training-loss": charts.training_loss(),
                f"{prefix}-optimal-learning-rate": charts.optimal_learning_rate(),
                f"{prefix}-two-regimes": charts.two_regimes(),
            }
    ladders = _against_epochs(tables.optima)
    if not ladders.is_empty():
        figures |= {
            "score-by-epochs": best_score_by_epochs(ladders, tables.record.score_name),
            "rates-by-epochs": optimal_rates_by_epochs(ladders),
        }
    return figures


def write_figures(tables: Tables, folder: Path, kind: Format) -> list[Path]:
    """Write the talk's figures into a folder, and return their paths.

    Raises:
        InputError: where the trials are enough for none, or the folder cannot be written.
    """
    figures = talk_figures(tables)
    if not figures:
        raise InputError("figures: it takes several batch sizes at one budget, or several epochs at a batch size.")
    paths = [folder / f"{name}.{kind}" for name in figures]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for chart, path in zip(figures.values(), paths, strict=True):
            chart.save(path, **({"ppi": PIXELS_PER_INCH} if kind == "png" else {}))
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}.") from error
    return paths


def _against_epochs(optima: pl.DataFrame) -> pl.DataFrame:
    """Return the optima of the batch sizes that were given several epoch budgets."""
    place = ("workload", "optimizer", "batch_size")
    epochs = optima.filter(pl.col("budget").str.starts_with("epochs:"))
    return epochs.filter(pl.col("budget").n_unique().over(place) > 1)
