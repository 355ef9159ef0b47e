"""Plain JAX, one trial after the other: a Python loop over jitted updates."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from trials import WIDTHS, Report, Trial, arrays, batches, rate_factor, read_trials, tell

from sgdscope.models.mlp import mlp, mlp_init


@jax.jit
def update(parameters, velocity, split, chosen, rate, momentum):
    """Make one update."""
    pictures, labels = split

    def loss(parameters):
        logits = mlp(parameters, pictures[chosen])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[chosen]).mean()

    found = jax.grad(loss)(parameters)
    velocity = jax.tree.map(lambda v, g: momentum * v + g, velocity, found)
    return jax.tree.map(lambda p, v: p - rate * v, parameters, velocity), velocity


@jax.jit
def accuracy(parameters, split):
    """Return the share that is right."""
    pictures, labels = split
    return (mlp(parameters, pictures).argmax(1) == labels).mean()


def train(trial: Trial, splits: dict[str, tuple[jax.Array, jax.Array]], updates: int) -> float:
    """Train one trial for some of its updates and return its test accuracy."""
    parameters = mlp_init(jax.random.key(trial.seed), WIDTHS)
    velocity = jax.tree.map(jnp.zeros_like, parameters)
    order = batches(trial, np.random.default_rng(trial.seed))[:updates]
    for step, chosen in enumerate(order):
        rate = trial.learning_rate * rate_factor(step, trial.updates)
        parameters, velocity = update(parameters, velocity, splits["train"], chosen, rate, trial.momentum)
    return [float(accuracy(parameters, split)) for split in splits.values()][-1]


def main() -> None:
    trials = read_trials()
    splits = {name: jax.device_put(arrays()[name]) for name in ("train", "validation", "test")}
    begun = time.perf_counter()
    for batch_size in {trial.batch_size for trial in trials}:
        train(next(trial for trial in trials if trial.batch_size == batch_size), splits, updates=2)
    ready = time.perf_counter() - begun
    accuracies = [train(trial, splits, trial.updates) for trial in trials]
    tell(Report(ready, time.perf_counter() - begun - ready, accuracies))


if __name__ == "__main__":
    main()
