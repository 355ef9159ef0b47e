"""Functions of a model without a state may leave the state out; the package calls all of them with one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgdscope.errors import InputError
from sgdscope.training.traced import trace
from sgdscope.workloads.base import Streams, Workload

X = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
SPLITS = {name: {"x": X, "y": (X[:, 0] > 0).astype(np.float32)} for name in ("train", "validation", "test")}


def short(p, batch):
    return jax.nn.softplus((1 - 2 * batch["y"]) * (batch["x"] @ p))


def full(p, state, batch):
    return short(p, batch)


def scaled(p, batch, scale=1.0):
    return short(p, batch) * scale


def of_three(p, batch, scale):
    return short(p, batch) * scale


class Called:
    def __call__(self, p, batch):
        return short(p, batch)


def workload(loss=short, score=short, **fields):
    return Workload(
        name="w", version="1", **SPLITS, init=lambda key: jax.random.normal(key, (3,)), loss=loss, score=score,
        constant_loss=0.69, constant_score=0.69, **fields,
    )  # fmt: skip


LONG = trace(workload(full, full)).fingerprint


@pytest.mark.parametrize(
    "loss",
    [
        short,
        full,
        scaled,
        jax.jit(short),
        jax.jit(full),
        Called(),
        lambda p, batch, one=1.0: short(p, batch),
        lambda p, state, batch, one=1.0: short(p, batch),
        lambda *given: full(*given),
        functools.partial(of_three, scale=1.0),
        functools.wraps(short)(lambda *given: short(*given)),
    ],
)
def test_both_forms_compute_the_same_and_have_the_same_fingerprint(loss):
    for own in (workload(loss), workload(loss, loss), workload(short, loss)):
        np.testing.assert_array_equal(own.loss(jnp.ones(3), (), SPLITS["train"]), short(jnp.ones(3), SPLITS["train"]))
        np.testing.assert_array_equal(own.score(jnp.ones(3), (), SPLITS["train"]), short(jnp.ones(3), SPLITS["train"]))
    if loss is not scaled and not isinstance(loss, functools.partial):  # which multiply by 1
        assert trace(workload(loss, loss)).fingerprint == LONG


def test_a_score_that_is_the_loss_stays_the_loss():
    for function in (short, full):
        own = workload(function, function)
        assert own.score is own.loss
    own = workload(short, full)
    assert own.score is not own.loss


def test_a_training_loss_that_leaves_the_state_out_returns_the_losses_alone():
    def dropped(p, batch, keys):
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, (3,)))(keys)
        return short(p, batch | {"x": jnp.where(kept, batch["x"], 0.0)})

    def with_state(p, state, batch, keys):
        return dropped(p, batch, keys), state

    assert trace(workload(training_loss=dropped)).fingerprint == trace(workload(training_loss=with_state)).fingerprint


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"loss": lambda batch: batch}, r"^workload 'w': loss must take \(parameters, state, batch\)"),
        ({"score": lambda: 0}, r"score must take \(parameters, state, batch\)"),
        ({"loss": lambda p, s, b, more: b}, r"loss must take \(parameters, state, batch\)"),
        ({"score": lambda p, b, *, scale: b}, r"score must take \(parameters, state, batch\)"),
        ({"training_loss": lambda p, b: b}, r"training_loss must take \(parameters, state, batch, keys\)"),
        (
            {"init_state": lambda: jnp.zeros(1), "training_loss": lambda p, s, b, k: (b, s)},
            r"loss must take \(parameters, state, batch\)",
        ),
        (
            {"loss": full, "score": full, "init_state": lambda: jnp.zeros(1), "training_loss": lambda p, b, k: b},
            r"training_loss must take \(parameters, state, batch, keys\)",
        ),
        (
            {"reader": Streams(4, lambda n: jnp.zeros((n, 1))), "training_loss": lambda p, b, k: b},
            r"training_loss must take \(parameters, state, batch, keys\)",
        ),
    ],
)
def test_a_state_that_there_is_must_be_taken_and_nothing_else(fields, said):
    with pytest.raises(InputError, match=said):
        workload(**fields)
