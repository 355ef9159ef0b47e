"""The cells of a sweep over batch sizes, with what their optima are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from sgdscope.analysis.curve import Curve, curve, on_common_seeds
from sgdscope.analysis.rate_choice import with_enough
from sgdscope.analysis.trial_table import Criterion
from sgdscope.records import WorkloadRecord
from sgdscope.stats.intervals import BOOTSTRAP_SEED

# Curves lean the other way in another regime, which has at least so many batch sizes.
FEWEST_ON_A_SIDE = 3


@dataclass(frozen=True)
class Cells:
    """The curves of one optimizer by batch size, with one axis of seeds; cells without an eligible rate are left out.

    Where it is epochs that differ and not batch sizes, ``sizes`` are those.
    """

    sizes: Sequence[float]
    curves: list[Curve]

    @property
    def x(self) -> np.ndarray:
        """log₂ of the batch sizes."""
        return np.log2(self.sizes)

    @cached_property
    def n(self) -> int:
        """The number of seeds that intervals rest on: the fewest of a cell."""
        return min((c.n for c in self.curves), default=0)

    @cached_property
    def vertices(self) -> np.ndarray:
        """log₂ ε* between the rates tried, shape (1, k)."""
        return np.array([c.vertex()[0] for c in self.curves]).T

    def drawn_vertices(self, stream: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return the vertices of each draw of seeds, shape (draws, k), and which of them are bounds.

        The same seeds are drawn in every cell. Each draw's vertices are moved at random by as much as they may stray:
        without that, studies whose seeds agree would claim a certainty that their grid cannot give. What is compared
        is moved by numbers of another ``stream``, since by the same ones the moves would cancel.
        """
        best, vertices, strays = self._drawn
        moved = np.random.default_rng(BOOTSTRAP_SEED + 1 + stream).uniform(-1, 1, strays.shape)
        return vertices + strays * moved, self._bounds(best)

    @cached_property
    def _drawn(self) -> tuple[np.ndarray, ...]:
        """Best rates, vertices and strays of each draw of seeds, which are the same in every cell; shape (draws, k)."""
        return tuple(np.stack(of, axis=1) for of in zip(*(c.drawn for c in self.curves), strict=True))

    def leaning(self) -> np.ndarray:
        """Return the vertices where curves lean one way up to some batch size and the other way from there on.

        A curve that is steeper on one side has its vertex off to the other, by about as much at each batch size. Which
        side that is may change where what limits the rate does, from one regime to the other. Strays that are drawn for
        each batch size by itself average that out, so it is added to intervals as a lean.

        Returns:
            Both signs of each place with at least 3 batch sizes on either side, shape (places, k).
        """
        strays = np.array([float(c.vertex()[1][0]) for c in self.curves])
        number = np.arange(len(strays))
        signs = np.where(number < number[FEWEST_ON_A_SIDE : 1 - FEWEST_ON_A_SIDE, None], -1, 1)
        leaning: np.ndarray = self.vertices + strays * np.concatenate([signs, -signs])
        return leaning

    def drawn_means(self, stream: int) -> np.ndarray:
        """Return the mean vertex over the batch sizes in each draw of seeds, shape (draws,).

        Where ε* grows by whole steps of the grid, or not at all, it lies alike between the rates tried at all batch
        sizes, and all vertices stray alike: no slope shows that, and a mean does not average it out. So they are moved
        together, by numbers that differ from one ``stream`` to the other, since two optimizers stray each by itself.
        """
        _, vertices, strays = self._drawn
        moved = np.random.default_rng([BOOTSTRAP_SEED, stream]).uniform(-1, 1, (len(strays), 1))
        means: np.ndarray = (vertices + strays * moved).mean(axis=1)
        return means

    @property
    def mean_grid_error(self) -> float:
        """The standard error of :meth:`drawn_means` that seeds do not make smaller: all vertices stray alike."""
        return float(np.mean([float(c.vertex()[1][0]) for c in self.curves])) / math.sqrt(3)

    @property
    def censored(self) -> dict[float, tuple[str, ...]]:
        """At which sizes the optimum lies at an edge of the rates tried, and at which ends."""
        return {size: c.censored for size, c in zip(self.sizes, self.curves, strict=True) if c.censored}

    @property
    def inside(self) -> Cells:
        """The sizes whose optimum lies inside the rates tried: verdicts rest on these alone."""
        return self.of([size for size, c in zip(self.sizes, self.curves, strict=True) if not c.censored])

    @property
    def bounded(self) -> Cells:
        """The sizes at which more than one rate was tried: a single rate bounds the optimum from neither side."""
        return self.of([size for size, c in zip(self.sizes, self.curves, strict=True) if len(c.rates) > 1])

    @property
    def bounds(self) -> np.ndarray:
        """−1 where the best rate is the lowest tried, +1 where it is the highest, else 0; shape (1, k)."""
        return self._bounds(np.array([[c.best()[0] for c in self.curves]]))

    def _bounds(self, best: np.ndarray) -> np.ndarray:
        last = np.array([len(c.rates) - 1 for c in self.curves])
        bounds: np.ndarray = (best == last).astype(int) - (best == 0)
        return bounds

    def of(self, sizes: Sequence[float]) -> Cells:
        """Return some of the batch sizes."""
        kept = [(size, c) for size, c in zip(self.sizes, self.curves, strict=True) if size in sizes]
        return Cells([size for size, _ in kept], [c for _, c in kept])


def cells_of(members: Mapping[Any, pl.DataFrame], record: WorkloadRecord, criterion: Criterion) -> Cells:
    """Return the curves of one optimizer's cells, by batch size, but for those of too few seeds."""
    curves = {size: curve(cell, record, criterion) for size, cell in members.items()}
    found = {size: c for size, c in curves.items() if c.seeds.size and c.eligible.any()}
    kept = with_enough([c.n for c in found.values()])
    found = {size: c for (size, c), enough in zip(found.items(), kept, strict=True) if enough}
    return Cells(list(found), on_common_seeds(list(found.values())))


def pair_on_common_seeds(one: Cells, other: Cells) -> tuple[Cells, Cells]:
    """Return both with one axis of seeds, so that drawing seeds is the same in each."""
    curves = on_common_seeds([*one.curves, *other.curves])
    return Cells(one.sizes, curves[: len(one.sizes)]), Cells(other.sizes, curves[len(one.sizes) :])
