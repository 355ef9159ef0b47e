"""All that follows from a table of trials, each table computed when it is first asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import polars as pl

from sgdscope.analysis.best_by_method import BEST_BY_METHOD_COLUMNS, best_by_method
from sgdscope.analysis.curves import CURVES_COLUMNS, learning_rate_curves
from sgdscope.analysis.difference_from_sgd import DIFFERENCE_FROM_SGD_COLUMNS, difference_from_sgd
from sgdscope.analysis.failures import FAILURES_COLUMNS, failures
from sgdscope.analysis.methods import Method, methods, of_methods
from sgdscope.analysis.noise_scale import NOISE_SCALE_COLUMNS, NOISE_SCALE_SCHEMA, noise_scale
from sgdscope.analysis.optima import OPTIMA_COLUMNS, optima
from sgdscope.analysis.regimes import REGIMES_COLUMNS, regimes
from sgdscope.analysis.saturation import SATURATION_COLUMNS, SATURATION_SCHEMA, saturation
from sgdscope.analysis.score_by_cost import SCORE_BY_COST_COLUMNS, score_by_cost
from sgdscope.analysis.score_limits import SCORE_LIMITS_COLUMNS, Margin, score_limits
from sgdscope.analysis.sharpness import SHARPNESS_COLUMNS, SHARPNESS_SCHEMA, sharpness
from sgdscope.analysis.test_set import TEST_SET_COLUMNS, TEST_SET_SCHEMA, over_test_examples
from sgdscope.analysis.training_curves import TRAINING_CURVES_COLUMNS, TRAINING_CURVES_SCHEMA, training_curves
from sgdscope.analysis.transitions import TRANSITIONS_COLUMNS, transitions
from sgdscope.analysis.trial_table import CELL, Records
from sgdscope.budget import Epochs, Steps, Unlimited, known_budget
from sgdscope.frames import Columns, table
from sgdscope.records import WorkloadRecord
from sgdscope.store import CORRECTNESS_COLUMNS, MEASUREMENTS_COLUMNS, TRIALS_COLUMNS
from sgdscope.study import Declaration

# The columns of every table of a study, by the table's name.
COLUMNS: dict[str, Columns] = {
    "trials": TRIALS_COLUMNS,
    "measurements": MEASUREMENTS_COLUMNS,
    "correctness": CORRECTNESS_COLUMNS,
    "curves": CURVES_COLUMNS,
    "failures": FAILURES_COLUMNS,
    "optima": OPTIMA_COLUMNS,
    "transitions": TRANSITIONS_COLUMNS,
    "regimes": REGIMES_COLUMNS,
    "score_limits": SCORE_LIMITS_COLUMNS,
    "difference_from_sgd": DIFFERENCE_FROM_SGD_COLUMNS,
    "test_set": TEST_SET_COLUMNS,
    "best_by_method": BEST_BY_METHOD_COLUMNS,
    "score_by_cost": SCORE_BY_COST_COLUMNS,
    "saturation": SATURATION_COLUMNS,
    "training_curves": TRAINING_CURVES_COLUMNS,
    "noise_scale": NOISE_SCALE_COLUMNS,
    "sharpness": SHARPNESS_COLUMNS,
}
TABLES = (
    "curves",
    "failures",
    "optima",
    "transitions",
    "regimes",
    "score_limits",
    "difference_from_sgd",
    "test_set",
)


@dataclass(frozen=True)
class Tables:
    """Trials that have ended, and what follows from them.

    Args:
        trials: one row a trial.
        records: what their workloads are, by name.
        score_margin: δ, how much of a score is too little to matter; by each workload's score unless declared,
            for all workloads or by their names.
        correctness: which examples each trial was right about, where that is known.
        measurements: what was measured along the training of the trials, where that is known.
    """

    trials: pl.DataFrame
    records: Records
    score_margin: Margin = None
    correctness: pl.DataFrame | None = None
    measurements: pl.DataFrame | None = None

    @cached_property
    def parts(self) -> list[Tables]:
        """The tables of each workload and budget by itself: epochs before steps, small budgets before large ones."""
        pairs = self.trials.select("workload", "budget").unique().rows()
        if len(pairs) == 1:
            return [self]  # what it has computed serves as its part
        return [
            Tables(self.trials.filter(workload=workload, budget=budget), *self._context)
            for workload, budget in sorted(pairs, key=lambda pair: (pair[0], _size(pair[1])))
        ]

    @property
    def record(self) -> WorkloadRecord:
        """What the workload is, where there is one."""
        return self.records[self.trials["workload"][0]]

    @property
    def title(self) -> str:
        """The workload and budget of a part, as a heading."""
        return f"{self.record.name} at {self.trials['budget'][0]}"

    def all(self) -> dict[str, pl.DataFrame]:
        """Return every table by its name; those of what is measured along training where it was."""
        there = ("best_by_method", "score_by_cost", "training_curves", "noise_scale", "sharpness")
        found = [name for name in there if not getattr(self, name).is_empty()]
        return {name: getattr(self, name) for name in (*TABLES, *found)}

    @property
    def _context(self) -> tuple[Records, Margin, pl.DataFrame | None, pl.DataFrame | None]:
        return self.records, self.score_margin, self.correctness, self.measurements

    @table
    def curves(self) -> pl.DataFrame:
        """One row for each cell and learning rate: n, diverged, collapsed, means and intervals."""
        return learning_rate_curves(self.trials, self.records)

    @table
    def failures(self) -> pl.DataFrame:
        """Where training fails: n, diverged and collapsed trials for each cell and learning rate."""
        return failures(self.curves)

    @table
    def optima(self) -> pl.DataFrame:
        """Two rows for each cell, the learning rates that are best for the score and for the training loss."""
        return optima(self.trials, self.records)

    @table
    def transitions(self) -> pl.DataFrame:
        """One row for each optimizer and criterion, B_ε: the batch size at which the learning rate stops growing."""
        return transitions(self.trials, self.records)

    @table
    def regimes(self) -> pl.DataFrame:
        """One row for each optimizer and batch size: noise-dominated, curvature-dominated or unassigned."""
        return regimes(self.transitions, self.trials, self.records)

    @table
    def score_limits(self) -> pl.DataFrame:
        """B_score, where the plateau of the score ends, and B_mom, where momentum begins to lead."""
        return score_limits(self.trials, self.records, self.score_margin)

    @table
    def difference_from_sgd(self) -> pl.DataFrame:
        """The best score of each optimizer minus SGD's by batch size, one row each; no rows without SGD beside it."""
        return difference_from_sgd(self.trials, self.score_limits, self.records)

    @table
    def test_set(self) -> pl.DataFrame:
        """Intervals of the best scores on the population that the test examples are from, where they are known."""
        if self.correctness is None:
            return pl.DataFrame(schema=TEST_SET_SCHEMA)
        return over_test_examples(self.optima, self.trials, self.correctness, self.records)

    @cached_property
    def methods(self) -> list[Method]:
        """The optimizers that have learned, each with the SGD that it is compared with; none if all are such SGD."""
        return methods(self.trials, self.records) if of_methods(self.trials) else []

    @table
    def best_by_method(self) -> pl.DataFrame:
        """Each method at its best batch size against SGD at its own; none without methods."""
        return best_by_method(self.methods)

    @table
    def score_by_cost(self) -> pl.DataFrame:
        """What each method reached at each batch size, and what it cost; none without methods."""
        return score_by_cost(self.methods)

    @table
    def noise_scale(self) -> pl.DataFrame:
        """The gradient noise scale along training, one row for each cell, learning rate and step that has one."""
        if self.measurements is None:
            return pl.DataFrame(schema=NOISE_SCALE_SCHEMA)
        return noise_scale(self.trials, self.measurements)

    @table
    def noise_scale_at_best(self) -> pl.DataFrame:
        """The rows of the noise scale at each cell's best rate for the score."""
        best = self.optima.filter(criterion="score")
        return self.noise_scale.join(best, on=[*CELL, "learning_rate"], how="semi", maintain_order="left")

    @table
    def sharpness(self) -> pl.DataFrame:
        """The largest eigenvalue of the Hessian along training, one row for each cell, learning rate and step."""
        if self.measurements is None:
            return pl.DataFrame(schema=SHARPNESS_SCHEMA)
        return sharpness(self.trials, self.measurements)

    @table
    def sharpness_at_best(self) -> pl.DataFrame:
        """The rows of the sharpness at each cell's best rate for the score."""
        best = self.optima.filter(criterion="score")
        return self.sharpness.join(best, on=[*CELL, "learning_rate"], how="semi", maintain_order="left")

    @table
    def training_curves(self) -> pl.DataFrame:
        """Minibatch loss and test score along training at each cell's best rate, one row for each step measured."""
        if self.measurements is None:
            return pl.DataFrame(schema=TRAINING_CURVES_SCHEMA)
        return training_curves(self.trials, self.measurements, self.optima, self.records)


@dataclass(frozen=True, kw_only=True)
class StudyTables(Tables):
    """The tables of a study's folder.

    Args:
        declaration: the study.
        pending: how many trials the search is known to want still.
        cells_waiting: how many cells' searches have not begun.
    """

    declaration: Declaration
    pending: int
    cells_waiting: int

    @table
    def saturation(self) -> pl.DataFrame:
        """Where each criterion saturated under the study's unlimited budgets, and the best that was reached."""
        budgets = [budget for budget in self.declaration.budgets if isinstance(budget, Unlimited)]
        tables = [saturation(self.trials, self.records, budget, self.score_margin) for budget in budgets]
        return pl.concat(tables) if tables else pl.DataFrame(schema=SATURATION_SCHEMA)

    @property
    def finished(self) -> bool:
        """Whether every cell's search has ended."""
        return self.cells_waiting == 0 and self.pending == 0


def _size(budget: str) -> tuple[int, float, str]:
    parsed = known_budget(budget)
    kinds = {Epochs: 0, Steps: 1}
    return kinds.get(type(parsed), 2), float(getattr(parsed, "n", 0.0)), budget
