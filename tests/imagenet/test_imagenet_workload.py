import functools
import math
import pickle

import jax
import numpy as np
import pytest

from sgdscope.errors import InputError
from sgdscope.imagenet.images import centre_square, random_square
from sgdscope.imagenet.index import of_classes, read_imagenet
from sgdscope.imagenet.workload import CHANNEL_DEVIATIONS, CHANNEL_MEANS, imagenet_resnet50, standardised
from sgdscope.models.normalization import running_norm
from sgdscope.models.resnet import channels_of_blocks, resnet

quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
NARROW = {"blocks": (1, 1), "width": 2, "side": 32, "ghost_batch_size": 3}


@pytest.fixture(scope="module")
def data(pictures):
    return read_imagenet(pictures)


@pytest.fixture(scope="module")
def workload(data):
    return imagenet_resnet50(data, **NARROW)


def parameters_of(workload):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(workload.init, jax.random.key(0))
    return jax.tree.map(lambda a: np.asarray(rng.normal(size=a.shape) * 0.3, np.float32), shapes)


def read(workload, split, indices, visits):
    feed = workload.feed
    examples = [
        feed.read(*feed.locate(split, index), visit and (*visit, index))
        for index, visit in zip(indices, visits, strict=True)
    ]
    return {key: np.stack([example[key] for example in examples]) for key in feed.layout}


# ── Examples ─────────────────────────────────────────────────────────────────────────────────────────────


def test_training_is_given_a_random_piece_and_evaluation_the_centre(workload, data):
    shown, centre = (read(workload, "train", [5], [visit]) for visit in ((7, 3), None))
    np.testing.assert_array_equal(shown["picture"][0], random_square(data.path("train", 5), 32, 7, 3, 5))
    np.testing.assert_array_equal(centre["picture"][0], centre_square(data.path("train", 5), 32))
    assert shown["label"][0] == centre["label"][0] == data.splits["train"]["label"][5]
    for key, (shape, dtype) in workload.feed.layout.items():
        assert (shown[key].shape[1:], shown[key].dtype) == (shape, dtype)


def test_a_process_can_be_sent_how_to_read_without_the_index(workload):
    assert len(pickle.dumps(workload.feed.read)) < 200
    assert len(pickle.dumps(workload.feed.locate("test", 0))) < 300


def test_standardised_is_mean_0_and_variance_1_where_the_pictures_have_the_training_sets_moments():
    means, deviations = np.array(CHANNEL_MEANS), np.array(CHANNEL_DEVIATIONS)
    ends = np.stack([means - deviations, means + deviations]).round().astype(np.uint8)
    np.testing.assert_allclose(standardised(ends[:, None, None])[:, 0, 0], [[-1] * 3, [1] * 3], atol=1e-2)


def test_fewer_classes_are_the_first_ones_with_their_pictures(data):
    part = of_classes(data, 2)
    assert part.classes == ("n01", "n02")
    for split in data.splits:
        names = [name for name in data.files[split] if "n03" not in name]
        assert list(part.files[split]) == names
        assert [part.classes[label] for label in part.splits[split]["label"]] == [name.split("/")[1] for name in names]
        assert 0 < part.bytes[split] < data.bytes[split]


# ── The whole workload ───────────────────────────────────────────────────────────────────────────────────


def test_loss_and_score_are_those_of_the_network_with_running_statistics(workload):
    parameters, batch = parameters_of(workload), read(workload, "test", range(6), [None] * 6)
    state = workload.init_state()
    x = (batch["picture"] - np.float32(CHANNEL_MEANS)) / np.float32(CHANNEL_DEVIATIONS)
    strides = [stride for *_, stride in channels_of_blocks((1, 1), 2)]

    @quick_jit
    def run(parameters, state, batch, x):
        model = parameters, state
        plain = resnet(parameters, state, x, strides, running_norm)[0]
        return workload.loss(*model, batch), workload.score(*model, batch), plain

    loss, score, outputs = run(parameters, state, batch, x)
    outputs = np.asarray(outputs, np.float64)
    expected = np.log(np.exp(outputs).sum(axis=1)) - outputs[np.arange(6), batch["label"]]
    np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(score, outputs.argmax(axis=1) == batch["label"])


def test_training_takes_statistics_of_ghost_batches(workload):
    parameters, state = parameters_of(workload), workload.init_state()
    batch = read(workload, "train", range(6), [(0, 0)] * 6)

    @quick_jit
    def run(parameters, state, batch):
        losses, left = workload.training_loss(parameters, state, batch, None)
        first, then = ({key: array[part] for key, array in batch.items()} for part in (slice(3), slice(3, 6)))
        one, between = workload.training_loss(parameters, state, first, None)
        two, after = workload.training_loss(parameters, between, then, None)
        return losses, one, two, left, after

    losses, one, two, left, after = run(parameters, state, batch)
    np.testing.assert_allclose(losses, np.concatenate([one, two]), rtol=1e-4)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), left, after)


def test_the_penalty_is_on_kernels_and_the_last_matrix_alone(workload):
    parameters = parameters_of(workload)
    gradient = quick_jit(jax.grad(workload.penalty))(parameters)
    for (path, slope), leaf in zip(
        jax.tree_util.tree_leaves_with_path(gradient), jax.tree.leaves(parameters), strict=True
    ):
        decayed = path[-1].key not in ("scale", "shift", "bias")
        np.testing.assert_allclose(slope, 1e-4 * leaf if decayed else np.zeros_like(leaf), rtol=1e-6)


def test_what_identifies_it(data, workload):
    record = workload.record()
    assert record.fields == (("blocks", "1-1"), ("l2", 1e-4), ("side", 32), ("width", 2))
    assert (record.ghost_batch_size, record.examples, record.chosen_on) == (3, (27, 3, 9), "validation")
    assert math.isclose(record.constant_score, max(np.bincount(data.splits["train"]["label"])) / 27)
    plain = imagenet_resnet50(data).record()
    assert plain.fields == (("blocks", "3-4-6-3"), ("l2", 1e-4), ("side", 224), ("width", 64))
    assert plain.ghost_batch_size == 64


def test_another_picture_is_another_identity(data):
    splits = {split: dict(arrays) for split, arrays in data.splits.items()}
    splits["train"]["sha256"] = splits["train"]["sha256"].copy()
    splits["train"]["sha256"][3] += np.uint64(1)
    other = type(data)(data.folder, data.classes, splits, data.files, data.bytes)
    assert (
        imagenet_resnet50(other, **NARROW).record().data_sha256
        != imagenet_resnet50(data, **NARROW).record().data_sha256
    )


@pytest.mark.parametrize(
    "fields", [{"blocks": ()}, {"width": 0}, {"side": 0}, {"ghost_batch_size": 0}, {"l2": -1.0}, {"l2": float("nan")}]
)
def test_fields_of_no_network_are_refused_in_a_sentence(data, fields):
    ((name, value),) = fields.items()
    with pytest.raises(InputError) as raised:
        imagenet_resnet50(data, **fields)
    assert f"{name} must be" in str(raised.value)
    assert str(raised.value).endswith(f"not {value!r}.")
