"""The training loop: trials go from milestone to milestone on a backend, and are measured and kept there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass

import numpy as np

from sgdscope.study import Trial
from sgdscope.training.backend import Backend, Pack
from sgdscope.training.checkpoint import Checkpoint, Checkpoints
from sgdscope.training.jax_setup import pinned
from sgdscope.training.noise_scale import NOISE_METRICS
from sgdscope.training.outcome import Outcome, Record
from sgdscope.training.sharpness import SHARPNESS_METRICS
from sgdscope.training.step import Kind

# One call of the backend: long enough to cost nothing, short enough that progress shows and an interrupt is heard.
SEGMENT_SECONDS = 0.5
CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True)
class Milestones:
    """The fractions of a budget at which trials are measured.

    Args:
        evaluate_at: where whole splits are evaluated.
        noise_scale_at: where the gradient noise is estimated.
        sharpness_at: where the sharpness is estimated.
    """

    evaluate_at: Sequence[float] = (1.0,)
    noise_scale_at: Sequence[float] = ()
    sharpness_at: Sequence[float] = ()


def train(
    backend: Backend,
    trials: Sequence[Trial],
    milestones: Milestones,
    checkpoints: Checkpoints | None = None,
    on_progress: Callable[[int], None] = lambda updates: None,
) -> list[Outcome]:
    """Train the trials of a pack: those of one kind and number of updates, no more than the backend's capacity.

    Args:
        backend: what advances the trials.
        trials: in any order; which of them share a device does not change their numbers.
        milestones: when the trials are measured.
        checkpoints: where trials are resumed from, and kept every half minute.
        on_progress: called with the number of updates made or spared since its last call.

    Raises:
        InputError: If a checkpoint cannot be written or an example cannot be read.
    """
    # ── Start or resume ──────────────────────────────────────────────────────────────────────────────────
    begun = kept = time.perf_counter()
    updates = _updates_of(trials, backend.capacity)
    all_of = (milestones.evaluate_at, milestones.noise_scale_at, milestones.sharpness_at)
    evaluations, noises, sharpnesses = (_steps(at, updates) for at in all_of)
    stops = sorted(evaluations | noises | sharpnesses)
    with pinned(), closing(backend.start(trials)) as pack, checkpoints or nullcontext():
        saved = checkpoints.load(trial.id for trial in trials) if checkpoints else {}
        known = {place: saved[trial.id] for place, trial in enumerate(trials) if trial.id in saved}
        resumed = backend.restore(pack, {place: checkpoint.leaves for place, checkpoint in known.items()})
        records = [Record.of(known[place]) if place in resumed else Record() for place in range(len(trials))]
        on_progress(int(pack.steps.sum()))

        def keep(at_a_stop: bool) -> None:
            nonlocal kept
            now = time.perf_counter()
            # An evaluation may take long, so a long training is kept before and after it.
            late = now - kept > CHECKPOINT_SECONDS or (at_a_stop and now - begun > CHECKPOINT_SECONDS)
            if checkpoints and late:
                checkpoints.save(_checkpoints(pack, records, backend.export(pack), now - begun))
                kept = time.perf_counter()

        while True:
            # ── Measure ──────────────────────────────────────────────────────────────────────────────────
            step = pack.next_step(updates)
            there = np.flatnonzero(pack.finite & (pack.steps == step)).tolist() if step in stops else []
            due = [place for place in there if all(m.step < step for m in records[place].measurements)]
            if due and step in noises:
                for place, noise in zip(due, backend.gradient_noise(pack, due), strict=True):
                    records[place].estimated(step, NOISE_METRICS, noise)
            if due and step in sharpnesses:
                for place, found in zip(due, backend.sharpness(pack, due), strict=True):
                    rate = _learning_rate(trials[place], step)
                    records[place].estimated(step, SHARPNESS_METRICS, (*found, rate))
            if due and step in evaluations:
                for place, values in zip(due, backend.evaluate(pack, due), strict=True):
                    records[place].evaluated(step, values)
            if step == updates or not pack.finite.any():
                break
            if due and step:
                keep(at_a_stop=True)

            # ── Advance to the next milestone ────────────────────────────────────────────────────────────
            before = pack.steps.sum()
            backend.advance(pack, next(stop for stop in stops if stop > step), SEGMENT_SECONDS)
            on_progress(int(pack.steps.sum() - before))

            # ── Keep ─────────────────────────────────────────────────────────────────────────────────────
            keep(at_a_stop=pack.next_step(updates) in stops)

        # ── Report ───────────────────────────────────────────────────────────────────────────────────────
        curves, seconds = backend.curves(pack), _seconds(pack, records, time.perf_counter() - begun)
    on_progress(int((updates - pack.steps).sum()))
    return [
        record.outcome(backend.workload, pack, place, curves[place], seconds[place])
        for place, record in enumerate(records)
    ]


def _updates_of(trials: Sequence[Trial], capacity: int) -> int:
    if len(trials) > capacity or len({(Kind.of(trial), trial.updates) for trial in trials}) != 1:
        raise ValueError("a pack holds trials of one kind and number of updates, and no more than its capacity")
    return trials[0].updates


def _steps(fractions: Sequence[float], updates: int) -> set[int]:
    """Return after how many updates fractions of a budget come: of any but 0, at least one."""
    return {max(1, round(fraction * updates)) if fraction else 0 for fraction in fractions}


def _learning_rate(trial: Trial, step: int) -> float:
    """Return the learning rate of the update that is next, and after the last of that."""
    next_update = np.int32(min(step, trial.updates - 1))
    return trial.learning_rate * float(trial.schedule.factor(next_update, np.int32(trial.updates)))


def _checkpoints(
    pack: Pack, records: Sequence[Record], leaves: Sequence[np.ndarray], elapsed: float
) -> dict[str, Checkpoint]:
    rows = zip(pack.trials, pack.steps, records, _seconds(pack, records, elapsed), strict=True)
    return {
        trial.id: Checkpoint([leaf[place] for leaf in leaves], int(step), list(record.measurements), seconds)
        for place, (trial, step, record, seconds) in enumerate(rows)
    }


def _seconds(pack: Pack, records: Sequence[Record], elapsed: float) -> list[float]:
    """Return the seconds of each trial: its share of the pack's, by the updates made, and those before it resumed."""
    made = [int(step) - record.resumed_at for step, record in zip(pack.steps, records, strict=True)]
    return [record.seconds + elapsed * own / max(1, sum(made)) for record, own in zip(records, made, strict=True)]
