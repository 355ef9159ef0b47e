"""Which learning rates may be the best: those that no other leads beyond chance."""

from __future__ import annotations

import numpy as np
from scipy import special

# Seeds that two samples must share to be compared seed by seed.
FEWEST_SHARED = 3
# In at most this share of studies the truly best rate is not among the contenders.
MOST_WRONG = 0.05


def contenders(goodness: np.ndarray, eligible: np.ndarray, best: int) -> np.ndarray:
    """Return which rates may be the best: the eligible ones that no other leads beyond chance, shape (rates,).

    A rate is out where, of its k − 1 t tests against the others, one rejects at a one-sided 5 % / (k − 1), so that the
    truly best rate is out in at most 5 % of studies however many are compared: the best of many is the luckiest of
    them, and beats its equals in more than 5 % where it is tested against each as if it were one. Rates are compared on
    the seeds that both have; where these are fewer than 3, the tests are Welch's. With one seed those that tie with the
    best remain.

    Args:
        goodness: Shape (rates, seeds), NaN where a rate has no trial.
        eligible: Which rates are compared, shape (rates,).
        best: The index of the best eligible rate.

    Source: Hsu (1981), Annals of Statistics 9, 1026-1034, on multiple comparisons with the best; by Bonferroni's
    inequality, since the variances differ from rate to rate.
    """
    others = int(eligible.sum()) - 1
    contending: np.ndarray = eligible.copy()
    if others > 0:
        lead, least = leads_between(goodness[contending], 1 - MOST_WRONG / others)
        contending[contending] = ~(np.round(lead - least, 12) > 0).any(axis=0)
        contending[best] = True
    return contending


def leads_between(values: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Return by how much each row leads each other, and the least lead at which a one-sided t test rejects.

    Rows are compared on the columns that both have; where these are fewer than 3 though each has more, by Welch's test.
    Of rows with one value the least lead is 0.

    Args:
        values: shape (rows, seeds), NaN where a row has none.
        level: one less the level of the test.

    Returns:
        Both of shape (rows, rows): entry (i, j) is of row i over row j.
    """
    there = ~np.isnan(values)
    zeros, counts = np.where(there, values, 0.0), there.sum(axis=1)
    both = (there[:, None] & there).astype(float)
    shared = both.sum(axis=2)
    differences = (zeros[:, None] - zeros) * both
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = differences.sum(axis=2) / shared
        spread = np.sqrt((((differences - mean[:, :, None]) * both) ** 2).sum(axis=2) / (shared - 1) / shared)
        least = special.stdtrit(np.maximum(shared - 1, 1), level) * spread
        means = zeros.sum(axis=1) / counts
        variance = (((zeros - means[:, None]) * there) ** 2).sum(axis=1) / (counts - 1) / counts
        error = variance[:, None] + variance
        terms = variance**2 / (counts - 1)
        freedom = np.divide(error**2, terms[:, None] + terms, out=np.ones(error.shape), where=error > 0)
        of_welch = special.stdtrit(freedom, level) * np.sqrt(error)
    unpaired = shared < np.minimum(FEWEST_SHARED, np.minimum(counts[:, None], counts))
    mean, least = np.where(unpaired, means[:, None] - means, mean), np.where(unpaired, of_welch, least)
    single = np.where(unpaired, np.minimum(counts[:, None], counts), shared) < 2
    return mean, np.where(single, 0.0, least)


def middle_of_tied(values: np.ndarray) -> np.ndarray:
    """Return of each column, shape (rates, draws), which rate has the largest value; of tied ones the middle."""
    tied = values == values.max(axis=0)
    middle = (tied.sum(axis=0) + 1) // 2
    index: np.ndarray = (np.cumsum(tied, axis=0) >= middle).argmax(axis=0)
    return index
