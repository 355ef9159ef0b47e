"""Methods and the SGD that each is compared with: their scores at rates chosen without them, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from sgdscope.analysis.curve import curve
from sgdscope.analysis.exclusions import learning
from sgdscope.analysis.rate_choice import Chosen, best_over_batch_sizes, inside, leads_over, scores_by_batch_size
from sgdscope.analysis.trial_table import SEEDS, Records
from sgdscope.errors import InputError
from sgdscope.frames import Column, Columns, with_interval
from sgdscope.optimizers import (
    KFAC,
    L2,
    SAM,
    SGD,
    SVRG,
    Adam,
    GradientPenalty,
    LabelSmoothing,
    Optimizer,
    parse_optimizer,
)
from sgdscope.records import WorkloadRecord
from sgdscope.store import ended

COST_COLUMNS: Columns = {
    "updates": Column(pl.Float64, "Median updates of a trial at the best learning rate.", "updates"),
    "examples": Column(pl.Float64, "Median examples that a trial reads, with repetitions.", "examples"),
    "gradients": Column(
        pl.Float64, "Median gradients of single examples that a trial evaluates; missing if unknown.", "gradients"
    ),
    "seconds": Column(pl.Float64, "Median seconds of a trial.", "s"),
}
BASELINE = Column(pl.String, "The SGD that the optimizer is compared with: of the same momentum where it has one.")
REACHED_COLUMNS: Columns = {
    "learning_rate": Column(pl.Float64, "Learning rate ε that is best for the score."),
    "n": SEEDS,
    **with_interval("test_score", "Mean test score at this learning rate.", "score"),
    "train_loss": Column(pl.Float64, "Geometric mean of the training loss at this learning rate.", "loss"),
    **COST_COLUMNS,
}
# Made for curvature; against the gradient's noise; in place of it.
CURVATURE, NOISE, REGULARIZATION = (Adam, KFAC), (SVRG,), (GradientPenalty, L2, LabelSmoothing, SAM)


def known_optimizer(name: str) -> Optimizer | None:
    """Return the optimizer of a name in a table, or None where the name is none of ours."""
    try:
        return parse_optimizer(name)
    except InputError:
        return None


def baseline_of(name: str) -> str | None:
    """Return the name of the SGD that an optimizer is compared with, or None for plain SGD itself.

    What changes the gradient of SGD with momentum is compared with SGD of that momentum, all else with plain SGD. There
    is none where that momentum is searched.

    >>> [baseline_of(name) for name in ("sgd", "momentum:0.9", "adam", "svrg", "svrg:momentum=0", "their own")]
    [None, 'sgd', 'sgd', 'momentum:0.9', 'sgd', 'sgd']
    """
    optimizer = known_optimizer(name)
    if isinstance(optimizer, NOISE + REGULARIZATION):
        return str(SGD(optimizer.momentum)) if isinstance(optimizer.momentum, float) else None
    return None if optimizer == SGD() else str(SGD())


@dataclass(frozen=True)
class Method:
    """One optimizer at one workload and budget, and the SGD that it is compared with."""

    key: Mapping[str, str]
    members: Mapping[int, pl.DataFrame] = field(repr=False)
    baseline: str | None
    of_baseline: Mapping[int, pl.DataFrame] = field(repr=False)
    record: WorkloadRecord

    @cached_property
    def scores(self) -> dict[int, Chosen]:
        """Test scores by batch size, at rates that were chosen without them; larger is better."""
        return scores_by_batch_size(self.members, self.record)

    @cached_property
    def baseline_scores(self) -> dict[int, Chosen]:
        """The baseline's, as :attr:`scores`."""
        return scores_by_batch_size(self.of_baseline, self.record)

    @cached_property
    def leads(self) -> dict[int, np.ndarray]:
        """By how much the score is better than the baseline's, seed by seed, at rates inside those tried."""
        return leads_over(inside(self.scores), inside(self.baseline_scores))

    @cached_property
    def best(self) -> tuple[int, Chosen] | None:
        """The best batch size of those inside the rates tried, with its scores; None without any."""
        return best_of(self.members, inside(self.scores), self.record)

    @cached_property
    def baseline_best(self) -> tuple[int, Chosen] | None:
        """The baseline's, as :attr:`best`."""
        return best_of(self.of_baseline, inside(self.baseline_scores), self.record)

    @cached_property
    def lead_at_best(self) -> np.ndarray | None:
        """By how much it is better at its best batch size than the baseline at its own, seed by seed; None unknown."""
        if self.best is None or self.baseline_best is None:
            return None
        return leads_over({0: self.best[1]}, {0: self.baseline_best[1]}).get(0)


def best_of(
    members: Mapping[int, pl.DataFrame], sizes: Iterable[int], record: WorkloadRecord
) -> tuple[int, Chosen] | None:
    """Return the best of some batch sizes and its test scores, by :func:`~.rate_choice.best_over_batch_sizes`."""
    return best_over_batch_sizes({size: members[size] for size in sizes}, record)


def methods(trials: pl.DataFrame, records: Records) -> list[Method]:
    """Return the optimizers that have learned anything, SGD first, of every workload and budget."""
    studied = list(learning(trials, records))
    by_name = {(of.key["workload"], of.key["budget"], of.key["optimizer"]): of.learned for of in studied}
    found = []
    for of in studied:
        workload, budget, optimizer = (of.key[name] for name in ("workload", "budget", "optimizer"))
        baseline = baseline_of(optimizer)
        others = by_name.get((workload, budget, baseline or ""), {})
        found.append(Method(of.key, of.learned, baseline if others else None, others, records[workload]))
    return sorted(found, key=lambda method: method.key["optimizer"] != "sgd")


def of_methods(trials: pl.DataFrame) -> bool:
    """Return whether a table has optimizers beside SGD and its momentum."""
    kinds = CURVATURE + NOISE + REGULARIZATION
    return any(isinstance(known_optimizer(name), kinds) for name in trials["optimizer"].unique())


def reached(method: Method, size: int, chosen: Chosen) -> dict[str, Any]:
    """Return a row of :data:`REACHED_COLUMNS`: what a method reached at a batch size, and what it cost."""
    cell = method.members[size]
    found = curve(cell, method.record, "score")
    rate = float(found.rates[found.best()[0]])
    mine = ended(cell).filter(pl.col("learning_rate") == rate, status="complete")
    losses = mine["train_loss"].drop_nulls().to_numpy()
    optimizer = known_optimizer(method.key["optimizer"])
    medians = {name: mine[name].median() if name in mine.columns else None for name in ("steps", "examples", "seconds")}
    gradients = None
    if optimizer is not None and medians["examples"] is not None:
        gradients = float(medians["examples"]) * optimizer.gradients_per_update(size)  # type: ignore[arg-type]
    return {
        "learning_rate": rate,
        "n": chosen.n,
        **chosen.as_measured("test_score", method.record.score_sign),
        "train_loss": math.exp(np.log(losses).mean()) if losses.size and (losses > 0).all() else None,
        "updates": medians["steps"],
        "examples": medians["examples"],
        "gradients": gradients,
        "seconds": medians["seconds"],
    }
