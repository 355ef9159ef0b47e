import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sgdscope.data.order import example_at, examples_at

ORDER = jax.jit(example_at, static_argnums=2)


def stream(seed, start, count, examples):
    position = jnp.arange(start, start + count, dtype=jnp.uint32)
    return np.asarray(ORDER(jnp.uint32(seed), position, examples))


@settings(max_examples=25)
@given(examples=st.integers(1, 3000), epoch=st.integers(0, 50), seed=st.integers(0, 2**32 - 1))
def test_each_epoch_has_every_example_once(examples, epoch, seed):
    assert sorted(stream(seed, epoch * examples, examples, examples)) == list(range(examples))


@pytest.mark.parametrize(("examples", "batch_size"), [(100, 32), (7, 4), (10, 10), (5, 3)])
def test_batches_that_straddle_epochs_lose_and_double_nothing(examples, batch_size):
    batches = [stream(3, step * batch_size, batch_size, examples) for step in range(4 * examples // batch_size + 1)]
    seen = np.concatenate(batches)
    for epoch in range(3):
        assert sorted(seen[epoch * examples : (epoch + 1) * examples]) == list(range(examples))


def test_orders_differ_between_epochs_and_seeds():
    first = stream(0, 0, 100, 100)
    assert (first != stream(0, 100, 100, 100)).any()
    assert (first != stream(1, 0, 100, 100)).any()


@pytest.mark.parametrize("examples", [64, 1000, 1024])
def test_positions_are_uniform_over_epochs(examples):
    """Where example 0 … 7 comes in an epoch: chi-square over 2,000 epochs, in 16 bins."""
    orders = stream(11, 0, 2000 * examples, examples).reshape(2000, examples)
    for example in range(8):
        place = (orders == example).argmax(axis=1)
        counts = np.histogram(place, bins=np.linspace(0, examples, 17))[0]
        expected = np.diff(np.ceil(np.linspace(0, examples, 17))) * 2000 / examples
        assert stats.chisquare(counts, expected).pvalue > 1e-4


@pytest.mark.parametrize("examples", [64, 1000, 1024])
@pytest.mark.parametrize("over", ["epochs", "seeds"])
def test_pairs_are_uniform(examples, over):
    """The pair of examples in two neighbouring places, in 8 × 8 bins: the test that too few rounds fail."""
    count = 4000
    if over == "epochs":
        orders = stream(5, 0, count * examples, examples).reshape(count, examples)
    else:
        orders = np.stack([stream(seed, 0, examples, examples) for seed in range(400)])
    left, right = orders[:, :-1:2].ravel(), orders[:, 1::2].ravel()
    table = np.histogram2d(left, right, bins=np.linspace(0, examples, 9))[0]
    # Two places never hold the same example, so the diagonal is a little emptier than the rest.
    edges = np.ceil(np.linspace(0, examples, 9))
    sizes = np.diff(edges)
    pairs = np.outer(sizes, sizes) - np.diag(sizes)
    expected = table.sum() * pairs / pairs.sum()
    assert stats.chisquare(table.ravel(), expected.ravel()).pvalue > 1e-4


def test_it_is_the_same_for_ever():
    """These numbers are part of every published trial: a change of them is a new NUMERICS_VERSION."""
    assert stream(0, 0, 8, 1024).tolist() == [68, 35, 58, 647, 621, 748, 199, 877]


@settings(max_examples=25)
@given(examples=st.integers(1, 3000), start=st.integers(0, 2**32 - 4000), seed=st.integers(0, 2**32 - 1))
def test_the_host_and_the_device_have_one_order(examples, start, seed):
    on_the_host = examples_at(seed, np.arange(start, start + 300), examples)
    assert on_the_host.tolist() == stream(seed, start, 300, examples).tolist()


def test_the_order_of_as_many_examples_as_imagenet_has():
    seen = examples_at(7, np.arange(1_281_167), 1_281_167)
    assert (np.bincount(seen, minlength=1_281_167) == 1).all()
