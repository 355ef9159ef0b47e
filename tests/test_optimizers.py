import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgdscope.errors import InputError
from sgdscope.optimizers import (
    KFAC,
    L2,
    SAM,
    SGD,
    SVRG,
    Adam,
    AdamW,
    AlphaSVRG,
    GradientPenalty,
    LabelSmoothing,
    Optax,
    Values,
    parse_optimizer,
)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_rule_is_that_of_optax(momentum):
    rng = np.random.default_rng(0)
    ours = theirs = {"a": jnp.asarray(rng.normal(size=(3, 2)), jnp.float32), "b": jnp.ones(4, jnp.float32)}
    velocity = jax.tree.map(jnp.zeros_like, ours)
    optimizer = optax.sgd(0.1, momentum=momentum)
    state = optimizer.init(theirs)
    for _ in range(10):
        gradient = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), ours)
        ours, velocity = SGD().update(
            gradient, velocity, ours, jnp.float32(0.1), {"momentum": jnp.float32(momentum)}, None
        )
        updates, state = optimizer.update(gradient, state, theirs)
        theirs = optax.apply_updates(theirs, updates)
    for key in ours:
        np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-6)


RULES = [
    Adam(beta1=0.8, beta2=0.95, epsilon=1e-3, weight_decay=0.01),
    AdamW(beta2=0.99, weight_decay=0.1),
    AdamW(half_life=4000),
    Adam(weight_decay=Values(0, 1e-4)),
    Optax("lion"),
]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Adam(), optax.adam(0.1)),
        (Adam(beta1=0.5, beta2=0.9, epsilon=1e-3), optax.adam(0.1, b1=0.5, b2=0.9, eps=1e-3)),
        (Adam(weight_decay=0.1), optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.1))),
        (AdamW(), optax.adamw(0.1)),
        (AdamW(beta2=0.95, weight_decay=0.3), optax.adamw(0.1, b2=0.95, weight_decay=0.3)),
        (Adam(half_life=64), optax.adam(0.1, b2=2**-0.5)),
        (Optax("lion", optax.lion), optax.lion(0.1)),
        (Optax("clipped", lambda rate: optax.chain(optax.clip(0.5), optax.sgd(rate))),
         optax.chain(optax.clip(0.5), optax.sgd(0.1))),
    ],
)  # fmt: skip
@jax.numpy_dtype_promotion("standard")  # which optax relies on
@jax.enable_x64(True)  # in float32, 1 − β₂ alone is rounded by 6e-5 of it
def test_rules_are_those_of_optax_to_rounding(ours, theirs):
    """Ten updates at batch size 32, with the numbers as traced arguments of one program."""
    rng = np.random.default_rng(0)
    mine = other = {"a": jnp.asarray(rng.normal(size=(3, 2)), jnp.float64), "b": jnp.ones(4, jnp.float64)}
    numbers = {name: jnp.float64(number) for name, number in ours.coefficients(batch_size=32).items()}
    rule = lambda gradient, state, mine, rate, numbers: ours.update(gradient, state, mine, rate, numbers, None)
    update = jax.jit(rule)
    my_state, their_state = ours.init(mine), theirs.init(other)
    for _ in range(10):
        gradient = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float64), mine)
        mine, my_state = update(gradient, my_state, mine, jnp.float64(0.1), numbers)
        updates, their_state = theirs.update(gradient, their_state, other)
        other = optax.apply_updates(other, updates)
    for key in mine:
        np.testing.assert_allclose(mine[key], other[key], rtol=1e-9)


def test_rules_that_differ_in_numbers_alone_share_a_program():
    assert SGD().rule == SGD(momentum=0.9).rule
    assert Adam().rule == Adam(beta2=0.9, weight_decay=1.0).rule
    assert len({SGD().rule, Adam().rule, AdamW().rule, Optax("a").rule, Optax("b").rule}) == 5


def test_values_stand_for_several_optimizers():
    searched = AdamW(weight_decay=Values(0.1, 0))
    assert searched.searched == "weight_decay"
    assert searched.variants == (AdamW(weight_decay=0.0), AdamW(weight_decay=0.1))
    assert SGD().variants == (SGD(),)
    with pytest.raises(InputError, match="beta1 and weight_decay have several values; search one"):
        Adam(beta1=Values(0.8, 0.9), weight_decay=Values(0, 1))


def test_effective_rate():
    assert SGD(momentum=0.75).effective_learning_rate(0.5) == 2.0
    assert SGD().effective_learning_rate(0.5) == 0.5


@pytest.mark.parametrize(
    "optimizer",
    [
        *(SGD(), SGD(momentum=0.9), SGD(momentum=0.99), SGD(momentum=0.1234567), SGD(momentum=0.9999999)),
        *(SVRG(), SVRG(momentum=0), AlphaSVRG(alpha=Values(0.5, 1)), L2(weight_decay=Values(0, 0.1)), SAM(radius=0.1)),
        LabelSmoothing(smoothing=Values(0, 0.1)),
        *(KFAC(), KFAC(damping=Values(0.01, 1), decay=0.9), GradientPenalty(block=32, strength=Values(0, 1))),
    ],
)
def test_text_is_read_back(optimizer):
    assert parse_optimizer(str(optimizer)) == optimizer


@pytest.mark.parametrize(
    "text",
    [
        "lion",
        "adam:beta3=1",
        "adam:beta2",
        "kfac:layers=3",
        "kfac:damping=0",
        "gradient_penalty:block=8.5",
        "gradient_penalty:block=0",
        "svrg:alpha=1",
        "adam:beta2=1",
        "sgd:0.9",
        "momentum:1",
        "momentum:x",
        "momentum:-0.1",
        "momentum:nan",
        "",
    ],
)
def test_bad_text_is_refused_in_a_sentence(text):
    with pytest.raises(InputError, match=r"^optimizers: .*[.?]$"):
        parse_optimizer(text)
