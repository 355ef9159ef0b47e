"""A network of Flax Linen with batch normalization on handwritten digits."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

import sgdscope as sg

digits = sg.workloads.digits()  # the data: "picture" of 64 pixels, and "label"


class Network(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return nn.Dense(10)(nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.Dense(32)(x))))


network, zeros = Network(), jnp.zeros((1, 64))


def losses(p: Any, state: Any, batch: Any, train: bool = False) -> Any:
    given = {"params": p, "batch_stats": state}
    logits, moved = network.apply(given, batch["picture"], train, mutable=["batch_stats"])
    labels = batch["label"].astype(jnp.int32)
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return entropy, moved["batch_stats"], logits.argmax(-1) == labels


workload = sg.Workload(
    name="digits-linen", version="1", train=digits.train, validation=digits.validation, test=digits.test,
    init=lambda key: network.init(key, zeros)["params"],
    init_state=lambda: network.init(jax.random.key(0), zeros)["batch_stats"],
    training_loss=lambda p, state, batch, keys: losses(p, state, batch, True)[:2], ghost_batch_size=16,
    loss=lambda p, state, batch: losses(p, state, batch)[0], score=lambda p, state, batch: losses(p, state, batch)[2],
    constant_loss=digits.constant_loss, constant_score=digits.constant_score,
)  # fmt: skip
study = sg.Study(name="digits-linen", workloads=workload, batch_sizes=(16, 64, 256), budgets=sg.Epochs(10), seeds=5)
