"""A plain loop in PyTorch, one trial after the other in one process; data and batches are made beforehand."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from trials import WIDTHS, Report, Trial, arrays, batches, rate_factor, read_trials, tell


def network() -> nn.Sequential:
    """Return the study's network: normal weights of variance 2 / inputs."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(WIDTHS):
        linear = nn.Linear(inputs, outputs)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def train(trial: Trial, splits: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Train one trial and return its test accuracy; all splits are evaluated once, as the study does."""
    torch.manual_seed(trial.seed)
    model, loss_of = network(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=trial.learning_rate, momentum=trial.momentum)
    pictures, labels = splits["train"]
    for step, chosen in enumerate(torch.from_numpy(batches(trial, np.random.default_rng(trial.seed)))):
        optimizer.param_groups[0]["lr"] = trial.learning_rate * rate_factor(step, trial.updates)
        optimizer.zero_grad()
        loss_of(model(pictures[chosen]), labels[chosen]).backward()
        optimizer.step()
    with torch.no_grad():
        accuracies = {
            name: (model(x).argmax(1) == y).float().mean().item()
            for name, (x, y) in splits.items()
            if np.isfinite(loss_of(model(x), y).item())
        }
    return accuracies.get("test", 0.0)


def tensors() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return the splits as tensors."""
    return {name: (torch.from_numpy(x), torch.from_numpy(y)) for name, (x, y) in arrays().items()}


def main() -> None:
    trials, splits, begun = read_trials(), tensors(), time.perf_counter()
    accuracies = [train(trial, splits) for trial in trials]
    tell(Report(0.0, time.perf_counter() - begun, accuracies))


if __name__ == "__main__":
    main()
