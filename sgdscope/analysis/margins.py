"""Margins: how much of a score is too little to matter, fixed by the workload before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping

from sgdscope.analysis.rate_choice import Chosen
from sgdscope.budget import Steps, known_budget
from sgdscope.records import WorkloadRecord

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
