"""How good scores and training losses are, larger being better: what curves are made of."""

from __future__ import annotations

import math

import numpy as np

from sgdscope.analysis.trial_table import Criterion
from sgdscope.errors import InputError
from sgdscope.records import WorkloadRecord

# The spacing of float32 at 1: a loss that is computed as log(1 + e) is 0 or at least half of this, whatever e is.
RESOLUTION = 2.0**-23


def constant_goodness(record: WorkloadRecord, criterion: Criterion) -> float:
    """Return how good the constant baseline is; −∞ where that is unknown, as of an external table."""
    good = float(goodness(np.array([np.nan]), record, criterion, np.array([True]))[0])
    return -math.inf if math.isnan(good) else good


def goodness(values: np.ndarray, record: WorkloadRecord, criterion: Criterion, diverged: np.ndarray) -> np.ndarray:
    """Return how good a column's values are, larger being better.

    Args:
        values: scores or training losses of trials; NaN where a trial has none.
        record: what their workload is.
        criterion: which of the two they are.
        diverged: which of the trials diverged; they count as the constant baseline.
    """
    if criterion == "score":
        return np.where(diverged, record.constant_score, values) * record.score_sign
    losses = np.where(diverged, record.constant_loss, values)
    if (losses < 0).any():
        raise InputError(
            f"workload {record.name!r}: a training loss of {losses.min():.3g} has no logarithm to compare it by; "
            f"add a constant to the loss so that it cannot be negative."
        )
    return -log_losses(losses, record)


def smallest_loss(record: WorkloadRecord) -> float:
    """Return the training loss below which losses are equal: 2⁻²³ of the constant baseline's, and at most 2⁻²³.

    A float32 near 1 has neighbours 2⁻²³ apart. The cross-entropy log Σ exp of an example is therefore 0 or about that,
    and a loss that is measured against targets is accurate to that share of what it is without a model. Differences
    below it are rounding, and the logarithm of an exact 0 would rule every mean. Stored losses stay as measured.

    Args:
        record: the workload, whose constant baseline's loss is the scale.

    Returns:
        The floor, in the unit of the loss.
    """
    scale = min(record.constant_loss, 1.0) if record.constant_loss > 0 else 1.0
    return RESOLUTION * scale


def log_losses(losses: np.ndarray, record: WorkloadRecord) -> np.ndarray:
    """Return the logarithms by which training losses are compared and averaged; see :func:`smallest_loss`.

    Args:
        losses: not negative; NaN stays NaN.
        record: what their workload is.
    """
    logarithms: np.ndarray = np.log(np.maximum(losses, smallest_loss(record)))
    return logarithms
