"""The best scores of studies minus those of the first, by batch size, with verdicts and what decides them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from sgdscope.analysis.comparisons import OF_SCORES, SCORES_COLUMNS, compare_scores, decided_estimates
from sgdscope.analysis.difference_from_sgd import margin_in
from sgdscope.analysis.rate_choice import Chosen, are_paired, inside, leads_over, scores_by_batch_size
from sgdscope.analysis.score_limits import declared_for
from sgdscope.analysis.trial_table import BATCH_SIZE, by_optimizer
from sgdscope.comparison.matching import Matched
from sgdscope.comparison.side import Side
from sgdscope.errors import InputError
from sgdscope.frames import Column, Columns, schema
from sgdscope.stats.intervals import estimated

KEY_COLUMNS: Columns = {
    "study": Column(pl.String, "The study that is compared with `reference`."),
    "reference": Column(pl.String, "The first study, with which all others are compared."),
    "workload": Column(pl.String, "Name of the workload, or both names where they differ."),
    "budget": Column(pl.String, "Compute budget of each trial, or both where they differ."),
    "optimizer": Column(pl.String, "Optimizer with its coefficients, or both where they differ."),
}
NAMES = ("test_score", "reference_test_score")
SCORE_DIFFERENCE_COLUMNS: Columns = {
    **KEY_COLUMNS,
    "batch_size": BATCH_SIZE,
    "test_score": Column(pl.Float64, "Mean test score of the study.", "score"),
    "reference_test_score": Column(pl.Float64, "Mean test score of the reference.", "score"),
    **SCORES_COLUMNS,
}


def score_difference(sides: Sequence[Side], found: Sequence[Matched]) -> pl.DataFrame:
    """Return best test scores minus those of the first study, turned so that larger is better, one row a batch size.

    Scores are taken at rates that were chosen without them, and compared seed by seed where both studies share seeds,
    else by Welch's test. The verdicts of one optimizer, over batch sizes and studies, have Holm's correction together.
    A row without a batch size is the mean difference over all batch sizes that both studies have and whose best rate
    lies inside the rates tried, decided by itself.

    Args:
        sides: the studies.
        found: which of their trials stand for each other.
    """
    rows: list[dict[str, Any]] = []
    for of in found:
        scores = []
        for side, key in zip(sides, of.keys, strict=True):
            members = dict(next(by_optimizer(side.tables.trials.filter(**key)))[1])
            scores.append(scores_by_batch_size(members, side.tables.records[key["workload"]]))
        places = [(place, size) for place in range(1, len(sides)) for size in scores[place] if size in scores[0]]
        pairs = [(scores[place][size], scores[0][size]) for place, size in places]
        sign = sides[0].tables.records[of.keys[0]["workload"]].score_sign
        for (place, size), row in zip(places, compare_scores(pairs, margin_of(sides, of), NAMES, sign), strict=True):
            rows += [key_of(sides, of, place) | {"batch_size": size} | row] if row["n"] else []
        for place in range(1, len(sides)):
            mean = _mean(scores[place], scores[0], margin_of(sides, of))
            rows += [key_of(sides, of, place) | mean] if mean else []
    return pl.DataFrame(rows, schema=schema(SCORE_DIFFERENCE_COLUMNS))


def _mean(scores: Mapping[int, Chosen], others: Mapping[int, Chosen], margin: float) -> dict[str, Any]:
    """Return the mean difference over the batch sizes of both, seed by seed; empty with fewer than two batch sizes."""
    scores, others = inside(scores), inside(others)
    leads = np.array(list(leads_over(scores, others).values()))
    if len(leads) < 2:
        return {}
    means = leads.mean(axis=0)
    means = means[~np.isnan(means)]  # of the seeds that all batch sizes have
    if not means.size:
        return {}
    paired = all(are_paired(scores[size], others[size]) for size in scores if size in others)
    estimate, n = estimated(means), len(means)
    return decided_estimates([estimate], [n], margin, OF_SCORES)[0] | {"n": n, "paired": paired, "margin": margin}


def key_of(sides: Sequence[Side], of: Matched, place: int) -> dict[str, str]:
    """Return the key of a row: the study, what it is compared with, and what trials these are."""
    named = {axis: of.value(axis, 0, place) for axis in ("workload", "budget", "optimizer")}
    return {"study": sides[place].name, "reference": sides[0].name} | named


def margin_of(sides: Sequence[Side], of: Matched) -> float:
    """Return δ: as the studies declare it, or else that of the first study's score.

    Raises:
        InputError: If two studies declare different ones.
    """
    margins = [
        declared_for(key["workload"], side.tables.score_margin) for side, key in zip(sides, of.keys, strict=True)
    ]
    declared = {margin: side.name for margin, side in zip(margins, sides, strict=True) if margin is not None}
    if len(declared) > 1:
        (one, first), (other, second), *_ = declared.items()
        raise InputError(
            f"compare: the score_margin of {first} is {one:g}, that of {second} is {other:g}. Verdicts need one: "
            f"run one of them again with --score-margin {one:g}, which trains nothing."
        )
    return next(iter(declared), None) or margin_in(sides[0].tables.score_limits, of.keys[0])
