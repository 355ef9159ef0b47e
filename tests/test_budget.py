from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgdscope.budget import Epochs, Steps, Unlimited, parse_budget
from sgdscope.errors import InputError


@given(n=st.floats(0.5, 200), examples=st.integers(1, 5000), batch_size=st.integers(1, 5000))
def test_an_epoch_budget_sees_the_same_examples_at_every_batch_size_to_within_a_batch(n, examples, batch_size):
    seen = Epochs(n).updates(batch_size, examples) * batch_size
    assert abs(seen - n * examples) <= batch_size


@given(n=st.integers(1, 10**6), batch_size=st.integers(1, 1000))
def test_a_step_budget_does_not_depend_on_the_batch_size(n, batch_size):
    assert Steps(n).updates(batch_size, examples=1000) == n


def test_the_talks_number():
    assert Epochs(200).updates(batch_size=1024, examples=50_000) == 9766  # 9,765.6 updates, cut to 9,765 in the talk


unlimited = st.builds(
    lambda first, doublings, floor: Unlimited(first, first * 2**doublings, floor),
    st.floats(0.01, 1e4),
    st.integers(2, 12),
    st.none() | st.floats(1e-9, 10),
)


@given(st.one_of(st.floats(0.01, 1e4).map(Epochs), st.integers(1, 10**6).map(Steps), unlimited))
def test_text_is_read_back(budget):
    assert parse_budget(str(budget)) == budget


@pytest.mark.parametrize("text", ["", "30", "epochs", "epochs:", "epochs:x", "epochs:0", "epochs:-1", "epochs:nan"])
@pytest.mark.parametrize("kind", ["{}", "{}:1:2", "steps:1.5{}"])
def test_bad_text_is_refused_in_a_sentence(text, kind):
    with pytest.raises(InputError, match=r"^budgets: .*\.$"):
        parse_budget(kind.format(text))


@given(unlimited)
def test_an_unlimited_budget_stands_for_the_doublings_up_to_its_ceiling(budget):
    epochs = [b.n for b in budget.budgets]
    assert (epochs[0], epochs[-1]) == (budget.first, budget.ceiling)
    assert all(later == 2 * earlier for earlier, later in pairwise(epochs))
    assert len(epochs) >= 3


@pytest.mark.parametrize(
    ("first", "ceiling", "nearest"),
    [(5, 100, 80), (5, 10, 20), (5, 5, 20), (5, 1, 20), (3, 47, 48), (1, 2**10 + 1, 1024)],
)
def test_a_ceiling_that_no_doublings_reach_is_refused_with_the_nearest(first, ceiling, nearest):
    with pytest.raises(InputError, match=rf"^budgets: ceiling {ceiling} .* the nearest is {nearest}\.$"):
        Unlimited(first, ceiling)
    assert Unlimited(first, nearest).budgets


@pytest.mark.parametrize("text", ["unlimited", "unlimited:5", "unlimited:5:x", "unlimited:0:20", "unlimited:5:20:0:1"])
def test_bad_text_of_an_unlimited_budget_is_refused(text):
    with pytest.raises(InputError, match=r"^budgets: .*\.$"):
        parse_budget(text)


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "3"])
def test_bad_steps_are_refused(bad):
    with pytest.raises(InputError, match=r"steps: .* is not a whole number of at least 1"):
        Steps(bad)


def test_a_budget_beyond_32_bits_is_refused():
    with pytest.raises(InputError, match="more than one trial may take"):
        Epochs(1e6).updates(1, 10**6)
