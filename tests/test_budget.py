import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgdscope.budget import Epochs, Steps, parse_budget
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


@given(st.one_of(st.floats(0.01, 1e4).map(Epochs), st.integers(1, 10**6).map(Steps)))
def test_text_is_read_back(budget):
    assert parse_budget(str(budget)) == budget


@pytest.mark.parametrize("text", ["", "30", "epochs", "epochs:", "epochs:x", "epochs:0", "epochs:-1", "epochs:nan"])
@pytest.mark.parametrize("kind", ["{}", "{}:1:2", "steps:1.5{}"])
def test_bad_text_is_refused_in_a_sentence(text, kind):
    with pytest.raises(InputError, match=r"^budgets: .*\.$"):
        parse_budget(kind.format(text))


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "3"])
def test_bad_steps_are_refused(bad):
    with pytest.raises(InputError, match="steps must be a whole number"):
        Steps(bad)


def test_a_budget_beyond_32_bits_is_refused():
    with pytest.raises(InputError, match="more than one trial may take"):
        Epochs(1e6).updates(1, 10**6)
