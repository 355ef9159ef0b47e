import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sgdscope.schedules import halving

STEPS = jnp.arange(3000, dtype=jnp.int32)  # one shape, one compile


def factors(updates):
    return np.asarray(halving(STEPS, jnp.full(STEPS.shape, updates, jnp.int32)))[:updates]


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
