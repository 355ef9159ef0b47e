"""How many seeds a study declares: the numbers, their text, and what extends what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgdscope.errors import InputError
from sgdscope.seeds import Seeds, SeedsAt, parse_seeds, parse_seeds_at, united_at

counts = st.integers(1, 50)
seeds = st.builds(
    lambda search, near, best, rates: Seeds(search, search + near, search + near + best, search + rates),
    counts, st.integers(0, 20), st.integers(0, 20), st.integers(0, 20),
)  # fmt: skip


@given(seeds)
def test_what_is_written_is_read_again(one):
    assert Seeds.of(parse_seeds(str(one))) == one
    assert parse_seeds_at(str(SeedsAt("adam:beta2=0.99", 64, one))) == SeedsAt("adam:beta2=0.99", 64, one)


@given(seeds, seeds)
def test_united_is_the_least_that_has_both(one, other):
    both = one.united(other)
    assert not one.exceeds(both)
    assert not other.exceeds(both)
    assert one.exceeds(other) == (both != other)
    assert both.united(one) == both


@given(counts)
def test_a_whole_number_is_the_same_number_everywhere(n):
    assert Seeds.of(n) == Seeds(n) == parse_seeds(f"{n},{n},{n}")
    assert Seeds(n).plain == n
    assert str(Seeds(n)) == str(n)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("five", "seeds: 'five' is not a whole number"),
        ("5,x,30", "seeds: 'x' is not a whole number"),
        ("5,10,30,15,60", "is not a number of seeds"),
        ("best=30,best=40", "is not a number of seeds"),
        ("worst=30", "is not a number of seeds"),
        ("", "seeds: '' is not a whole number"),
        ("5,4,30", "seeds: near_best=4 is below search=5. Give at least 5."),
        ("5,10,9", "seeds: best=9 is below near_best=10"),
        ("5,10,30,4", "seeds: rates=4 is below search=5"),
        ("0,10,30", "seeds: 0 leaves nothing to train"),
        ("5,10,99999", "seeds: best: 99999 is too large"),
    ],
)
def test_other_seeds_are_refused_in_a_sentence(text, said):
    with pytest.raises(InputError) as error:
        parse_seeds(text)
    assert said in str(error.value)


@pytest.mark.parametrize("text", ["sgd=5", "sgd@=5", "@256=5", "sgd@x=5", "sgd@256", "sgd@256="])
def test_seeds_of_a_cell_need_optimizer_batch_size_and_seeds(text):
    with pytest.raises(InputError, match="is not OPTIMIZER@BATCH_SIZE=SEEDS"):
        parse_seeds_at(text)


def test_of_two_entries_for_a_cell_the_larger_numbers_count():
    one, other = SeedsAt("sgd", 4, Seeds(5, 10, 20)), SeedsAt("sgd", 4, Seeds(5, 5, 30))
    assert united_at([one], [other, SeedsAt("sgd", 2, Seeds(5))]) == (
        SeedsAt("sgd", 2, Seeds(5)),
        SeedsAt("sgd", 4, Seeds(5, 10, 30)),
    )
