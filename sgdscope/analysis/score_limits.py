"""The batch sizes at which scores begin to differ: B_score, where the plateau ends, and B_mom, where momentum leads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
from sgdscope.stats.intervals import LEVEL, holm, t_quantile

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
    "left_out": LEFT_OUT,
}
SCORE_LIMITS_SCHEMA = schema(SCORE_LIMITS_COLUMNS)


@dataclass(frozen=True)
class Threshold:
    """Where along ascending batch sizes a difference first exceeds a margin, as indices.

    ``first`` is the first whose mean does; ``within`` counts those from the smallest on that are shown not to;
    ``beyond`` is the first that is shown to. An index of k means none.
    """

    first: int
    within: int
    beyond: int


def threshold(differences: np.ndarray, margin: float) -> Threshold:
    """Find where a difference first exceeds a margin, by one-sided tests at 2.5 % in each direction.

    Upward from the smallest batch size as long as the difference is shown to be below the margin: the sequence stops
    at its first failure, and so is wrong in at most 2.5 % of studies however many sizes there are. That a difference
    is above the margin is shown by Holm's p values, in any order: the largest batch sizes are often the noisiest, and
    a sequence that began there would see nothing (simulated with leads like the digits', at n = 5 it finds any in 19 %
    of studies and Holm in 68 %; where noise is alike everywhere both do in all, Holm half a batch size later). The
    first batch size whose true difference exceeds the margin lies above the one end and not above the other in at
    least 95 %.

    Args:
        differences: shape (k, n): of each batch size, seed by seed; positive is what the margin bounds.
        margin: δ.

    Sources: Maurer, Hothorn and Lehmacher (1995), on a priori ordered hypotheses; Holm (1979).

    >>> noise = np.array([0.1, -0.1, 0.0])
    >>> threshold(np.array([[0.0], [0.0], [1.0], [4.0], [5.0]]) + noise, margin=1.0)
    Threshold(first=3, within=2, beyond=3)
    """
    k, n = differences.shape
    mean = differences.mean(axis=1)
    exceeding = np.flatnonzero(mean > margin)
    first = int(exceeding[0]) if exceeding.size else k
    if n == 1:
        return Threshold(first, 0, k)
    error = differences.std(axis=1, ddof=1) / math.sqrt(n)
    below = mean + t_quantile(n) * error < margin
    above = shown_above(differences, margin)
    return Threshold(first, int(np.cumprod(below).sum()), int(above.argmax()) if above.any() else k)


def shown_above(differences: np.ndarray, margin: float, together: bool = True) -> np.ndarray:
    """Return which differences are shown to exceed a margin, by one-sided t tests at 2.5 %, shape (k,).

    Args:
        differences: shape (k, n): of each batch size, seed by seed.
        margin: what they are to exceed.
        together: whether p values are Holm's, over all k.

    >>> shown_above(np.array([[0.9, 1.1, 1.0], [0.0, 0.0, 0.0]]), margin=0.5).tolist()
    [True, False]
    """
    k, n = differences.shape
    if n == 1:
        return np.zeros(k, bool)
    excess, error = differences.mean(axis=1) - margin, differences.std(axis=1, ddof=1) / math.sqrt(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        p_values = special.stdtr(n - 1, -np.nan_to_num(excess / error, nan=0.0))
    above: np.ndarray = (holm(p_values) if together else p_values) < (1 - LEVEL) / 2
    return above


def plateau_end(scores: np.ndarray, margin: float) -> tuple[Threshold, np.ndarray]:
    """Find where scores begin to be worse than the plateau by more than a margin, and the plateau, seed by seed.

    Upward from the smallest, each batch size is compared with the mean of those below it, which have passed; what has
    passed is the plateau with which all others are compared. The smallest is on the plateau by definition.

    Args:
        scores: larger being better, shape (batch sizes, n), ascending.
        margin: δ.
    """
    smaller = np.cumsum(scores, axis=0)[:-1] / np.arange(1, len(scores))[:, None]
    passed = threshold(smaller - scores[1:], margin).within + 1
    plateau: np.ndarray = scores[:passed].mean(axis=0)
    found = threshold(plateau - scores[1:], margin)
    beyond = max(found.beyond + 1, passed)
    return Threshold(min(max(found.first + 1, passed), beyond), passed, beyond), plateau


def score_limits(trials: pl.DataFrame, records: Records, margin: float | None = None) -> pl.DataFrame:
    """Return B_score of each optimizer and B_mom of each with momentum, with 95 % intervals, one row each.

    - ``B_score``: the largest batch size whose test score is not worse than the plateau by δ. It is at least ``low``
      and below ``high``.
    - ``B_mom``: the smallest batch size at which momentum's test score is ahead of SGD's by more than δ, paired by
      seed. It is above ``low`` and at most ``high``. Where some batch sizes leave momentum too few updates to warm
      up, there is a second row, ``warmed_up``, without those.

    An end is null where the study shows nothing on that side, and ``estimate`` where no batch size exceeds δ. Batch
    sizes at which a best rate lies at an edge of the rates tried are ``left_out``: their best score may be better.
    Scores are taken at rates that were chosen without them, for this test set.

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
        allowed = margin_of(sgd or by_size, key["budget"], records[key["workload"]], margin)
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
        "n": len(next(iter(by_size.values())).seeds),
        "margin": margin,
        "left_out": listed(edges_of(by_size)),
    }
    by_size = inside(by_size)
    if not by_size:
        return row | {"batch_sizes": 0}
    sizes, scores = list(by_size), np.array([chosen.scores for chosen in by_size.values()])
    place, _ = plateau_end(scores, margin)
    return row | {
        "batch_sizes": len(sizes),
        "estimate": sizes[place.first - 1] if place.first < len(sizes) else None,
        "low": sizes[place.within - 1],
        "high": _at(sizes, place.beyond),
    }


