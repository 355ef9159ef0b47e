"""Scores of the population that the examples of a test set were drawn from, and not of that test set alone.

Every seed is scored on the same examples, so what is observed is a table of n seeds by N examples, and both are
samples. An interval over seeds alone, such as ``test_score_low`` to ``test_score_high`` of the optima, is one for this
test set: where seeds differ as little as those of the digits do, .35 to .82 of them hold the population's score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from sgdscope.analysis.collapse import collapsed_of
from sgdscope.analysis.trial_table import CELL_COLUMNS, CRITERION, SEEDS, Records
from sgdscope.errors import InputError
from sgdscope.frames import Column, Columns, schema, with_interval
from sgdscope.stats.crossed import population_interval
from sgdscope.stats.intervals import interval_with_failures, named
from sgdscope.store import ended

TEST_SET_COLUMNS: Columns = {
    **CELL_COLUMNS,
    "criterion": CRITERION,
    "learning_rate": Column(pl.Float64, "Optimal learning rate ε* for the score."),
    "n": SEEDS,
    "examples": Column(pl.Int64, "Number of test examples.", "examples"),
    **with_interval("test_score", "Mean test score; its interval is over seeds, for this test set.", "score"),
    "population_low": Column(
        pl.Float64,
        "Lower end of the 95 % interval over both seeds and test examples: for new data of the kind. Missing if some "
        "trials failed to train.",
        "score",
    ),
    "population_high": Column(
        pl.Float64,
        "Upper end of the 95 % interval over both seeds and test examples: for new data of the kind. Missing if some "
        "trials failed to train.",
        "score",
    ),
}
TEST_SET_SCHEMA = schema(TEST_SET_COLUMNS)


def over_test_examples(
    optima: pl.DataFrame, trials: pl.DataFrame, correctness: pl.DataFrame, records: Records
) -> pl.DataFrame:
    """Return the test score at each cell's best rate for the score, with both of its 95 % intervals.

    ``test_score_low`` and ``test_score_high`` are over seeds, for this test set; ``population_low`` and
    ``population_high`` over seeds and test examples, for the population that the examples were drawn from.

    A diverged trial counts as the constant baseline, which scores the constant score on every example. Where some
    trials failed, the mean depends on how many do, of which few seeds tell little: the population's interval is
    missing there, and the other is that of :func:`~sgdscope.stats.intervals.interval_with_failures`. A cell has
    no row where its workload's scores are not right or wrong, or where a complete trial's correctness is missing,
    as in a folder from before it was kept.

    Args:
        optima: columns workload, budget, optimizer, batch_size, criterion and learning_rate; those by the criterion
            ``score`` are used.
        trials: the trial table.
        correctness: which examples each trial scored 1 on.
        records: the workloads by their names.
    """
    rows: list[dict[str, Any]] = []
    known = correctness.filter(pl.col("split") == "test")
    where = ("workload", "budget", "optimizer", "batch_size", "learning_rate")
    chosen = optima.filter(pl.col("criterion") == "score").select(*where, "criterion")
    for row in chosen.iter_rows(named=True):
        record = records[row["workload"]]
        cell = ended(trials).filter(pl.all_horizontal(pl.col(name) == row[name] for name in where[:-1])).sort("seed")
        failed = (cell["status"] == "diverged").to_numpy() | collapsed_of(cell, record)
        at_rate = cell.with_columns(failed=failed).filter(learning_rate=row["learning_rate"])
        complete = at_rate.filter(pl.col("status") == "complete")["trial_id"]
        if complete.is_empty() or not complete.is_in(known["trial_id"].to_list()).all():
            continue
        right = correct(known, complete.to_list(), "test")
        values = np.full((len(at_rate), right.shape[1]), record.constant_score)
        values[(at_rate["status"] == "complete").to_numpy()] = right
        rows.append(
            row
            | {"n": len(values), "examples": values.shape[1]}
            | named("test_score", interval_with_failures(values.mean(axis=1), at_rate["failed"].to_numpy()))
        )
        if not at_rate["failed"].any():
            rows[-1] |= dict(zip(("population_low", "population_high"), population_interval(values)[1:], strict=True))
    return pl.DataFrame(rows, schema=TEST_SET_SCHEMA)


def correct(table: pl.DataFrame, trial_ids: Sequence[str], split: str) -> np.ndarray:
    """Return which of the N examples of a split each trial scored 1 on at the end of its budget.

    Args:
        table: a study's correctness, such as ``result.correctness``.
        trial_ids: the trials, in the order of the rows that are returned.
        split: ``validation`` or ``test``.

    Returns:
        bool of shape (trials, N); (0, 0) for no trials.

    Raises:
        InputError: where a trial has none, since it diverged or its scores are not all 0 or 1.

    >>> table = pl.DataFrame([{"trial_id": "a", "split": "test", "examples": 3, "bits": bytes([0b10100000])}])
    >>> correct(table, ["a"], "test").tolist()
    [[True, False, True]]
    """
    rows = table.filter(pl.col("split") == split)
    found = {name: (examples, bits) for name, examples, bits in rows.select("trial_id", "examples", "bits").iter_rows()}
    missing = [name for name in trial_ids if name not in found]
    if missing:
        raise InputError(
            f"trial {missing[0]} has no correctness on the split {split!r}; only trials that are complete and whose "
            f"scores are all 0 or 1 have one."
        )
    unpacked = [
        np.unpackbits(np.frombuffer(bits, np.uint8), count=examples)
        for examples, bits in map(found.__getitem__, trial_ids)
    ]
    return np.array(unpacked, bool).reshape(len(trial_ids), -1 if unpacked else 0)
