"""What the built-in studies on published data have in common: the talk's three sweeps, as published and smaller."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sgdscope.budget import Epochs, Steps
from sgdscope.optimizers import SGD
from sgdscope.study import Study
from sgdscope.workloads.base import Workload, examples_in

# Smith, Elsen and De (2020), arXiv 2006.15081: 200 epochs, both optimizers, 15 seeds.
FULL: dict[str, Any] = {"budgets": (Epochs(200),), "seeds": 15, "evaluate_at": (0.5, 1.0)}
# The updates of 200 epochs of all 50,000 pictures of CIFAR-10 at a batch size of 1,024, at every batch size.
TALK_STEPS = 9_765
# As remembered of the paper, not checked against its text.
FULL_EPOCHS = tuple(50.0 * 2**k for k in range(8))
SMALL: dict[str, Any] = {"seeds": 3, "evaluate_at": (1.0,)}


def profiled(workload: Workload, profile: str, profiles: Mapping[str, Mapping[str, Any]]) -> Study:
    """Return the study of a workload at one of its profiles."""
    name = f"{workload.name.replace('_', '-')}-{profile}"
    return Study(name=name, workloads=(workload,), optimizers=(SGD(), SGD(momentum=0.9)), **profiles[profile])


def at_constant_steps(study: Study, steps: int | None = None) -> Study:
    """Return the talk's sweep (b): momentum alone, at the same number of steps for every batch size.

    Args:
        study: the sweep (a) of the same workload, batch size at one epoch budget.
        steps: how many; those of its epoch budget at the batch size nearest to 1,024 unless told otherwise.
    """
    if steps is None:
        (workload,), (budget,) = study.workloads, study.trial_budgets
        steps = budget.updates(_nearest(study.batch_sizes, 1024), examples_in(workload.train))
    changes = {"name": f"{study.name}-steps", "budgets": (Steps(steps),)}
    return study.changed(changes | {"optimizers": (SGD(momentum=0.9),)})


def over_epochs(study: Study, epochs: Sequence[float] | None = None) -> Study:
    """Return the talk's sweep (c): momentum alone, at the batch size nearest to 64 and several epoch budgets.

    Args:
        study: the sweep (a) of the same workload, batch size at one epoch budget.
        epochs: the budgets; half to four times that of sweep (a) unless told otherwise.
    """
    if epochs is None:
        epochs = [factor * budget.n for budget in study.trial_budgets for factor in (0.5, 1, 2, 4)]
    changes = {"name": f"{study.name}-epochs", "budgets": tuple(map(Epochs, epochs))}
    return study.changed(
        changes | {"optimizers": (SGD(momentum=0.9),), "batch_sizes": (_nearest(study.batch_sizes, 64),)}
    )


def _nearest(batch_sizes: Sequence[int], wanted: int) -> int:
    return min(batch_sizes, key=lambda size: abs(math.log2(size / wanted)))
