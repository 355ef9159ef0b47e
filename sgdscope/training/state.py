"""What a trial carries from update to update, and the numbers that make it this trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Settings:
    """The array arguments of a trial, or of a pack: one program serves every value of them."""

    learning_rate: Any  # ε, float32
    momentum: Any  # m, float32
    seed: Any  # uint32
    updates: Any  # T, int32; 0 for a slot without a trial


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """A trial between two updates."""

    parameters: Any
    velocity: Any
    model: Any  # the workload's state, or what its streams carry; () where there is neither
    curve: Any  # sums of minibatch losses over each stretch of the budget, float32 (CURVE_POINTS,)
    step: Any  # updates made, int32
    finite: Any  # False once a loss was not finite: the trial has diverged
