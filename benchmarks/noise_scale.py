"""What the gradient noise scale costs on `digits`, and what it is along training beside the bend.

    python benchmarks/noise_scale.py [RUNS]

The cost is that of a pack of each batch size of the study, with and without, in turn and in one process with all
programs compiled; the figures are medians of RUNS runs. The noise scale is that of SGD in the study itself, searched,
in a new folder.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time

from rich.console import Console

import sgdscope as sg
from sgdscope.report.figures.noise_scale import noise_scale_sentences
from sgdscope.report.figures.optimal_learning_rate import transition_sentences
from sgdscope.studies.digits import study
from sgdscope.training.jax_setup import configure_jax
from sgdscope.training.loop import Milestones, train
from sgdscope.training.packed import PackedBackend
from sgdscope.training.step import Kind
from sgdscope.training.traced import trace

MOMENTS = (0.0, 0.5, 1.0)
# At 5 seeds the interval of the initial noise scale reaches 0 and infinity.
SEEDS = 15


def share_of_time(runs: int) -> None:
    """Print the seconds of a pack of each batch size without it and with it, and those of all together."""
    (workload,) = study.workloads
    declared = study.declaration()
    backend = PackedBackend(trace(workload), slots=4, noise_scale=True)
    slots, milestones = backend.capacity, [Milestones(study.evaluate_at, moments) for moments in ((), MOMENTS)]
    print(f"{slots} trials a pack, {backend.provenance['devices']} devices; seconds, medians of {runs} runs")
    print("batch size   without      with     ratio (lowest to highest)")
    sums = [[0.0, 0.0] for _ in range(runs)]
    for size in study.batch_sizes:
        trials = [declared.trial(sg.SGD(), size, 2.0**-4, seed) for seed in range(slots)]
        backend.expect([Kind.of(trials[0])])
        backend.compiler.settle()
        taken = []
        for run in range(runs):
            pair = []
            for moments in milestones:
                begun = time.perf_counter()
                train(backend, trials, moments)
                pair.append(time.perf_counter() - begun)
            taken.append(pair)
            sums[run] = [a + b for a, b in zip(sums[run], pair, strict=True)]
        _print_line(str(size), taken)
    _print_line("all", sums)
    backend.close()


def _print_line(name: str, taken: list[list[float]]) -> None:
    without, measured = (statistics.median(column) for column in zip(*taken, strict=True))
    ratios = sorted(b / a for a, b in taken)
    middle = statistics.median(ratios)
    print(f"{name:>10} {without:9.2f} {measured:9.2f} {middle:9.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})", flush=True)


def along_training() -> None:
    """Print the noise scale at the best rate for the score of each batch size, and what is said of it."""
    changes = {"optimizers": (sg.SGD(),), "noise_scale_at": (0.0, 0.25, 0.5, 0.75, 1.0), "seeds": SEEDS}
    measured = study.changed(changes)
    with tempfile.TemporaryDirectory() as folder:
        tables = sg.run(measured, f"{folder}/study", Console(stderr=True)).tables
    best = tables.optima.filter(criterion="score").select("batch_size", "learning_rate")
    table = tables.noise_scale.join(best, on=["batch_size", "learning_rate"]).sort("batch_size", "step")
    for size, rows in table.group_by("batch_size", maintain_order=True):
        cells = [
            f"{row['noise_scale']:.0f} [{row['noise_scale_low']:.0f}, {row['noise_scale_high']:.0f}]"
            if row["identified"]
            else f"not identified: |G|² {row['gradient_square_norm']:.2g} ± "
            f"{row['gradient_square_norm_high'] - row['gradient_square_norm']:.2g}"
            for row in rows.iter_rows(named=True)
        ]
        print(f"| {size[0]} | {rows['learning_rate'][0]:.3g} | {' | '.join(cells)} |")
    print(f"n = {table['n'].min()} to {table['n'].max()}")
    for sentence in transition_sentences(tables) + noise_scale_sentences(tables):
        print(sentence)


if __name__ == "__main__":
    configure_jax()
    share_of_time(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    along_training()
