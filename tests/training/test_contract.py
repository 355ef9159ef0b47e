# ruff: noqa: NPY002 - what users write is what is refused
"""What a workload's functions must be, found out before anything is trained."""

import datetime
import functools
import itertools
import random
import time
from datetime import datetime as imported_datetime
from time import time as imported_time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgdscope.budget import Steps
from sgdscope.engine.run import plan_study
from sgdscope.errors import InputError
from sgdscope.optimizers import SGD
from sgdscope.result import run
from sgdscope.store import Store
from sgdscope.study import Study
from sgdscope.training.clocks import clocks_ahead
from sgdscope.training.contract import traced_differently
from sgdscope.training.traced import trace
from sgdscope.workloads.base import Resident, Workload

COUNTER = itertools.count(1)
TYPED, RAW, OTHER = jax.random.key(0), jax.random.PRNGKey(0), jax.random.key(0, impl="rbg")


def split(n, seed):
    x = np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)
    return {"x": x, "y": (x[:, :1] > 0).astype(np.float32)[:, 0]}


SPLITS = {"train": split(16, 0), "validation": split(8, 1), "test": split(8, 2)}


def losses(p, batch):
    return jax.nn.softplus((1.0 - 2.0 * batch["y"]) * (batch["x"] @ p["w"]))


def halved_in_a_loop(p, b):
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] / 2), (0, losses(p, b)))[1]


def through_python(p, b):
    return jax.pure_callback(np.asarray, jax.ShapeDtypeStruct(b["y"].shape, "float32"), losses(p, b))


def in_complex_numbers(p, b):
    return jax.lax.complex(losses(p, b), losses(p, b))


def workload(**functions):
    plain = {
        "init": lambda key: {"w": 0.1 * jax.random.normal(key, (3,))},
        "loss": losses,
        "score": lambda p, batch: -losses(p, batch),
    }
    return Workload(name="w", version="1", **SPLITS, **(plain | functions), constant_loss=0.69, constant_score=-0.69)


def checked(**functions):
    return trace(workload(**functions)).shapes


IMPURE = {
    "numpy in init": {"init": lambda key: {"w": jnp.asarray(np.random.normal(size=3), jnp.float32)}},
    "numpy in loss": {"loss": lambda p, b: losses(p, b) * np.random.rand()},
    "numpy under jit": {"loss": jax.jit(lambda p, b: losses(p, b) * np.random.rand())},
    "python in score": {"score": lambda p, b: losses(p, b) * jax.jit(lambda a: a * random.random())(1.0)},
    "numpy in augment": {"reader": Resident(lambda key, e: e | {"x": e["x"] + np.random.rand()})},
    "numpy in penalty": {"penalty": lambda p: np.random.rand() * (p["w"] ** 2).sum()},
    "the second in init": {"init": lambda key: {"w": jax.random.normal(jax.random.key(int(time.time())), (3,))}},
    "the moment by name": {"loss": lambda p, b: losses(p, b) * imported_time()},
    "the date in init": {
        "init": lambda key: {"w": jax.random.normal(jax.random.key(imported_datetime.now().day), (3,))}
    },
    "the weekday": {"loss": lambda p, b: losses(p, b) * (2 + datetime.datetime.now(datetime.UTC).weekday())},
    "the day as text": {"loss": lambda p, b: losses(p, b) * int(time.strftime("%j"))},
    "a counter in loss": {"loss": lambda p, b: losses(p, b) * next(COUNTER)},
}


@pytest.mark.parametrize("name", IMPURE)
def test_a_function_that_computes_something_else_each_time_is_refused(name):
    which = "augment" if "augment" in name else next(iter(IMPURE[name]))
    with pytest.raises(InputError, match=f"^workload 'w': {which} computes something else each time"):
        checked(**IMPURE[name])


