"""Does each workload learn on its real data? One setting each, a few seeds, through the engine.

    python benchmarks/learning.py NAME [DATA]

NAME is autoencoder, lstm, wide_resnet_10_1 or wide_resnet_16_4; DATA is the folder of the data sets. The learning
rates are not tuned. Prints each seed's losses and scores beside those of
the best constant predictor. Interrupted, the same command goes on from the last checkpoint.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import sgdscope as sg
from sgdscope.data.cifar10 import read_cifar10
from sgdscope.data.mnist import read_mnist
from sgdscope.data.ptb import read_ptb
from sgdscope.data.split import first_examples
from sgdscope.workloads.autoencoder import autoencoder
from sgdscope.workloads.lstm import UNROLL, lstm
from sgdscope.workloads.wide_resnet import wide_resnet


def study_of(name: str, data: Path | None) -> sg.Study:
    """Return one cell with one learning rate."""
    momentum = (sg.SGD(momentum=0.9),)
    common = {"name": name, "seeds": 2, "evaluate_at": (1.0,), "optimizers": momentum}
    if name == "autoencoder":
        workload = autoencoder(read_mnist(data))
        return sg.Study(
            workloads=workload, batch_sizes=(64,), learning_rates=(2.0**-9,), budgets=sg.Epochs(5), **common
        )
    if name == "lstm":
        workload = lstm(read_ptb(data), size="small")
        sizes = (20 * UNROLL,)
        common["seeds"] = 1
        return sg.Study(workloads=workload, batch_sizes=sizes, learning_rates=(2.0,), budgets=sg.Epochs(1), **common)
    splits = read_cifar10(data)
    if name == "wide_resnet_10_1":
        workload = wide_resnet(splits, depth=10, width=1)
        return sg.Study(
            workloads=workload, batch_sizes=(64,), learning_rates=(2.0**-4,), budgets=sg.Epochs(3), **common
        )
    if name == "wide_resnet_16_4":
        # A CPU does some 30 pictures a second: one seed, and a part of the pictures, or evaluating would take hours.
        common["seeds"] = 1
        kept = {"train": 6_400, "validation": 1_000, "test": 2_000}
        workload = wide_resnet(first_examples(splits, kept))
        return sg.Study(
            workloads=workload, batch_sizes=(64,), learning_rates=(2.0**-4,), budgets=sg.Steps(120), **common
        )
    raise SystemExit(f"{name}: there is no such setting")


def main(name: str, data: Path | None) -> None:
    """Train, and print one line a seed."""
    study = study_of(name, data)
    begun = time.perf_counter()
    result = sg.run(study, f"sgdscope-learning-{name}")
    record = result.declaration.workloads[0]
    print(
        f"{name}: {study.budgets[0]}, batch size {study.batch_sizes[0]}, momentum 0.9, rate {study.learning_rates[0]:g}"
    )
    print(
        f"constant predictor: training loss {record.constant_loss:.4g}, {record.score_name} {record.constant_score:.4g}"
    )
    for row in result.trials.iter_rows(named=True):
        print(
            f"seed {row['seed']}: {row['status']}, {row['steps']} updates, training loss {row['train_loss']:.4g}, "
            f"{record.score_name} {row['validation_score']:.4g} (validation) {row['test_score']:.4g} (test), "
            f"{row['seconds']:.0f} s of both cores"
        )
    print(f"{len(result.trials)} seeds, {time.perf_counter() - begun:.0f} s in all")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None)
