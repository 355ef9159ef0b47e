"""A network of Haiku on handwritten digits."""

import haiku as hk
import jax
import jax.numpy as jnp
import optax

import sgdscope as sg

Batch = dict[str, jax.Array]
digits = sg.workloads.digits()  # the data: "picture" of 64 pixels, and "label"
network = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP((32, 10))(x)))


def losses(parameters: hk.Params, batch: Batch) -> jax.Array:
    logits = network.apply(parameters, batch["picture"])
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"].astype(jnp.int32))


workload = sg.Workload(
    name="digits-haiku", version="1", train=digits.train, validation=digits.validation, test=digits.test,
    init=lambda key: network.init(key, jnp.zeros((1, 64))), loss=losses,
    score=lambda p, batch: 1.0 * (network.apply(p, batch["picture"]).argmax(-1) == batch["label"]),
    constant_loss=digits.constant_loss, constant_score=digits.constant_score,
)  # fmt: skip
study = sg.Study(name="digits-haiku", workloads=workload, batch_sizes=(16, 64, 256), budgets=sg.Epochs(10), seeds=5)
