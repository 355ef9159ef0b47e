import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sgdscope.analysis.test_set import correct
from sgdscope.errors import InputError
from sgdscope.store import CORRECTNESS_SCHEMA


def packed(right, split="test"):
    rows = [(str(i), split, right.shape[1], np.packbits(row).tobytes()) for i, row in enumerate(right)]
    return pl.DataFrame(rows, schema=CORRECTNESS_SCHEMA, orient="row")


@given(arrays.arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 40))), st.randoms())
def test_what_was_packed_is_unpacked_in_the_order_asked_for(right, random):
    order = random.sample(range(len(right)), len(right))
    table = pl.concat([packed(~right, "validation"), packed(right)])
    found = correct(table, [str(i) for i in order], "test")
    assert found.dtype == bool
    np.testing.assert_array_equal(found, right[order])


def test_no_trials_have_no_examples():
    assert correct(packed(np.ones((1, 3), bool)), [], "test").shape == (0, 0)


def test_a_trial_without_is_named():
    with pytest.raises(InputError, match=r"trial 7 has no correctness on the split 'test'; only trials that"):
        correct(packed(np.ones((2, 3), bool)), ["1", "7"], "test")
    with pytest.raises(InputError, match="'validation'"):
        correct(packed(np.ones((2, 3), bool)), ["1"], "validation")
