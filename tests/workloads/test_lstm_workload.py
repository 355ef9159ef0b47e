"""The language model as a workload: every token counts once, in evaluation as in training."""

from functools import partial
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgdscope.data.ptb import END
from sgdscope.errors import InputError
from sgdscope.models.lstm import lstm_init, zero_state
from sgdscope.workloads.lstm import UNROLL, evaluation_loss, lstm, lstm_of_characters, training_loss

VOCABULARY, UNITS, LAYERS = 13, 40, 2
begin = partial(zero_state, units=UNITS, layers=LAYERS)


def text(n, seed=0):
    return np.random.default_rng(seed).integers(0, VOCABULARY, n).astype(np.uint16)


def splits(n=200):
    return {name: {"token": text(n, seed)} for seed, name in enumerate(("train", "validation", "test"))}


@pytest.fixture(scope="module")
def parameters():
    init = partial(lstm_init, vocabulary=VOCABULARY, units=UNITS, layers=LAYERS, scale=0.4)
    return jax.jit(init)(jax.random.key(0))


def by_hand(parameters, tokens, first):
    """The cross-entropy of each token of one text by the chain rule, in float64."""
    p = jax.tree.map(lambda array: np.asarray(array, np.float64), parameters)
    states = [(np.zeros(UNITS), np.zeros(UNITS)) for _ in range(LAYERS)]
    losses = []
    for before, token in zip([first, *tokens[:-1]], tokens, strict=True):
        x = p["embedding"][before]
        for number, layer in enumerate(p["layers"]):
            hidden, cell = states[number]
            i, f, o, g = (x @ layer["weight"] + hidden @ layer["recurrent"] + layer["bias"]).reshape(4, UNITS)
            cell = cell / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
            x = np.tanh(cell) / (1 + np.exp(-o))
            states[number] = (x, cell)
        logits = x @ p["softmax"]["weight"] + p["softmax"]["bias"]
        losses.append(np.log(np.exp(logits).sum()) - logits[token])
    return np.array(losses)


# ── The network of the paper ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("size", "units", "expected"),
    [("small", 200, 4_651_600), ("medium", 650, 19_775_200), ("large", 1500, 66_022_000)],
)
def test_the_number_of_parameters(size, units, expected):
    """Embedding, softmax, and two layers of one affine map each from 2n to 4n."""
    shapes = jax.eval_shape(lstm(splits(), size).init, jax.random.key(0))
    formula = 10_000 * units + (units + 1) * 10_000 + 2 * (2 * units + 1) * 4 * units
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == formula == expected


# ── Evaluation ───────────────────────────────────────────────────────────────────────────────────────────


def test_one_stream_is_the_plain_chain_rule(parameters, monkeypatch):
    monkeypatch.setattr(import_module("sgdscope.workloads.lstm"), "EVALUATION_STREAMS", 1)
    tokens = text(40)
    ours = jax.jit(partial(evaluation_loss, begin=begin))(parameters, (), {"token": tokens})
    expected = by_hand(parameters, tokens, first=END)
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert np.exp(np.mean(ours)) == pytest.approx(np.exp(expected.mean()), rel=1e-5)


@pytest.mark.parametrize("n", [1, 65, 200])
def test_every_token_is_predicted_once_from_the_token_before_it(parameters, n):
    """At most 64 streams, which are pieces of equal length but for the last."""
    tokens = text(n)
    ours = jax.jit(partial(evaluation_loss, begin=begin))(parameters, (), {"token": tokens})
    length = int(np.ceil(n / min(64, n)))
    starts = range(0, n, length)
    pieces = [by_hand(parameters, tokens[s : s + length], first=END if s == 0 else tokens[s - 1]) for s in starts]
    np.testing.assert_allclose(ours, np.concatenate(pieces), atol=1e-5)


def test_the_future_changes_nothing_and_the_past_of_a_stream_does(parameters):
    losses = jax.jit(partial(evaluation_loss, begin=begin))
    tokens = text(640)  # 64 streams of 10
    other = tokens.copy()
    other[123] = (tokens[123] + 1) % VOCABULARY
    changed = np.asarray(losses(parameters, (), {"token": tokens}) != losses(parameters, (), {"token": other}))
    assert list(np.flatnonzero(changed)) == list(range(123, 130))


def test_loss_and_score_are_one_function_and_a_split_is_one_piece():
    workload = lstm(splits())
    assert workload.loss is workload.score
    assert workload.evaluation_batch_size > 929_589  # tokens of the training text
    assert workload.score_of_mean(jnp.float32(0)) == 1
    assert (workload.score_goal, workload.score_name) == ("minimize", "perplexity")


