"""What trains packs, and what the training loop asks of a backend.

A backend advances trials, and knows no stop, no checkpoint and no table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from sgdscope.errors import InputError
from sgdscope.study import Trial
from sgdscope.training.compiler import Compiler
from sgdscope.training.evaluate import Evaluation
from sgdscope.training.step import Kind
from sgdscope.workloads.base import Workload


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


class Trainer(Protocol):
    """What the engine asks of what trains packs: a backend of this process, or a crew of others."""

    workload: Workload
    compiler: Compiler

    @property
    def capacity(self) -> int:
        """The most trials of a pack."""

    @property
    def concurrency(self) -> int:
        """How many trials of a pack advance at the same time."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How trials are trained: ``method``, ``device``, ``devices`` and ``jax_version`` of the table of trials."""

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences for the user."""

    @property
    def seconds_to_read(self) -> float:
        """The seconds that an example takes the host; 0 where it has no part in it."""

    @property
    def circumstances(self) -> str:
        """What the bits of a trial depend on beside its identity."""

    def expect(self, kinds: Sequence[Kind]) -> None:
        """Begin to compile what packs of these kinds will need, in this order."""

    def seconds_per_update(self, kind: Kind) -> float:
        """Return the seconds that one update of one trial takes in a full pack, from a short timed run."""

    def close(self) -> None:
        """Wait for what is being compiled, and drop what is not yet."""


class Backend(Trainer, Protocol):
    """What advances trials."""

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

    def sharpness(self, pack: Any, places: Sequence[int]) -> list[tuple[float, float]]:
        """Return λ_max of the training loss for these trials, and how far from it an eigenvalue may be."""

    def curves(self, pack: Any) -> np.ndarray:
        """Return the sums of minibatch losses over each stretch of the budget, one row a trial."""

    def export(self, pack: Any) -> list[np.ndarray]:
        """Return a copy of the leaves of the state, each with one row a trial."""


def check_devices(devices_per_trial: int, devices: int) -> None:
    """Refuse to share trials among devices that cannot be shared equally.

    Raises:
        InputError: If one number does not divide the other.
    """
    if devices % devices_per_trial:
        raise InputError(
            f"devices_per_trial: {devices_per_trial} does not divide the {devices} devices that JAX has here. "
            f"Use a number that does."
        )
