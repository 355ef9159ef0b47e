"""What the built-in studies on published data have in common: the talk's sweep (a), as published and smaller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgdscope.budget import Epochs
from sgdscope.optimizers import SGD, Momentum
from sgdscope.study import Study
from sgdscope.workloads.base import Workload

# Smith, Elsen and De (2020), arXiv 2006.15081: 200 epochs, both optimizers, 15 seeds.
FULL: dict[str, Any] = {"budgets": (Epochs(200),), "seeds": 15, "evaluate_at": (0.5, 1.0)}
SMALL: dict[str, Any] = {"seeds": 3, "evaluate_at": (1.0,)}


def profiled(workload: Workload, profile: str, profiles: Mapping[str, Mapping[str, Any]]) -> Study:
    """Return the study of a workload at one of its profiles."""
    name = f"{workload.name.replace('_', '-')}-{profile}"
    return Study(name=name, workloads=(workload,), optimizers=(SGD(), Momentum(0.9)), **profiles[profile])
