"""Ghost batches by the engine: any framework's batch normalization, without a word of ghosts in it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trainers import Trainer

from sgdscope.budget import Steps
from sgdscope.errors import InputError
from sgdscope.models.normalization import cuts_ghosts
from sgdscope.optimizers import SGD
from sgdscope.study import Study
from sgdscope.training.ghosts import ghosted
from sgdscope.training.traced import trace
from sgdscope.workloads.base import Workload

GHOST = 4


def examples(n, seed):
    x = np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)
    return {"x": x, "y": x.sum(1)}


def normalized(p, state, batch, keys):
    """Normalize by the statistics of the whole batch, as every framework does, and count the updates."""
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 0.9, (3,)))(keys)
    x = jnp.where(kept, batch["x"], 0.0) * p["in"][None]
    mean, variance = x.mean(0), x.var(0)
    moved = {
        "mean": 0.9 * state["mean"] + 0.1 * mean,
        "variance": 0.9 * state["variance"] + 0.1 * variance,
        "updates": state["updates"] + 1,
    }
    return errors(p, mean, variance, x, batch), moved


def errors(p, mean, variance, x, batch):
    return (((x - mean[None]) * jax.lax.rsqrt(variance + 1e-5)[None]) @ p["out"] - batch["y"]) ** 2


def evaluated(p, state, batch):
    return errors(p, state["mean"], state["variance"], batch["x"] * p["in"][None], batch)


def workload(**changes):
    functions = {
        "init": lambda key: {"in": jnp.ones(3), "out": jnp.zeros(3)},  # nothing mixes at first
        "init_state": lambda: {"mean": jnp.zeros(3), "variance": jnp.ones(3), "updates": jnp.int32(0)},
        "loss": evaluated,
        "score": evaluated,
        "training_loss": normalized,
        "ghost_batch_size": GHOST,
    }
    splits = {split: examples(n, n) for split, n in (("train", 48), ("validation", 8), ("test", 8))}
    return Workload(
        name="w", version="1", **splits, constant_loss=3.0, constant_score=3.0, score_goal="minimize",
        **functions | changes,
    )  # fmt: skip


def by_hand(p, state, batch, keys):
    """Return what each ghost batch gives, and the mean of the states that they leave behind."""
    cut = lambda a: a.reshape(-1, GHOST, *a.shape[1:])
    of_ghost = lambda batch, keys: normalized(p, state, batch, keys)
    losses, moved = jax.vmap(of_ghost)(jax.tree.map(cut, batch), cut(keys))
    return losses.reshape(-1), {
        "mean": moved["mean"].mean(0), "variance": moved["variance"].mean(0), "updates": state["updates"] + 1
    }  # fmt: skip


def measured(workload, batch_size, microbatch_size=None):
    study = Study(
        name="s", workloads=workload, batch_sizes=(batch_size,), budgets=Steps(9), microbatch_size=microbatch_size
    )
    trainer = Trainer(workload, (0.5, 1.0), slots=2)
    (outcome,) = trainer.train([study.declaration().trial(SGD(momentum=0.9), batch_size, 0.125, 3)])
    trainer.close()
    return [(m.step, m.split, m.metric, m.value) for m in outcome.measurements]


@pytest.mark.parametrize("microbatch_size", [None, 8])
def test_a_batch_is_cut_as_by_hand_to_the_bit(microbatch_size):
    found = measured(workload(), 16, microbatch_size)
    assert found == measured(workload(training_loss=cuts_ghosts(by_hand)), 16, microbatch_size)
    assert found != measured(workload(training_loss=cuts_ghosts(lambda *a: normalized(*a))), 16, microbatch_size)


def test_ghost_batches_are_those_of_a_plain_loop():
    state = {"mean": jnp.arange(3.0), "variance": jnp.ones(3), "updates": jnp.int32(5)}
    batch, keys = jax.tree.map(jnp.asarray, examples(12, 0)), jax.random.split(jax.random.key(0), 12)
    parameters = {"in": jnp.ones(3), "out": jnp.arange(3.0)}
    losses, moved = ghosted(normalized, GHOST)(parameters, state, batch, keys)
    parts = [
        normalized(parameters, state, *jax.tree.map(lambda a, i=i: a[i : i + GHOST], (batch, keys)))
        for i in range(0, 12, GHOST)
    ]
    np.testing.assert_allclose(losses, np.concatenate([part for part, _ in parts]), rtol=1e-5)
    for name in ("mean", "variance"):
        np.testing.assert_allclose(moved[name], np.mean([state[name] for _, state in parts], axis=0), rtol=1e-5)
    assert (moved["updates"], moved["updates"].dtype) == (6, jnp.int32)


@pytest.mark.parametrize(
    "loss",
    [
        by_hand,  # which cuts by itself
        lambda p, state, batch, keys: (evaluated(p, state, batch), {**state, "mean": 0.9 * state["mean"]}),
    ],
)
def test_what_does_not_mix_ghost_batches_stays_as_it_is(loss):
    assert trace(own := workload(training_loss=loss)).workload is own


def test_statistics_of_a_batch_need_a_ghost_batch_size():
    sentence = "workload 'w': the training loss of an example depends on the other examples.*Give ghost_batch_size"
    with pytest.raises(InputError, match=sentence):
        trace(workload(ghost_batch_size=1))
    assert trace(alone := workload(ghost_batch_size=1, training_loss=by_itself)).workload is alone


def by_itself(p, state, batch, keys):
    """Normalize by the running statistics, which each batch moves."""
    return evaluated(p, state, batch), {**state, "mean": 0.9 * state["mean"] + 0.1 * batch["x"].mean(0)}


def test_a_cut_workload_is_another_program():
    own = workload()
    assert (
        trace(own).fingerprint != trace(replace(own, training_loss=cuts_ghosts(lambda *a: normalized(*a)))).fingerprint
    )
