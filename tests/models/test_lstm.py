"""Against loops over time, streams and layers in float64, and against PyTorch's LSTM."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgdscope.models.lstm import dropout_masks, lstm, lstm_init, zero_state

VOCABULARY, UNITS, LAYERS, STEPS, STREAMS = 11, 5, 2, 6, 3
SHAPE = {"units": UNITS, "layers": LAYERS}


def naive_logits(parameters, tokens, state, masks):
    """One stream, one step, one layer at a time; the gates by their names."""

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    logits = np.zeros((*tokens.shape, VOCABULARY))
    last = [(hidden.copy(), cell.copy()) for hidden, cell in state]
    for stream in range(tokens.shape[1]):
        for step in range(len(tokens)):
            below = parameters["embedding"][tokens[step, stream]]
            for number, layer in enumerate(parameters["layers"]):
                hidden, cell = last[number][0][stream], last[number][1][stream]
                below = below * masks[number, step, stream]
                gate = {}
                for quarter, name in enumerate(("input", "forget", "output", "candidate")):
                    columns = slice(quarter * UNITS, (quarter + 1) * UNITS)
                    gate[name] = (
                        below @ layer["weight"][:, columns]
                        + hidden @ layer["recurrent"][:, columns]
                        + layer["bias"][columns]
                    )
                cell = sigmoid(gate["forget"]) * cell + sigmoid(gate["input"]) * np.tanh(gate["candidate"])
                below = sigmoid(gate["output"]) * np.tanh(cell)
                last[number][0][stream], last[number][1][stream] = below, cell
            out = below * masks[-1, step, stream]
            logits[step, stream] = out @ parameters["softmax"]["weight"] + parameters["softmax"]["bias"]
    return logits, last


def naive_loss(parameters, tokens, state, masks):
    logits, _ = naive_logits(parameters, tokens[:-1], state, masks)
    shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    return -np.log(np.take_along_axis(shares, tokens[1:, :, None], axis=-1)).mean()


def in_float64(tree):
    return jax.tree.map(lambda array: np.asarray(array, np.float64), tree)


@pytest.fixture(scope="module")
def case():
    """A tiny network in the middle of a text, with dropout."""
    keys = jax.random.split(jax.random.key(0), 3)
    parameters = jax.jit(partial(lstm_init, vocabulary=VOCABULARY, scale=0.8, **SHAPE))(keys[0])
    tokens = jax.random.randint(keys[1], (STEPS + 1, STREAMS), 0, VOCABULARY, jnp.int32)
    state = jax.tree.map(
        lambda array: jax.random.uniform(keys[2], array.shape, jnp.float32, -1, 1), zero_state(STREAMS, **SHAPE)
    )
    masks = 2.0 * np.random.default_rng(0).integers(0, 2, (LAYERS + 1, STEPS, STREAMS, UNITS)).astype(np.float32)
    return parameters, tokens, state, masks


def test_forward_is_the_naive_loop(case):
    parameters, tokens, state, masks = case
    logits, last = jax.jit(lstm)(parameters, tokens[:-1], state, masks)
    expected, expected_last = naive_logits(
        in_float64(parameters), np.asarray(tokens)[:-1], in_float64(state), in_float64(masks)
    )
    np.testing.assert_allclose(logits, expected, atol=2e-6)
    for ours, theirs in zip(jax.tree.leaves(last), jax.tree.leaves(expected_last), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_the_gradient_is_the_finite_difference_of_the_naive_loop(case):
    parameters, tokens, state, masks = case

    @jax.jit
    @jax.grad
    def gradient(parameters):
        logits, _ = lstm(parameters, tokens[:-1], state, masks)
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[1:, :, None], axis=-1)
        return -picked.mean()

    exact, at = in_float64(gradient(parameters)), in_float64(parameters)
    rng = np.random.default_rng(0)
    for leaf in range(len(jax.tree.leaves(at))):
        # One leaf at a time, so that none hides behind a larger one.
        flat, structure = jax.tree.flatten(jax.tree.map(np.zeros_like, at))
        flat[leaf] = rng.normal(size=flat[leaf].shape)
        direction = jax.tree.unflatten(structure, flat)

        def loss_along(distance, direction=direction):
            moved = jax.tree.map(np.add, at, jax.tree.map(partial(np.multiply, distance), direction))
            return naive_loss(moved, np.asarray(tokens), in_float64(state), in_float64(masks))

        slope = (loss_along(1e-4) - loss_along(-1e-4)) / 2e-4
        along = sum((g * d).sum() for g, d in zip(jax.tree.leaves(exact), flat, strict=True))
        assert along == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_forward_and_gradient_are_those_of_pytorch(case):
    torch = pytest.importorskip("torch")
    parameters, tokens, state, _ = case
    reference = torch.nn.LSTM(UNITS, UNITS, LAYERS)
    # PyTorch has the gates in the order input, forget, candidate, output, and a second bias.
    order = np.concatenate([np.arange(UNITS) + UNITS * quarter for quarter in (0, 1, 3, 2)])
    names = [(f"weight_ih_l{k}", f"weight_hh_l{k}", f"bias_ih_l{k}", f"bias_hh_l{k}") for k in range(LAYERS)]
    with torch.no_grad():
        for (weight, recurrent, bias, second), layer in zip(names, parameters["layers"], strict=True):
            for name, array in (
                (weight, layer["weight"]),
                (recurrent, layer["recurrent"]),
                (bias, layer["bias"][None]),
            ):
                getattr(reference, name).copy_(torch.tensor(np.asarray(array)[:, order].T.squeeze()))
            getattr(reference, second).zero_()
    embedding, weight, bias = (
        torch.tensor(np.asarray(array), requires_grad=True)
        for array in (parameters["embedding"], parameters["softmax"]["weight"], parameters["softmax"]["bias"])
    )
    words = torch.tensor(np.asarray(tokens), dtype=torch.int64)
    before = tuple(torch.tensor(np.stack([np.asarray(layer[which]) for layer in state])) for which in (0, 1))
    out, _ = reference(embedding[words[:-1]], before)
    theirs = torch.nn.functional.cross_entropy((out @ weight + bias).reshape(-1, VOCABULARY), words[1:].reshape(-1))
    theirs.backward()

    @jax.jit
    @jax.value_and_grad
    def ours(parameters):
        logits, _ = lstm(parameters, tokens[:-1], state)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[1:, :, None], axis=-1).mean()

    loss, gradient = ours(parameters)
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    close(loss, theirs.item())
    close(gradient["embedding"], embedding.grad)
    close(gradient["softmax"]["weight"], weight.grad)
    close(gradient["softmax"]["bias"], bias.grad)
    for (weight_name, recurrent, bias_name, _), layer in zip(names, gradient["layers"], strict=True):
        close(np.asarray(layer["weight"])[:, order].T, getattr(reference, weight_name).grad)
        close(np.asarray(layer["recurrent"])[:, order].T, getattr(reference, recurrent).grad)
        close(np.asarray(layer["bias"])[order], getattr(reference, bias_name).grad)


def test_a_text_read_in_two_pieces_with_its_state_is_the_text_read_at_once(case):
    parameters, tokens, state, _ = case
    whole, last = jax.jit(lstm)(parameters, tokens, state)
    first, between = jax.jit(lstm)(parameters, tokens[:4], state)
    second, end = jax.jit(lstm)(parameters, tokens[4:], between)
    np.testing.assert_allclose(np.concatenate([first, second]), whole, atol=1e-6)
    for ours, theirs in zip(jax.tree.leaves(end), jax.tree.leaves(last), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_dropout_leaves_the_recurrent_connections(case):
    """With all else dropped the softmax sees its bias alone, yet each state still comes from the one before."""
    parameters, tokens, state, masks = case
    (logits, after), (others, other_after) = (
        jax.jit(lstm)(parameters, tokens[:-1], before, 0 * masks) for before in (state, zero_state(STREAMS, **SHAPE))
    )
    np.testing.assert_array_equal(logits, others)
    np.testing.assert_allclose(logits[0, 0], parameters["softmax"]["bias"])
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(other_after), strict=True):
        assert (a != b).all()


def test_every_parameter_begins_uniformly_within_the_scale():
    init = partial(lstm_init, vocabulary=100, units=50, layers=2, scale=0.1)
    leaves = jax.tree.leaves(jax.jit(init)(jax.random.key(3)))
    assert len(leaves) == 1 + 2 * 3 + 2
    for leaf in leaves:
        assert np.abs(leaf).max() <= 0.1
        error = 0.1 / np.sqrt(leaf.size)
        assert abs(np.mean(leaf)) < 4 * error / np.sqrt(3)
        assert np.mean(np.square(leaf)) == pytest.approx(0.01 / 3, abs=4 * 0.1 * error)


def test_a_mask_is_of_its_streams_key_alone_and_has_mean_one():
    draw = jax.jit(partial(dropout_masks, rate=0.65, steps=35, units=40, layers=2))
    keys = jax.random.split(jax.random.key(1), 8)
    masks = np.asarray(draw(keys))
    assert masks.shape == (3, 35, 8, 40)
    np.testing.assert_array_equal(np.unique(masks), np.float32([0, 1 / 0.35]))
    np.testing.assert_array_equal(draw(keys[::-1])[:, :, ::-1], masks)
    kept = np.mean(masks > 0)
    assert abs(kept - 0.35) < 4 * np.sqrt(0.35 * 0.65 / masks.size)
    # Streams, steps and layers are independent of each other: two of them agree as two coins do.
    agree = 0.35**2 + 0.65**2
    for a, b in ((masks[:, :, 0], masks[:, :, 1]), (masks[:, 0], masks[:, 1]), (masks[0], masks[1])):
        assert abs(np.mean((a > 0) == (b > 0)) - agree) < 4 * np.sqrt(agree * (1 - agree) / a.size)