def test_an_impure_function_stops_a_run_and_a_plan_before_anything_is_trained(tmp_path):
    impure = workload(**IMPURE["numpy in loss"])
    study = Study(name="s", workloads=impure, batch_sizes=4, budgets=Steps(2), seeds=1, optimizers=SGD())
    for begin in (lambda: run(study, tmp_path / "folder"), lambda: plan_study(study)):
        with pytest.raises(InputError, match="loss computes something else each time"):
            begin()
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize(
    "functions",
    [
        {"loss": lambda p, b: losses(p, b) * np.random.default_rng(0).random()},
        {"init": lambda key: {"w": jax.random.normal(TYPED, (3,))}},
        {"init": lambda key: {"w": jax.random.normal(RAW, (3,))}},
        {"init": lambda key: {"w": jax.random.normal(OTHER, (3,))}},
        {"init": lambda key: {"w": np.ones(3), "b": 3.0, "none": None}},
        {"loss": jax.jit(losses)},
        {"loss": lambda p, b: (jax.debug.callback(lambda a: None, b["y"]), losses(p, b))[1]},
        {"score": lambda p, b: losses(p, b) > 0.5},
    ],
)
def test_what_computes_the_same_each_time_is_taken(functions):
    assert checked(**functions).parameters["w"].shape == (3,)


