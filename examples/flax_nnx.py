"""A network of Flax NNX with dropout on handwritten digits."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import sgdscope as sg

Batch = dict[str, jax.Array]
digits = sg.workloads.digits()  # the data: "picture" of 64 pixels, and "label"


class Network(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.hidden, self.out = nnx.Linear(64, 32, rngs=rngs), nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x: jax.Array, kept: jax.Array | float = 1.0) -> jax.Array:
        return self.out(kept * nnx.relu(self.hidden(x)))


structure = nnx.graphdef(Network(nnx.Rngs(0)))


def cross_entropy(p: nnx.State, batch: Batch, kept: jax.Array | float = 1.0) -> jax.Array:
    labels = batch["label"].astype(jnp.int32)
    return optax.softmax_cross_entropy_with_integer_labels(nnx.merge(structure, p)(batch["picture"], kept), labels)


def with_dropout(p: nnx.State, batch: Batch, keys: jax.Array) -> jax.Array:
    return cross_entropy(p, batch, jax.vmap(lambda key: jax.random.bernoulli(key, 0.9, (32,)))(keys) / 0.9)


workload = sg.Workload(
    name="digits-flax", version="1", train=digits.train, validation=digits.validation, test=digits.test,
    init=lambda key: nnx.state(Network(nnx.Rngs(key))), loss=cross_entropy, training_loss=with_dropout,
    score=lambda p, batch: 1.0 * (nnx.merge(structure, p)(batch["picture"]).argmax(-1) == batch["label"]),
    constant_loss=digits.constant_loss, constant_score=digits.constant_score,
)  # fmt: skip
study = sg.Study(name="digits-flax", workloads=workload, batch_sizes=(16, 64, 256), budgets=sg.Epochs(10), seeds=5)