# ── Training ─────────────────────────────────────────────────────────────────────────────────────────────


def test_two_updates_with_the_carry_are_one_pass_over_seventy_tokens(parameters):
    tokens = text(3 * 71).reshape(3, 71)
    keys = jax.random.split(jax.random.key(0), 3)
    loss = jax.jit(partial(training_loss, dropout=0.0))
    whole, last = loss(parameters, begin(3), {"token": tokens}, keys)
    first, between = loss(parameters, begin(3), {"token": tokens[:, :36]}, keys)
    second, end = loss(parameters, between, {"token": tokens[:, 35:]}, keys)
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, atol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(end), jax.tree.leaves(last), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    for stream in range(3):
        expected = by_hand(parameters, tokens[stream, 1:], first=tokens[stream, 0])
        np.testing.assert_allclose(whole[stream], expected, atol=1e-5)


def test_without_dropout_training_and_evaluation_have_the_same_losses(parameters, monkeypatch):
    monkeypatch.setattr(import_module("sgdscope.workloads.lstm"), "EVALUATION_STREAMS", 1)
    tokens = np.concatenate([[END], text(35)]).astype(np.uint16)
    training, _ = training_loss(
        parameters, begin(1), {"token": tokens[None]}, jax.random.split(jax.random.key(0), 1), 0.0
    )
    np.testing.assert_allclose(training[0], evaluation_loss(parameters, (), {"token": tokens[1:]}, begin), atol=1e-6)
    np.testing.assert_allclose(training[0], by_hand(parameters, tokens[1:], END), atol=1e-5)


def test_dropout_is_of_each_streams_key_however_streams_are_split(parameters):
    tokens = text(4 * 36).reshape(4, 36)
    keys = jax.random.split(jax.random.key(7), 4)
    loss = jax.jit(partial(training_loss, dropout=0.5))
    whole, last = loss(parameters, begin(4), {"token": tokens}, keys)
    halves = [loss(parameters, begin(2), {"token": tokens[s]}, keys[s]) for s in (slice(0, 2), slice(2, 4))]
    np.testing.assert_allclose(np.concatenate([half[0] for half in halves]), whole, atol=1e-5)
    split_last = jax.tree.map(lambda a, b: np.concatenate([a, b]), halves[0][1], halves[1][1])
    for ours, theirs in zip(jax.tree.leaves(split_last), jax.tree.leaves(last), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    # Another key is another loss, and the same text under two keys has two losses.
    other, _ = loss(parameters, begin(4), {"token": tokens}, jax.random.split(jax.random.key(8), 4))
    assert not np.allclose(other, whole, atol=1e-3)
    twice, _ = loss(parameters, begin(2), {"token": tokens[[0, 0]]}, keys[:2])
    assert not np.allclose(twice[0], twice[1], atol=1e-3)


def test_the_workload_has_the_papers_dropout_and_begins_in_zero():
    for size, dropout in (("small", 0.0), ("medium", 0.5), ("large", 0.65)):
        workload = lstm(splits(), size)
        assert workload.training_loss.keywords == {"dropout": dropout}
        assert workload.unroll == UNROLL == 35
    carried = lstm(splits()).streams.carry(20)
    assert [leaf.shape for leaf in jax.tree.leaves(carried)] == [(20, 200)] * 4
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(carried))


# ── What stands for a diverged trial, and what is refused ────────────────────────────────────────────────


def test_the_constant_predictor_has_the_frequencies_of_the_training_text():
    train = np.array([0, 0, 0, 0, 1, 1, 2, 3], np.uint16)
    workload = lstm(splits() | {"train": {"token": train}})
    entropy = -(0.5 * np.log(0.5) + 0.25 * np.log(0.25) + 2 * 0.125 * np.log(0.125))
    assert workload.constant_loss == pytest.approx(entropy)
    assert workload.constant_score == pytest.approx(2**1.75)


def test_what_is_no_token_or_size_is_refused():
    with pytest.raises(InputError, match=r"token 10000 of the test split is not below the vocabulary's 10,000\."):
        lstm(splits() | {"test": {"token": np.array([3, 10_000], np.uint16)}})
    with pytest.raises(InputError, match=r"size must be one of small, medium, large, not 'tiny'\."):
        lstm(splits(), "tiny")
    characters = {name: {"token": split["token"] % 50} for name, split in splits().items()}
    with pytest.raises(InputError, match="token 50 of the test split is not below the vocabulary's 50"):
        lstm_of_characters(characters | {"test": {"token": np.array([3, 50], np.uint16)}})
