"""Every field of every public dataclass takes numpy's numbers, and refuses other types in a sentence that names it."""

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import pytest

import sgdscope as sg
from sgdscope.testing.quadratic import NoisyQuadratic

QUADRATIC = NoisyQuadratic().workload()
SPLIT = {"x": np.zeros((4, 2), np.float32)}


def loss(parameters, state, batch):
    return batch["x"][:, 0]


def training_loss(parameters, state, batch, keys):
    return batch["x"][:, 0], state


@dataclass(frozen=True)
class Case:
    """Values of every field that are right; which fields may be None, and which take any text."""

    right: dict[str, Any]
    optional: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    said: tuple[tuple[str, str], ...] = ()  # how a message calls a field, where it is not by its name


SEEDS = {"search": 2, "near_best": 3, "best": 4, "rates": 3}
ADAM = {"beta1": 0.5, "beta2": 0.75, "epsilon": 0.25, "weight_decay": 0.5, "half_life": 4.0}
CASES = {
    sg.Epochs: Case({"n": 2.0}, said=(("n", "epochs"),)),
    sg.Steps: Case({"n": 2}, said=(("n", "steps"),)),
    sg.Unlimited: Case({"first": 1.0, "ceiling": 8.0, "loss_floor": 0.5}, optional=("loss_floor",)),
    sg.SGD: Case({"momentum": 0.5}),
    sg.Adam: Case(ADAM, optional=("half_life",)),
    sg.AdamW: Case(ADAM, optional=("half_life",)),
    sg.SVRG: Case({"momentum": 0.5}),
    sg.AlphaSVRG: Case({"momentum": 0.5, "alpha": 0.25}),
    sg.KFAC: Case({"damping": 0.5, "momentum": 0.5, "decay": 0.75}),
    sg.GradientPenalty: Case({"strength": 0.25, "momentum": 0.5, "block": 16}),
    sg.L2: Case({"weight_decay": 0.25, "momentum": 0.5}),
    sg.LabelSmoothing: Case({"smoothing": 0.25, "momentum": 0.5}),
    sg.SAM: Case({"radius": 0.25, "momentum": 0.5}),
    sg.Optax: Case({"name": "a", "build": loss, "first_window": (-3, 1)}, optional=("build",), text=("name",)),
    sg.Halving: Case({}),
    sg.Constant: Case({}),
    sg.Cosine: Case({}),
    sg.WarmupStableDecay: Case({"warmup": 0.25, "decay": 0.5}),
    sg.Resident: Case({"augment": loss}, optional=("augment",)),
    sg.Streams: Case({"unroll": 2, "carry": loss}),
    sg.Feed: Case(
        {"layout": {"x": ((2,), "float32")}, "locate": loss, "read": loss, "bytes": {"train": 8}, "circumstances": ""},
        text=("circumstances",),
    ),
    sg.Workload: Case(
        {
            "name": "w", "version": "1", "train": SPLIT, "validation": SPLIT, "test": SPLIT, "init": loss,
            "loss": loss, "score": loss, "constant_loss": 1.0, "constant_score": 0.5, "score_name": "accuracy",
            "score_goal": "maximize", "reader": sg.Resident(), "training_loss": training_loss, "init_state": tuple,
            "penalty": loss, "ghost_batch_size": 2, "score_of_mean": loss, "evaluation_batch_size": 4,
            "fields": {"width": 2}, "sample_targets": loss, "uniform_loss": loss, "cpu_microbatch_size": 4,
        },
        optional=(
            "training_loss", "init_state", "penalty", "score_of_mean", "sample_targets", "uniform_loss",
            "cpu_microbatch_size",
        ),
        text=("name", "version", "score_name"),
    ),
    sg.Seeds: Case(SEEDS, optional=("near_best", "best", "rates"), said=(("search", "seeds"),)),
    sg.SeedsAt: Case({"optimizer": "sgd", "batch_size": 2, "seeds": sg.Seeds(2)}, text=("optimizer",)),
    sg.Study: Case(
        {
            "name": "s", "workloads": QUADRATIC, "optimizers": sg.SGD(), "batch_sizes": (2, 4), "budgets": sg.Steps(2),
            "seeds": 2, "learning_rates": (0.25, 0.5), "evaluate_at": (0.5, 1.0), "microbatch_size": 2,
            "devices_per_trial": 1, "compute_dtype": "float32", "score_margin": 0.5, "noise_scale_at": (0.0, 0.5),
            "sharpness_at": (0.0, 0.5), "schedule": sg.Constant(), "first_seed": 3,
            "seeds_at": (sg.SeedsAt("sgd", 2, sg.Seeds(2)),),
        },
        optional=("microbatch_size", "score_margin"), text=("name",),
    ),
}  # fmt: skip
WRONG = (
    object(),
    "text",
    b"bytes",
    1j,
    None,
    {"a": object()},
    [object()],
    np.array([[1.5, "a"]], object),
    True,
    loss,
    3,
)


