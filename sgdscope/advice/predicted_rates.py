"""The learning rate for any batch size, also for one that was not measured: predicted from those that were."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import polars as pl

from sgdscope.analysis.exclusions import learning
from sgdscope.analysis.optima import FLAT_OCTAVES
from sgdscope.analysis.sweep import Cells, cells_of
from sgdscope.analysis.transitions import AT_EDGE, FEWEST_BATCH_SIZES, TOO_FEW
from sgdscope.analysis.trial_table import BATCH_SIZE, CRITERION, OPTIMIZER_COLUMNS, SEEDS, Records, measured_criteria
from sgdscope.analysis.vertex import ROUNDED_OCTAVES
from sgdscope.errors import InputError
from sgdscope.frames import Column, Columns, schema, with_interval
from sgdscope.records import WorkloadRecord
from sgdscope.stats.intervals import t_quantile
from sgdscope.stats.laws import Hinge, fit_hinge

# So many octaves beyond the batch sizes measured a rate is predicted, and no further.
MOST_BEYOND = 2.0
# A law that was seen to hold may bend beyond: by so many octaves of the rate for each octave of the batch size.
STRAY_AN_OCTAVE = 0.25
# What a hinge is fitted with: its knee, its slope and its level.
PARAMETERS = 3

Place = Literal["measured", "between", "extrapolated"]

RATES_COLUMNS: Columns = {
    **OPTIMIZER_COLUMNS,
    "criterion": CRITERION,
    "batch_size": BATCH_SIZE,
    "place": Column(pl.String, "`measured`, `between` measured batch sizes, or `extrapolated` beyond them."),
    "batch_sizes": Column(pl.Int64, "Number of batch sizes that the prediction is fitted to.", "batch sizes"),
    "n": SEEDS,
    **with_interval("learning_rate", "Predicted optimal learning rate ε*."),
    "flat": Column(pl.Boolean, "Whether its interval is wider than 3 octaves (a factor of 8)."),
    **with_interval("measured", "Measured optimal learning rate ε*, where the batch size was trained."),
    "censored": Column(pl.String, "Edges of the tested rates that the interval of the measured rate reaches."),
}
RATES_SCHEMA = schema(RATES_COLUMNS)


@dataclass(frozen=True)
class Predicted:
    """log₂ of an optimal learning rate with the ends of its 95 % interval, and how its batch size lies."""

    octave: float
    low: float
    high: float
    place: Place


@dataclass(frozen=True)
class Law:
    """The optimal learning rates of one optimizer by batch size, from which others are predicted.

    At least 4 lie inside the rates tried. The others are bounds, and count as batch sizes that were not measured.
    """

    cells: Cells

    @cached_property
    def _inside(self) -> Cells:
        return self.cells.inside

    @cached_property
    def _hinges(self) -> tuple[Hinge, Hinge]:
        return (
            fit_hinge(self.cells.x, self.cells.vertices, self.cells.bounds),
            fit_hinge(self.cells.x, *self.cells.drawn_vertices()),
        )

    def at(self, batch_size: float) -> Predicted:
        """Predict log₂ ε* at a batch size.

        Between the batch sizes measured it is half of what the hinge says and half of what the straight line between
        the two neighbours says: where one of them is wrong, at a smooth transition or at a noisy neighbour, the
        other is not by as much. Left out one at a time, the measured optima of the digits (15 seeds) are predicted to
        0.13 octaves so, root mean square, and to 0.15 by the hinge alone. Beyond them it is the hinge. Above the
        largest, without a transition, ε* may go on growing or stop there: the middle is given, with an interval
        over both.

        The interval is estimate ± (√((t(n−1)·SE)²·n/(n−1) + (t(n−1)·τ)²) + s/2 + d/4): SE by drawing seeds jointly
        over all batch sizes and fitting everything anew; τ² the mean square by which the hinge misses the optima
        beyond what seeds explain; s the step of the rates around the best, which no seed refines; d the octaves
        beyond the batch sizes measured. Simulated studies of every law and shape of curve have the planted rate in it
        in .99, with a batch size held out between, or one or two at an end; least, in 10 of 12, at a hinge
        whose curves are steeper on one side. It is that wide for those: vertices of such curves stray alike everywhere.

        Args:
            batch_size: B, not more than ``MOST_BEYOND`` octaves beyond those measured.
        """
        x, place = math.log2(batch_size), self._place(batch_size)
        fitted, drawn = self._hinges
        below, above = (self._values(hinge, x) for hinge in (fitted, drawn))
        estimates, draws = [float(value[0]) for value in below], list(above)
        line = self._line(x)
        if line is not None:
            estimates = [(value + line[0]) / 2 for value in estimates]
            draws = [(value + line[1]) / 2 for value in draws]
        ends = [self._half_width(values, x) for values in draws]
        return Predicted(sum(estimates) / 2, estimates[0] - ends[0], estimates[1] + ends[1], place)

    def _place(self, batch_size: float) -> Place:
        if batch_size in self._inside.sizes:
            return "measured"
        return "between" if self._beyond(math.log2(batch_size)) == 0 else "extrapolated"

    def _beyond(self, x: float) -> float:
        return float(max(0.0, self._inside.x[0] - x, x - self._inside.x[-1]))

    def too_far(self, batch_size: float) -> bool:
        """Return whether a batch size lies too far beyond those whose optimum is inside the rates tried."""
        return self._beyond(math.log2(batch_size)) > MOST_BEYOND

    def _values(self, hinge: Hinge, x: float) -> tuple[np.ndarray, np.ndarray]:
        """Return what hinges say at x, twice: where there is no bend yet, as if it came at once, and as if never."""
        last = self.cells.x[-1]
        value = hinge.level - hinge.slope * np.maximum(0.0, hinge.transition - x)
        growth = np.where(hinge.transition >= last, hinge.slope * max(0.0, x - last), 0.0)
        return value + np.minimum(0.0, growth), value + np.maximum(0.0, growth)

    def _line(self, x: float) -> tuple[float, np.ndarray] | None:
        """Return what the line between two neighbours says, and in each draw; None where they are not both known."""
        sizes = self.cells.x
        right = min(max(1, int(np.searchsorted(sizes, x))), len(sizes) - 1)
        share = (x - sizes[right - 1]) / (sizes[right] - sizes[right - 1])
        if not 0 <= share <= 1 or self.cells.bounds[0, right - 1 : right + 1].any():
            return None
        weights = np.array([1 - share, share])
        drawn, _ = self.cells.drawn_vertices()
        of = slice(right - 1, right + 1)
        return float(self.cells.vertices[0, of] @ weights), drawn[:, of] @ weights

    def _half_width(self, draws: np.ndarray, x: float) -> float:
        n = self.cells.n
        if n < 2:
            return math.inf
        steps = np.mean([c.steps[c.best()[0]] for c in self.cells.curves])
        spread = t_quantile(n) * math.sqrt(draws.var() * n / (n - 1) + self._lack_of_fit)
        return float(spread + steps / 2 + STRAY_AN_OCTAVE * self._beyond(x))

    @cached_property
    def _lack_of_fit(self) -> float:
        """τ²: the mean square by which the hinge misses the optima, less what seeds explain."""
        found, n = self.cells, self.cells.n
        fitted, _ = self._hinges
        missed = found.vertices[0] - (fitted.level - fitted.slope * np.maximum(0.0, fitted.transition - found.x))
        known = found.bounds[0] == 0
        explained = found.drawn_vertices()[0].var(axis=0).mean() * n / (n - 1)
        square = float((missed[known] ** 2).sum()) / max(1, len(found.sizes) - PARAMETERS)
        return max(0.0, square - float(explained))


def rate_for(
    trials: pl.DataFrame, optima: pl.DataFrame, records: Records, batch_sizes: Sequence[int] = ()
) -> pl.DataFrame:
    """Return the learning rate for each batch size asked for, by optimizer and criterion, with 95 % intervals.

    ``learning_rate`` is predicted as :meth:`Law.at` says. ``place`` is ``measured`` where the batch size is in the
    study, and then ``measured`` is the optimum found there, with the interval of :func:`optima` beside it;
    ``between`` or ``extrapolated`` where it is not; ``too few batch sizes`` where there are fewer than 4 to
    predict from; ``at the edge of the rates tried`` where the optimum of fewer than 4 lies inside the rates tried, or
    the batch size is more than 2 octaves beyond theirs. An optimum at an edge is a bound, and counts as not measured.
    ``flat`` is an interval of more than 3 octaves.

    Cells that are excluded from fits (:func:`sgdscope.analysis.exclusions.learning`) predict nothing.

    Args:
        trials: a table of trials.
        optima: the optimal rates of their cells.
        records: what their workloads are, by name.
        batch_sizes: the batch sizes that are asked for. Default: each optimizer's own.

    Raises:
        InputError: where a batch size cannot be trained, or lies more than 2 octaves beyond those measured.
    """
    rows: list[dict[str, Any]] = []
    for of in learning(trials, records):
        key, sizes = of.key, batch_sizes or list(of.members)
        for size in sizes:
            _check(size, records[key["workload"]], list(of.members))
        for criterion in measured_criteria(trials):
            found = cells_of(of.learned, records[key["workload"]], criterion)
            mine = optima.filter(**key, criterion=criterion)
            law: Law | str = TOO_FEW
            if len(found.sizes) >= FEWEST_BATCH_SIZES and found.n:
                law = Law(found.bounded) if len(found.inside.sizes) >= FEWEST_BATCH_SIZES else AT_EDGE
            for size in sizes:
                row = key | {"criterion": criterion, "batch_size": size, "batch_sizes": len(found.sizes), "n": found.n}
                rows.append(row | _predicted(law, size) | _measured(mine.filter(batch_size=size)))
    return pl.DataFrame(rows, schema=RATES_SCHEMA)


def _predicted(law: Law | str, size: int) -> dict[str, Any]:
    if isinstance(law, str):
        return {"place": law}
    if law.too_far(size):
        return {"place": AT_EDGE}
    found = law.at(size)
    with np.errstate(over="ignore", under="ignore"):
        rate, low, high = (float(np.exp2(octave)) for octave in (found.octave, found.low, found.high))
    return {
        "place": found.place,
        "learning_rate": rate,
        "learning_rate_low": low,
        "learning_rate_high": high,
        "flat": found.high - found.low > FLAT_OCTAVES + ROUNDED_OCTAVES,
    }


def _measured(optimum: pl.DataFrame) -> dict[str, Any]:
    if optimum.is_empty():
        return {}
    row = optimum.row(0, named=True)
    return {
        "measured": row["learning_rate"],
        "measured_low": row["learning_rate_low"],
        "measured_high": row["learning_rate_high"],
        "censored": row["censored"],
        "n": row["n"],
    }


def _check(size: int, record: WorkloadRecord, measured: Sequence[int]) -> None:
    if size < 1 or size % record.batch_multiple:
        what = f"a multiple of {record.batch_multiple}" if record.batch_multiple > 1 else "at least 1"
        raise InputError(f"batch_sizes: {size} cannot be trained with {record.name}; it must be {what}.")
    if record.examples[0] and size > record.examples[0]:
        raise InputError(
            f"batch_sizes: {size} is larger than the training set of {record.name}; "
            f"ask for at most its {record.examples[0]} examples."
        )
    nearest = min(max(size, measured[0]), measured[-1])
    if abs(math.log2(size / nearest)) > MOST_BEYOND:
        raise InputError(
            f"batch_sizes: {size} lies more than {MOST_BEYOND:g} octaves beyond what was measured of {record.name} "
            f"({measured[0]} to {measured[-1]}), too far to predict a learning rate; measure one nearer to it."
        )
