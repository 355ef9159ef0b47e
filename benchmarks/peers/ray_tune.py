"""Ray Tune with the plain loop of PyTorch: one process a trial, one core each."""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray import tune
from trials import Report, Trial, read_trials, tell

HERE = Path(__file__).parent


def trainable(config: dict[str, Any]) -> dict[str, float]:
    """Train one trial in a process of its own."""
    sys.path.insert(0, str(HERE))
    import torch
    from pytorch_loop import tensors, train

    torch.set_num_threads(1)
    return {"accuracy": train(Trial(**config["trial"]), tensors())}


def main() -> None:
    trials, begun = read_trials(), time.perf_counter()
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
    ready = time.perf_counter() - begun
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            param_space={"trial": tune.grid_search([asdict(trial) for trial in trials])},
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        results = tuner.fit()
    taken = time.perf_counter() - begun - ready
    tell(Report(ready, taken, [result.metrics["accuracy"] for result in results]))


if __name__ == "__main__":
    main()
