"""Against PyTorch, loops in float64, and the published sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgdscope as sg
from sgdscope.models.convnet import convnet, convnet_init


def pictures(n, seed=0):
    rng = np.random.default_rng(seed)
    return {"picture": rng.integers(0, 256, (n, 28, 28), np.uint8), "label": rng.integers(0, 10, n).astype(np.uint8)}


@functools.cache
def splits():
    return {name: pictures(6, seed) for seed, name in enumerate(("train", "validation", "test"))}


def size_of(workload):
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(workload.init, jax.random.key(0))))


def test_the_networks_have_the_published_layers_and_the_declared_size():
    plain, convolutional = sg.workloads.fashion_mnist(splits()), sg.workloads.fashion_mnist_convnet(splits())
    assert size_of(plain) == 785 * 256 + 257 * 128 + 129 * 100 + 101 * 10
    assert size_of(convolutional) == 26 * 16 + (25 * 16 + 1) * 32 + (7 * 7 * 32 + 1) * 10
    assert plain.constant_score == convolutional.constant_score == max(np.bincount(splits()["train"]["label"])) / 6


def test_the_fully_connected_network_is_the_loop_over_its_units():
    workload, batch = sg.workloads.fashion_mnist(splits()), splits()["train"]
    layers = jax.jit(workload.init)(jax.random.key(0))
    units = batch["picture"].reshape(6, -1) / 255.0
    for number, layer in enumerate(layers):
        units = units @ np.asarray(layer["weight"], np.float64) + np.asarray(layer["bias"])
        units = units if number == 3 else np.maximum(units, 0)
    expected = np.log(np.exp(units).sum(axis=1)) - units[np.arange(6), batch["label"]]
    np.testing.assert_allclose(workload.loss(layers, (), batch), expected, rtol=1e-5)
    assert np.asarray(workload.score(layers, (), batch)).tolist() == (units.argmax(axis=1) == batch["label"]).tolist()


def test_the_convolutional_network_is_the_loop_over_its_pixels():
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: convnet_init(key, 8, (2, 3), 4), jax.random.key(0))
    layers = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), jnp.float32), shapes)
    x = rng.normal(size=(2, 8, 8)).astype(np.float32)
    expected = x[..., None].astype(np.float64)
    for layer in layers[:-1]:
        weight, bias = (np.asarray(layer[name], np.float64) for name in ("weight", "bias"))
        n, side = expected.shape[:2]
        padded = np.pad(expected, ((0, 0), (2, 2), (2, 2), (0, 0)))
        pooled = np.zeros((n, side // 2, side // 2, weight.shape[3]))
        for i in range(side):
            for j in range(side):
                unit = np.einsum("nabc,abco->no", padded[:, i : i + 5, j : j + 5], weight) + bias
                pooled[:, i // 2, j // 2] = np.maximum(pooled[:, i // 2, j // 2], unit)  # which are not below 0
        expected = pooled
    last = layers[-1]
    expected = expected.reshape(2, -1) @ np.asarray(last["weight"], np.float64) + np.asarray(last["bias"])
    np.testing.assert_allclose(jax.jit(convnet)(layers, x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["fashion_mnist", "fashion_mnist_convnet"])
def test_pictures_of_another_type_or_size_are_refused(name):
    workload = getattr(sg.workloads, name)
    for wrong in (np.zeros((6, 28, 28), np.float32), np.zeros((6, 32, 32), np.uint8)):
        split = {"picture": wrong, "label": np.zeros(6, np.uint8)}
        with pytest.raises(
            sg.InputError, match=r"'picture' of the test split must be uint8 of shape \(n, 28, 28\), not"
        ):
            workload(splits() | {"test": split})
