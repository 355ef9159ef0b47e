"""Studies with planted truths: the oracle of the statistics, in tests and in ``benchmarks/coverage.py``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property

import numpy as np
import polars as pl

from sgdscope.analysis.collapse import collapsed_trials
from sgdscope.analysis.curve import Curve
from sgdscope.analysis.goodness import constant_goodness, goodness
from sgdscope.analysis.trial_table import Criterion
from sgdscope.records import WorkloadRecord

# As on the digits: 1,024 examples to train, 256 to validate, 517 to test, ten classes.
RECORD = WorkloadRecord("simulated", "1", (), "0" * 64, (1024, 256, 517), "accuracy", "maximize", 2.303, 0.11)
BATCH_SIZES = tuple(2**k for k in range(2, 11))
PLATEAU = 0.975
LOWEST_LOG_LOSS = -3.0


def transition(k: float, slope: float = 1.0) -> Callable[[float], float]:
    """Return the law ε* ∝ (1 + (B_n/B)^k)^(−slope/k), as log₂ ε* by log₂ B, with log₂ B_n = 6.3."""
    return lambda x: -slope / k * math.log2(1 + 2 ** (k * (6.3 - x))) - 1.9


# log₂ ε* by log₂ B.
LAWS: dict[str, Callable[[float], float]] = {
    "linear": lambda x: min(x, 6.3) - 8.2,
    "square root": lambda x: 0.5 * min(x, 6.3) - 5.2,
    "constant": lambda x: -1.9,
    "no transition in range": lambda x: x - 11.1,
    "smooth": transition(1.0),
}
# Laws whose transition is neither smooth nor a hinge, by the exponent k and the slope.
LAWS_BETWEEN = {f"k = {k:g}, slope {slope:g}": transition(k, slope) for k in (2.0, 3.0) for slope in (1.0, 0.5)}
# What is lost at a distance of d octaves from the optimum, in units of a curve's height; all are 0 at 0.
SHAPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "symmetric": lambda d: d**2,
    "asymmetric": lambda d: np.where(d < 0, d**2, 3 * d**2),
    "cliff": lambda d: d**2,
    "flat": lambda d: 0.1 * d**2,
    "steep": lambda d: 4 * d**2,
    "collapse": lambda d: d**2,
    "turning": lambda d: np.where(d < 0, d**2, 3 * d**2),
}
# Above it a curve that turns is steeper below its optimum, and not above it.
TURN = 6.3
# Trials that collapse have a score and a loss near those of the constant baseline.
COLLAPSED_SCORE, COLLAPSED_LOSS = 0.02, 1.01


@dataclass(frozen=True)
class Truth:
    """What is planted.

    Scores lose ``height`` at an octave from the optimum of a symmetric curve and have a standard deviation of
    ``spread`` over seeds, of which a share ``shared`` is the seed's own at every rate and batch size; the logarithm of
    the training loss rises by ``loss_height``. With the shapes ``cliff`` and ``collapse`` trials diverge, or collapse
    to the constant baseline with a finite loss, ever more often from three quarters of an octave above the optimum on.
    The shape ``turning`` is steeper above the optimum at small batch sizes and below it at large ones. ``lost`` is what
    the best score of a batch size lies below the plateau. ``luck`` is the share of a trial's own scatter that its
    validation and test scores have in common. From the smallest batch size to the largest, heights and scatter grow by
    a factor of 1 + ``changing``, and the cliff comes nearer by a quarter of an octave times it. A share ``missing`` of
    the trials is not there. ``grid`` is the step of the rates in octaves; 0 for whole octaves and the half octaves
    beside the best, as a search leaves them.
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
    luck: float = 0.0
    changing: float = 0.0
    missing: float = 0.0

    def octave(self, batch_size: int) -> float:
        """Return log₂ ε* of a batch size."""
        return (LAWS | LAWS_BETWEEN)[self.law](math.log2(batch_size))

    def growth(self, batch_size: int) -> float:
        """Return by which factor heights and scatter are larger than at the smallest batch size."""
        first, last = (math.log2(size) for size in (BATCH_SIZES[0], BATCH_SIZES[-1]))
        return 1 + self.changing * (math.log2(batch_size) - first) / (last - first)

    def below(self, batch_size: int, octaves: np.ndarray) -> np.ndarray:
        """Return what rates lose, in units of a curve's height."""
        distance = octaves - self.octave(batch_size)
        if self.shape == "turning" and math.log2(batch_size) > TURN:
            distance = -distance
        return SHAPES[self.shape](distance) * self.growth(batch_size)

    def mean_score(self, batch_size: int, octaves: np.ndarray) -> np.ndarray:
        """Return the mean score of the trials that do not fail, at rates given as log₂ ε."""
        return PLATEAU - self.height * self.below(batch_size, octaves) - self.lost(math.log2(batch_size))

    def mean_log_loss(self, batch_size: int, octaves: np.ndarray) -> np.ndarray:
        """Return the mean logarithm of the training loss of the trials that do not fail."""
        return LOWEST_LOG_LOSS + self.loss_height * self.below(batch_size, octaves)

    def failing(self, batch_size: int, octaves: np.ndarray) -> np.ndarray:
        """Return how probable it is that a trial diverges or collapses."""
        if self.shape not in ("cliff", "collapse"):
            return np.zeros(len(octaves))
        edge = 0.75 - 0.25 * (self.growth(batch_size) - 1)
        share: np.ndarray = 1 / (1 + np.exp(-8 * (octaves - self.octave(batch_size) - edge)))
        return share

    def diverging(self, batch_size: int, octaves: np.ndarray) -> np.ndarray:
        """Return how probable it is that a trial diverges."""
        return self.failing(batch_size, octaves) * (self.shape != "collapse")


