"""What is published of a study: its report and its tables, computed from its trials alone."""

from __future__ import annotations

import contextlib
from pathlib import Path

import polars as pl

from sgdscope.analysis.tables import COLUMNS
from sgdscope.claims.decide import CLAIMS_COLUMNS
from sgdscope.frames import Columns
from sgdscope.result import Result

# Where the study lies in what is published. Commands on the page name it so.
STUDY, REPORT, TABLES, DICTIONARY = "study", "report.html", "tables", "dictionary.csv"
# Of the tables of a study, what each row is.
ROWS = {
    "trials": "One row for each trial that has ended.",
    "measurements": "One row for each measured number of a trial.",
    "correctness": "Which examples each trial scored 1 on, one bit an example.",
    "curves": "One row for each cell and learning rate, over its seeds.",
    "failures": "How many trials failed to train, one row for each cell and learning rate.",
    "optima": "The best learning rate of each cell, for the score and for the training loss.",
    "transitions": "The transition batch size of each optimizer.",
    "regimes": "The regime of each batch size.",
    "score_limits": "The largest equivalent batch sizes, and where momentum is better.",
    "difference_from_sgd": "The best score of each optimizer minus that of SGD.",
    "test_set": "Intervals of the best scores over seeds and test examples.",
    "best_by_method": "Each method at its best batch size.",
    "training_curves": "Loss and score along training at the best learning rates.",
    "noise_scale": "The gradient noise scale along training.",
    "claims": "The verdict on each claim of the paper, one row for each number that it rests on.",
}
DESCRIBED: dict[str, Columns] = {**COLUMNS, "claims": CLAIMS_COLUMNS}


def tables_of(result: Result) -> dict[str, pl.DataFrame]:
    """Return every table of a study that has rows, by its name."""
    every = {"trials": result.trials, "measurements": result.measurements, "correctness": result.correctness}
    every |= result.tables.all() | {"claims": result.claims}
    return {name: table for name, table in every.items() if not table.is_empty()}


def write_report(published: Path) -> Path:
    """Write the report of a published study beside it, and return its path."""
    with contextlib.chdir(published):  # so that the page names no folder of this machine
        Result(STUDY).save_report(REPORT)
    return published / REPORT
