import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgdscope.errors import InputError
from sgdscope.optimizers import SGD, Momentum, parse_optimizer, update


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_rule_is_that_of_optax(momentum):
    rng = np.random.default_rng(0)
    ours = theirs = {"a": jnp.asarray(rng.normal(size=(3, 2)), jnp.float32), "b": jnp.ones(4, jnp.float32)}
    velocity = jax.tree.map(jnp.zeros_like, ours)
    optimizer = optax.sgd(0.1, momentum=momentum)
    state = optimizer.init(theirs)
    for _ in range(10):
        gradient = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), ours)
        ours, velocity = update(ours, velocity, gradient, jnp.float32(0.1), jnp.float32(momentum))
        updates, state = optimizer.update(gradient, state, theirs)
        theirs = optax.apply_updates(theirs, updates)
    for key in ours:
        np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-6)


def test_effective_rate():
    assert Momentum(0.75).effective_learning_rate(0.5) == 2.0
    assert SGD().effective_learning_rate(0.5) == 0.5


@pytest.mark.parametrize("optimizer", [SGD(), Momentum(), Momentum(0.99), Momentum(0.1234567), Momentum(0.9999999)])
def test_text_is_read_back(optimizer):
    assert parse_optimizer(str(optimizer)) == optimizer


@pytest.mark.parametrize("text", ["adam", "sgd:0.9", "momentum:1", "momentum:x", "momentum:-0.1", "momentum:nan", ""])
def test_bad_text_is_refused_in_a_sentence(text):
    with pytest.raises(InputError, match=r"^optimizers: .*[.?]$"):
        parse_optimizer(text)
