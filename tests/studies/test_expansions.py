"""Every built-in study written out and compared with what is kept here, so that no change of one goes unseen.

After a change that is meant: SGDSCOPE_WRITE_GOLDEN=1 pytest tests/studies, and look at the difference.
"""

import functools
import itertools
import os
import re
from importlib import import_module
from pathlib import Path

import jax
import numpy as np
import pytest

from sgdscope.engine.plan import Costs, expansion
from sgdscope.errors import InputError
from sgdscope.imagenet.index import ImageNet
from sgdscope.studies import BUILT_IN, OF_METHODS, ON_DIGITS, SWEEPS, declared, get
from sgdscope.training.traced import trace
from sgdscope.workloads.base import examples_in

GOLDEN = Path(__file__).parent / "golden"
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "several-machines.md"
# Blank data of the official sizes, with what is held out for validation: what is written out depends on no more.
SHAPES = {
    **dict.fromkeys(
        ("fashion_mnist", "fashion_mnist_convnet", "autoencoder", "autoencoder_methods"),
        ("picture", (28, 28), np.uint8, (50_000, 10_000, 10_000)),
    ),
    "lstm": ("token", (), np.uint16, (929_589, 73_760, 82_430)),
    "char_lm": ("token", (), np.uint16, (5_101_618, 399_782, 449_945)),
    "wide_resnet": ("picture", (32, 32, 3), np.uint8, (45_000, 5_000, 10_000)),
    "wide_resnet_skipinit": ("picture", (32, 32, 3), np.uint8, (45_000, 5_000, 10_000)),
}
# ImageNet's pictures are files, of which only numbers, classes and sizes are asked.
PICTURES = {"train": 1_271_167, "validation": 10_000, "test": 50_000}
OWN = [("digits", None, sweep) for sweep in (None, *SWEEPS)] + [(name, None, None) for name in ON_DIGITS]
PUBLISHED = [
    (name, profile, sweep)
    for name in (*SHAPES, "imagenet_resnet50")
    for profile in import_module(f"sgdscope.studies.{name}").PROFILES
    for sweep in ((None,) if name in OF_METHODS else (None, *SWEEPS))
]


@functools.cache
def blank(name):
    if name == "imagenet_resnet50":
        labels = {split: (np.arange(count) % 1000).astype(np.uint16) for split, count in PICTURES.items()}
        splits = {
            split: {"label": label, "sha256": np.arange(len(label), dtype=np.uint64)} for split, label in labels.items()
        }
        files = {split: range(count) for split, count in PICTURES.items()}
        return ImageNet(Path(), tuple(f"n{i:08}" for i in range(1000)), splits, files, dict.fromkeys(PICTURES, 10**9))
    key, shape, dtype, counts = SHAPES[name]
    splits = {}
    for split, count in zip(("train", "validation", "test"), counts, strict=True):
        arrays = {key: np.zeros((count, *shape), dtype)}
        if key == "picture":
            arrays["label"] = (np.arange(count) % 10).astype(np.uint8)
        else:
            arrays[key] = (np.arange(count) % (50 if name == "char_lm" else 10_000)).astype(dtype)
        splits[split] = arrays
    if name == "lstm":
        characters = {split: {"token": arrays["token"] % 50} for split, arrays in splits.items()}
        return {"words": splits, "characters": characters}
    if name.startswith(
        "autoencoder"
    ):  # a blank picture has a constant predictor without loss, which no workload may have
        for arrays in splits.values():
            arrays["picture"][::2] = 255
    return splits


def test_all_published_studies_are_here():
    assert {name for name, _, _ in OWN + PUBLISHED} == set(BUILT_IN)


@functools.cache
def costs_of(name, profile):
    """Counting operations takes a while; all sweeps have the same workload."""
    study = get(name) if profile is None else declared(name, blank(name), profile)
    return {workload.name: Costs(trace(workload), len(study.evaluate_at)) for workload in study.workloads}


@pytest.mark.parametrize(("examples", "sizes"), [(1000, (256, 512)), (100, (64,)), (130, (128,))])
def test_batch_sizes_that_the_pictures_are_too_few_for_are_left_out(examples, sizes):
    labels = (np.arange(examples) % 7).astype(np.uint16)
    split = {"label": labels, "sha256": np.arange(examples, dtype=np.uint64)}
    splits, files = (dict.fromkeys(PICTURES, of) for of in (split, range(examples)))
    data = ImageNet(Path(), tuple("abcdefg"), splits, files, dict.fromkeys(PICTURES, 10))
    assert declared("imagenet_resnet50", data, "full").batch_sizes == sizes


