import jax.numpy as jnp
import numpy as np
import pytest

from sgdscope.workloads.base import Streams, Workload


@pytest.fixture
def echo():
    """Predict the next number of a ring as w times the sum of all that the stream has seen in this epoch."""

    def training_loss(parameters, carry, batch, keys):
        seen = carry[:, None] + jnp.cumsum(batch["x"][:, :-1], axis=1)
        return (parameters["w"] * 0.1 * seen - batch["x"][:, 1:]) ** 2, seen[:, -1]

    rng = np.random.default_rng(0)
    splits = {split: {"x": rng.normal(size=n).astype(np.float32)} for split, n in zip(
        ("train", "validation", "test"), (61, 10, 9), strict=True)}  # fmt: skip
    plain = lambda p, state, batch: (p["w"] - batch["x"]) ** 2
    return Workload(
        name="echo", version="1", **splits, init=lambda key: {"w": jnp.ones(())}, loss=plain, score=plain,
        score_of_mean=jnp.sqrt, constant_loss=1.0, constant_score=1.0, training_loss=training_loss,
        reader=Streams(4, jnp.zeros),
    )  # fmt: skip
