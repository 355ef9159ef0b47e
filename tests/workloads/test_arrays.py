"""What a split's arrays may be: numbers that 32 bits hold, in whatever array holds them."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import polars as pl
import pytest

from sgdscope.errors import InputError
from sgdscope.workloads.base import Workload, constant_classifier

X = np.random.default_rng(0).normal(size=(16, 3))
Y = np.arange(16) % 2


def workload(x=X, y=Y, **fields):
    split = {"x": x, "y": y}
    plain = {"train": split, "validation": split, "test": split, "constant_loss": 1.0, "constant_score": 0.0}
    functions = {"init": lambda key: key, "loss": lambda p, b: p, "score": lambda p, b: p}
    return Workload(name="w", version="1", **functions, **(plain | fields))


def test_numbers_are_taken_from_whatever_holds_them(tmp_path):
    on_disk = np.memmap(tmp_path / "x", "float64", "w+", shape=X.shape)
    on_disk[:] = X
    fixed = X.copy()
    fixed.flags.writeable = False
    for x in (
        X.tolist(), on_disk, fixed, np.asfortranarray(X), X.astype(">f8"), np.ma.array(X, mask=False),
        X.astype(np.longdouble), pl.DataFrame(X),
    ):  # fmt: skip
        taken = workload(x).train["x"]
        assert type(taken) is np.ndarray
        assert taken.dtype == np.dtype("float64")
        np.testing.assert_array_equal(taken, X)
    for narrow in (np.float16, ml_dtypes.bfloat16):
        assert workload(X.astype(narrow)).train["x"].dtype == narrow
    np.testing.assert_array_equal(workload(y=jnp.asarray(Y)).train["y"], Y)
    np.testing.assert_array_equal(workload(y=pl.Series(Y)).train["y"], Y)


def test_an_array_is_kept_and_not_copied():
    assert workload().train["x"] is X


def test_the_order_of_bytes_is_no_part_of_the_data():
    assert workload(X.astype(">f8")).record() == workload().record()


def at(index, value, of=X, dtype=None):
    changed = of.astype(dtype or of.dtype)
    changed[index] = value
    return changed


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"x": at((2, 1), 1e300)}, r"train\['x'\] holds 1e\+300 at index 2, 1, which float32 does not hold"),
        ({"x": at((2, 1), -np.inf)}, r"train\['x'\] holds values that are not finite: -inf at index 2, 1\."),
        ({"x": at((0, 0), np.nan, dtype=ml_dtypes.bfloat16)}, "not finite: nan at index 0, 0"),
        ({"y": at(3, 2**31, Y)}, r"train\['y'\] holds 2147483648 at index 3, which 32-bit integers do not hold"),
        ({"y": at(3, -(2**31) - 1, Y)}, "-2147483649 at index 3, which 32-bit integers"),
        ({"y": at(5, 2**32, Y, np.uint64)}, "4294967296 at index 5, which 32-bit integers"),
        ({"y": 2.0**24 + np.arange(16) // 4}, "16777217.0 at index 4, a label that float32 does not tell from others"),
        ({"x": np.ma.array(X, mask=X > 1)}, r"train\['x'\] masks \d+ values"),
        ({"x": [[1.0], [1.0, 2.0]] * 8}, r"train\['x'\] is a list that numpy cannot read as an array"),
        ({"x": jax.random.split(jax.random.key(0), 16)}, r"train\['x'\] is a PRNGKeyArray that numpy cannot read"),
        ({"x": X + 1j}, "holds complex128; only numbers .* real and the imaginary part as two arrays"),
        ({"y": np.array(["cat", "dog"] * 8)}, "only numbers .* number the words"),
        ({"y": np.array(["cat", None] * 8)}, "holds object; only numbers"),
        ({"y": np.full(16, "2020-01-01", "M8[D]")}, "only numbers .* days since the first"),
        ({"y": np.ones(16, "m8[s]")}, "only numbers .* divide by a unit of time"),
        ({"y": np.zeros(16, [("a", "f4"), ("b", "i4")])}, "only numbers .* each field as an array of its own"),
        ({"y": Y.astype(ml_dtypes.int4)}, "holds int4; only numbers .*astype"),
        ({"train": {"x": X, 0: Y}}, "train names an array 0; name arrays by text"),
        ({"train": X}, "train is a ndarray; give a dictionary of arrays"),
        ({"test": pl.DataFrame({"x": [1.0]})}, "test is a DataFrame; give a dictionary of arrays"),
    ],
)
def test_what_cannot_be_trained_on_is_named(arrays, sentence):
    with pytest.raises(InputError, match=sentence):
        workload(**arrays)


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": X * 1e9 + 1 / 3},  # rounds
        {"x": 2.0**24 + np.arange(48.0).reshape(16, 3)},  # whole numbers, and no labels
        {"y": 2.0**24 + np.arange(16)},  # each its own: a quantity
        {"y": at(0, 2**31 - 1, Y)},
        {"y": at(0, 2**32 - 1, Y, np.uint64)},
        {"x": X * 1e-300},
    ],
)
def test_values_that_merely_round_are_taken(arrays):
    assert workload(**arrays).train


def test_numbers_of_numpy_are_numbers():
    told = workload(
        constant_loss=np.float32(0.5), constant_score=jnp.float32(0.25), ghost_batch_size=np.int64(2),
        fields={"width": np.int32(8)},
    ).record()  # fmt: skip
    assert (told.constant_loss, told.constant_score, told.ghost_batch_size) == (0.5, 0.25, 2)
    assert [type(value) for _, value in told.fields] == [int]


def test_one_hot_labels_say_the_same_as_classes():
    labels = np.array([0, 2, 2, 1, 2])
    for same in (np.eye(3)[labels], np.eye(3, dtype=int)[labels].tolist(), labels[:, None], labels.astype(float)):
        assert constant_classifier(same) == constant_classifier(labels)
    words = np.array(["a", "c", "c", "b", "c"])
    assert constant_classifier(words) == constant_classifier(words.astype(object)) == constant_classifier(labels)


@pytest.mark.parametrize(
    "labels", [[0.2, 0.7], [[0.2, 0.8]], [], [1.0, np.nan], np.zeros((3, 2, 2)), np.array(["a", None], object)]
)
def test_what_is_no_class_is_refused(labels):
    with pytest.raises(InputError, match=r"^constant_classifier: "):
        constant_classifier(labels)
