"""Promise 1, for every way in which an update is made that gives a trial the same
bits in every pack: its numbers are its own. Plain updates are in test_packed.py, `vmap` there and beside each way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trainers import Trainer

from sgdscope.budget import Steps
from sgdscope.optimizers import SGD
from sgdscope.study import Study
from sgdscope.training.jax_setup import COMPILER_OPTIONS, QUICKLY_COMPILED
from sgdscope.workloads.base import Workload


@pytest.fixture(autouse=True)
def _quickly_compiled(monkeypatch):
    """Two dozen programs, each of which runs for a moment."""
    monkeypatch.setitem(COMPILER_OPTIONS, "cpu", COMPILER_OPTIONS["cpu"] | QUICKLY_COMPILED)


def network():
    """A small network with a penalty, whose training loss draws random numbers: dropout of its inputs."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(96, 6)).astype(np.float32)
    split = {"x": x, "y": np.sin(x).sum(axis=1)}

    def loss(p, state, batch):
        return 0.5 * ((jax.nn.tanh(batch["x"] @ p["in"]) @ p["out"])[:, 0] - batch["y"]) ** 2

    def training_loss(p, state, batch, keys):
        kept = jax.vmap(lambda key, x: jnp.where(jax.random.bernoulli(key, 0.9, x.shape), x, 0.0))(keys, batch["x"])
        return loss(p, state, batch | {"x": kept}), state

    def init(key):
        first, second = jax.random.split(key)
        return {"in": jax.random.normal(first, (6, 5)), "out": jax.random.normal(second, (5, 1))}

    return Workload(
        name="w", version="1", train=split, validation=split, test=split, loss=loss, score=loss, init=init,
        training_loss=training_loss, penalty=lambda p: 1e-3 * (p["in"] ** 2).sum(),
        constant_loss=10.0, constant_score=10.0, score_goal="minimize",
    )  # fmt: skip


def numbers(outcome):
    return outcome.steps, outcome.diverged, outcome.measurements, outcome.correctness


@pytest.mark.parametrize(
    ("changes", "method"),
    [
        ({"microbatch_size": 8}, "map"),
        ({"compute_dtype": "bfloat16"}, "map"),
        ({"compute_dtype": "bfloat16"}, "step"),
        ({"devices_per_trial": 2}, "map"),
    ],
)
def test_a_trial_is_the_same_alone_beside_diverging_ones_in_any_place_and_on_one_device(changes, method):
    workload = network()
    study = Study(name="s", workloads=workload, batch_sizes=(32,), budgets=Steps(24), **changes)
    declared = study.declaration()
    mine = declared.trial(SGD(momentum=0.9), 32, 0.02, 5)
    others = [declared.trial(SGD(), 32, rate, seed) for seed, rate in enumerate((1e9, 0.1, 1e20))]

    def trained(devices, *packs):
        """Return what becomes of the trial in each of these packs, as much of them as there are slots for."""
        trainer = Trainer(
            workload, (0.5, 1.0), devices_per_trial=study.devices_per_trial,
            devices=jax.devices()[:devices], method=method, slots=4 // (devices // study.devices_per_trial),
            compute_dtype=study.compute_dtype,
        )  # fmt: skip
        found = [outcome for pack in packs for outcome in trainer.train(pack[: trainer.capacity])]
        trainer.close()
        assert trainer.capacity == 1 or any(outcome.diverged for outcome in found)
        return [outcome for outcome in found if outcome.trial == mine]

    alone, *found = trained(2, [mine], [mine, *others], [others[0], mine, *others[1:]])
    if study.devices_per_trial == 1:
        found += trained(1, [mine, *others])
    assert len(found) >= 1
    assert (alone.steps, alone.diverged) == (24, False)
    assert [numbers(other) for other in found] == [numbers(alone)] * len(found)
