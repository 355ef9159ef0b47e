"""The unlimited budget: when more epochs gain nothing more, judged from the budgets that are finished.

Epochs are doubled, with learning rates searched anew, until each criterion has stopped by itself:

- the score has saturated at E where the upper bound of max(score(2E), score(4E)) − score(E) lies below the margin δ;
- the training loss at E where the upper bound of the fall of its logarithm from E to 2E lies below 0.1, or where its
  geometric mean is at most a declared floor.

Bounds are one-sided t bounds of paired differences over seeds. Whether a criterion has stopped is looked at once for
each budget, up to the ceiling, so each look has the level 5 % divided by their number (Bonferroni), and the chance of
ever stopping where there is as much as δ to be gained is at most 5 %. The bound of the larger of two gains is the
larger of their two bounds, each at the level of the look and not at half of it: one of the gains is truly the larger,
and its own bound fails with the probability of one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from sgdscope.analysis.curve import Curve, curve
from sgdscope.analysis.score_limits import Margin, margin_at
from sgdscope.analysis.trial_table import (
    BATCH_SIZE,
    CRITERIA,
    CRITERION,
    OPTIMIZER_COLUMNS,
    SEEDS,
    Criterion,
    Records,
    cells,
)
from sgdscope.budget import Unlimited
from sgdscope.frames import Column, Columns, schema, with_interval
from sgdscope.records import WorkloadRecord
from sgdscope.stats.intervals import LEVEL, named, t_interval, t_quantile
from sgdscope.store import ended

# A fall of log training loss, over a doubling of the epochs, that is too little to go on for.
LEAST_FALL = 0.1

SATURATION_COLUMNS: Columns = {
    "workload": OPTIMIZER_COLUMNS["workload"],
    "optimizer": OPTIMIZER_COLUMNS["optimizer"],
    "batch_size": BATCH_SIZE,
    "criterion": CRITERION,
    "saturated_at": Column(
        pl.Float64, "Budget from which on more epochs gain less than the margin; missing if not reached.", "epochs"
    ),
    "ceiling_reached": Column(pl.Boolean, "Whether the largest allowed budget was run without saturation."),
    "epochs_tried": Column(pl.Float64, "Largest budget that was run.", "epochs"),
    "best_epochs": Column(
        pl.Float64, "Budget with the best validation score, or with the lowest training loss.", "epochs"
    ),
    **with_interval("best", "Test score, or geometric mean of the training loss, at `best_epochs`.", "score or loss"),
    "n": SEEDS,
    **with_interval(
        "later_fall", "How much worse the largest budget is than the best one.", "score or log training loss"
    ),
    "upper_bound": Column(
        pl.Float64, "Upper bound of the gain from more epochs, in the last comparison.", "score or log training loss"
    ),
    "margin": Column(pl.Float64, "Gain below which the criterion counts as saturated.", "score or log training loss"),
}
SATURATION_SCHEMA = schema(SATURATION_COLUMNS)


@dataclass(frozen=True)
class Outcome:
    """What one budget gives by one criterion, at the learning rate that is best for it.

    ``values`` has one value for each of ``seeds``, larger being better: the test score with its sign turned where a
    smaller one is better, or minus the logarithm of the training loss. ``chosen_by`` is the mean that chose the rate.
    """

    epochs: float
    seeds: np.ndarray
    values: np.ndarray
    chosen_by: float


@dataclass(frozen=True)
class Saturation:
    """Where a criterion stopped, and the look that decided it, or else the last one; no bound where a floor was met."""

    saturated_at: float | None = None
    upper_bound: float | None = None
    margin: float | None = None


def outcome(found: Curve, reported: np.ndarray, epochs: float) -> Outcome | None:
    """Return what a budget gives at the rate that wins on a curve; None where no rate is eligible.

    Args:
        found: the curve of the criterion.
        reported: how good the same trials are by what is reported of them, shape (rates, seeds).
        epochs: the budget.
    """
    best = int(found.best()[0]) if found.seeds.size else -1
    if best < 0:
        return None
    known = found.there[best] & ~np.isnan(reported[best])
    chosen_by = float(np.nanmean(found.goodness[best]))
    return Outcome(epochs, found.seeds[known], reported[best][known], chosen_by) if known.any() else None


def saturated(
    outcomes: Sequence[Outcome | None],
    record: WorkloadRecord,
    criterion: Criterion,
    budget: Unlimited,
    declared_margin: Margin = None,
) -> Saturation:
    """Return where a criterion has saturated, by the rule at the head of this file.

    Args:
        outcomes: of the budgets that are finished, from the first on; None where no rate was eligible.
        record: the workload.
        criterion: ``score`` or ``train_loss``.
        budget: whose ceiling decides how many looks there can be.
        declared_margin: δ of the score; by ``score_margin`` from the best score so far unless declared.
    """
    ahead = 2 if criterion == "score" else 1
    looks = len(budget.budgets) - ahead
    last = Saturation()
    for number, here in enumerate(outcomes):
        floor = budget.loss_floor if criterion == "train_loss" else None
        if here is not None and floor is not None and math.exp(-float(here.values.mean())) <= floor:
            return Saturation(here.epochs)
        later = outcomes[number + 1 : number + 1 + ahead]
        if here is None or len(later) < ahead or any(other is None for other in later):
            continue
        upper = max(_gain_bound(here, other, looks) for other in later if other is not None)
        margin = LEAST_FALL
        if criterion == "score":
            known = [o for o in outcomes[: number + 1 + ahead] if o is not None]
            margin = margin_at(max(float(o.values.mean()) for o in known), record, declared_margin)
        if upper < margin:
            return Saturation(here.epochs, upper, margin)
        last = Saturation(None, upper, margin)
    return last


def stops(
    outcomes: Mapping[Criterion, Sequence[Outcome | None]],
    record: WorkloadRecord,
    budget: Unlimited,
    declared_margin: Margin = None,
) -> bool:
    """Return whether no criterion gains by a further doubling, given the outcomes of the budgets that are finished."""
    return all(saturated(outcomes[c], record, c, budget, declared_margin).saturated_at is not None for c in CRITERIA)


def saturation(
    trials: pl.DataFrame, records: Records, budget: Unlimited, declared_margin: Margin = None
) -> pl.DataFrame:
    """Return one row for each workload, optimizer, batch size and criterion: where it saturated and what it reached.

    ``best`` is the mean test score, or the geometric mean of the training loss, at ``best_epochs``, which is the
    budget that is best by what chooses the learning rate: the validation score, or the training loss. ``later_fall``
    is by how much the largest budget tried, ``epochs_tried``, is worse than that: in score, or in log training loss.
    Intervals are 95 % t intervals over n seeds, the fall's of paired differences. ``ceiling_reached`` says that the
    ceiling was tried and the criterion had not saturated; ``upper_bound`` and ``margin`` are those of the last look.

    Args:
        trials: a table of trials.
        records: what their workloads are, by name.
        budget: which of the trials' budgets are looked at, and how far they can go.
        declared_margin: δ of the score, where it was declared.
    """
    of_budget = {str(b): b.n for b in budget.budgets}
    groups: dict[tuple[Any, ...], dict[float, pl.DataFrame]] = {}
    for key, cell in cells(ended(trials).filter(pl.col("budget").is_in(list(of_budget)))):
        place = (key["workload"], key["optimizer"], key["batch_size"])
        groups.setdefault(place, {})[of_budget[key["budget"]]] = cell
    rows = []
    for place, by_epochs in groups.items():
        for criterion in CRITERIA:
            row = dict(zip(("workload", "optimizer", "batch_size"), place, strict=True)) | {"criterion": criterion}
            rows.append(row | _row(by_epochs, records[place[0]], criterion, budget, declared_margin))
    return pl.DataFrame(rows, schema=SATURATION_SCHEMA)


def _row(
    by_epochs: Mapping[float, pl.DataFrame],
    record: WorkloadRecord,
    criterion: Criterion,
    budget: Unlimited,
    declared_margin: Margin,
) -> dict[str, Any]:
    # Only budgets without a gap before them: a further one, of another question, is no look of this one.
    finished = []
    for one in budget.budgets:
        if one.n not in by_epochs:
            break
        finished.append(by_epochs[one.n])
    outcomes = [outcome_of(cell, record, criterion, b.n) for cell, b in zip(finished, budget.budgets, strict=False)]
    stopped = saturated(outcomes, record, criterion, budget, declared_margin)
    tried = budget.budgets[len(finished) - 1].n if finished else None
    row: dict[str, Any] = {
        "saturated_at": stopped.saturated_at,
        "ceiling_reached": stopped.saturated_at is None and tried == budget.ceiling,
        "epochs_tried": tried,
        "upper_bound": stopped.upper_bound,
        "margin": stopped.margin,
    }
    known = [o for o in outcomes if o is not None]
    if not known:
        return row
    best = max(known, key=lambda o: o.chosen_by)
    mean, low, high = t_interval(best.values)
    if criterion == "train_loss":
        with np.errstate(over="ignore"):  # seeds that differ wildly have an interval beyond what a float can hold
            mean, low, high = (float(np.exp(-value)) for value in (mean, high, low))
    elif record.score_sign < 0:
        mean, low, high = -mean, -high, -low
    return row | {
        "best_epochs": best.epochs,
        "n": len(best.seeds),
        **named("best", (mean, low, high)),
        **named("later_fall", t_interval(_gain(known[-1], best))),
    }


def outcome_of(cell: pl.DataFrame, record: WorkloadRecord, criterion: Criterion, epochs: float) -> Outcome | None:
    """Return what a budget gives from the trials of its cell; None where no rate is eligible."""
    found = curve(cell, record, criterion)
    reported = curve(cell, record, "score", "test_score") if criterion == "score" else found
    return outcome(found, reported.goodness, epochs)


def _gain(here: Outcome, later: Outcome) -> np.ndarray:
    """Return by how much the later budget is better, for each seed that both have."""
    common, mine, theirs = np.intersect1d(here.seeds, later.seeds, assume_unique=True, return_indices=True)
    gain: np.ndarray = later.values[theirs] - here.values[mine]
    return gain if common.size else np.full(1, math.inf)


def _gain_bound(here: Outcome, later: Outcome, looks: int) -> float:
    """Return mean + t(n−1)·s/√n of the gain, one-sided, at the level of one of so many looks."""
    gain = _gain(here, later)
    n = len(gain)
    if n == 1:
        return math.inf
    one_sided = 1 - (1 - LEVEL) / looks
    return float(gain.mean()) + t_quantile(n, 2 * one_sided - 1) * float(gain.std(ddof=1)) / math.sqrt(n)
