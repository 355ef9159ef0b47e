"""One device of a crew, in a process of its own: it keeps the data, and the programs that it has compiled."""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sgdscope.engine.crew import Failure, Joined, Trained
from sgdscope.engine.run import OutOfTime, backend_of, circumstances, fingerprints_of
from sgdscope.errors import InputError, is_defect
from sgdscope.streaming.distributed import World
from sgdscope.study import Study, Trial
from sgdscope.training.checkpoint import Checkpoints
from sgdscope.training.jax_setup import check_jax, pinned
from sgdscope.training.loop import CHECKPOINT_SECONDS, Milestones, train
from sgdscope.training.step import Kind
from sgdscope.training.traced import trace


class Device:
    """One device, or those that share a trial. Its methods are called one after the other, :meth:`join` first."""

    def join(self, versions: str, fetch: Callable[[], Study], folder: str, worker: str) -> Joined | InputError:
        """Prepare to train a study's one workload, and say what it is here.

        Args:
            versions: of the process that asks. If this one has others it does no more than say so.
            fetch: returns the study.
            folder: where checkpoints lie, if this process sees the folder that is meant.
            worker: the name of a worker that is registered there.
        """
        machine = f"{socket.gethostname()} {os.getpid()}"
        try:
            check_jax()
            own = circumstances()[1]
            if own != versions:
                return Joined(machine, own)
            with pinned():
                return self._joined(machine, own, _read(fetch), Path(folder), worker)
        except InputError as error:
            return InputError(f"engine: {machine}: {error}")

    def _joined(self, machine: str, versions: str, study: Study, folder: Path, worker: str) -> Joined:
        traced = trace(study.workloads[0])
        self._study, self._backend = study, backend_of(study, traced, World())
        sees_folder = (folder / "workers" / worker).is_file()
        self._checkpoints = Checkpoints(folder, self._backend.circumstances) if sees_folder else None
        self._told = 0
        return Joined(
            machine,
            versions,
            study.declaration().to_json(),
            fingerprints_of(study, {traced.workload.name: traced}),
            self._backend.circumstances,
            self._backend.provenance,
            self._backend.capacity,
            self._backend.concurrency,
            self._backend.notices,
            self._backend.seconds_to_read,
            sees_folder,
        )

    def expect(self, kinds: Sequence[Kind]) -> None:
        """Begin to compile what packs of these kinds will need, in this order."""
        self._backend.expect(kinds)

    def seconds_per_update(self, kind: Kind) -> float | Failure:
        """Return the seconds that one update of one trial takes in a full pack."""
        try:
            return self._backend.seconds_per_update(kind)
        except Exception as error:
            return _failure(error)

    def train(self, pack: Sequence[Trial], seconds: float | None) -> Trained | InputError:
        """Train a pack, from its checkpoints if there are any, for no longer than so many seconds.

        However little time there is, a checkpoint is left, so that a long pack comes to its end in the end.
        """
        least = 1.2 * CHECKPOINT_SECONDS if self._checkpoints else 0.0
        ends_at = None if seconds is None else time.perf_counter() + max(seconds, least)

        def on_progress(updates: int) -> None:
            if ends_at is not None and time.perf_counter() > ends_at:
                raise OutOfTime

        resumed = self._checkpoints.trials().intersection(trial.id for trial in pack) if self._checkpoints else None
        alone = not self._backend.compiler.pending
        study, trained = self._study, Trained(self._backend.provenance)
        milestones = Milestones(study.evaluate_at, study.noise_scale_at, study.sharpness_at)
        try:
            outcomes = train(self._backend, pack, milestones, self._checkpoints, on_progress)
        except OutOfTime:
            return trained
        except InputError as error:
            return error
        except Exception as error:  # whatever it is, it is these trials' outcome, and the others go on
            return replace(trained, failure=_failure(error))
        times = list(self._backend.compiler.compile_times)
        new, self._told = times[self._told :], len(times)
        nothing: Any = None
        return replace(
            trained,
            outcomes=[replace(outcome, trial=nothing) for outcome in outcomes],  # which the other side has
            tells_time=not resumed,
            alone=alone,
            compile_times=new,
        )


def _read(fetch: Callable[[], Study]) -> Study:
    try:
        return fetch()
    except Exception as error:  # whatever its parts raise where they are made again
        lines = (str(error).strip() or type(error).__name__).splitlines()
        raise InputError(f"the study cannot be read there ({lines[-1]}). Install what it needs.") from error


def _failure(error: Exception) -> Failure:
    """Return an error as what can be sent; raise what is no outcome of a trial."""
    if is_defect(error):
        raise error
    return Failure(str(error).strip() or type(error).__name__, "".join(traceback.format_exception(error)))
