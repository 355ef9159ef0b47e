"""Does ResNet-50 learn 100 pictures by heart, through the engine and the pipeline as a study runs them?

python benchmarks/imagenet_overfits.py DATA [EPOCHS [SIDE [RATE]]], DATA being the folder of ImageNet or of a few of its
pictures. Training is on all of them, augmented as ever; what is learned is measured on their centres.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import polars as pl

import sgdscope as sg
from sgdscope.imagenet.index import of_classes, read_imagenet
from sgdscope.imagenet.workload import imagenet_resnet50

BATCH_SIZE = GHOST_BATCH_SIZE = 20


def main(data: Path, epochs: float = 30, side: int = 224, rate: float = 2.0**-6) -> None:
    workload = imagenet_resnet50(
        of_classes(read_imagenet(data, train_on_all=True), 100), side=side, ghost_batch_size=GHOST_BATCH_SIZE
    )
    study = sg.Study(
        name="imagenet-overfits",
        workloads=workload,
        optimizers=sg.SGD(momentum=0.9),
        batch_sizes=BATCH_SIZE,
        budgets=sg.Epochs(epochs),
        learning_rates=(rate,),
        evaluate_at=(0.25, 0.5, 0.75, 1.0),
        seeds=1,
        devices_per_trial=1,
    )
    with tempfile.TemporaryDirectory() as folder:
        result = sg.run(study, folder)
        rows = result.measurements.select("step", "split", "metric", "value")
        with pl.Config(tbl_rows=-1):
            print(rows.filter(pl.col("split") == "train"))
        print(result.trials.select("status", "steps", "train_loss", "train_score", "seconds"))


if __name__ == "__main__":
    of = (Path, float, int, float)
    main(*(kind(text) for kind, text in zip(of, sys.argv[1:], strict=False)))
