"""The best score of each optimizer minus that of SGD, by batch size, with the verdict and what decides it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from sgdscope.analysis.comparisons import SCORES_COLUMNS, compare_scores
from sgdscope.analysis.derived import cell_warmed_up
from sgdscope.analysis.methods import BASELINE, baseline_of
from sgdscope.analysis.rate_choice import scores_by_batch_size
from sgdscope.analysis.trial_table import CELL_COLUMNS, OPTIMIZER_SCHEMA, Records, by_optimizer
from sgdscope.frames import Column, Columns, schema

SCORE_NAMES = ("test_score", "sgd_test_score")
DIFFERENCE_FROM_SGD_COLUMNS: Columns = {
    **CELL_COLUMNS,
    "baseline": BASELINE,
    "warmed_up": Column(pl.Boolean, "Whether training was long enough for momentum's steady state."),
    "test_score": Column(pl.Float64, "Mean test score of the optimizer.", "score"),
    "sgd_test_score": Column(pl.Float64, "Mean test score of the baseline.", "score"),
    **SCORES_COLUMNS,
}
DIFFERENCE_FROM_SGD_SCHEMA = schema(DIFFERENCE_FROM_SGD_COLUMNS)


def difference_from_sgd(trials: pl.DataFrame, score_limits: pl.DataFrame, records: Records) -> pl.DataFrame:
    """Return test scores of each optimizer minus its baseline's at the same batch size; larger is better.

    The baseline is plain SGD, or for a method that changes the gradient of SGD with momentum SGD of that momentum
    (:func:`~sgdscope.analysis.methods.baseline_of`).

    Both are taken at rates that were chosen without them, on one axis of seeds for all batch sizes; those of the claims
    and of B_mom are the same. ``verdict`` is ``better`` or ``worse`` where the difference exceeds δ significantly,
    two-sided at 5 %; ``equivalent`` where two one-sided tests at 5 % show it within ±δ; ``at the edge`` where the best
    rate of either lies at an edge of the rates tried; else ``undecided``. Over the batch sizes of an optimizer p values
    are Holm's, so that of all verdicts of a kind one is false in at most 5 % of studies.

    Args:
        trials: a table of trials.
        score_limits: their thresholds, whose δ is taken.
        records: what their workloads are, by name.
    """
    studied = {
        tuple(key.values()): (key, members, scores_by_batch_size(members, records[key["workload"]]))
        for key, members in by_optimizer(trials)
    }
    rows: list[dict[str, Any]] = []
    for key, members, scores in studied.values():
        baseline = baseline_of(key["optimizer"])
        *_, sgd = studied.get((key["workload"], key["budget"], baseline or ""), ({},))
        sizes = [size for size in scores if size in sgd]
        if not sizes:
            continue
        pairs = [(scores[size], sgd[size]) for size in sizes]
        found = compare_scores(pairs, margin_in(score_limits, key), SCORE_NAMES, records[key["workload"]].score_sign)
        rows += [
            key | {"batch_size": size, "baseline": baseline, "warmed_up": cell_warmed_up(members[size])} | row
            for size, row in zip(sizes, found, strict=True)
            if row["n"]
        ]
    return pl.DataFrame(rows, schema=DIFFERENCE_FROM_SGD_SCHEMA)


def margin_in(score_limits: pl.DataFrame, key: Mapping[str, Any]) -> float:
    """Return δ of an optimizer, as its B_score has it."""
    mine = {name: key[name] for name in OPTIMIZER_SCHEMA}
    return float(score_limits.filter(**mine, quantity="B_score")["margin"][0])