@pytest.mark.parametrize(
    ("functions", "sentence"),
    [
        (
            {"loss": halved_in_a_loop},
            "loss has no gradient in reverse mode: Reverse-mode differentiation does not work for lax.while_loop",
        ),
        (
            {"loss": lambda p, b: jax.lax.fori_loop(0, b["y"][0].astype(int), lambda i, v: v / 2, losses(p, b))},
            "loss has no gradient in reverse mode",
        ),
        (
            {"loss": through_python},
            "loss has no gradient in reverse mode: Pure callbacks",
        ),
        (
            {"score": through_python},
            "score calls back into Python by pure_callback; write it with jax.numpy",
        ),
        (
            {"loss": lambda p, b: (jax.experimental.io_callback(print, None, b["y"]), losses(p, b))[1]},
            "loss calls back into Python by io_callback",
        ),
        ({"init": lambda key: {}}, "returns an empty tree: nothing to train"),
        ({"init": lambda key: {"w": jnp.zeros((0, 3))}}, "returns arrays of size 0 only: nothing to train"),
        ({"init": lambda key: {"w": jnp.ones(3), "n": jnp.arange(3)}}, r"\['n'\] is int32. SGD cannot train it"),
        ({"init": lambda key: {"w": jnp.ones(3), "n": True}}, r"\['n'\] is bool. SGD cannot train it"),
        ({"init": lambda key: {"w": jnp.ones(3), "key": key}}, r"\['key'\] is key<fry>. Keep no random keys there"),
        ({"init": lambda key: {"w": jnp.ones(3), "key": RAW}}, r"\['key'\] is uint32. Keep no random keys there"),
        ({"init": lambda key: {"w": jnp.ones(3, jnp.bfloat16)}}, r"bfloat16. Convert it by .astype\(jnp.float32\)"),
        ({"init": lambda key: {"w": jnp.ones(3), "name": "relu"}}, "init cannot be traced by JAX: .* output component"),
        ({"loss": lambda p, b: losses(p, b).mean()}, r"loss must return one number .* returns shape \(\)"),
        ({"score": lambda p, b: losses(p, b)[:, None]}, r"score must return one number .* returns shape \(7, 1\)"),
        ({"loss": lambda p, b: (losses(p, b), {})}, "loss must return one number .* returns a tuple of 2"),
        ({"score": lambda p, b: {"top1": b["y"]}}, "score must return one number .* returns a dictionary with 'top1'"),
        ({"score": lambda p, b: None}, "score must return one number .* returns nothing"),
        ({"score": in_complex_numbers}, "score must return real numbers, not complex64"),
        ({"loss": in_complex_numbers}, "loss must return floating-point numbers .* not complex64"),
        ({"loss": lambda p, b: (losses(p, b) > 1).astype(int)}, "loss must return floating-point numbers .* not int32"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_or_measured_is_named_in_one_sentence(functions, sentence):
    with pytest.raises(InputError, match=sentence):
        checked(**functions)


def test_traces_differ_in_structure_and_in_constants_and_not_in_names():
    constant = lambda *values: jax.make_jaxpr(lambda a: a + np.array(values, np.float32))(jnp.zeros(2))
    assert not traced_differently(constant(1, 2), constant(1, 2))
    assert traced_differently(constant(1, 2), constant(1, 3))
    assert traced_differently(constant(1, 2), jax.make_jaxpr(lambda a: a - np.array([1, 2], np.float32))(jnp.zeros(2)))
    closed_over = lambda key: jax.make_jaxpr(lambda a: a * jax.random.normal(key))(jnp.zeros(()))
    assert not traced_differently(closed_over(TYPED), closed_over(jax.random.key(0)))
    assert traced_differently(closed_over(TYPED), closed_over(jax.random.key(1)))


def test_clocks_are_set_back():
    with clocks_ahead():
        assert imported_datetime.now().year > datetime.date.fromtimestamp(time.monotonic()).year
        ahead = imported_time()
    assert ahead - time.time() > 365 * 24 * 3600
    assert imported_datetime is datetime.datetime
    assert time.gmtime(0).tm_year == 1970


KEPT = []


@functools.cache
def kept_by_a_cache():
    return jnp.linspace(0.5, 1.0, 3)[None]


def with_kept_key(p, batch):
    KEPT[:], key = jax.random.split(KEPT[0] if KEPT else jax.random.key(0))[:1], jax.random.key(1)
    return losses(p, batch) * (1 + jax.random.uniform(KEPT[0])) + 0 * jax.random.uniform(key)


@pytest.mark.parametrize(
    "functions",
    [
        {"loss": lambda p, b: losses(p, b | {"x": b["x"] * kept_by_a_cache()})},
        {"loss": with_kept_key},
        {"score": lambda p, b: losses(p, b | {"x": b["x"] * kept_by_a_cache()})},
        {"loss": jax.jit(lambda p, b: losses(p, b | {"x": b["x"] * kept_by_a_cache()}))},
    ],
)
def test_a_value_that_a_trace_stored_is_named_in_one_sentence(functions):
    KEPT.clear()
    kept_by_a_cache.cache_clear()
    (which,) = functions
    with pytest.raises(InputError, match=f"{which} uses a value that an earlier trace stored"):
        checked(**functions)


@pytest.mark.parametrize(
    "loss",
    [
        lambda p, b: (losses(p, b) > 0.5).astype(jnp.float32),
        lambda p, b: jnp.round(losses(p, b)),
        lambda p, b: jax.lax.stop_gradient(losses(p, b)),
        lambda p, b: b["y"],
        lambda p, b: jnp.stack([losses(p, b), b["y"]]).argmax(0).astype(jnp.float32),
    ],
)
def test_a_loss_whose_gradient_is_zero_everywhere_is_refused(loss):
    with pytest.raises(InputError, match="gradient of loss is 0 whatever the parameters and the examples are"):
        checked(loss=loss)


def root_of_zero(p, b):
    return losses(p, b) + jnp.sqrt((b["x"] @ p["w"] - b["x"] @ p["w"]) ** 2)


@pytest.mark.parametrize(
    ("functions", "sentence"),
    [
        ({"loss": root_of_zero}, r"gradient of `loss` is not finite at initialization: nan in \['w'\]"),
        (
            {"loss": lambda p, b: losses(p, b) + jnp.log(0.0 * b["y"])},
            "`loss` is not finite at initialization: its mean",
        ),
        (
            {"init": lambda key: {"w": jnp.zeros(3)}, "penalty": lambda p: jnp.linalg.norm(p["w"])},
            r"gradient of `penalty` is not finite at initialization: nan in \['w'\]",
        ),
        ({"init": lambda key: {"w": jnp.log(jnp.zeros(3))}}, r"init returns -inf in \['w'\], which is not finite"),
    ],
)
def test_what_is_not_finite_at_initialization_is_named_and_no_rate_is_advised(functions, sentence, tmp_path):
    study = Study(
        name="s", workloads=workload(**functions), batch_sizes=4, budgets=Steps(5), seeds=2, optimizers=SGD(),
        learning_rates=(1e-6, 0.1),
    )  # fmt: skip
    with pytest.raises(InputError, match=sentence) as raised:
        run(study, tmp_path)
    assert "lower" not in str(raised.value)
    assert set(Store(tmp_path).read().trials["status"]) == {"diverged"}  # what was measured is kept


def test_rates_that_are_too_large_are_no_fault_of_the_workload(tmp_path):
    study = Study(
        name="s", workloads=workload(loss=lambda p, b: (b["x"] @ p["w"] - b["y"]) ** 2), batch_sizes=4,
        budgets=Steps(5), seeds=2, optimizers=SGD(), learning_rates=(1e30,),
    )  # fmt: skip
    with pytest.raises(InputError, match="try lower learning rates"):
        run(study, tmp_path).check_not_empty()
