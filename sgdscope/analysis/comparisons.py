"""Learning rates of optimizers against each other."""

from __future__ import annotations

import math

from sgdscope.analysis.sweep import Cells
from sgdscope.stats.intervals import Estimate, bootstrapped


def octaves_between(momentum: Cells, sgd: Cells, m: float) -> Estimate:
    """Return the mean of log₂ ε*/(1 − m) − log₂ ε*_SGD over batch sizes that both have, each on its own seeds."""
    shift = -math.log2(1 - m)
    value = float((momentum.vertices - sgd.vertices).mean()) + shift
    drawn = momentum.drawn_means(stream=1) - sgd.drawn_means(stream=2) + shift
    return bootstrapped(value, drawn, min(momentum.n, sgd.n))
