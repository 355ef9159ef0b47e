"""The training loop: trials go from milestone to milestone on a backend, and are measured and kept there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from sgdscope.errors import InputError
from sgdscope.study import Trial
from sgdscope.training.checkpoint import Checkpoint, Checkpoints, Measurement
from sgdscope.training.compiler import Compiler, CompileTime
from sgdscope.training.evaluate import Evaluation
from sgdscope.training.jax_setup import pinned
from sgdscope.training.noise_scale import NOISE_METRICS
from sgdscope.training.sampling import dropped
from sgdscope.training.step import Kind, stretches
from sgdscope.workloads.base import Workload

# A segment is one call of the backend: long enough to cost nothing, short enough that progress shows and that
# an interrupt is heard.
SEGMENT_SECONDS = 0.5
CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True)
class Milestones:
    """The fractions of a budget at which trials are measured.

    Args:
        evaluate_at: at which whole splits are evaluated.
        noise_scale_at: at which the gradient noise is estimated.
    """

    evaluate_at: Sequence[float] = (1.0,)
    noise_scale_at: Sequence[float] = ()

    def evaluations(self, updates: int) -> set[int]:
        """Return after how many updates whole splits are evaluated."""
        return _steps_at(self.evaluate_at, updates)

    def noises(self, updates: int) -> set[int]:
        """Return after how many updates the gradient noise is estimated."""
        return _steps_at(self.noise_scale_at, updates)


@dataclass
class Pack:
    """Trials that are trained together, and how far each has come."""

    trials: Sequence[Trial]
    slots: int
    """Of the program that trains them."""
    steps: np.ndarray
    """The updates that each has made."""
    finite: np.ndarray
    """False for a trial that has diverged."""

    def next_step(self, updates: int) -> int:
        """Return the fewest updates made by a trial that has not diverged, or ``updates`` where all have."""
        return int(self.steps[self.finite].min(initial=updates))

    def close(self) -> None:
        """Give up what the pack holds beside its arrays."""


class Backend(Protocol):
    """What advances trials; it knows no stop, no checkpoint and no table."""

    workload: Workload
    capacity: int
    """The most trials of a pack."""
    concurrency: int
    """How many trials advance at the same time."""
    provenance: Mapping[str, Any]
    """How trials are trained here: ``method``, ``device``, ``devices`` and ``jax_version`` of the table of trials."""
    notices: tuple[str, ...]
    """Sentences for the user."""
    compiler: Compiler
    """What compiles its programs."""

    @property
    def seconds_to_read(self) -> float:
        """The seconds that an example takes the host; 0 where it has no part in it."""

    @property
    def circumstances(self) -> str:
        """What the bits of a trial depend on beside its identity."""

    @property
    def compile_times(self) -> list[CompileTime]:
        """What the programs so far took to compile."""

    def expect(self, kinds: Sequence[Kind]) -> None:
        """Begin to compile what packs of these kinds will need, in this order."""

    def seconds_per_update(self, kind: Kind) -> float:
        """Return the seconds that one update of one trial takes in a full pack, from a short timed run."""

    def start(self, trials: Sequence[Trial]) -> Any:
        """Return a pack of trials before their first update."""

    def restore(self, pack: Any, saved: Mapping[int, Sequence[np.ndarray]]) -> set[int]:
        """Put trials, by their place in the pack, where these leaves of their state left them; return which fitted."""

    def advance(self, pack: Any, until: int, seconds: float) -> None:
        """Make updates for about so many seconds, until no trial has made more than ``until``; at least one."""

    def evaluate(self, pack: Any, places: Sequence[int]) -> list[Mapping[str, Evaluation]]:
        """Return the evaluation of each split for these trials, by their place in the pack."""

    def gradient_noise(self, pack: Any, places: Sequence[int]) -> list[tuple[float, float]]:
        """Return |G|² and tr Σ for these trials."""

    def curves(self, pack: Any) -> np.ndarray:
        """Return the sums of minibatch losses over each stretch of the budget, one row a trial."""

    def export(self, pack: Any) -> list[np.ndarray]:
        """Return a copy of the leaves of the state, each with one row a trial."""

    def close(self) -> None:
        """Wait for what is being compiled, and drop what is not yet."""


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
class _Record:
    """What a trial has measured so far, and what it brought along.

    A checkpoint has no room for ``correctness``: it is of the last evaluation, which no checkpoint comes after.
    """

    measurements: list[Measurement] = field(default_factory=list)
    correctness: dict[str, bytes] = field(default_factory=dict)
    begun_at: int = 0
    seconds: float = 0.0


def train(
    backend: Backend,
    trials: Sequence[Trial],
    milestones: Milestones,
    checkpoints: Checkpoints | None = None,
    on_progress: Callable[[int], None] = lambda updates: None,
) -> list[Outcome]:
    """Train the trials of a pack: those of one kind and number of updates, no more than the backend's capacity.

    Args:
        backend: what advances them.
        trials: in any order; which of them share a device does not change their numbers.
        milestones: when they are measured.
        checkpoints: where trials go on from, and are kept every half minute.
        on_progress: told the number of updates made or spared since it was last told.

    Raises:
        InputError: where a checkpoint cannot be written or an example cannot be read.
    """
    # ── Start, or go on from checkpoints ─────────────────────────────────────────────────────────────────
    begun = kept = time.perf_counter()
    updates = _updates_of(trials, backend.capacity)
    evaluations, noises = milestones.evaluations(updates), milestones.noises(updates)
    stops, records = sorted(evaluations | noises), [_Record() for _ in trials]
    with pinned(), closing(backend.start(trials)) as pack, _Settled(checkpoints):
        saved = {} if checkpoints is None else checkpoints.load(trial.id for trial in trials)
        known = {place: saved[trial.id] for place, trial in enumerate(trials) if trial.id in saved}
        for place in backend.restore(pack, {place: checkpoint.leaves for place, checkpoint in known.items()}):
            records[place].measurements = list(known[place].measurements)
            records[place].begun_at, records[place].seconds = known[place].step, known[place].seconds
        on_progress(int(pack.steps.sum()))

        def keep(at_a_stop: bool) -> None:
            nonlocal kept
            now = time.perf_counter()
            # An evaluation may take long, so a long training is kept before and after it.
            late = now - kept > CHECKPOINT_SECONDS or (at_a_stop and now - begun > CHECKPOINT_SECONDS)
            if checkpoints is not None and late:
                checkpoints.save(_checkpoints(trials, pack, records, backend.export(pack), now - begun))
                kept = time.perf_counter()

        while True:
            # ── Measure ──────────────────────────────────────────────────────────────────────────────────
            step = pack.next_step(updates)
            at_step = [place for place in np.flatnonzero(pack.finite & (pack.steps == step)) if step in stops]
            due = [int(place) for place in at_step if all(m.step < step for m in records[place].measurements)]
            if due and step in noises:
                for place, found in zip(due, backend.gradient_noise(pack, due), strict=True):
                    records[place].measurements += _noise_rows(step, found)
            if due and step in evaluations:
                for place, values in zip(due, backend.evaluate(pack, due), strict=True):
                    records[place].measurements += _rows(step, values)
                    records[place].correctness = _correctness(values)
            if step == updates or not pack.finite.any():
                break
            if due and step:
                keep(at_a_stop=True)

            # ── Advance to the next milestone ────────────────────────────────────────────────────────────
            before, stop = pack.steps.sum(), next(stop for stop in stops if stop > step)
            backend.advance(pack, stop, SEGMENT_SECONDS)
            on_progress(int(pack.steps.sum() - before))

            # ── Keep ─────────────────────────────────────────────────────────────────────────────────────
            keep(at_a_stop=pack.next_step(updates) in stops)

        # ── Report ───────────────────────────────────────────────────────────────────────────────────────
        curves, seconds = backend.curves(pack), _shares(pack, records, time.perf_counter() - begun)
    on_progress(int((updates - pack.steps).sum()))
    return [
        _outcome(backend.workload, pack, place, records[place], curves[place], seconds[place])
        for place in range(len(trials))
    ]


def _updates_of(trials: Sequence[Trial], capacity: int) -> int:
    """Return the number of updates of trials that can be a pack."""
    if len(trials) > capacity or len({(Kind.of(trial), trial.updates) for trial in trials}) != 1:
        raise ValueError("a pack holds trials of one kind and number of updates, and no more than its slots")
    return trials[0].updates


class _Settled:
    """Leave when what was saved is on the disk, also where training is interrupted."""

    def __init__(self, checkpoints: Checkpoints | None) -> None:
        self._checkpoints = checkpoints

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *of: object) -> None:
        if self._checkpoints is not None:
            try:
                self._checkpoints.settle()
            except InputError:
                if kind is None:  # else what ended the training is told
                    raise


def _checkpoints(
    trials: Sequence[Trial], pack: Pack, records: Sequence[_Record], leaves: Sequence[np.ndarray], elapsed: float
) -> dict[str, Checkpoint]:
    seconds = _shares(pack, records, elapsed)
    return {
        trial.id: Checkpoint(
            [leaf[place] for leaf in leaves],
            int(pack.steps[place]),
            list(records[place].measurements),
            seconds[place],
        )
        for place, trial in enumerate(trials)
    }


def _rows(step: int, values: Mapping[str, Evaluation]) -> list[Measurement]:
    return [
        Measurement(step, split, metric, float(value))
        for split, of_split in values.items()
        for metric, value in (("loss", of_split.loss), ("score", of_split.score))
    ]


def _noise_rows(step: int, found: tuple[float, float]) -> list[Measurement]:
    # A gradient that is not finite has no noise, and whether the trial diverged is not for it to say.
    if not np.isfinite(found).all():
        return []
    return [Measurement(step, "train", metric, value) for metric, value in zip(NOISE_METRICS, found, strict=True)]


def _correctness(values: Mapping[str, Evaluation]) -> dict[str, bytes]:
    told = {split: found for split, found in values.items() if found.bits is not None and found.zero_or_one}
    return {split: found.bits.tobytes() for split, found in told.items()}


def _outcome(workload: Workload, pack: Pack, place: int, record: _Record, curve: np.ndarray, seconds: float) -> Outcome:
    """Return what became of a trial."""
    trial, steps, finite = pack.trials[place], int(pack.steps[place]), bool(pack.finite[place])
    # A last update may overflow what the loss before it did not show.
    lost = (m for m in record.measurements if not np.isfinite(m.value) and _tells_divergence(workload, m))
    bad = next((m.step for m in lost), None)
    if bad is not None:
        steps, finite = bad, False
    measurements = [m for m in record.measurements if bad is None or m.step < bad]
    for (first, stop), total in zip(stretches(trial.updates), curve, strict=False):
        if stop <= steps and np.isfinite(total):
            measurements.append(Measurement(stop, "train", "minibatch_loss", float(total) / (stop - first)))
    if workload.streams is not None:
        count = dropped(workload, trial.batch_size)
        measurements.append(Measurement(steps, "train", "dropped_per_epoch", float(count)))
    return Outcome(trial, steps, not finite, seconds, measurements, record.correctness if finite else {}, pack.slots)


def _tells_divergence(workload: Workload, measurement: Measurement) -> bool:
    """Return whether a value that is not finite is the loss's doing: a score may be NaN by itself.

    A score that is made of the loss overflows with it, such as a perplexity.
    """
    of_loss = workload.score is workload.loss and np.isinf(measurement.value)
    return measurement.metric != "score" or bool(of_loss)


def _steps_at(fractions: Sequence[float], updates: int) -> set[int]:
    """Return after how many updates fractions of a budget come: of any but 0, at least one."""
    return {max(1, round(fraction * updates)) if fraction else 0 for fraction in fractions}


def _shares(pack: Pack, records: Sequence[_Record], elapsed: float) -> list[float]:
    """Return the seconds of each trial: the pack's, by the updates made, and what it had taken before."""
    made = [int(step) - record.begun_at for step, record in zip(pack.steps, records, strict=True)]
    shares = zip(records, made, strict=True)
    return [record.seconds + elapsed * own / max(1, sum(made)) for record, own in shares]
