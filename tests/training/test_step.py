"""What the loop does with a workload's state, penalty, streams, microbatches and devices."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trainers import Trainer

from sgdscope.budget import Steps
from sgdscope.errors import InputError
from sgdscope.optimizers import SGD
from sgdscope.study import Study
from sgdscope.training.sampling import microbatch_at, updates_per_epoch
from sgdscope.training.step import stretches
from sgdscope.training.traced import trace
from sgdscope.workloads.base import Streams, Workload
from sgdscope.workloads.digits import digits

UPDATES, RATE, SEED = 30, 0.125, 4


def trained(workload, batch_size, microbatch_size=None, method=None):
    study = Study(
        name="s", workloads=workload, batch_sizes=(batch_size,), budgets=Steps(UPDATES), microbatch_size=microbatch_size
    )
    declaration = study.declaration()
    trainer = Trainer(workload, (0.5, 1.0), slots=2, method=method)
    (outcome,) = trainer.train([declaration.trial(SGD(momentum=0.9), batch_size, RATE, SEED)])
    trainer.close()
    return {(m.step, m.split, m.metric): m.value for m in outcome.measurements}


def rate_at(step):
    return RATE * 0.5 ** max(0, 20 * step // UPDATES - 9)


def examples(n, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    return {"x": x, "y": (x @ np.array([1.0, -2.0, 0.5], np.float32)).astype(np.float32)}


def regression(**functions):
    """Least squares that also keeps a running mean of its inputs, and is noisy in training."""
    plain = {
        "init": lambda key: {"w": jax.random.normal(key, (3,)), "b": jnp.zeros(())},
        "loss": lambda p, state, batch: (batch["x"] @ p["w"] + p["b"] - batch["y"]) ** 2 + (state["mean"] ** 2).sum(),
        "score": lambda p, state, batch: batch["x"][:, 0] * 0 + state["count"],
        "training_loss": noisy_squares,
        "init_state": lambda: {"mean": jnp.zeros(3), "count": jnp.zeros(())},
        "ghost_batch_size": 4,
        "penalty": lambda p: 0.05 * (p["w"] ** 2).sum(),
    }
    splits = {split: examples(n, n) for split, n in (("train", 60), ("validation", 10), ("test", 20))}
    return Workload(
        name="w", version="1", **splits, constant_loss=1.0, constant_score=0.0,
        **plain | functions,
    )  # fmt: skip


def noisy_squares(parameters, state, batch, keys):
    noise = jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
    losses = ((batch["x"] + 0.1 * noise) @ parameters["w"] + parameters["b"] - batch["y"]) ** 2
    mean, count = state["mean"], state["count"]
    for ghost in batch["x"].reshape(-1, 4, 3):
        mean, count = 0.9 * mean + 0.1 * ghost.mean(axis=0), count + 1
    return losses, {"mean": mean, "count": count}


@pytest.mark.parametrize("method", ["map", "vmap"])
@pytest.mark.parametrize("microbatch_size", [None, 8])
def test_state_penalty_and_noise_against_a_plain_loop(microbatch_size, method):
    workload = regression()
    got = trained(workload, 24, microbatch_size, method)
    parameters = workload.init(jax.random.split(jax.random.key(SEED))[0])
    velocity, state, losses = jax.tree.map(jnp.zeros_like, parameters), workload.init_state(), []
    split = {key: jnp.asarray(array) for key, array in workload.train.items()}
    batch_at = jax.jit(lambda step: microbatch_at(workload, split, jnp.uint32(SEED), step, jnp.int32(0), (24, 24)))

    @jax.jit
    def loss_gradient_and_state(parameters, state, batch, keys):
        mean = lambda p: noisy_squares(p, state, batch, keys)[0].mean()
        gradient = jax.grad(lambda p: mean(p) + workload.penalty(p))(parameters)
        return mean(parameters), gradient, noisy_squares(parameters, state, batch, keys)[1]

    for step in range(UPDATES):
        loss, gradient, state = loss_gradient_and_state(parameters, state, *batch_at(jnp.int32(step)))
        losses.append(float(loss))
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradient)
        rate = rate_at(step)
        parameters = jax.tree.map(lambda p, v, rate=rate: p - rate * v, parameters, velocity)
    for split in ("train", "validation", "test"):
        data = workload.split(split)
        loss = float(workload.loss(parameters, state, data).mean())
        assert got[UPDATES, split, "loss"] == pytest.approx(loss, rel=1e-4)
        assert got[UPDATES, split, "score"] == pytest.approx(UPDATES * 6)  # once a ghost batch
    curve = [got[step, "train", "minibatch_loss"] for step in range(1, UPDATES + 1)]
    np.testing.assert_allclose(curve, losses, rtol=1e-4)


# ── Streams ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["map", "vmap"])
@pytest.mark.parametrize("microbatch_size", [None, 8])
def test_streams_carry_within_an_epoch_and_begin_anew_with_the_next(microbatch_size, method, echo):
    workload = echo
    got = trained(workload, 16, microbatch_size, method)
    per_epoch = updates_per_epoch(workload, 16)
    assert per_epoch == 3
    split = {key: jnp.asarray(array) for key, array in workload.train.items()}
    batch_at = jax.jit(lambda step: microbatch_at(workload, split, jnp.uint32(SEED), step, jnp.int32(0), (16, 16))[0])
    w, velocity, carry = 1.0, 0.0, np.zeros(4)
    for step in range(UPDATES):
        carry = np.zeros(4) if step % per_epoch == 0 else carry
        batch = batch_at(jnp.int32(step))
        x = np.asarray(batch["x"], float)
        seen = carry[:, None] + np.cumsum(x[:, :-1], axis=1)
        gradient = (2 * (w * 0.1 * seen - x[:, 1:]) * 0.1 * seen).mean()
        carry = seen[:, -1]
        velocity = 0.9 * velocity + gradient
        w -= rate_at(step) * velocity
    for split in ("train", "validation", "test"):
        loss = ((w - workload.split(split)["x"].astype(float)) ** 2).mean()
        assert got[UPDATES, split, "loss"] == pytest.approx(loss, rel=1e-4)
        assert got[UPDATES, split, "score"] == pytest.approx(np.sqrt(loss), rel=1e-4)
    assert got[UPDATES, "train", "dropped_per_epoch"] == 61 - 48


# ── Microbatches and devices ─────────────────────────────────────────────────────────────────────────────


def test_microbatches_are_the_whole_batch_to_float_tolerance_and_have_ids_of_their_own():
    workload = digits(hidden=16)
    whole, parts = trained(workload, 64), trained(workload, 64, 16)
    assert whole.keys() == parts.keys()
    np.testing.assert_allclose([parts[key] for key in whole], list(whole.values()), rtol=1e-5)
    ids = [
        Study(name="s", workloads=workload, batch_sizes=(64,), budgets=Steps(2), **changes)
        .declaration()
        .trial(SGD(momentum=0.9), 64, 1.0, 0)
        .id
        for changes in ({}, {"microbatch_size": 64}, {"microbatch_size": 16}, {"devices_per_trial": 2})
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


FOUR_DEVICES = """
import jax
jax.config.update("jax_num_cpu_devices", 4)
import numpy as np
from sgdscope.budget import Steps
from sgdscope.optimizers import SGD
from sgdscope.study import Study
from sgdscope.training.traced import trace
from sgdscope.training.loop import Milestones, train
from sgdscope.training.packed import PackedBackend
from sgdscope.training.programs import Update
from sgdscope.training.step import Kind
from sgdscope.workloads.digits import digits

