"""What an update of each method takes beside SGD's, by batch size, with the bound that counting operations gives.

    python benchmarks/methods.py [--rounds 5] [BATCH_SIZE ...]

The `digits` network, one trial on one device, as studies compile it. In each round every rule is timed once, after SGD
in the same round. Seconds are of the processor, which other work on the machine does not lengthen. The table has the
median over rounds of the paired ratios, their least and largest, the ratio of the operations of matrix products, and
microseconds an update.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from typing import Any

import jax
import polars as pl

from sgdscope.budget import Epochs
from sgdscope.optimizers import KFAC, SAM, SGD, SVRG, Adam, GradientPenalty, Optimizer
from sgdscope.study import Study
from sgdscope.training.jax_setup import pinned
from sgdscope.training.packed import PackedBackend
from sgdscope.training.step import Kind
from sgdscope.training.traced import TracedWorkload, trace
from sgdscope.workloads.digits import digits

RULES: tuple[Optimizer, ...] = (SGD(), Adam(), SAM(), SVRG(), GradientPenalty(block=32), KFAC())
SECONDS = 0.15
MOST = 2**20


class Timed:
    """One rule at one batch size, which goes on from where its last timing left it."""

    def __init__(self, backend: PackedBackend, kind: Kind) -> None:
        self.backend, self.kind, self.done = backend, kind, 0
        with pinned():
            numbers = kind.optimizer.coefficients(kind.batch_size)
            self.pack: Any = backend._begun(kind, [], [0], ([0.0], [numbers], [0], [MOST]))
        # Whole epochs, so that SVRG's full gradients are in their proportion.
        epoch = max(1, 1024 // kind.batch_size)
        self.steps = epoch * 5
        took = self.seconds()
        self.steps *= max(1, math.ceil(SECONDS / max(took, 1e-6)))

    def seconds(self) -> float:
        """Make the updates of one timing, and return their seconds of the processor."""
        self.done += self.steps
        with pinned():
            ends, begun = self.backend._ends(self.pack, [0], self.done), time.process_time()
            self.backend._run(self.pack, ends, self.steps)
        return time.process_time() - begun

    @property
    def per_update(self) -> float:
        """Return the seconds that an update takes now."""
        return self.seconds() / self.steps


def operations(traced: TracedWorkload, optimizer: Optimizer, batch_size: int) -> float:
    """Return the operations of an update."""
    prepared = optimizer.prepared(lambda: traced.layers)
    return prepared.operations_per_update(batch_size, traced.operations_per_example)


def table(sizes: list[int], rounds: int) -> pl.DataFrame:
    """Return one row for each rule and batch size."""
    traced = trace(digits())
    backend = PackedBackend(traced, devices=jax.devices()[:1], slots=1)
    study = Study(name="s", workloads=digits(), batch_sizes=sizes, budgets=Epochs(30), optimizers=RULES)
    declared, rows = study.declaration(), []
    for size in sizes:
        timed = {rule: Timed(backend, Kind.of(declared.trial(rule, size, 0.1, 0))) for rule in RULES}
        taken: dict[Optimizer, list[tuple[float, float]]] = {rule: [] for rule in RULES}
        for _ in range(rounds):
            for rule in RULES:
                taken[rule].append((timed[SGD()].per_update, timed[rule].per_update))
        for rule in RULES:
            ratios = [own / plain for plain, own in taken[rule]]
            bound = operations(traced, rule, size) / operations(traced, SGD(), size)
            rows.append(
                {"optimizer": str(rule), "batch_size": size, "rounds": rounds}
                | {"ratio": statistics.median(ratios), "ratio_least": min(ratios), "ratio_largest": max(ratios)}
                | {"operations_ratio": bound}
                | {"microseconds": 1e6 * statistics.median(own for _, own in taken[rule])}
            )
    backend.close()
    return pl.DataFrame(rows).with_columns(pl.selectors.float().round_sig_figs(3))


def main() -> None:
    """Print the table as CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", type=int, nargs="*", default=[8, 64, 512])
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(table(given.sizes, given.rounds).write_csv(), end="")


if __name__ == "__main__":
    main()
