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
        init=lambda key: jnp.zeros(1), loss=lambda p, state, batch: batch["x"] ** 2,
        score=lambda p, state, batch: batch["x"],
        constant_loss=1.0, constant_score=0.0,
    )  # fmt: skip
    return evaluate(workload, (jnp.zeros(1), ()), {"x": jnp.asarray(values)})[:2]


@pytest.mark.parametrize("examples", [1, 7, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 17])
def test_every_example_counts_once_and_equally(examples):
    values = np.random.default_rng(examples).normal(size=examples).astype(np.float32)
    loss, score = means_of(values)
    np.testing.assert_allclose(loss, np.mean(values.astype(float) ** 2), rtol=1e-5)
    np.testing.assert_allclose(score, np.mean(values.astype(float)), rtol=1e-4, atol=1e-6)


def test_nan_is_not_hidden():
    loss, _ = means_of(np.array([1e30, 1.0], np.float32))
    assert not np.isfinite(loss)


# ── Which examples scored 1 ──────────────────────────────────────────────────────────────────────────────


def bits_of(scores, size, **functions):
    split = {"x": np.asarray(scores, np.float32)}
    plain = {"loss": lambda p, state, batch: batch["x"] ** 2 + 0.5, "score": lambda p, state, batch: batch["x"]}
    workload = Workload(
        name="w", version="1", train=split, validation=split, test=split, init=lambda key: jnp.zeros(1),
        constant_loss=1.0, constant_score=0.0, evaluation_batch_size=size, **plain | functions,
    )  # fmt: skip
    return evaluate(workload, (jnp.zeros(1), ()), {"x": jnp.asarray(split["x"])}, each_example=True)


@pytest.mark.parametrize("examples", [1, 7, 8, 9, 100, 517])
@pytest.mark.parametrize("size", [1, 8, 10, 64, 1024])
def test_the_bits_are_the_scores_in_the_order_of_the_examples(examples, size):
    scores = np.random.default_rng(examples).integers(0, 2, examples)
    scores[-1] = 1  # what fills the last chunk up, and must not be counted
    found = bits_of(scores, size)
    np.testing.assert_array_equal(found.bits, np.packbits(scores.astype(bool)))
    assert found.zero_or_one
    assert float(found.score) == np.float32(scores.sum()) / np.float32(examples)


@pytest.mark.parametrize("other", [0.5, -1.0, 2.0, np.nan, np.nextafter(np.float32(1), np.float32(0))])
@pytest.mark.parametrize("where", [0, 6, 12])
def test_one_score_that_is_neither_0_nor_1_is_found(other, where):
    scores = np.ones(13)
    scores[where] = 0 if np.isnan(other) else other  # data are finite; a score of them may not be
    score = lambda p, state, batch: jnp.where(batch["x"] == 0, jnp.nan, batch["x"])
    functions = {"score": score} if np.isnan(other) else {}
    assert not bits_of(scores, 5, **functions).zero_or_one


def test_nothing_is_told_of_a_score_that_is_the_loss_or_a_function_of_the_mean_or_unasked():
    def squares(p, state, batch):
        return batch["x"] ** 2

    for functions in ({"loss": squares, "score": squares}, {"score_of_mean": jnp.exp}):
        found = bits_of(np.ones(5), 4, **functions)
        assert found.bits is found.zero_or_one is None
    calls = []

    def counted(p, state, batch):
        calls.append(0)
        return batch["x"] ** 2

    bits_of(np.ones(5), 4, loss=counted, score=counted)
    assert len(calls) == 1  # traced once: one pass gives both
