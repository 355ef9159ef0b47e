"""Against loops in float64, PyTorch, and what the literature says of the network."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgdscope.errors import InputError
from sgdscope.models.autoencoder import CONNECTIONS, autoencoder_init
from sgdscope.workloads.autoencoder import autoencoder, constant_picture, cross_entropy, squared_error

WIDTHS = [784, 1000, 500, 250, 30, 250, 500, 1000, 784]


def pictures(n, seed=0):
    """Black, white and grey pixels, as in a drawing."""
    rng = np.random.default_rng(seed)
    return {"picture": np.clip(rng.normal(40, 200, (n, 28, 28)), 0, 255).astype(np.uint8)}


def splits(n=4):
    return {name: pictures(n, seed) for seed, name in enumerate(("train", "validation", "test"))}


@pytest.fixture(scope="module")
def layers():
    """A network of the same kind but small, whose gradients a loop can check."""
    drawn = jax.jit(lambda key: autoencoder_init(key, (784, 6, 5, 3)))(jax.random.key(0))
    # Biases that are not 0, so that their place in the sum shows.
    return [layer | {"bias": 0.1 * jnp.cos(jnp.arange(layer["bias"].size, dtype=jnp.float32))} for layer in drawn]


def naive(layers, picture):
    """The two errors of one picture, unit by unit."""
    x = picture.reshape(-1) / 255.0
    units = x
    for number, layer in enumerate(layers):
        a = [layer["bias"][j] + sum(units * layer["weight"][:, j]) for j in range(len(layer["bias"]))]
        units = np.array(a if number == len(layers) // 2 - 1 else [1 / (1 + np.exp(-v)) for v in a])
    return -(x * np.log(units) + (1 - x) * np.log(1 - units)).sum(), ((x - units) ** 2).sum()


def in_float64(layers):
    return jax.tree.map(lambda array: np.asarray(array, np.float64), layers)


def test_the_network_is_that_of_the_literature():
    layers = jax.eval_shape(autoencoder(splits()).init, jax.random.key(0))
    assert [layer["weight"].shape for layer in layers] == list(pairwise(WIDTHS))
    assert [layer["bias"].shape for layer in layers] == [(width,) for width in WIDTHS[1:]]
    assert sum(a.size for a in jax.tree.leaves(layers)) == sum((a + 1) * b for a, b in pairwise(WIDTHS)) == 2_837_314


def test_each_unit_begins_with_fifteen_weights_at_most_of_unit_variance():
    layers = jax.jit(autoencoder(splits()).init)(jax.random.key(1))
    drawn = []
    for layer in layers:
        weight = np.asarray(layer["weight"])
        assert not np.asarray(layer["bias"]).any()
        incoming = (weight != 0).sum(axis=0)
        assert incoming.max() <= CONNECTIONS == 15
        # Of m places drawn with replacement from n, n (1 − (1 − 1/n)^m) are different in the mean.
        n = len(weight)
        expected = n * (1 - (1 - 1 / n) ** CONNECTIONS)
        assert incoming.mean() == pytest.approx(expected, abs=4 * max(incoming.std(), 0.1) / np.sqrt(len(incoming)))
        # No place is preferred: of each half of the rows about as many.
        first, all_ = (weight[: n // 2] != 0).sum(), incoming.sum()
        assert abs(first - all_ / 2) < 4 * np.sqrt(all_ / 4) + all_ / n
        drawn.append(weight[weight != 0])
    drawn = np.concatenate(drawn)
    assert abs(drawn.mean()) < 4 / np.sqrt(len(drawn))
    assert abs((drawn**2).mean() - 1) < 4 * np.sqrt(2 / len(drawn))
    halves = np.corrcoef(drawn[: len(drawn) // 2], drawn[len(drawn) // 2 : 2 * (len(drawn) // 2)])[0, 1]
    assert abs(halves) < 4 / np.sqrt(len(drawn) / 2)


def test_both_errors_are_those_of_the_naive_loop(layers):
    batch = pictures(3)
    expected = np.array([naive(in_float64(layers), picture) for picture in batch["picture"]])
    np.testing.assert_allclose(jax.jit(cross_entropy)(layers, (), batch), expected[:, 0], rtol=1e-5)
    np.testing.assert_allclose(jax.jit(squared_error)(layers, (), batch), expected[:, 1], rtol=1e-5)


def test_the_gradient_is_the_finite_difference_of_the_naive_loop(layers):
    batch = pictures(2)
    gradient = jax.jit(jax.grad(lambda layers: cross_entropy(layers, (), batch).mean()))(layers)
    at, rng = in_float64(layers), np.random.default_rng(0)
    for number in range(len(layers)):
        for name in ("weight", "bias"):
            direction = rng.normal(size=at[number][name].shape)

            def loss_along(distance, number=number, name=name, direction=direction):
                moved = [dict(layer) for layer in at]
                moved[number][name] = moved[number][name] + distance * direction
                return np.mean([naive(moved, picture)[0] for picture in batch["picture"]])

            slope = (loss_along(1e-5) - loss_along(-1e-5)) / 2e-5
            along = (np.asarray(gradient[number][name], np.float64) * direction).sum()
            assert along == pytest.approx(slope, rel=1e-3, abs=1e-3)


def test_loss_and_gradient_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    workload, batch = autoencoder(splits()), pictures(5)
    layers = jax.jit(workload.init)(jax.random.key(2))
    loss, gradient = jax.jit(jax.value_and_grad(lambda layers: workload.loss(layers, (), batch).mean()))(layers)
    theirs = [{k: torch.tensor(np.asarray(v), requires_grad=True) for k, v in layer.items()} for layer in layers]
    x = torch.tensor(batch["picture"].reshape(5, -1)).to(torch.float32) / 255
    units = x
    for number, layer in enumerate(theirs):
        units = units @ layer["weight"] + layer["bias"]
        if number not in (3, 7):
            units = torch.sigmoid(units)
    reference = torch.nn.functional.binary_cross_entropy_with_logits(units, x, reduction="sum") / 5
    reference.backward()
    assert float(loss) == pytest.approx(reference.item(), rel=1e-5)
    for ours, layer in zip(gradient, theirs, strict=True):
        for name in ("weight", "bias"):
            expected = layer[name].grad.numpy()
            np.testing.assert_allclose(ours[name], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_the_loss_is_finite_and_not_negative_where_a_pixel_is_certain(layers):
    """From logits: the logarithm of a probability that rounds to 0 would be infinite."""
    sure = [*layers[:-1], layers[-1] | {"bias": jnp.full(784, 500.0)}]
    for value, expected in ((255, 0.0), (0, 784 * 500.0)):
        batch = {"picture": np.full((1, 28, 28), value, np.uint8)}
        (loss,) = np.asarray(jax.jit(cross_entropy)(sure, (), batch))
        assert loss >= 0
        assert loss == pytest.approx(expected, rel=0.02, abs=1e-3)


def test_the_constant_predictor_is_the_best_of_the_constant_pictures():
    train = pictures(50)["picture"]
    loss, score = constant_picture(train)
    x = train.reshape(50, -1) / 255.0

    def errors(constant):
        entropy = -(x * np.log(constant) + (1 - x) * np.log(1 - constant)).sum(axis=1).mean()
        return entropy, ((x - constant) ** 2).sum(axis=1).mean()

    best = x.mean(axis=0)
    assert (loss, score) == pytest.approx(errors(best), rel=1e-9)
    for other in (best * 0.99, 1 - (1 - best) * 0.99):
        assert loss < errors(other)[0]
        assert score < errors(other)[1]
    workload = autoencoder(splits())
    assert (workload.constant_loss, workload.constant_score) == constant_picture(splits()["train"]["picture"])


def test_labels_are_dropped_and_other_pictures_are_refused():
    labelled = {name: split | {"label": np.zeros(4, np.uint8)} for name, split in splits().items()}
    assert list(autoencoder(labelled).train) == ["picture"]
    for wrong in (np.zeros((4, 28, 28), np.float32), np.zeros((4, 32, 32), np.uint8)):
        with pytest.raises(InputError, match=r"'picture' of the test split must be uint8 of shape \(n, 28, 28\), not"):
            autoencoder(splits() | {"test": {"picture": wrong}})
