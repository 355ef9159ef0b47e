import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgdscope.errors import InputError
from sgdscope.schedules import Constant, Cosine, Halving, WarmupStableDecay, parse_schedule

STEPS = jnp.arange(3000, dtype=jnp.int32)  # one shape, one compile


def factors(updates):
    return np.asarray(Halving().factor(STEPS, jnp.full(STEPS.shape, updates, jnp.int32)))[:updates]


@settings(max_examples=25)
@given(st.integers(1, 3000))
def test_it_is_held_for_half_the_budget_and_the_first_halving_comes_exactly_there(updates):
    schedule = factors(updates)
    first_half = np.arange(updates) < updates / 2
    assert (schedule[first_half] == 1).all()
    assert (schedule[~first_half] <= 0.5).all()


@settings(max_examples=25)
@given(st.integers(1, 150).map(lambda n: 20 * n))
def test_ten_halvings_each_a_twentieth_long_and_the_last_at_1_1024(updates):
    schedule = factors(updates)
    values, lengths = np.unique(schedule, return_counts=True)
    assert values.tolist() == [2.0**-k for k in range(10, -1, -1)]
    assert (lengths[:-1] == updates // 20).all()
    assert schedule[-1] == 1 / 1024


@settings(max_examples=25)
@given(st.integers(1, 3000))
def test_it_never_rises(updates):
    assert (np.diff(factors(updates)) <= 0).all()


@pytest.mark.parametrize("updates", [1, 7, 100, 3000])
def test_a_cosine_is_that_of_optax(updates):
    ours = Cosine().factor(STEPS, jnp.full(STEPS.shape, updates, jnp.int32))[:updates]
    theirs = [optax.cosine_decay_schedule(1.0, updates)(step) for step in (0, updates // 2, updates - 1)]
    np.testing.assert_allclose([ours[0], ours[updates // 2], ours[-1]], theirs, atol=1e-6)


@given(st.integers(1, 3000), st.floats(0, 0.5), st.floats(0, 0.5))
def test_warm_up_stable_decay_rises_stays_and_falls_in_its_parts_of_the_budget(updates, warmup, decay):
    schedule = WarmupStableDecay(warmup, decay)
    found = np.asarray(schedule.factor(STEPS, jnp.full(STEPS.shape, updates, jnp.int32)))[:updates]
    done = np.arange(updates)
    assert ((found > 0) & (found <= 1)).all()
    stable = (done + 1 > np.float32(warmup) * updates) & (updates - done > np.float32(decay) * updates + 1e-3)
    assert (found[stable] == 1).all()
    assert (np.diff(found[done + 1 <= warmup * updates]) >= 0).all()
    assert (np.diff(found[~stable & (done > warmup * updates)]) <= 0).all()


@pytest.mark.parametrize("schedule", [Halving(), Constant(), Cosine(), WarmupStableDecay(), WarmupStableDecay(0.1, 0)])
def test_text_is_read_back(schedule):
    assert parse_schedule(str(schedule)) == schedule


@pytest.mark.parametrize("text", ["", "step", "wsd:1", "wsd:a:b", "wsd:0.7:0.7", "wsd:-1:0", "wsd:nan:0", "cosine:1"])
def test_bad_text_is_refused_in_a_sentence(text):
    with pytest.raises(InputError, match=r"^schedule: .*\.$"):
        parse_schedule(text)
