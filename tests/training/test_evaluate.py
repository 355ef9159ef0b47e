import jax.numpy as jnp
import numpy as np
import pytest

from sgdscope.training.evaluate import evaluate
from sgdscope.workloads.base import Workload

CHUNK = 1024


def means_of(values):
    split = {"x": values}
    workload = Workload(
        name="w", version="1", train=split, validation=split, test=split,
        init=lambda key: jnp.zeros(1), loss=lambda p, batch: batch["x"] ** 2, score=lambda p, batch: batch["x"],
        constant_loss=1.0, constant_score=0.0,
    )  # fmt: skip
    return evaluate(workload, jnp.zeros(1), {"x": jnp.asarray(values)})


@pytest.mark.parametrize("examples", [1, 7, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 17])
def test_every_example_counts_once_and_equally(examples):
    values = np.random.default_rng(examples).normal(size=examples).astype(np.float32)
    loss, score = means_of(values)
    np.testing.assert_allclose(loss, np.mean(values.astype(float) ** 2), rtol=1e-5)
    np.testing.assert_allclose(score, np.mean(values.astype(float)), rtol=1e-4, atol=1e-6)


def test_nan_is_not_hidden():
    loss, _ = means_of(np.array([1e30, 1.0], np.float32))
    assert not np.isfinite(loss)
