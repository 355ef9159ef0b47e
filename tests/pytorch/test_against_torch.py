"""PyTorch models in JAX against PyTorch's own training loop."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")

from networks import NETWORKS
from trainers import Trainer

from sgdscope.budget import Steps
from sgdscope.optimizers import SGD
from sgdscope.study import Study
from sgdscope.training.step import loss_and_gradient
from sgdscope.training.traced import trace

UPDATES, BATCH, RATE = 50, 8, 0.1


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def torch_loop(name, parameters, batches):
    """Train by PyTorch alone, ghost batch after ghost batch; yield the first gradient, then the module."""
    make, _, how = NETWORKS[name]
    module, loss = make(), how["loss"]
    named = dict(module.named_parameters())
    with torch.no_grad():
        for key, value in parameters.items():
            named[key].copy_(torch.from_numpy(np.array(value)))
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE, momentum=0.9)
    size = how.get("ghost_batch_size", BATCH)
    for number, (x, y) in enumerate(batches):
        optimizer.zero_grad()
        for first in range(0, BATCH, size):
            part = loss(module(x[first : first + size]), y[first : first + size]).mean()
            (part * size / BATCH).backward()
        if number == 0:
            yield {key: p.grad.numpy().copy() for key, p in named.items()}
        optimizer.step()
    yield module


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_and_fifty_updates_are_those_of_pytorch(name, workloads):
    workload = workloads(name)
    parameters = start = workload.init(jax.random.key(1))
    data = {key: np.asarray(array) for key, array in workload.train.items()}
    index = [np.random.default_rng(number).permutation(48)[:BATCH] for number in range(UPDATES)]
    own = torch_loop(name, start, [tuple(torch.from_numpy(data[key][i]) for key in ("x", "y")) for i in index])
    gradient_of = jax.jit(loss_and_gradient(workload, "float32"))
    state = () if workload.init_state is None else workload.init_state()
    velocity = jax.tree.map(jnp.zeros_like, parameters)
    for number, i in enumerate(index):
        batch = {key: jnp.asarray(array[i]) for key, array in data.items()}
        (_, state), gradient = gradient_of(parameters, state, batch, keys(BATCH))
        if number == 0:
            expected = next(own)
            largest = max(np.abs(g).max() for g in expected.values())
            assert gradient.keys() == expected.keys()
            for key, value in gradient.items():
                np.testing.assert_allclose(value, expected[key], rtol=1e-4, atol=1e-5 * largest)
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradient)
        parameters = jax.tree.map(lambda p, v: p - RATE * v, parameters, velocity)
    module = next(own)
    for key, p in module.named_parameters():
        assert np.abs(np.asarray(start[key]) - p.detach().numpy()).max() > 1e-3  # it has moved
        np.testing.assert_allclose(parameters[key], p.detach().numpy(), rtol=2e-3, atol=2e-3)
    buffers = dict(module.named_buffers())
    assert name != "cnn" or set(state) == {f"{n}.running_{s}" for n in (1, 5) for s in ("mean", "var")}
    for key in state:
        np.testing.assert_allclose(state[key], buffers[key].numpy(), rtol=2e-3, atol=2e-3)
    module.eval()
    with torch.no_grad():
        output = module(torch.from_numpy(workload.test["x"]))
        losses = NETWORKS[name][2]["loss"](output, torch.from_numpy(workload.test["y"])).mean()
    test = {key: jnp.asarray(array) for key, array in workload.test.items()}
    np.testing.assert_allclose(workload.loss(parameters, state, test).mean(), losses, rtol=2e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_dropout_of_an_example_is_its_own(name, workloads):
    """Examples in another order, with their keys, have the same losses; other keys have others."""
    workload = workloads(name, 0.5)
    parameters = workload.init(jax.random.key(0))
    state = () if workload.init_state is None else workload.init_state()
    ghost = workload.ghost_batch_size
    order = np.roll(np.arange(8), ghost)  # whole ghost batches
    loss = jax.jit(workload.training_loss)

    def losses(order, seed):
        batch = {key: jnp.asarray(array[order]) for key, array in workload.train.items()}
        return np.asarray(loss(parameters, state, batch, keys(8, seed)[order])[0])

    first = losses(np.arange(8), 0)
    np.testing.assert_allclose(losses(order, 0), first[order], rtol=1e-5)
    assert not np.isclose(losses(np.arange(8), 1), first).any()


@pytest.mark.parametrize("name", ["mlp", "cnn", "lstm"])
def test_a_trial_alone_is_bit_for_bit_the_trial_in_a_pack(name, workloads):
    workload = workloads(name, 0.5)
    declaration = Study(name="s", workloads=workload, batch_sizes=(8,), budgets=Steps(6)).declaration()
    trials = [declaration.trial(SGD(momentum=0.9), 8, rate, seed) for rate in (0.05, 0.1) for seed in (0, 1)]
    trainer = Trainer(workload, slots=4)
    packed, (alone,) = trainer.train(trials), trainer.train(trials[2:3])
    trainer.close()
    assert packed[2].measurements == alone.measurements
    assert packed[3].measurements != alone.measurements


def test_the_fingerprint_is_the_same_in_another_process(workloads):
    code = (
        "from networks import workload_of; from sgdscope.training.traced import trace;"
        "print(trace(workload_of('cnn', 0.5)).fingerprint)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent)
    assert done.stdout.strip() == trace(workloads("cnn", 0.5)).fingerprint, done.stderr
    assert trace(workloads("cnn", 0.0)).fingerprint != done.stdout.strip()
