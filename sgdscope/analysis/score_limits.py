"""The batch sizes at which scores begin to differ: B_score, where the plateau ends, and B_mom, where momentum leads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy import special

from sgdscope.analysis.derived import cell_warmed_up, momentum_of, of_sgd
from sgdscope.analysis.edges import listed
from sgdscope.analysis.rate_choice import Chosen, edges_of, inside, leads_over, scores_by_batch_size
from sgdscope.analysis.trial_table import LEFT_OUT, MARGIN, OPTIMIZER_COLUMNS, SEEDS, Records, by_optimizer
from sgdscope.budget import Steps, known_budget
from sgdscope.frames import Column, Columns, schema
from sgdscope.records import WorkloadRecord
from sgdscope.stats.intervals import LEVEL, holm

# δ as it was declared, for all workloads or by their names; where it was not it follows from the scores.
Margin = float | Mapping[str, float] | None

SCORE_LIMITS_COLUMNS: Columns = {
    **OPTIMIZER_COLUMNS,
    "quantity": Column(
        pl.String,
        "`B_score`: the largest batch size whose test score is equivalent to the plateau. `B_mom`: the smallest batch "
        "size at which momentum is better than SGD.",
    ),
    "warmed_up": Column(
        pl.Boolean, "Whether only batch sizes with enough updates for momentum's steady state count (`B_mom` alone)."
    ),
    "batch_sizes": Column(pl.Int64, "Number of batch sizes that were compared.", "batch sizes"),
    "n": SEEDS,
    "margin": MARGIN,
    "margin_of_errors": Column(
        pl.Float64, "The margin as a share of the errors, or of the distance to the best possible score."
    ),
    "margin_of_best_errors": Column(
        pl.Float64, "The margin as a share of the errors of the best batch size. Above 0.5 equivalence says little."
    ),
    "estimate": Column(
        pl.Int64, "Best estimate of the quantity; missing if no mean difference exceeds the margin.", "examples"
    ),
    "low": Column(
        pl.Int64,
        "Lower end of the 95 % interval: the largest batch size confirmed equivalent (`B_score`), or at which momentum "
        "is confirmed not better (`B_mom`).",
        "examples",
    ),
    "high": Column(
        pl.Int64,
        "Upper end of the 95 % interval: the first batch size that is worse (`B_score`), or at which momentum is "
        "better (`B_mom`); missing if none is.",
        "examples",
    ),
    **{
        f"{end}_at_{name}": Column(pl.Int64, f"`{end}` with {times} the margin.", "examples")
        for name, times in (("half", "half"), ("double", "twice"))
        for end in ("low", "high")
    },
    "left_out": LEFT_OUT,
}
SCORE_LIMITS_SCHEMA = schema(SCORE_LIMITS_COLUMNS)


@dataclass(frozen=True)
class Threshold:
    """Where along ascending batch sizes a difference first exceeds a margin, as indices.

    ``first`` is the first whose mean does; ``within`` counts those from the smallest on whose
    difference is confirmed not to; ``beyond`` is the first whose difference is confirmed to. An index of k means none.
    """

    first: int
    within: int
    beyond: int


def threshold(differences: np.ndarray, margin: float) -> Threshold:
    """Find where a difference first exceeds a margin, by one-sided tests at 2.5 % in each direction.

    Upward from the smallest batch size as long as the difference is confirmed below the margin: the sequence stops
    at its first failure, and so is wrong in at most 2.5 % of studies however many sizes there are. That a difference
    is above the margin is shown by Holm's p values, in any order: the largest batch sizes are often the noisiest, and
    a sequence that began there would see nothing (simulated with leads like the digits', with 5 seeds it finds any in
    19 % of studies and Holm in 68 %; where noise is alike everywhere both do in all, Holm half a batch size later). The
    first batch size whose true difference exceeds the margin lies above the one end and not above the other in at
    least 95 %.

    Args:
        differences: shape (k, n): of each batch size, seed by seed, NaN where a seed has none; positive is what the
            margin bounds.
        margin: δ.

    Sources: Maurer, Hothorn and Lehmacher (1995), on a priori ordered hypotheses; Holm (1979).

    >>> noise = np.array([0.1, -0.1, 0.0])
    >>> threshold(np.array([[0.0], [0.0], [1.0], [4.0], [5.0]]) + noise, margin=1.0)
    Threshold(first=3, within=2, beyond=3)
    """
    k = len(differences)
    mean, error, n = _of_seeds(differences)
    exceeding = np.flatnonzero(mean > margin)
    first = int(exceeding[0]) if exceeding.size else k
    above = shown_above(differences, margin)
    within = np.cumprod(mean + _quantile(n) * error < margin)
    return Threshold(first, int(within.sum()), int(above.argmax()) if above.any() else k)


def _of_seeds(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return means, their standard errors, and the seeds that each has; NaN where a row has too few."""
    there = ~np.isnan(differences)
    n, zeros = there.sum(axis=1), np.where(there, differences, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = zeros.sum(axis=1) / n
        variance = (((zeros - mean[:, None]) * there) ** 2).sum(axis=1) / (n - 1)
        return mean, np.sqrt(variance / n), n


def _quantile(n: np.ndarray) -> np.ndarray:
    quantile: np.ndarray = special.stdtrit(np.maximum(n - 1, 1), (1 + LEVEL) / 2)
    return quantile


def shown_above(differences: np.ndarray, margin: float, together: bool = True) -> np.ndarray:
    """Return which differences are confirmed to exceed a margin, by one-sided t tests at 2.5 %, shape (k,).

    Args:
        differences: shape (k, n): of each batch size, seed by seed.
        margin: what they are to exceed.
        together: whether p values are Holm's, over all k.

    >>> shown_above(np.array([[0.9, 1.1, 1.0], [0.0, 0.0, 0.0]]), margin=0.5).tolist()
    [True, False]
    """
    mean, error, n = _of_seeds(differences)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(n > 1, np.nan_to_num((mean - margin) / error, nan=0.0), 0.0)
    p_values = special.stdtr(np.maximum(n - 1, 1), -t)
    above: np.ndarray = (holm(p_values) if together else p_values) < (1 - LEVEL) / 2
    return above


def plateau_end(scores: np.ndarray, margin: float) -> tuple[Threshold, np.ndarray]:
    """Find where scores begin to be worse than the plateau by more than a margin, and the plateau, seed by seed.

    Upward from the smallest, a batch size passes only where it is confirmed worse by less than δ than each
    smaller one that passed, by one-sided tests at 2.5 %. Compared with their mean, batch sizes δ apart would pass, and
    the plateau would creep down with the scores. The first that does not pass ends the plateau, with whose mean all
    others are compared. The smallest is on the plateau by definition.

    Args:
        scores: larger being better, shape (batch sizes, n), ascending; NaN where a seed has none.
        margin: δ.

    >>> noise = np.array([0.1, -0.1, 0.0, 0.2, -0.2])
    >>> plateau_end(np.array([[0.0], [-0.6], [-1.2], [-4.0]]) + noise * [[1], [-1], [2], [1]], margin=1.0)[0]
    Threshold(first=3, within=2, beyond=3)
    """
    passed = 1
    while passed < len(scores) and _no_worse(scores[passed], scores[:passed], margin):
        passed += 1
    there = ~np.isnan(scores[:passed])
    with np.errstate(invalid="ignore"):
        plateau: np.ndarray = np.where(there, scores[:passed], 0.0).sum(axis=0) / there.sum(axis=0)
    found = threshold(plateau - scores[1:], margin)
    beyond = max(found.beyond + 1, passed)
    return Threshold(min(max(found.first + 1, passed), beyond), passed, beyond), plateau


def _no_worse(scores: np.ndarray, others: np.ndarray, margin: float) -> bool:
    """Return whether scores are shown to be worse by less than a margin than each of several others."""
    return bool(shown_above(scores - others, -margin, together=False).all())


def score_limits(trials: pl.DataFrame, records: Records, margin: Margin = None) -> pl.DataFrame:
    """Return B_score of each optimizer and B_mom of each with momentum, with 95 % intervals, one row each.

    - ``B_score``: the largest batch size whose test score is not worse by δ than that of any smaller one. It is at
      least ``low`` and below ``high``.
    - ``B_mom``: the smallest batch size at which momentum's test score is better than SGD's by more than δ, paired by
      seed. It is above ``low`` and at most ``high``. Where some batch sizes leave momentum too few updates to warm
      up, there is a second row, ``warmed_up``, without those.

    An end is null where the study shows nothing on that side, and ``estimate`` where no batch size exceeds δ. Batch
    sizes at which a best rate lies at an edge of the rates tried are ``left_out``: their best score may be better.
    Scores are taken at rates that were chosen without them, for this test set. ``margin_of_errors`` is δ as a share
    of the plateau's errors, of an accuracy, ``margin_of_best_errors`` of those of the best batch size; ``low_at_half``
    to ``high_at_double`` are the ends at δ/2 and at 2 δ.

    Args:
        trials: a table of trials.
        records: what their workloads are, by name.
        margin: δ in units of the score; that of :func:`margin_of` unless declared.
    """
    studied = list(by_optimizer(trials))
    scores = [scores_by_batch_size(members, records[key["workload"]]) for key, members in studied]
    rows: list[dict[str, Any]] = []
    plain = of_sgd((key, by_size) for (key, _), by_size in zip(studied, scores, strict=True) if by_size)
    for (key, members), by_size in zip(studied, scores, strict=True):
        if not by_size:
            continue
        sgd = plain.get((key["workload"], key["budget"]))
        record = records[key["workload"]]
        allowed = margin_of(sgd or by_size, key["budget"], record, margin)
        errors = errors_of(record.score_sign * plateau_level(sgd or by_size, key["budget"]), record)
        key = key | {"margin": allowed, "margin_of_errors": allowed / errors if errors else None}
        key |= {"margin_of_best_errors": share_of_errors(allowed, best_level(sgd or by_size), record)}
        rows.append(key | _plateau_end(by_size, allowed))
        if not momentum_of(key["optimizer"]) or sgd is None:
            continue
        warm = {size: chosen for size, chosen in by_size.items() if cell_warmed_up(members[size])}
        rows.append(key | {"warmed_up": False} | _lead(sgd, by_size, allowed))
        if len(warm) < len(by_size):
            rows.append(key | {"warmed_up": True} | _lead(sgd, warm, allowed))
    return pl.DataFrame(rows, schema=SCORE_LIMITS_SCHEMA)


def _plateau_end(by_size: Mapping[int, Chosen], margin: float) -> dict[str, Any]:
    row: dict[str, Any] = {
        "quantity": "B_score",
        "n": min(chosen.n for chosen in by_size.values()),
        "left_out": listed(edges_of(by_size)),
    }
    by_size = inside(by_size)
    if not by_size:
        return row | {"batch_sizes": 0}
    sizes, scores = list(by_size), np.array([chosen.scores for chosen in by_size.values()])
    place, _ = plateau_end(scores, margin)
    row |= {"batch_sizes": len(sizes), "estimate": sizes[place.first - 1] if place.first < len(sizes) else None}
    return row | _limits(sizes, margin, lambda margin: plateau_end(scores, margin)[0])


def _lead(sgd: Mapping[int, Chosen], momentum: Mapping[int, Chosen], margin: float) -> dict[str, Any]:
    both = [{size: of[size] for size in momentum if size in sgd} for of in (momentum, sgd)]
    momentum, sgd = (inside(of) for of in both)
    sizes = [size for size in momentum if size in sgd]
    row = {"quantity": "B_mom", "batch_sizes": len(sizes), "n": 0}
    row["left_out"] = listed(sorted(edges_of(*both)))
    leads = np.array(list(leads_over(momentum, sgd).values()))
    if not leads.size:
        return row
    place = threshold(leads, margin)
    return row | {
        "n": int((~np.isnan(leads)).sum(axis=1).min()),
        "estimate": _at(sizes, place.first),
        **_limits(sizes, margin, lambda margin: threshold(leads, margin)),
    }


def _limits(sizes: Sequence[int], margin: float, find: Callable[[float], Threshold]) -> dict[str, int | None]:
    """Return the ends of an interval of batch sizes at δ, δ/2 and 2 δ."""
    found: dict[str, int | None] = {}
    for name, factor in (("", 1.0), ("_at_half", 0.5), ("_at_double", 2.0)):
        place = find(factor * margin)
        found |= {f"low{name}": sizes[place.within - 1] if place.within else None}
        found |= {f"high{name}": _at(sizes, place.beyond)}
    return found


def _at(sizes: Sequence[int], index: int) -> int | None:
    return sizes[index] if index < len(sizes) else None


# Of the errors, or of the score itself where it is no accuracy.
SHARE = 0.02


# An accuracy is no finer than its test examples; a difference of more than half a point matters.
TEST_EXAMPLES, MOST = 2, 0.005


# A margin of more than this share of the best batch size's errors is wide: equivalent scores may differ much in errors.
WIDE_MARGIN = 0.5


# The name of an accuracy that is given in percent, as users' tables have it.
PERCENT = "accuracy (%)"
# Other scores that are 1 at best, so that what they lack of 1 counts as their errors.
OF_ONE = frozenset(
    (
        *("f1", "f1_score", "f1_macro", "macro_f1", "f1_micro", "micro_f1", "f1_weighted", "auc", "auroc", "roc_auc"),
        *("auprc", "pr_auc", "average_precision", "r2", "r2_score", "r_squared", "explained_variance", "iou", "miou"),
        *("mean_iou", "jaccard", "dice", "dice_score", "ssim", "ms_ssim", "precision", "recall", "sensitivity"),
        *("specificity", "mcc", "kappa", "cohen_kappa"),
    )
)


def errors_of(plateau_score: float, record: WorkloadRecord) -> float | None:
    """Return what a score that is 1 at best lacks of 1, or an accuracy in percent of 100; None of another score."""
    if record.score_name not in ("accuracy", PERCENT, *OF_ONE):
        return None
    return (100.0 if record.score_name == PERCENT else 1.0) - plateau_score


def share_of_errors(margin: float, goodness: float, record: WorkloadRecord) -> float | None:
    """Return a margin as a share of the errors at an accuracy, ∞ where there are none; None of another score.

    >>> from sgdscope.workloads.base import WorkloadRecord
    >>> record = WorkloadRecord("w", "1", (), "0" * 64, (1024, 256, 10_000), "accuracy", "maximize", 2.3, 0.1)
    >>> [share_of_errors(0.25, accuracy, record) for accuracy in (0.5, 1.0)]
    [0.5, inf]
    """
    errors = errors_of(record.score_sign * goodness, record)
    if errors is None:
        return None
    return margin / errors if errors > 0 else math.inf


def is_wide(margin: float, goodness: float, record: WorkloadRecord) -> bool:
    """Return whether a margin is more than half of the errors at an accuracy, so that equivalence says little."""
    return (share_of_errors(margin, goodness, record) or 0.0) > WIDE_MARGIN


def score_margin(plateau_score: float, record: WorkloadRecord) -> float:
    """Return δ, the difference in score below which two scores are called the same.

    Of an accuracy, and of other scores that are 1 at best, it is the larger of 2 test examples and 2 % of the errors,
    at most half a point and at least one test example; of another score 2 % of it. Where the number of test examples
    is not known it counts as large.

    Args:
        plateau_score: the score that others are compared with.
        record: the workload whose score it is.

    >>> from sgdscope.workloads.base import WorkloadRecord
    >>> record = WorkloadRecord("w", "1", (), "0", (1024, 256, 10_000), "accuracy", "maximize", 2.3, 0.1)
    >>> [round(score_margin(score, record), 6) for score in (0.6, 0.95, 0.995)]
    [0.005, 0.001, 0.0002]
    """
    errors = errors_of(plateau_score, record)
    if errors is None:
        return SHARE * abs(plateau_score)
    whole = 100.0 if record.score_name == PERCENT else 1.0
    example = whole / record.examples[2] if record.examples[2] else 0.0
    return max(example, min(whole * MOST, max(SHARE * errors, TEST_EXAMPLES * example)))


def margin_at(goodness: float, record: WorkloadRecord, declared: Margin) -> float:
    """Return δ as it was declared, or else that of a score, which is turned so that larger is better."""
    known = declared_for(record.name, declared)
    return score_margin(record.score_sign * goodness, record) if known is None else known


def declared_for(workload: str, margin: Margin) -> float | None:
    """Return δ as it was declared for a workload; None where it was not.

    >>> declared_for("digits", {"digits": 0.004}), declared_for("lstm", {"digits": 0.004}), declared_for("lstm", 1.0)
    (0.004, None, 1.0)
    """
    return margin.get(workload) if isinstance(margin, Mapping) else margin


def margin_of(scores: Mapping[int, Chosen], budget: str, record: WorkloadRecord, declared: Margin) -> float:
    """Return δ of one workload and budget: as it was declared, or else that of the plateau's score.

    The plateau is taken where it begins, at the smallest batch size; at a constant number of steps, where the smallest
    have seen the fewest examples, where the mean score is best.

    Args:
        scores: of the optimizer with which others are compared, by batch size, ascending.
        budget: as a trial's table names it.
        record: what the workload is.
        declared: δ as the study has it.
    """
    return margin_at(plateau_level(scores, budget), record, declared)


def best_level(scores: Mapping[int, Chosen]) -> float:
    """Return the mean score of the best batch size, larger being better."""
    return max(float(np.nanmean(chosen.scores)) for chosen in scores.values())


def plateau_level(scores: Mapping[int, Chosen], budget: str) -> float:
    """Return the mean score of the plateau, larger being better; see :func:`margin_of`."""
    if isinstance(known_budget(budget), Steps):
        return best_level(scores)
    return float(np.nanmean(next(iter(scores.values())).scores))
