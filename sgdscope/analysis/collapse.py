"""Which trials collapsed: they ended with a finite loss, and learned less than half of what others did."""

from __future__ import annotations

import numpy as np
import polars as pl

from sgdscope.analysis.trial_table import COLUMN
from sgdscope.records import WorkloadRecord

# A trial that gains less than this share of what its cell's best rate gains over the constant baseline has collapsed.
COLLAPSED_GAIN = 0.5
# A cell that gains less than these shares of the constant baseline's score and training loss has learned nothing.
LEAST_SCORE, LEAST_FALL = 0.5, 0.01


def collapsed_of(cell: pl.DataFrame, record: WorkloadRecord) -> np.ndarray:
    """Return which trials of one cell collapsed, by :func:`collapsed_trials`; all trials have ended."""
    columns = ("learning_rate", COLUMN["score"], COLUMN["train_loss"])
    rates, score, loss = (cell[name].cast(pl.Float64).to_numpy() for name in columns)
    return collapsed_trials(rates, score, loss, (cell["status"] == "diverged").to_numpy(), record)


def collapsed_trials(
    rates: np.ndarray, score: np.ndarray, loss: np.ndarray, diverged: np.ndarray, record: WorkloadRecord
) -> np.ndarray:
    """Return which trials of one cell ended with a finite loss, and learned less than half of what others did.

    A trial has collapsed where it gains less than half of what the cell's best rate gains over the constant baseline,
    both in the score that chooses and in the training loss. A gain that is not known does not decide, nor do gains of
    which no rate has any. Where no rate gains half of the constant score, nor a hundredth of the constant loss, the
    cell has learned nothing, and each of its trials has collapsed: networks that answer at random differ in score.

    Args:
        rates: of each trial.
        score: by which rates are chosen; NaN where a trial has none.
        loss: on the training split; NaN where a trial has none.
        diverged: which trials diverged; they count as the constant baseline, and have not collapsed.
        record: what their workload is.
    """
    _, rate = np.unique(rates, return_inverse=True)
    gains = np.array([(score - record.constant_score) * record.score_sign, record.constant_loss - loss])
    gains[:, diverged] = 0.0
    known = ~np.isnan(gains)
    most = np.array([[_most(gain, rate)] for gain in gains])
    least = np.array([[LEAST_SCORE * abs(record.constant_score)], [LEAST_FALL * record.constant_loss]])
    telling = known & (most > 0)
    low = (~telling | (gains < COLLAPSED_GAIN * most)).all(axis=0) & telling.any(axis=0)
    collapsed: np.ndarray = ~diverged & (low if (most > least).any() else known.any(axis=0))
    return collapsed


def _most(gain: np.ndarray, rate: np.ndarray) -> float:
    """Return the largest mean of a rate's gains; −∞ where no gain is known."""
    known = ~np.isnan(gain)
    counts = np.bincount(rate, known)
    sums = np.bincount(rate, np.where(known, gain, 0.0))
    return float(np.divide(sums, counts, out=np.full(len(counts), -np.inf), where=counts > 0).max(initial=-np.inf))
