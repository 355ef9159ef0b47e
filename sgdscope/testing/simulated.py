"""Studies with planted truths: the oracle of the statistics, in tests and in ``benchmarks/coverage.py``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from sgdscope.analysis.curve import Curve, constant_goodness, goodness
from sgdscope.analysis.trial_table import Criterion
from sgdscope.records import WorkloadRecord

# As on the digits: 1,024 examples to train, 256 to validate, 517 to test, ten classes.
RECORD = WorkloadRecord("simulated", "1", (), "0" * 64, (1024, 256, 517), "accuracy", "maximize", 2.303, 0.11)
BATCH_SIZES = tuple(2**k for k in range(2, 11))
PLATEAU = 0.975
LOWEST_LOG_LOSS = -3.0

# log₂ ε* by log₂ B.
LAWS: dict[str, Callable[[float], float]] = {
    "linear": lambda x: min(x, 6.3) - 8.2,
    "square root": lambda x: 0.5 * min(x, 6.3) - 5.2,
    "constant": lambda x: -1.9,
    "no transition in range": lambda x: x - 11.1,
    "smooth": lambda x: -math.log2(1 + 2 ** (6.3 - x)) - 1.9,
}
# What is lost at a distance of d octaves from the optimum, in units of a curve's height; all are 0 at 0.
SHAPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "symmetric": lambda d: d**2,
    "asymmetric": lambda d: np.where(d < 0, d**2, 3 * d**2),
    "cliff": lambda d: d**2,
    "flat": lambda d: 0.1 * d**2,
}


@dataclass(frozen=True)
class Truth:
    """What is planted.

    Scores lose ``height`` at an octave from the optimum of a symmetric curve and have a standard deviation of
    ``spread`` over seeds, of which a share ``shared`` is the seed's own at every rate and batch size; the logarithm of
    the training loss rises by ``loss_height``. With the shape ``cliff`` trials diverge ever more often from three
    quarters of an octave above the optimum on. ``lost`` is what the best score of a batch size lies below the plateau.
    """

    law: str = "linear"
    shape: str = "symmetric"
    height: float = 0.004
    spread: float = 0.006
    shared: float = 0.3
    loss_height: float = 0.3
    loss_spread: float = 0.15
    lost: Callable[[float], float] = field(default=lambda x: 0.0)
    grid: float = 1.0

    def octave(self, batch_size: int) -> float:
        """Return log₂ ε* of a batch size."""
        return LAWS[self.law](math.log2(batch_size))

    def mean_score(self, batch_size: int, octaves: np.ndarray) -> np.ndarray:
        """Return the mean score of the trials that do not diverge, at rates given as log₂ ε."""
        shape = SHAPES[self.shape](octaves - self.octave(batch_size))
        return PLATEAU - self.height * shape - self.lost(math.log2(batch_size))

    def mean_log_loss(self, batch_size: int, octaves: np.ndarray) -> np.ndarray:
        """Return the mean logarithm of the training loss of the trials that do not diverge."""
        return LOWEST_LOG_LOSS + self.loss_height * SHAPES[self.shape](octaves - self.octave(batch_size))

    def diverging(self, batch_size: int, octaves: np.ndarray) -> np.ndarray:
        """Return how probable it is that a trial diverges."""
        if self.shape != "cliff":
            return np.zeros(len(octaves))
        return 1 / (1 + np.exp(-8 * (octaves - self.octave(batch_size) - 0.75)))


@dataclass(frozen=True)
class SimulatedCell:
    """The trials of one cell: arrays of shape (rates, n)."""

    rates: np.ndarray
    validation_score: np.ndarray
    test_score: np.ndarray
    train_loss: np.ndarray
    diverged: np.ndarray

    def curve(self, column: str) -> Curve:
        """Return the curve of ``validation_score``, ``test_score`` or ``train_loss``."""
        criterion: Criterion = "train_loss" if column == "train_loss" else "score"
        values = np.where(self.diverged, np.nan, getattr(self, column))
        seeds = np.arange(values.shape[1])
        constant = constant_goodness(RECORD, criterion)
        return Curve(self.rates, seeds, goodness(values, RECORD, criterion, self.diverged), self.diverged, constant)


def simulate(
    rng: np.random.Generator, n: int, truth: Truth, batch_sizes: Sequence[int] = BATCH_SIZES
) -> dict[int, SimulatedCell]:
    """Return a study of one optimizer, its rates searched as they are in a study: bracketed by two octaves or more.

    Validation and test scores are shares of so many pictures. The grid of rates lies at a random place.
    """
    offset = rng.uniform(-0.5, 0.5)
    own = rng.normal(size=n) * truth.spread * math.sqrt(truth.shared)
    rest = truth.spread * math.sqrt(1 - truth.shared)
    study = {}
    for size in batch_sizes:
        centre = round(truth.octave(size) - offset)
        octaves = offset + np.arange(centre - 3, centre + 3 + truth.grid / 2, truth.grid)
        shape = (len(octaves), n)
        mean = truth.mean_score(size, octaves)[:, None] + own
        scores = [
            np.round(np.clip(mean + rng.normal(size=shape) * rest, 0, 1) * pictures) / pictures
            for pictures in RECORD.examples[1:]
        ]
        study[size] = SimulatedCell(
            2.0**octaves,
            scores[0],
            scores[1],
            np.exp(truth.mean_log_loss(size, octaves)[:, None] + rng.normal(size=shape) * truth.loss_spread),
            rng.random(shape) < truth.diverging(size, octaves)[:, None],
        )
    return study


def trial_table(studies: dict[str, dict[int, SimulatedCell]]) -> pl.DataFrame:
    """Return simulated studies, by optimizer, as a table of trials."""
    tables = []
    for optimizer, study in studies.items():
        factor = 10.0 if optimizer != "sgd" else 1.0
        for size, cell in study.items():
            rates, seeds = (grid.ravel() for grid in np.meshgrid(cell.rates, np.arange(cell.diverged.shape[1])))
            values = {
                name: np.where(cell.diverged, np.nan, getattr(cell, name)).T.ravel()
                for name in ("validation_score", "test_score", "train_loss")
            }
            status = np.where(cell.diverged.T.ravel(), "diverged", "complete")
            tables.append(
                pl.DataFrame(values, nan_to_null=True).with_columns(
                    workload=pl.lit(RECORD.name),
                    budget=pl.lit("epochs:30"),
                    optimizer=pl.lit(optimizer),
                    batch_size=pl.lit(size, pl.Int64),
                    learning_rate=pl.Series(rates),
                    effective_learning_rate=pl.Series(rates * factor),
                    seed=pl.Series(seeds),
                    status=pl.Series(status),
                    steps=pl.lit(30 * 1024 // size, pl.Int64),
                )
            )
    return pl.concat(tables)
