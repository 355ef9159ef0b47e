"""What a trial carries from update to update, and the numbers that make it this trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Settings:
    """The array arguments of a trial: one program serves every value of them."""

    learning_rate: jax.Array  # ε, float32
    momentum: jax.Array  # m, float32
    seed: jax.Array  # uint32
    updates: jax.Array  # T, int32; 0 for a slot without a trial


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """A trial between two updates."""

    parameters: Any
    velocity: Any
    step: jax.Array  # updates made, int32
    finite: jax.Array  # False once a loss was not finite: the trial has diverged