@dataclass(frozen=True)
class SimulatedCell:
    """The trials of one cell: arrays of shape (rates, n)."""

    rates: np.ndarray
    validation_score: np.ndarray
    test_score: np.ndarray
    train_loss: np.ndarray
    diverged: np.ndarray
    missing: np.ndarray | None = None

    @cached_property
    def gone(self) -> np.ndarray:
        """Which trials are missing."""
        return np.zeros(self.diverged.shape, bool) if self.missing is None else self.missing

    @cached_property
    def collapsed(self) -> np.ndarray:
        """Which trials collapsed."""
        rates = np.repeat(self.rates, self.gone.shape[1])
        score, loss = (np.where(self.gone, np.nan, of).ravel() for of in (self.validation_score, self.train_loss))
        diverged = (self.diverged & ~self.gone).ravel()
        return collapsed_trials(rates, score, loss, diverged, RECORD).reshape(self.gone.shape)

    def curve(self, column: str) -> Curve:
        """Return the curve of ``validation_score``, ``test_score`` or ``train_loss``."""
        criterion: Criterion = "train_loss" if column == "train_loss" else "score"
        values = goodness(getattr(self, column), RECORD, criterion, self.diverged)
        return Curve(
            self.rates,
            np.arange(self.gone.shape[1]),
            np.where(self.gone, np.nan, values),
            self.diverged & ~self.gone,
            constant_goodness(RECORD, criterion),
            self.collapsed,
        )


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
        centre, step = round(truth.octave(size) - offset), truth.grid or 0.5
        octaves = offset + np.arange(centre - 3, centre + 3 + step / 2, step)
        shape, scatter = (len(octaves), n), rest * truth.growth(size)
        luck = rng.normal(size=shape) * math.sqrt(truth.luck) if truth.luck else 0.0
        mean = truth.mean_score(size, octaves)[:, None] + own + luck * scatter
        scatter *= math.sqrt(1 - truth.luck)
        scores = [
            np.round(np.clip(mean + rng.normal(size=shape) * scatter, 0, 1) * pictures) / pictures
            for pictures in RECORD.examples[1:]
        ]
        losses = np.exp(truth.mean_log_loss(size, octaves)[:, None] + rng.normal(size=shape) * truth.loss_spread)
        failed = rng.random(shape) < truth.failing(size, octaves)[:, None]
        if truth.shape == "collapse":
            chance = RECORD.constant_score + COLLAPSED_SCORE * rng.normal(size=(2, *shape))
            scores = [np.where(failed, of_chance, of) for of_chance, of in zip(chance, scores, strict=True)]
            losses = np.where(failed, RECORD.constant_loss * COLLAPSED_LOSS, losses)
        diverged = failed & (truth.shape != "collapse")
        missing = rng.random(shape) < truth.missing if truth.missing else None
        cell = SimulatedCell(2.0**octaves, scores[0], scores[1], losses, diverged, missing)
        study[size] = cell if truth.grid else _searched(cell)
    return study


def _searched(cell: SimulatedCell) -> SimulatedCell:
    """Return the rates that a search tries: whole octaves, and the half octaves beside the best by each criterion."""
    tried = np.arange(len(cell.rates)) % 2 == 0
    while True:
        before, at = tried.copy(), np.flatnonzero(tried)
        some = _some(cell, at)
        for column in ("validation_score", "train_loss"):
            best = at[some.curve(column).best()[0]]
            tried[max(0, best - 1) : best + 2] = True
        if (tried == before).all():
            return some


def _some(cell: SimulatedCell, rates: np.ndarray) -> SimulatedCell:
    arrays = {of.name: getattr(cell, of.name) for of in fields(cell)}
    return replace(cell, **{name: of[rates] for name, of in arrays.items() if of is not None})


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
            if cell.missing is not None:
                tables[-1] = tables[-1].filter(~pl.Series(cell.missing.T.ravel()))
    return pl.concat(tables)
