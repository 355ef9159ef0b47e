"""A network of Equinox on handwritten digits."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import sgdscope as sg

Batch = dict[str, jax.Array]
digits = sg.workloads.digits()  # the data: "picture" of 64 pixels, and "label"


def network(key: jax.Array) -> eqx.nn.MLP:
    return eqx.nn.MLP(in_size=64, out_size=10, width_size=32, depth=1, key=key)


static = eqx.filter(network(jax.random.key(0)), eqx.is_inexact_array, inverse=True)


def logits(parameters: eqx.nn.MLP, batch: Batch) -> jax.Array:
    return jax.vmap(eqx.combine(parameters, static))(batch["picture"])


def losses(parameters: eqx.nn.MLP, batch: Batch) -> jax.Array:
    labels = batch["label"].astype(jnp.int32)
    return optax.softmax_cross_entropy_with_integer_labels(logits(parameters, batch), labels)


workload = sg.Workload(
    name="digits-equinox", version="1", train=digits.train, validation=digits.validation, test=digits.test,
    init=lambda key: eqx.filter(network(key), eqx.is_inexact_array), loss=losses,
    score=lambda p, batch: 1.0 * (logits(p, batch).argmax(-1) == batch["label"]),
    constant_loss=digits.constant_loss, constant_score=digits.constant_score,
)  # fmt: skip
study = sg.Study(name="digits-equinox", workloads=workload, batch_sizes=(16, 64, 256), budgets=sg.Epochs(10), seeds=5)
