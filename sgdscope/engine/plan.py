"""Trials into packs, and what a study will cost before it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from sgdscope.engine.search import Round
from sgdscope.study import Declaration, Trial

if TYPE_CHECKING:
    from sgdscope.training.pack import Trainer

# What a search has been seen to need on the built-in studies, until this study's own cells tell.
RATES_EXPECTED = 6.0


def packs(trials: Sequence[Trial], slots: int) -> list[list[Trial]]:
    """Group trials into packs of one batch size and number of updates, each at most ``slots`` long."""

    def shape(trial: Trial) -> tuple[int, int]:
        return -trial.batch_size, trial.updates

    grouped = []
    for _, members in groupby(sorted(trials, key=shape), key=shape):
        same = list(members)
        grouped += [same[i : i + slots] for i in range(0, len(same), slots)]
    return grouped


@dataclass(frozen=True)
class Plan:
    """What remains to be trained: counts are of what is expected where learning rates are searched."""

    cells: int
    trials: int
    updates: int
    examples: int
    seconds: float | None


class Costs:
    """Seconds per update by batch size: a line a + b·B through what has been timed, the newest timing of each size."""

    def __init__(self) -> None:
        self._timed: dict[int, float] = {}

    def note(self, batch_size: int, seconds_per_update: float) -> None:
        """Take in the timing of one batch size."""
        self._timed[batch_size] = seconds_per_update

    def probe(self, trainer: Trainer, batch_sizes: Sequence[int]) -> None:
        """Time the smallest and the largest batch size for a fraction of a second each."""
        for batch_size in {min(batch_sizes), max(batch_sizes)}:
            self.note(batch_size, trainer.time_updates(batch_size))

    def per_update(self, batch_size: int) -> float | None:
        """Return the seconds that an update is expected to take, or None where nothing has been timed."""
        if not self._timed:
            return None
        if batch_size in self._timed:
            return self._timed[batch_size]
        sizes = sorted(self._timed)
        return float(np.interp(batch_size, sizes, [self._timed[size] for size in sizes]))


def remaining(declaration: Declaration, found: Sequence[Round], costs: Costs) -> Plan:
    """Return what is still to be trained, given where the search of each cell stands."""
    finished = [cell for cell in found if cell.finished]
    searched = not declaration.learning_rates
    if not searched:
        rates = float(len(declaration.learning_rates))
    elif finished:
        rates = float(np.mean([len(cell.trials) / declaration.seeds for cell in finished]))
    else:
        rates = RATES_EXPECTED
    standing = {(str(cell.optimizer), cell.batch_size): cell for cell in found}
    trials = updates = examples = cells = 0
    seconds: float | None = 0.0
    for optimizer in declaration.optimizers:
        for batch_size in declaration.batch_sizes:
            cell = standing.get((str(optimizer), batch_size))
            if cell is not None and cell.finished:
                continue
            tried = len(cell.trials) - len(cell.pending) if cell is not None else 0
            known = len(cell.pending) if cell is not None else 0
            expected = max(known, round(rates * declaration.seeds) - tried)
            each = declaration.budget.updates(batch_size, declaration.workload.examples[0])
            cells += 1
            trials += expected
            updates += expected * each
            examples += expected * each * batch_size
            per_update = costs.per_update(batch_size)
            seconds = None if seconds is None or per_update is None else seconds + expected * each * per_update
    return Plan(cells, trials, updates, examples, seconds)
