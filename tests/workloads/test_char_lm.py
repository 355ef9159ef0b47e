"""The language model of characters: its text, its network, and what it is scored by."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgdscope as sg
from sgdscope.data.characters import as_characters, split_text
from sgdscope.models.gpt import gpt, gpt_init

TEXT = "".join(chr(97 + (i * i + i // 7) % 11) for i in range(2000)) + "\n"
SMALL = {"width": 8, "layers": 2, "heads": 2, "context": 12}


def workload():
    return sg.workloads.char_lm(split_text(TEXT * 2), **SMALL)


def test_windows_spell_the_text_and_each_ends_where_the_next_begins():
    splits = split_text(TEXT * 2)
    windows = workload().train["token"]
    text = splits["train"]["token"]
    np.testing.assert_array_equal(windows[:, :-1].ravel(), text[: windows[:, :-1].size])
    np.testing.assert_array_equal(windows[1:, 0], windows[:-1, -1])
    assert windows.shape == ((len(text) - 1) // 12, 13)


def test_the_text_can_be_spelled_again():
    tokens = as_characters({"train": "banana\n", "test": "nab"})
    letters = "\nanb"
    assert "".join(letters[token] for token in tokens["train"]["token"]) == "banana\n"
    with pytest.raises(sg.InputError, match="the test text has the character 'c', which the training text has not"):
        as_characters({"train": "ab", "test": "c"})


def naive(parameters, tokens, heads):
    """Return the logits of one window, character by character and head by head, in float64."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), parameters)
    norm = lambda x, gain: gain * x / np.sqrt((x**2).mean() + 1e-6)
    gelu = lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    x = [p["embedding"][token] + p["position"][place] for place, token in enumerate(tokens)]
    for block in p["blocks"]:
        parts = [np.split(norm(v, block["attention_norm"]) @ block["query_key_value"], 3) for v in x]
        query, key, value = ([part[which].reshape(heads, -1) for part in parts] for which in range(3))
        for place in range(len(x)):
            heard = []
            for head in range(heads):
                scores = [query[place][head] @ key[j][head] / math.sqrt(len(key[j][head])) for j in range(place + 1)]
                weights = np.exp(scores) / np.exp(scores).sum()
                heard.append(sum(w * value[j][head] for j, w in enumerate(weights)))
            x[place] = x[place] + np.concatenate(heard) @ block["attention_out"]
        x = [v + gelu(norm(v, block["network_norm"]) @ block["up"]) @ block["down"] for v in x]
    return np.array([p["embedding"] @ norm(v, p["norm"]) for v in x])


def test_the_network_is_the_loop_over_characters_and_heads():
    shapes = jax.eval_shape(lambda key: gpt_init(key, 11, 8, 2, 12), jax.random.key(0))
    rng = np.random.default_rng(0)
    parameters = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape) / 2, jnp.float32), shapes)
    tokens = rng.integers(0, 11, (2, 12))
    got = jax.jit(lambda p, tokens: gpt(p, tokens, 2))(parameters, tokens)
    np.testing.assert_allclose(got, [naive(parameters, window, 2) for window in tokens], rtol=2e-4, atol=2e-4)


def test_a_character_is_predicted_from_those_before_it_alone():
    parameters = gpt_init(jax.random.key(0), 11, 8, 2, 12)
    tokens = np.random.default_rng(0).integers(0, 11, (1, 12))
    other = np.where(np.arange(12) < 7, tokens, 10 - tokens)
    first, second = (gpt(parameters, t, 2) for t in (tokens, other))
    np.testing.assert_array_equal(first[:, :7], second[:, :7])
    assert (first[:, 7:] != second[:, 7:]).any(-1).all()


def test_at_first_every_character_is_as_likely():
    made = workload()
    losses = made.loss(made.init(jax.random.key(0)), (), {"token": jnp.asarray(made.test["token"])})
    # Eleven letters and the end of a line; logits begin with a deviation of 0.02 √8.
    np.testing.assert_allclose(losses, math.log(12), atol=0.1)
    assert float(made.score_of_mean(jnp.float32(math.log(2)))) == pytest.approx(1)
    assert made.constant_score == pytest.approx(made.constant_loss / math.log(2))


def test_it_learns_from_a_text(tmp_path):
    made = sg.workloads.char_lm(split_text("to be, or not to be: that is the question. " * 60), **SMALL)
    study = sg.Study(
        name="s", workloads=made, optimizers=sg.Adam(), batch_sizes=(16,), budgets=sg.Steps(100),
        learning_rates=(0.01,), seeds=1,
    )  # fmt: skip
    (score,) = sg.run(study, tmp_path / "s").trials["test_score"]
    assert score < made.constant_score - 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"heads": 3}, "width 8 is not a multiple of the 3 heads"), ({"context": 500}, "has 200 characters")],
)
def test_what_does_not_fit_is_refused(change, sentence):
    with pytest.raises(sg.InputError, match=sentence):
        sg.workloads.char_lm(split_text(TEXT * 2), **SMALL | change)