@pytest.mark.parametrize(("devices", "smallest"), [(1, 256), (4, 256), (8, 512), (64, 4096)])
def test_the_documented_script_for_several_machines_shares_whole_ghost_batches(devices, smallest, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    full = declared("imagenet_resnet50", blank("imagenet_resnet50"), "full")
    ran = []
    monkeypatch.setattr("jax.distributed.initialize", lambda: None)
    monkeypatch.setattr("jax.device_count", lambda: devices)
    monkeypatch.setattr("sgdscope.studies.get", lambda *of: {("imagenet_resnet50", "full", "DIR"): full}[of])
    monkeypatch.setattr("sgdscope.run", lambda *of: ran.append(of))
    exec(compile(code, PAGE.name, "exec"), {"__name__": "__main__"})
    ((study, folder),) = ran
    assert folder == "folder"
    sizes = study.declaration().microbatch_sizes(study.workloads[0].record())
    assert list(sizes) == [size for size in full.batch_sizes if size >= smallest]
    assert all(part == min(size, 256 * devices) for size, part in sizes.items())


@pytest.mark.parametrize(("name", "profile", "sweep"), [*OWN, *PUBLISHED])
def test_a_built_in_study_is_what_it_was(name, profile, sweep):
    study = get(name, sweep=sweep) if profile is None else declared(name, blank(name), profile, sweep)
    text = expansion(study.declaration(), costs_of(name, profile)) + "\n"
    path = GOLDEN / f"{study.name}.txt"
    if os.environ.get("SGDSCOPE_WRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", [name for name in SHAPES if name not in OF_METHODS])
def test_on_a_laptop_every_study_has_five_seeds_and_batch_sizes_for_both_regimes(name):
    study = declared(name, blank(name), "laptop")
    assert (study.seeds, study.learning_rates) == (5, ())
    assert len(study.batch_sizes) >= 2 * 3 + 1
    assert {larger // smaller for smaller, larger in itertools.pairwise(study.batch_sizes)} == {2}
    (workload,), whole = study.workloads, declared(name, blank(name), "full").workloads[0]
    assert examples_in(workload.train) < examples_in(whole.train)


@pytest.mark.parametrize("name", ["wide_resnet", "wide_resnet_skipinit"])
def test_the_crop_of_half_an_image_leaves_half_the_margin(name):
    workload = declared(name, blank(name), "laptop").workloads[0]
    picture = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    rows = np.array([2, 1, *range(16), 14, 13])  # mirrored at the edge
    padded = picture[rows][:, rows]
    crops = [padded[i : i + 16, j : j + 16] for i in range(5) for j in range(5)]
    whole = {crop.tobytes() for crop in crops} | {crop[:, ::-1].tobytes() for crop in crops}
    draw = jax.jit(jax.vmap(lambda key: workload.augment(key, {"picture": picture})["picture"]))
    drawn = np.asarray(draw(jax.random.split(jax.random.key(0), 1500)))
    assert {each.tobytes() for each in drawn} == whole  # 1,500 draws leave out one of 50 in 3e-12 of tries


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"name": "autoencoder", "profile": "medium"}, "profile: 'medium' is not one of autoencoder's; there are full"),
        ({"name": "digits", "profile": "small"}, "profile: not available for study 'digits'"),
        ({"name": "digits", "data": "somewhere"}, "data: not available for study 'digits'"),
        ({"name": "digits", "train_on_all": True}, "train_on_all: not available for study 'digits'"),
        ({"name": "digits_steps", "profile": "small"}, "profile: not available for study 'digits'"),
        (
            {"name": "digits", "sweep": "step"},
            r"sweep: 'step' is not one of digits's; there are steps and epochs\. .*steps",
        ),
        ({"name": "digits_steps", "sweep": "steps"}, "sweep: study 'digits_steps' is a sweep already; give digits"),
        ({"name": "study.py", "sweep": "steps"}, "sweep: study 'study.py' has none"),
        ({"name": "lstm_epoch"}, "study 'lstm_epoch' is neither .* lstm_epochs"),
    ],
)
def test_a_profile_or_data_that_a_study_has_not_are_named(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        get(**arguments)


@pytest.mark.parametrize("sweep", SWEEPS)
def test_the_earlier_name_of_a_sweep_is_that_sweep(sweep):
    assert get(f"digits_{sweep}").declaration() == get("digits", sweep=sweep).declaration()


def test_a_study_whose_data_are_not_there_says_how_to_get_them(tmp_path):
    with pytest.raises(InputError, match="sgdscope data fetch mnist") as raised:
        get("autoencoder", data=tmp_path)
    assert "\n" not in str(raised.value)
