"""What epochs at one batch size say of the study's claims: C9 and C9b."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from sgdscope.analysis.edges import Edges, left_out
from sgdscope.analysis.exclusions import gains, has_learned, most_of
from sgdscope.analysis.regimes import FEWEST_IN_REGIME
from sgdscope.analysis.saturation import outcome_of, saturated
from sgdscope.analysis.score_limits import Margin, is_wide, margin_at
from sgdscope.analysis.slopes import grid_error
from sgdscope.analysis.sweep import Cells, cells_of, pair_on_common_seeds
from sgdscope.analysis.tables import Tables
from sgdscope.analysis.transitions import slope_of
from sgdscope.analysis.trial_table import CRITERIA, by_optimizer, measured_criteria
from sgdscope.budget import Epochs, Unlimited, known_budget
from sgdscope.claims.finding import (
    CONSTANT,
    DOWN,
    OCTAVES,
    SCORE,
    SLOPE,
    UP,
    WIDE,
    Effect,
    Finding,
    in_zone,
    undecided,
    undecided_at_an_edge,
)
from sgdscope.records import WorkloadRecord
from sgdscope.stats.intervals import bootstrapped, estimated
from sgdscope.stats.laws import fit_line


@dataclass(frozen=True)
class Ladder:
    """The cells of one workload, optimizer and batch size by epochs, ascending."""

    workload: str
    optimizer: str
    batch_size: int
    members: Mapping[float, pl.DataFrame]
    record: WorkloadRecord
    declared_margin: Margin

    def found(self, claim: str, *effects: Effect, reason: str = "") -> Finding:
        """Return what this ladder says of a claim."""
        epochs = list(self.members)
        budget = f"epochs:{epochs[0]:g} to {epochs[-1]:g} at batch size {self.batch_size}"
        return Finding(claim, self.workload, budget, self.optimizer, effects, reason, in_percent=self.record.in_percent)


def ladders(tables: Tables) -> Iterator[Ladder]:
    """Yield the batch sizes that were given several epoch budgets, of which they learned anything."""
    groups: dict[tuple[str, str, int], dict[float, pl.DataFrame]] = {}
    for key, members in by_optimizer(tables.trials):
        budget = known_budget(key["budget"])
        if isinstance(budget, Epochs):
            for size, cell in members.items():
                groups.setdefault((key["workload"], key["optimizer"], size), {})[budget.n] = cell
    for (workload, optimizer, size), members_ in groups.items():
        gained = gains(members_, tables.records[workload])
        most = most_of(gained)
        ordered = {n: members_[n] for n in sorted(members_) if has_learned(gained[n], most)}
        if len(ordered) > 1:
            yield Ladder(workload, optimizer, size, ordered, tables.records[workload], tables.score_margin)


def over_epochs(ladder: Ladder) -> Iterator[Finding]:
    """Yield what is found of C9 and C9b: what more epochs do to the score and to both optimal rates."""
    criteria = measured_criteria(pl.concat(list(ladder.members.values())))
    if "train_loss" not in criteria:
        yield from (ladder.found(claim, reason="the training loss was not measured") for claim in ("C9", "C9b"))
        return
    by_score, by_loss = (cells_of(ladder.members, ladder.record, criterion) for criterion in CRITERIA)
    out = left_out(_edges(by_score, by_loss))
    shared = [n for n in by_score.inside.sizes if n in by_loss.inside.sizes]
    if by_score.sizes != by_loss.sizes or len(shared) < FEWEST_IN_REGIME:
        few = f"{len(shared)} epoch budgets of {FEWEST_IN_REGIME} needed have an optimum"
        yield from (ladder.found(claim, reason=f"{few}. {out}" if out else few) for claim in ("C9", "C9b"))
        return
    ends = [cells.of(cells.sizes[-1:]) for cells in pair_on_common_seeds(by_score, by_loss)]
    by_score, by_loss = pair_on_common_seeds(by_score.of(shared), by_loss.of(shared))
    n = by_score.n
    test, train = slope_of(by_score), slope_of(by_loss)
    drawn = [fit_line(cells.x, *cells.drawn_vertices(stream)) for stream, cells in enumerate((by_loss, by_score))]
    apart = bootstrapped(train.value - test.value, drawn[0] - drawn[1], n)
    errors = [grid_error(cells) for cells in (by_loss, by_score)]
    effects = [
        in_zone("growth of the test-optimal rate with epochs", test, CONSTANT, n, SLOPE, grid_error=errors[1]),
        in_zone(
            "growth of the train-optimal rate with epochs",
            train,
            (-math.inf, CONSTANT[0]),
            n,
            SLOPE,
            grid_error=errors[0],
        ),
        in_zone(
            "growth of the train-optimal minus that of the test-optimal rate",
            apart,
            DOWN,
            n,
            SLOPE,
            grid_error=math.hypot(*errors),
        ),
    ]
    effects += _saturation(replace(ladder, members={n: ladder.members[n] for n in shared}))
    yield ladder.found("C9", *effects, reason=out)
    value = float(ends[0].vertices[0, 0] - ends[1].vertices[0, 0])
    draws = ends[0].drawn_vertices()[0][:, 0] - ends[1].drawn_vertices(stream=1)[0][:, 0]
    above, n = bootstrapped(value, draws, ends[0].n), ends[0].n
    name = f"test-optimal above train-optimal rate at {ends[0].sizes[-1]:g} epochs"
    error = math.hypot(*(cells.mean_grid_error for cells in ends))
    effect = in_zone(name, above, UP, n, OCTAVES, grid_error=error)
    yield ladder.found("C9b", undecided_at_an_edge(effect, *ends))


def _edges(*cells: Cells) -> Edges:
    """Return at which epochs one of the optima lies at an edge of the rates tried, and at which ends."""
    found: dict[float, set[str]] = {}
    for of in cells:
        for size, ends in of.censored.items():
            found.setdefault(size, set()).update(ends)
    return {size: tuple(end for end in ("low", "high") if end in ends) for size, ends in found.items()}


def _saturation(ladder: Ladder) -> list[Effect]:
    """Return whether the score gains nothing from some budget on, by the rule of the unlimited budget."""
    epochs = _doublings(list(ladder.members))
    told = len(epochs) >= FEWEST_IN_REGIME
    if not told:
        epochs = list(ladder.members)[-2:]
    outcomes = [outcome_of(ladder.members[n], ladder.record, "score", n) for n in epochs]
    known = [one for one in outcomes if one is not None]
    common = functools.reduce(np.intersect1d, [one.seeds for one in known])
    before, last = (one.values[np.isin(one.seeds, common)] for one in known[-2:])
    gain = estimated(last - before)
    best = max(float(one.values.mean()) for one in known)
    margin = margin_at(best, ladder.record, ladder.declared_margin)
    zone = (-math.inf, margin)
    if not told:
        name = f"score gain from {epochs[0]:g} to {epochs[1]:g} epochs; saturation takes three doublings"
        effect = in_zone(name, gain, zone, len(common), SCORE)
        return [effect if effect.verdict == "contradicted" else undecided(effect)]
    ladder_of = Unlimited(epochs[0], epochs[-1])
    stopped = saturated(known, ladder.record, "score", ladder_of, ladder.declared_margin)
    effect = in_zone("score gain of the last doubling", gain, zone, len(common), SCORE)
    if stopped.saturated_at is not None:
        if is_wide(margin, best, ladder.record):
            return [undecided(effect, f"; {WIDE}")]
        effect = undecided(effect, f"; it has saturated at {stopped.saturated_at:g} epochs")
        return [replace(effect, verdict="supported")]
    return [replace(effect, verdict="contradicted" if effect.verdict == "contradicted" else "inconclusive")]


def _doublings(epochs: Sequence[float]) -> list[float]:
    """Return the longest chain of epochs that are each twice the one before.

    >>> _doublings([5.0, 10.0, 20.0, 30.0, 40.0])
    [5.0, 10.0, 20.0, 40.0]
    """
    chains = []
    for first in epochs:
        chain = [first]
        while 2 * chain[-1] in epochs:
            chain.append(2 * chain[-1])
        chains.append(chain)
    return max(chains, key=len)
