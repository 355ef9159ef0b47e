"""What a rate and a batch size mean for the dynamics: limits and boundaries."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgdscope.analysis.derived import cell_warmed_up, momentum_of, temperature


@given(st.floats(1e-6, 100), st.floats(0, 0.99), st.integers(1, 10**6))
def test_a_full_batch_has_no_temperature(rate, momentum, examples):
    assert temperature(rate, momentum, examples, examples) == 0


@given(st.floats(1e-6, 100), st.floats(0, 0.99), st.integers(1, 100))
def test_of_many_examples_it_is_the_effective_rate_over_the_batch_size(rate, momentum, size):
    limit = rate / (size * (1 - momentum))
    assert temperature(rate, momentum, size, 10**9) == pytest.approx(limit, rel=1e-6)
    assert temperature(rate, momentum, size, 1000) == pytest.approx(limit * (1 - size / 1000))


@pytest.mark.parametrize(("momentum", "fewest"), [(0.9, 200), (0.99, 2000), (0.5, 40), (0.95, 400), (0.0, 0)])
def test_momentum_has_warmed_up_after_twenty_settling_times(momentum, fewest):
    optimizer = f"momentum:{momentum}" if momentum else "sgd"
    assert cell_warmed_up(cell(optimizer, ("complete", fewest)))
    assert fewest == 0 or not cell_warmed_up(cell(optimizer, ("complete", fewest - 1)))


def cell(optimizer, *trials):
    return pl.DataFrame(
        [{"optimizer": optimizer, "status": status, "steps": steps} for status, steps in trials],
        schema={"optimizer": pl.String, "status": pl.String, "steps": pl.Int64},
    )


@pytest.mark.parametrize(
    ("trials", "warm"),
    [
        ([("complete", 200), ("complete", 200)], True),
        ([("complete", 199), ("diverged", 500)], False),
        ([("diverged", 50)], None),
        ([("complete", None)], None),
    ],
)
def test_a_cell_has_warmed_up_by_the_updates_of_its_complete_trials(trials, warm):
    assert cell_warmed_up(cell("momentum:0.9", *trials)) is warm
    assert cell_warmed_up(cell("sgd", *trials)) is True
    assert cell_warmed_up(cell("adam", *trials)) is warm  # whose β₁ is 0.9
    assert cell_warmed_up(cell("lion", *trials)) is cell_warmed_up(cell("optax:lion", *trials)) is None


def test_without_steps_it_is_not_known():
    assert cell_warmed_up(pl.DataFrame({"optimizer": ["momentum:0.9"], "status": ["complete"]})) is None


def test_optimizers_that_are_not_ours_have_no_momentum_that_is_known():
    assert [momentum_of(name) for name in ("sgd", "momentum:0.5", "adam", "momentum:x", "")] == [
        0.0,
        0.5,
        None,
        None,
        None,
    ]
