"""What the built-in studies on published data have in common: the paper's three sweeps, as published and smaller."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sgdscope.budget import Epochs, Steps
from sgdscope.optimizers import SGD
from sgdscope.study import Study
from sgdscope.workloads.base import Workload, examples_in

# Smith, Elsen and De (2020), arXiv 2006.15081, as recalled: 200 epochs, both optimizers, 15 seeds.
FULL: dict[str, Any] = {"budgets": (Epochs(200),), "seeds": 15, "evaluate_at": (0.5, 1.0)}
# The updates of 200 epochs of all 50,000 pictures of CIFAR-10 at a batch size of 1,024, at every batch size: as
# recalled.
TALK_STEPS = 9_765
# As recalled of the paper, not checked against its text.
FULL_EPOCHS = tuple(50.0 * 2**k for k in range(8))
SMALL: dict[str, Any] = {"seeds": 3, "evaluate_at": (1.0,)}
# Chosen by what it can show: three batch sizes and more on each side of the transition, on two cores in hours.
LAPTOP: dict[str, Any] = {"seeds": 5, "evaluate_at": (0.5, 1.0)}
# Differences too small to matter, by the name of the score: about 1 % of the full study's, or 0.2 points of accuracy.
MARGINS = {"accuracy": 0.002, "perplexity": 1.0, "squared error": 0.05, "bits per character": 0.02}


def profiled(workload: Workload, profile: str, profiles: Mapping[str, Mapping[str, Any]]) -> Study:
    """Return the study of a workload at one of its profiles."""
    name = f"{workload.name.replace('_', '-')}-{profile}"
    least = 1 / examples_in(workload.test) if workload.score_name == "accuracy" else 0.0
    margin = max(least, MARGINS[workload.score_name])
    settings = {"optimizers": (SGD(), SGD(momentum=0.9)), **profiles[profile]}
    return Study(name=name, workloads=(workload,), score_margin=margin, **settings)


@dataclass(frozen=True)
class Sweeps:
    """What a study's other two sweeps vary, the paper's (b) and (c); both train with momentum alone.

    Args:
        steps: the steps of every trial of the sweep ``steps``. Default: those of the study's epochs at the batch size
            nearest to `steps_of`.
        steps_of: a batch size.
        largest: the largest batch size of the sweep ``steps``. Default: the study's.
        epochs: the budgets of the sweep ``epochs``, at the batch size nearest to 64. Default: half, once, twice and
            four times the study's.
    """

    steps: int | None = None
    steps_of: int = 1024
    largest: int | None = None
    epochs: tuple[float, ...] | None = None

    def applied_to(self, study: Study, sweep: str) -> Study:
        """Return the sweep ``steps`` or ``epochs`` of a study over batch sizes at one epoch budget."""
        (workload,), (budget,), sizes = study.workloads, study.trial_budgets, study.batch_sizes
        changes: dict[str, Any] = {"name": f"{study.name}-{sweep}", "optimizers": (SGD(momentum=0.9),)}
        if sweep == "epochs":
            epochs = self.epochs or [factor * budget.n for factor in (0.5, 1, 2, 4)]
            return study.changed(
                changes | {"budgets": tuple(map(Epochs, epochs)), "batch_sizes": (_nearest(sizes, 64),)}
            )
        steps = self.steps or budget.updates(_nearest(sizes, self.steps_of), examples_in(workload.train))
        kept = tuple(size for size in sizes if size <= (self.largest or size))
        return study.changed(changes | {"budgets": (Steps(steps),), "batch_sizes": kept})


def _nearest(batch_sizes: Sequence[int], wanted: int) -> int:
    return min(batch_sizes, key=lambda size: abs(math.log2(size / wanted)))
