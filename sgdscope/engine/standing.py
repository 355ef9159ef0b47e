"""How far a run is: what share of each cell is done, and the best that it has found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from sgdscope.analysis.trial_table import CELL
from sgdscope.formatting import score
from sgdscope.seeds import Seeds
from sgdscope.stats.intervals import t_interval
from sgdscope.store import ended
from sgdscope.study import Declaration, Trial


@dataclass(frozen=True)
class Standing:
    """Where a run stands.

    Args:
        shares: of each row, workload, budget and optimizer, and batch size, the share of the trials known to be wanted
            that has ended; 0 where the search has not begun.
        best: the best of the rates that all seeds have ended at, in words; empty where there is none yet.
    """

    shares: dict[tuple[str, str, str], dict[int, float]]
    best: str


def standing(declaration: Declaration, wanted: Sequence[Trial], trials: pl.DataFrame) -> Standing:
    """Return where a run stands.

    Args:
        declaration: the study.
        wanted: the trials that its search has asked for by now.
        trials: a table of trials, of which those that have ended count.
    """
    done = set(ended(trials)["trial_id"])
    of_cell = [(_row(trial), trial.batch_size, trial.id in done) for trial in wanted]
    asked = Counter((row, size) for row, size, _ in of_cell)
    finished = Counter((row, size) for row, size, is_done in of_cell if is_done)
    rows = [
        (record.name, str(budget), str(optimizer))
        for record in declaration.workloads
        for budget in dict.fromkeys(str(trial.budget) for trial in wanted if trial.workload.name == record.name)
        for optimizer in declaration.trial_optimizers
    ]
    return Standing(
        {
            row: {size: finished[row, size] / max(asked[row, size], 1) for size in declaration.batch_sizes}
            for row in rows
        },
        _best(declaration, trials),
    )


def _row(trial: Trial) -> tuple[str, str, str]:
    return trial.workload.name, str(trial.budget), str(trial.optimizer)


def _best(declaration: Declaration, trials: pl.DataFrame) -> str:
    """Say the best validation score of those rates at which every seed completed, of the workload trained last."""
    whole = (
        trials.filter(pl.col("status") == "complete")
        .group_by(*CELL, "learning_rate", maintain_order=True)
        .agg(pl.col("validation_score"), n=pl.len())
        .filter(pl.col("n") >= Seeds.of(declaration.seeds).search, pl.col("n") > 1)
    )
    if whole.is_empty():
        return ""
    record = next(record for record in declaration.workloads if record.name == whole["workload"][-1])
    mine = whole.filter(workload=record.name)
    row = max(mine.iter_rows(named=True), key=lambda row: record.score_sign * sum(row["validation_score"]))
    found = score(*t_interval(np.array(row["validation_score"], float)), record.in_percent)
    where = f"{row['optimizer']}, batch size {row['batch_size']}, learning rate {row['learning_rate']:.2g}"
    return f"best so far: {record.chosen_on} {record.score_name} {found} (95 %, {row['n']} seeds) with {where}"
