"""PyTorch vectorised over models by torch.func and compiled: the trials of each batch size are one pack."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import torch
from pytorch_loop import network, tensors
from torch.func import functional_call, grad, stack_module_state, vmap
from trials import Report, Trial, batches, rate_factor, read_trials, tell


def by_batch_size(trials: Sequence[Trial]) -> Iterator[list[Trial]]:
    """Yield the trials of each batch size."""
    key = lambda trial: trial.batch_size
    yield from (list(pack) for _, pack in groupby(sorted(trials, key=key), key))


def train(pack: Sequence[Trial], splits: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> tuple[float, float, list]:
    """Train a pack; return the seconds of compiling, those of training, and test accuracies."""
    begun = time.perf_counter()
    models = []
    for trial in pack:
        torch.manual_seed(trial.seed)
        models.append(network())
    shape = network()
    parameters, _ = stack_module_state(models)
    parameters = {name: value.detach() for name, value in parameters.items()}
    pictures, labels = splits["train"]
    loss = torch.nn.functional.cross_entropy
    gradients = vmap(grad(lambda p, x, y: loss(functional_call(shape, p, (x,)), y)))

    @torch.compile(dynamic=False)
    def update(parameters, velocity, chosen, rate, momentum):
        found = gradients(parameters, pictures[chosen], labels[chosen])
        column = lambda value, like: value.reshape(-1, *([1] * (like.ndim - 1)))
        velocity = {name: column(momentum, v) * v + found[name] for name, v in velocity.items()}
        return {name: p - column(rate, p) * velocity[name] for name, p in parameters.items()}, velocity

    order = np.stack([batches(trial, np.random.default_rng(trial.seed)) for trial in pack], axis=1)
    chosen = torch.from_numpy(order)
    rates = torch.tensor([trial.learning_rate for trial in pack])
    momentum = torch.tensor([trial.momentum for trial in pack])
    velocity = {name: torch.zeros_like(value) for name, value in parameters.items()}
    with torch.no_grad():
        update(parameters, velocity, chosen[0], rates, momentum)
        compiled = time.perf_counter()
        for step in range(len(chosen)):
            factor = rate_factor(step, pack[0].updates)
            parameters, velocity = update(parameters, velocity, chosen[step], rates * factor, momentum)
        score = vmap(lambda p, x: functional_call(shape, p, (x,)), in_dims=(0, None))
        found = {name: (score(parameters, x).argmax(2) == y).float().mean(1) for name, (x, y) in splits.items()}
    return compiled - begun, time.perf_counter() - compiled, found["test"].tolist()


def main() -> None:
    trials, splits = read_trials(), tensors()
    ready = training = 0.0
    accuracies: dict[Trial, float] = {}
    for pack in by_batch_size(trials):
        compiling, taken, found = train(pack, splits)
        ready, training = ready + compiling, training + taken
        accuracies |= dict(zip(pack, found, strict=True))
    tell(Report(ready, training, [accuracies[trial] for trial in trials]))


if __name__ == "__main__":
    main()
