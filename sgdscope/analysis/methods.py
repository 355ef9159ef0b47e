"""Methods and the SGD that each is compared with: their scores at rates chosen without them, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from sgdscope.analysis.curve import curve
from sgdscope.analysis.exclusions import learning
from sgdscope.analysis.rate_choice import Chosen, inside, leads_over, scores_by_batch_size
from sgdscope.analysis.trial_table import SEEDS, Records
from sgdscope.errors import InputError
from sgdscope.frames import Column, Columns, with_interval
from sgdscope.optimizers import KFAC, L2, SAM, SGD, SVRG, Adam, GradientPenalty, Optimizer, parse_optimizer
from sgdscope.records import WorkloadRecord
from sgdscope.stats.intervals import named, t_interval
from sgdscope.store import ended

COST_COLUMNS: Columns = {
    "updates": Column(pl.Float64, "Median updates of a trial at the best learning rate.", "updates"),
    "examples": Column(pl.Float64, "Median examples that a trial reads, with repetitions.", "examples"),
    "gradients": Column(
        pl.Float64, "Median gradients of single examples that a trial evaluates; missing if unknown.", "gradients"
    ),
    "seconds": Column(pl.Float64, "Median seconds of a trial.", "s"),
}
METHOD_COLUMNS: Columns = {
    "baseline": Column(pl.String, "The optimizer that this one is compared with: SGD, with the same momentum if any."),
    "learning_rate": Column(pl.Float64, "Learning rate ε with the best validation score."),
    "n": SEEDS,
    **with_interval("test_score", "Mean test score at this learning rate.", "score"),
    **with_interval("advantage", "Mean difference to the baseline, seed by seed; above 0 is better.", "score"),
    "train_loss": Column(pl.Float64, "Geometric mean of the training loss at this learning rate.", "loss"),
    **COST_COLUMNS,
}
# Made for curvature; against the gradient's noise; in place of it.
CURVATURE, NOISE, REGULARIZATION = (Adam, KFAC), (SVRG,), (GradientPenalty, L2, SAM)


def known_optimizer(name: str) -> Optimizer | None:
    """Return the optimizer of a name in a table, or None where the name is none of ours."""
    try:
        return parse_optimizer(name)
    except InputError:
        return None


def baseline_of(name: str) -> str | None:
    """Return the name of the SGD that an optimizer is compared with, or None for plain SGD and unknown optimizers.

    What changes the gradient of SGD with momentum is compared with SGD of that momentum, all else with plain SGD.

    >>> [baseline_of(name) for name in ("sgd", "momentum:0.9", "adam", "svrg", "svrg:momentum=0")]
    [None, 'sgd', 'sgd', 'momentum:0.9', 'sgd']
    """
    optimizer = known_optimizer(name)
    if isinstance(optimizer, NOISE + REGULARIZATION):
        momentum = optimizer.momentum
        return str(SGD(momentum)) if isinstance(momentum, float) else None
    return None if optimizer in (None, SGD()) else str(SGD())


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
    def best_batch_size(self) -> int | None:
        """The batch size whose best validation score is best, of those inside the rates tried; None without any."""
        return best_batch_size(self.members, inside(self.scores), self.record)


def best_batch_size(
    members: Mapping[int, pl.DataFrame], scores: Mapping[int, Chosen], record: WorkloadRecord
) -> int | None:
    """Return the batch size, of those that have scores, at which what chooses is best."""
    chosen = {size: curve(members[size], record, "score") for size in scores}
    means = {size: float(np.nanmean(of.goodness[of.best()[0]])) for size, of in chosen.items()}
    return max(means, key=lambda size: means[size], default=None)


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


def lead_at_best(method: Method) -> np.ndarray | None:
    """Return by how much a method at its best batch size is better than its baseline at its own, seed by seed."""
    mine, theirs = (
        method.best_batch_size,
        best_batch_size(method.of_baseline, inside(method.baseline_scores), method.record),
    )
    if mine is None or theirs is None:
        return None
    return leads_over({0: method.scores[mine]}, {0: method.baseline_scores[theirs]}).get(0)


def method_row(method: Method, size: int, lead: np.ndarray | None) -> dict[str, Any]:
    """Return what a method reached at a batch size, by how much it is better, and what it cost."""
    cell, chosen, sign = method.members[size], method.scores[size], method.record.score_sign
    found = curve(cell, method.record, "score")
    rate = float(found.rates[found.best()[0]])
    mine = ended(cell).filter(pl.col("learning_rate") == rate, status="complete")
    losses = mine["train_loss"].drop_nulls().to_numpy()
    optimizer = known_optimizer(method.key["optimizer"])
    medians = {name: mine[name].median() if name in mine.columns else None for name in ("steps", "examples", "seconds")}
    gradients = None
    if optimizer is not None and medians["examples"] is not None:
        gradients = float(medians["examples"]) * optimizer.gradients_per_update(size)  # type: ignore[arg-type]
    nothing = dict.fromkeys(("advantage", "advantage_low", "advantage_high"))
    known = lead[~np.isnan(lead)] if lead is not None else np.zeros(0)
    scores = sign * chosen.scores[~np.isnan(chosen.scores)]
    return {
        "baseline": method.baseline,
        "learning_rate": rate,
        "n": len(known) or chosen.n,
        **named("test_score", t_interval(scores)),
        **(named("advantage", t_interval(known)) if known.size else nothing),
        "train_loss": math.exp(np.log(losses).mean()) if losses.size and (losses > 0).all() else None,
        "updates": medians["steps"],
        "examples": medians["examples"],
        "gradients": gradients,
        "seconds": medians["seconds"],
    }