def fields_of(kind):
    """Return the fields that a user gives: K-FAC's layers are found by a run."""
    return [field for field in fields(kind) if (kind, field.name) != (sg.KFAC, "layers")]


def made(kind, changes):
    right = CASES[kind].right | changes
    if kind in (sg.Adam, sg.AdamW):  # take one of them
        del right["beta2" if "half_life" in changes else "half_life"]
    return kind(**right)


def plain(value):
    """Return whether a value has no number of numpy's in it."""
    if isinstance(value, dict):
        return all(map(plain, value.values()))
    return all(map(plain, value)) if isinstance(value, tuple) else not isinstance(value, np.generic | np.ndarray)


def numbers(kind):
    """Return the fields that hold a number, or several."""
    for name, value in CASES[kind].right.items():
        if parts(value) and all(isinstance(part, int | float) for part in parts(value)):
            yield name, value


def parts(value):
    return value if isinstance(value, tuple) else tuple(value.values()) if isinstance(value, dict) else (value,)


def converted(value, to):
    if isinstance(value, tuple):
        return tuple(converted(part, to) for part in value)
    if isinstance(value, dict):
        return {key: converted(part, to) for key, part in value.items()}
    return to(value)


def test_every_public_dataclass_and_field_is_tried():
    public = {getattr(sg, name) for name in sg.__all__}
    assert {kind for kind in public if isinstance(kind, type) and is_dataclass(kind)} - {sg.Values} == set(CASES)
    for kind, case in CASES.items():
        assert set(case.right) == {field.name for field in fields_of(kind)}


@pytest.mark.parametrize(("kind", "name", "value"), [(kind, *number) for kind in CASES for number in numbers(kind)])
def test_numbers_of_numpy_are_taken_for_pythons(kind, name, value):
    expected = getattr(made(kind, {name: value}), name)
    assert plain(expected)
    whole = all(isinstance(part, int) for part in parts(value))
    for to in (np.array, np.int8, np.int64) if whole else (np.array, np.float32, np.float64):
        found = getattr(made(kind, {name: converted(value, to)}), name)
        assert found == expected
        assert plain(found)


@pytest.mark.parametrize(("kind", "name"), [(kind, field.name) for kind in CASES for field in fields_of(kind)])
def test_other_types_are_refused_in_a_sentence_that_names_the_field(kind, name):
    case = CASES[kind]
    right, refused = case.right[name], 0
    for wrong in WRONG:
        if type(wrong) is type(right) or (wrong is None and name in case.optional):
            continue
        if isinstance(wrong, str) and name in case.text:
            continue
        if type(wrong) is int and name in dict(numbers(kind)):
            continue  # a number, which may be too large or too many, but not of another type
        if type(wrong) is int and isinstance(right, sg.Seeds):
            continue  # the same number of seeds at every rate
        if callable(wrong) and callable(right):
            continue
        with pytest.raises(sg.InputError) as caught:
            made(kind, {name: wrong})
        assert dict(case.said).get(name, name) in str(caught.value)
        assert "\n" not in str(caught.value)
        refused += 1
    assert refused > 5