def trained(devices_per_trial, devices):
    study = Study(name="s", workloads=digits(hidden=16), batch_sizes=(64,), budgets=Steps(40),
                  devices_per_trial=devices_per_trial)
    declared = study.declaration()
    backend = PackedBackend(trace(study.workloads[0]), devices_per_trial, devices=jax.devices()[:devices], slots=2)
    trials = [declared.trial(SGD(momentum=0.9), 64, 0.0625, seed) for seed in range(2)]
    outcomes = train(backend, trials, Milestones())
    text = backend.prepare(Update(Kind.of(trials[0]), backend.capacity)).result().as_text()
    backend.close()
    return np.array([[m.value for m in outcome.measurements] for outcome in outcomes]), text

one, plain = trained(1, 1)
assert "all-reduce" not in plain
for groups in ((4, 4), (2, 4)):
    shared, text = trained(*groups)
    np.testing.assert_allclose(shared, one, rtol=1e-5)
    assert "all-reduce" in text  # each device has a part of the batch, or there were nothing to add up
"""


def test_a_trial_shared_by_four_devices_is_the_trial_of_one_to_float_tolerance():
    done = subprocess.run([sys.executable, "-c", FOUR_DEVICES], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_devices_that_cannot_be_shared_so_are_refused():
    with pytest.raises(InputError, match="devices_per_trial: 3 does not divide the 2 devices"):
        Trainer(digits(hidden=16), devices_per_trial=3)


# ── Curves ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("updates", [1, 7, 49, 50, 51, 120, 12_345])
def test_the_stretches_of_a_curve_share_all_updates_evenly(updates):
    found = stretches(updates)
    assert len(found) == min(50, updates)
    assert [update for first, stop in found for update in range(first, stop)] == list(range(updates))
    lengths = [stop - first for first, stop in found]
    assert max(lengths) - min(lengths) <= 1
    # The loop's own rule puts each update where the stretches have it.
    for number, (first, stop) in enumerate(found):
        assert all(update * min(50, updates) // updates == number for update in (first, stop - 1))


def test_a_state_may_count_in_integers():
    counting = lambda: {"mean": jnp.zeros(3), "count": jnp.int32(0)}
    integers = regression(init_state=counting, score=lambda p, s, batch: jnp.full(len(batch["y"]), s["count"]))
    found = trained(integers, 12, 4)
    assert found[UPDATES, "test", "score"] == 3 * UPDATES
    assert found == trained(regression(), 12, 4)


# ── What is refused ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("functions", "sentence"),
    [
        ({"init_state": lambda: {"mean": jnp.zeros(3, jnp.bfloat16)}}, "init_state must return a tree of float32"),
        ({"training_loss": lambda p, s, batch, keys: batch["x"][:, 0]}, "must return the losses and a state"),
        ({"training_loss": lambda p, s, batch, keys: (batch["x"][:, 0], ())}, "must return the losses and a state"),
        ({"penalty": lambda p: p["w"]}, r"penalty must return one number, shape \(\)"),
        ({"score_of_mean": lambda mean: jnp.stack([mean, mean])}, r"score_of_mean must return one number, shape \(\)"),
        ({"score_of_mean": lambda mean: mean["x"]}, "score_of_mean cannot be traced by JAX"),
        ({"training_loss": lambda p, s, batch, keys: (batch["x"], s)}, r"losses of shape \(28,\) .* not \(28, 3\)"),
        ({"training_loss": lambda p, s, batch, keys: (0.5, s)}, r"losses of shape \(28,\) .* not"),
        ({"training_loss": lambda p, s, batch, keys: batch["z"]}, "training_loss cannot be traced by JAX: KeyError"),
    ],
)
def test_functions_that_are_not_the_contracts_are_refused(functions, sentence):
    with pytest.raises(InputError, match=sentence):
        trace(regression(**functions))


def test_a_carry_without_an_axis_of_streams_is_refused(echo):
    with pytest.raises(InputError, match=r"carry\(n\) must return arrays whose first axis is n"):
        trace(dataclasses.replace(echo, reader=Streams(4, lambda n: jnp.zeros((2, n)))))


@pytest.mark.parametrize(
    ("functions", "sentence"),
    [
        ({"training_loss": None}, "init_state is of no use without training_loss"),
        ({"ghost_batch_size": 0}, "ghost_batch_size: 0 is not a whole number of at least 1"),
        ({"reader": Streams(4, jnp.zeros)}, "streams carry their own state"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(functions, sentence):
    with pytest.raises(InputError, match=sentence):
        regression(**functions)
