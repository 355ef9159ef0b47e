"""A workload of one's own: two half-moons, a small network written in plain JAX."""

import jax
import jax.numpy as jnp
import numpy as np

import sgdscope as sg

Parameters = dict[str, jax.Array]


def moons(n: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    angle = np.pi * rng.random(n)
    x = np.where(label, 1 - np.cos(angle), np.cos(angle)) + rng.normal(0, 0.2, n)
    y = np.where(label, 0.5 - np.sin(angle), np.sin(angle)) + rng.normal(0, 0.2, n)
    return {"point": np.stack([x, y], 1).astype(np.float32), "label": label.astype(np.uint8)}


def init(key: jax.Array) -> Parameters:
    hidden, out = jax.random.split(key)
    return {
        "hidden": jax.random.normal(hidden, (2, 32)),
        "bias": jnp.zeros(32),
        "out": jax.random.normal(out, (32,)) / 6,
    }


def margin(p: Parameters, batch: dict[str, jax.Array]) -> jax.Array:
    sign = 2.0 * batch["label"] - 1
    return sign * (jax.nn.relu(batch["point"] @ p["hidden"] + p["bias"]) @ p["out"])


train = moons(512, seed=0)
loss, score = sg.constant_classifier(train["label"])
workload = sg.Workload(
    name="moons", version="1", train=train, validation=moons(512, seed=1), test=moons(1024, seed=2), init=init,
    loss=lambda p, batch: jax.nn.softplus(-margin(p, batch)),
    score=lambda p, batch: 1.0 * (margin(p, batch) > 0),
    constant_loss=loss, constant_score=score,
)  # fmt: skip
study = sg.Study(name="moons", workloads=workload, batch_sizes=(8, 32, 128, 512), budgets=sg.Epochs(20), seeds=5)