def _lead(sgd: Mapping[int, Chosen], momentum: Mapping[int, Chosen], margin: float) -> dict[str, Any]:
    both = [{size: of[size] for size in momentum if size in sgd} for of in (momentum, sgd)]
    momentum, sgd = (inside(of) for of in both)
    sizes = [size for size in momentum if size in sgd]
    row = {"quantity": "B_mom", "batch_sizes": len(sizes), "margin": margin, "n": 0}
    row["left_out"] = listed(sorted(edges_of(*both)))
    leads = np.array(list(leads_over(momentum, sgd).values()))
    if not leads.size:
        return row
    place = threshold(leads, margin)
    return row | {
        "n": leads.shape[1],
        "estimate": _at(sizes, place.first),
        "low": sizes[place.within - 1] if place.within else None,
        "high": _at(sizes, place.beyond),
    }


def _at(sizes: Sequence[int], index: int) -> int | None:
    return sizes[index] if index < len(sizes) else None


# Of what is still to be gained, or of the score itself where it is no accuracy.
SHARE = 0.05


# An accuracy is no finer than its test examples.
TEST_EXAMPLES = 2


# The name of an accuracy that is given in percent, as users' tables have it.
PERCENT = "accuracy (%)"


def score_margin(plateau_score: float, record: WorkloadRecord) -> float:
    """Return δ, the difference in score below which two scores are called the same.

    δ = max(0.05·(1 − plateau), 2/N_test) where the score is an accuracy, 0.05·|plateau| otherwise. In percent, 100
    stands for 1. Where N_test is not known it counts as large.

    Args:
        plateau_score: the score that others are compared with.
        record: the workload whose score it is.

    >>> from sgdscope.workloads.base import WorkloadRecord
    >>> record = WorkloadRecord("w", "1", (), "0", (1024, 256, 500), "accuracy", "maximize", 2.3, 0.1)
    >>> round(score_margin(0.9, record), 6), round(score_margin(0.98, record), 6)
    (0.005, 0.004)
    """
    if record.score_name in ("accuracy", PERCENT):
        whole = 100.0 if record.score_name == PERCENT else 1.0
        finest = whole * TEST_EXAMPLES / record.examples[2] if record.examples[2] else 0.0
        return max(SHARE * (whole - plateau_score), finest)
    return SHARE * abs(plateau_score)


def margin_at(goodness: float, record: WorkloadRecord, declared: float | None) -> float:
    """Return δ as it was declared, or else that of a score, which is turned so that larger is better."""
    return score_margin(record.score_sign * goodness, record) if declared is None else declared


def margin_of(scores: Mapping[int, Chosen], budget: str, record: WorkloadRecord, declared: float | None) -> float:
    """Return δ of one workload and budget: as it was declared, or else that of the plateau's score.

    The plateau is taken where it begins, at the smallest batch size; at a constant number of steps, where the smallest
    have seen the fewest examples, where the mean score is best.

    Args:
        scores: of the optimizer with which others are compared, by batch size, ascending.
        budget: as a trial's table names it.
        record: what the workload is.
        declared: δ as the study has it.
    """
    levels = [float(chosen.scores.mean()) for chosen in scores.values()]
    plateau = max(levels) if isinstance(known_budget(budget), Steps) else levels[0]
    return margin_at(plateau, record, declared)
