"""What became of a trial: its last step, and the rows that it measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sgdscope.study import Trial
from sgdscope.training.backend import Pack
from sgdscope.training.checkpoint import Checkpoint, Measurement
from sgdscope.training.evaluate import Evaluation
from sgdscope.training.sampling import dropped
from sgdscope.training.step import stretches
from sgdscope.workloads.base import Workload


@dataclass(frozen=True)
class Outcome:
    """What became of one trial of a pack.

    ``correctness`` tells for the validation and the test split which examples scored 1 at the end of the budget, one
    bit each; it is empty where a score is neither 0 nor 1, and where the trial diverged.
    """

    trial: Trial
    steps: int
    diverged: bool
    seconds: float
    measurements: list[Measurement]
    correctness: dict[str, bytes]
    pack_size: int


@dataclass
class Record:
    """What a trial has measured so far; ``correctness`` is of the last evaluation, which no checkpoint comes after."""

    measurements: list[Measurement] = field(default_factory=list)
    correctness: dict[str, bytes] = field(default_factory=dict)
    resumed_at: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, saved: Checkpoint) -> Record:
        """Return the record with which a trial goes on from a checkpoint."""
        return cls(list(saved.measurements), resumed_at=saved.step, seconds=saved.seconds)

    def evaluated(self, step: int, values: Mapping[str, Evaluation]) -> None:
        """Note an evaluation of each split."""
        for split, found in values.items():
            self.measurements.append(Measurement(step, split, "loss", float(found.loss)))
            self.measurements.append(Measurement(step, split, "score", float(found.score)))
        told = {split: found.bits for split, found in values.items() if found.bits is not None and found.zero_or_one}
        self.correctness = {split: bits.tobytes() for split, bits in told.items()}

    def estimated(self, step: int, metrics: Sequence[str], values: Sequence[float]) -> None:
        """Note an estimate beside training; a gradient that is not finite has none, and may not diverge."""
        if np.isfinite(values).all():
            pairs = zip(metrics, values, strict=True)
            self.measurements += [Measurement(step, "train", metric, value) for metric, value in pairs]

    def outcome(self, workload: Workload, pack: Pack, place: int, curve: np.ndarray, seconds: float) -> Outcome:
        """Return what became of the trial at this place of a pack, with the mean minibatch loss of each stretch."""
        trial, steps, finite = pack.trials[place], int(pack.steps[place]), bool(pack.finite[place])
        # A last update may overflow what the loss before it did not show.
        bad = next((m.step for m in self.measurements if _tells_divergence(workload, m)), None)
        if bad is not None:
            steps, finite = bad, False
        rows = [m for m in self.measurements if bad is None or m.step < bad]
        for (first, stop), total in zip(stretches(trial.updates), curve, strict=False):
            if stop <= steps and np.isfinite(total):
                rows.append(Measurement(stop, "train", "minibatch_loss", float(total) / (stop - first)))
        if workload.streams is not None:
            rows.append(Measurement(steps, "train", "dropped_per_epoch", float(dropped(workload, trial.batch_size))))
        return Outcome(trial, steps, not finite, seconds, rows, self.correctness if finite else {}, pack.slots)


def _tells_divergence(workload: Workload, m: Measurement) -> bool:
    """Return whether a value is not finite by the loss's doing: a score may be NaN by itself."""
    if np.isfinite(m.value):
        return False
    # A score that is made of the loss, such as a perplexity, overflows with it.
    return m.metric != "score" or (workload.score is workload.loss and bool(np.isinf(m.value)))
