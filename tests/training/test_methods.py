"""Rules that ask for more than a gradient, each against an independent computation of what it must give."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_own_numbers import network
from trainers import kind_of

from sgdscope.budget import Steps
from sgdscope.errors import InputError
from sgdscope.models.mlp import mlp
from sgdscope.optimizers import KFAC, L2, SAM, SGD, SVRG, AlphaSVRG, GradientPenalty, LabelSmoothing
from sgdscope.optimizers.base import sometimes
from sgdscope.optimizers.kfac import BURN_IN, _inverses, inverse
from sgdscope.schedules import Constant
from sgdscope.study import Study
from sgdscope.training.curvature import dense_layers, kronecker_factors
from sgdscope.training.sampling import microbatch_at
from sgdscope.training.step import Recipe, Settings, full_gradient, mean_loss, one_update, start
from sgdscope.training.traced import trace
from sgdscope.workloads.base import Resident, Workload
from sgdscope.workloads.digits import digits


def recipe_of(workload, optimizer, batch_size, **fields):
    fields = {"schedule": Constant(), "budgets": Steps(100)} | fields
    return Recipe(workload, kind_of(workload, batch_size, optimizer, **fields))


def settings_of(optimizer, batch_size, rate, seed=3, updates=100):
    numbers = {name: jnp.float32(value) for name, value in optimizer.coefficients(batch_size).items()}
    return Settings(jnp.float32(rate), numbers, jnp.uint32(seed), jnp.int32(updates))


def on_device(split):
    return {name: jnp.asarray(array) for name, array in split.items()}


def states(workload, optimizer, batch_size, rate, updates, seed=3, **fields):
    """Return the states of a trial before its first update and after each."""
    recipe, settings = (
        recipe_of(workload, optimizer, batch_size, **fields),
        settings_of(optimizer, batch_size, rate, seed),
    )
    advance = jax.jit(one_update(recipe, on_device(workload.train), settings))
    found = [start(workload, recipe.kind.optimizer, settings)]
    for _ in range(updates):
        found.append(advance(found[-1]))
    return found


def flat(tree):
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def batch_of(workload, batch_size, step, seed=3):
    return microbatch_at(
        workload, on_device(workload.train), jnp.uint32(seed), jnp.int32(step), jnp.int32(0), (batch_size, batch_size)
    )


def regression(examples=64, width=3):
    """A linear regression of fixed design: the gradient of example i is x_i (x_i·θ − y_i)."""
    rng = np.random.default_rng(1)
    split = {"x": rng.normal(size=(examples, width)).astype(np.float32), "y": rng.normal(size=examples)}
    loss = lambda p, batch: 0.5 * (batch["x"] @ p - batch["y"]) ** 2
    return Workload(
        name="line", version="1", train=split, validation=split, test=split, init=lambda key: jnp.ones(width),
        loss=loss, score=loss, score_goal="minimize", constant_loss=1.0, constant_score=1.0,
    )  # fmt: skip


# ── SVRG ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("batch_size", [4, 16])
def test_the_variance_of_svrgs_gradient_is_that_of_the_closed_form(batch_size):
    """After the first update, a full gradient step, d = θ − θ̃ is the same for all seeds. A batch is a sample without
    replacement of the terms (x xᵀ) d, so that its mean has the variance σ²(d)/B · (N − B)/(N − 1)."""
    workload, rate, seeds = regression(), 0.1, 4000
    optimizer = SVRG(momentum=0.0)
    recipe = recipe_of(workload, optimizer, batch_size)
    split = on_device(workload.train)

    def two_updates(seed):
        settings = replace(settings_of(optimizer, batch_size, rate), seed=seed)
        advance = one_update(recipe, split, settings)
        first = advance(start(workload, recipe.kind.optimizer, settings))
        return first.parameters, advance(first).parameters

    first, second = jax.jit(jax.vmap(two_updates))(jnp.arange(seeds, dtype=jnp.uint32))
    x, y = (np.asarray(workload.train[name], np.float64) for name in ("x", "y"))
    full = lambda theta: x.T @ (x @ theta - y) / len(x)
    np.testing.assert_allclose(first, np.broadcast_to(1 - rate * full(np.ones(3)), (seeds, 3)), rtol=1e-5)
    theta = np.asarray(first, np.float64)[0]
    corrected = (theta - np.asarray(second, np.float64)) / rate
    terms = x * (x @ (theta - 1))[:, None]
    examples = len(x)
    expected = terms.var(axis=0).sum() / batch_size * (examples - batch_size) / (examples - 1)
    np.testing.assert_allclose(corrected.mean(axis=0), full(theta), atol=5 * np.sqrt(expected / seeds))
    assert corrected.var(axis=0).sum() == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize("epoch", [0, 2])
def test_over_an_epoch_the_corrections_add_up_to_nothing(epoch):
    """With augmentation, dropout and ghost batch normalization, whose statistics are those of training."""
    base = network()

    def normalized(p, state, batch, keys):
        hidden = (batch["x"] @ p["in"]).reshape(-1, 8, 5)
        hidden = ((hidden - hidden.mean(axis=1, keepdims=True)) / (hidden.std(axis=1, keepdims=True) + 0.1)).reshape(
            -1, 5
        )
        kept = jax.vmap(lambda key, h: jnp.where(jax.random.bernoulli(key, 0.8, h.shape), h, 0.0))(keys, hidden)
        return 0.5 * ((jax.nn.tanh(kept) @ p["out"])[:, 0] - batch["y"]) ** 2, {"seen": state["seen"] + 1.0}

    workload = replace(
        base, training_loss=normalized, init_state=lambda: {"seen": jnp.float32(0)}, ghost_batch_size=8,
        loss=lambda p, state, batch: base.loss(p, (), batch), score=lambda p, state, batch: base.loss(p, (), batch),
        evaluation_batch_size=24,
        reader=Resident(lambda key, example: example | {"x": example["x"] + jax.random.normal(key, (6,))}),
    )  # fmt: skip
    recipe, settings = recipe_of(workload, SVRG(), 16), settings_of(SVRG(), 16, 0.1)
    state = start(workload, SVRG(), settings)
    per_epoch = 96 // 16
    state = replace(state, step=jnp.int32(epoch * per_epoch))
    full = full_gradient(recipe, on_device(workload.train), settings.seed, state, state.parameters)

    def of_batch(step):
        batch, keys = batch_of(workload, 16, step)
        return jax.grad(mean_loss(workload), has_aux=True)(state.parameters, state.model, batch, keys)[0]

    gradients = [of_batch(epoch * per_epoch + place) for place in range(per_epoch)]
    mean = jax.tree.map(lambda *g: sum(g) / per_epoch, *gradients)
    mean["in"] = mean["in"] + 2e-3 * state.parameters["in"]  # the penalty's
    np.testing.assert_allclose(flat(full), flat(mean), rtol=1e-4, atol=1e-6)
    after = states(workload, SVRG(), 16, 0.1, 2)[-1]
    assert float(after.model["seen"]) == 2  # once an update


def test_a_snapshot_is_taken_with_the_first_batch_that_begins_in_an_epoch():
    """96 examples in batches of 40 begin at 0, 40, 80, 120 and 160, …, so that epochs begin with updates 0, 3, 5."""
    found = states(network(), SVRG(), 40, 0.01, 8)
    taken = [place for place in range(8) if not np.array_equal(
        flat(found[place].optimizer["snapshot"]), flat(found[place + 1].optimizer["snapshot"])
    ) or place == 0]  # fmt: skip
    assert taken == [0, 3, 5]
    np.testing.assert_array_equal(flat(found[5].optimizer["snapshot"]), flat(found[3].parameters))


def test_alpha_falls_linearly_from_svrg_to_sgd():
    workload = network()
    first = [flat(states(workload, rule, 32, 0.01, 1)[-1].parameters) for rule in (SVRG(), AlphaSVRG(alpha=1.0))]
    np.testing.assert_allclose(first[0], first[1], rtol=1e-6)
    plain = [
        flat(states(workload, rule, 32, 0.01, 5)[-1].parameters) for rule in (AlphaSVRG(alpha=0), SGD(momentum=0.9))
    ]
    np.testing.assert_allclose(plain[0], plain[1], rtol=1e-6)
    (before, after), alpha = states(workload, AlphaSVRG(momentum=0.0), 32, 0.01, 3)[2:], 0.75 * (1 - 2 / 100)
    gradient = lambda p: flat(jax.grad(lambda p: mean_loss(workload)(p, (), *batch_of(workload, 32, 2))[0] +
                                       workload.penalty(p))(p))  # fmt: skip
    snapshot, full = before.optimizer["snapshot"], flat(before.optimizer["full"])
    moved = (flat(before.parameters) - flat(after.parameters)) / 0.01
    expected = gradient(before.parameters) - alpha * (gradient(snapshot) - full)
    np.testing.assert_allclose(moved, expected, rtol=2e-3, atol=1e-4)


# ── Explicit regularization ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("block", "blocks"), [(128, 1), (8, 4), (12, 4)])
def test_the_gradient_penalty_is_the_gradient_of_the_penalized_loss(block, blocks):
    workload, rate, strength = replace(network(), training_loss=None), 0.05, 0.7
    before, after = states(workload, GradientPenalty(strength, momentum=0.0, block=block), 32, rate, 1)
    batch, _ = batch_of(workload, 32, 0)
    parts = [
        {name: array[32 // blocks * k : 32 // blocks * (k + 1)] for name, array in batch.items()} for k in range(blocks)
    ]
    loss = lambda p, part: workload.loss(p, (), part).mean()

    def penalized(p):
        norms = [sum((g**2).sum() for g in jax.tree.leaves(jax.grad(loss)(p, part))) for part in parts]
        return loss(p, batch) + workload.penalty(p) + strength / 4 * rate * sum(norms) / blocks

    moved = (flat(before.parameters) - flat(after.parameters)) / rate
    np.testing.assert_allclose(moved, flat(jax.grad(penalized)(before.parameters)), rtol=1e-3, atol=1e-4)


def test_l2_and_sam_are_the_gradients_of_their_losses():
    workload, rate = replace(network(), training_loss=None), 0.05
    batch, _ = batch_of(workload, 32, 0)
    gradient = jax.grad(lambda p: workload.loss(p, (), batch).mean() + workload.penalty(p))
    before = start(workload, L2(), settings_of(L2(), 32, rate)).parameters
    moved = lambda rule: (flat(before) - flat(states(workload, rule, 32, rate, 1)[-1].parameters)) / rate
    own = gradient(before)
    decayed = flat(own) + 0.3 * flat(before)
    np.testing.assert_allclose(moved(L2(weight_decay=0.3, momentum=0.0)), decayed, rtol=1e-3, atol=1e-4)
    norm = np.sqrt((flat(own) ** 2).sum())
    uphill = gradient(jax.tree.map(lambda p, g: p + 0.2 * g / norm, before, own))
    np.testing.assert_allclose(moved(SAM(radius=0.2, momentum=0.0)), flat(uphill), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("microbatch_size", [32, 8])
def test_label_smoothing_is_the_gradient_of_the_loss_against_smoothed_labels(microbatch_size):
    """optax smooths the one-hot labels themselves."""
    workload, rate, share = digits(hidden=8), 0.05, 0.3
    batch, _ = batch_of(workload, 32, 0)

    def smoothed(layers):
        labels = optax.smooth_labels(jax.nn.one_hot(batch["label"], 10), share)
        return optax.softmax_cross_entropy(mlp(layers, batch["picture"]), labels).mean()

    rule = LabelSmoothing(share, momentum=0.0)
    before, after = states(workload, rule, 32, rate, 1, microbatch_size=microbatch_size)
    moved = (flat(before.parameters) - flat(after.parameters)) / rate
    np.testing.assert_allclose(moved, flat(jax.grad(smoothed)(before.parameters)), rtol=1e-3, atol=1e-5)


def test_label_smoothing_needs_a_loss_of_each_example_that_depends_on_the_parameters():
    study = lambda workload: Study(
        name="s", workloads=workload, batch_sizes=32, budgets=Steps(2), optimizers=LabelSmoothing()
    )
    with pytest.raises(InputError, match=r"^optimizers: label_smoothing needs the loss against .* the workload unif"):
        study(network())
    base = digits(hidden=8)
    assert trace(base).fingerprint == trace(replace(base, uniform_loss=None)).fingerprint
    for loss, sentence in (
        (lambda p, s, b: mlp(p, b["picture"]).mean(), "uniform_loss must return"),
        (lambda p, s, b: jnp.zeros(len(b["label"])), "the gradient of uniform_loss is 0"),
    ):
        with pytest.raises(InputError, match=sentence):
            trace(replace(base, uniform_loss=loss)).uniform_fingerprint  # noqa: B018 - it is computed when asked for


# ── K-FAC ────────────────────────────────────────────────────────────────────────────────────────────────


def noisy_quadratic(h=(1.0, 0.5, 0.25)):
    """½ Σ h_i (θ_i − z_i)² with θ the weights of a dense layer of one input, 1, and drawn targets of which the mean of
    g gᵀ over a batch is diag(h) exactly, so that the factors are the exact curvature."""
    h, d = np.array(h, np.float32), len(h)
    rng = np.random.default_rng(0)
    split = {"one": np.ones((64, 1), np.float32), "z": rng.normal(size=(64, d)).astype(np.float32)}
    loss = lambda p, batch: 0.5 * ((batch["one"] @ p["w"] - batch["z"]) ** 2 * h[None]).sum(axis=1)

    def drawn(p, state, batch, key):
        place = jnp.arange(len(batch["z"])) % d
        away = jnp.eye(d)[place] * jnp.sqrt(d / h)[place, None]
        return batch | {"z": batch["one"] @ p["w"] + away}

    return Workload(
        name="quadratic", version="1", train=split, validation=split, test=split, loss=loss, score=loss,
        init=lambda key: {"w": jnp.full((1, d), 2.0)}, score_goal="minimize", constant_loss=1.0, constant_score=1.0,
        sample_targets=drawn,
    )  # fmt: skip


@pytest.mark.parametrize("rate", [1.0, 0.25])
def test_with_exact_curvature_it_is_newtons_method(rate):
    """On the noisy quadratic: θ ← θ − ε H⁻¹ g with the gradient of each batch, whose noise is h z̄."""
    workload = noisy_quadratic()
    found = states(workload, KFAC(damping=1e-14, momentum=0.0), 12, rate, BURN_IN + 4)
    expected = np.full(3, 2.0)
    for step, state in enumerate(found[1:]):
        batch, _ = batch_of(workload, 12, step)
        if step >= BURN_IN:
            expected = expected - rate * (expected - np.asarray(batch["z"], np.float64).mean(axis=0))
        np.testing.assert_allclose(flat(state.parameters), expected, rtol=1e-5, atol=1e-5)


def factors_by_hand(p, x, y):
    """Return A and G of network() without dropout, an example at a time."""
    a_in, g_in, a_out, g_out = (np.zeros((n, n)) for n in (6, 5, 5, 1))
    w, v = (np.asarray(p[name], np.float64) for name in ("in", "out"))
    for one, target in zip(x, y, strict=True):
        hidden = np.tanh(one @ w)
        error = hidden @ v - target
        before = (v[:, 0] * error) * (1 - hidden**2)
        a_in, g_in = a_in + np.outer(one, one), g_in + np.outer(before, before)
        a_out, g_out = a_out + np.outer(hidden, hidden), g_out + np.outer(error, error)
    return [(a_in / len(x), g_in / len(x)), (a_out / len(x), g_out / len(x))]


def drawing(workload):
    """Return a workload that draws its targets from N(f(x), 1)."""

    def drawn(p, state, batch, key):
        mean = (jax.nn.tanh(batch["x"] @ p["in"]) @ p["out"])[:, 0]
        return batch | {"y": mean + jax.random.normal(key, mean.shape)}

    return replace(workload, sample_targets=drawn)


@pytest.mark.parametrize("microbatch_size", [None, 8])
def test_factors_and_preconditioned_gradients_are_those_computed_by_hand(microbatch_size):
    """Seven updates in numpy: averages of factors that are summed an example at a time, and dense solves with kron."""
    workload, damping, rate = drawing(replace(network(), training_loss=None)), 0.3, 0.05
    found = states(workload, KFAC(damping=damping, momentum=0.0), 32, rate, 7, microbatch_size=microbatch_size)
    split, size = on_device(workload.train), microbatch_size or 32
    sums, known = [(0.0, 0.0)] * 2, 0.0
    for step, (before, after) in enumerate(pairwise(found)):
        key = jax.random.fold_in(jax.random.split(jax.random.key(jnp.uint32(3)), 5)[4], step)
        p, parts = before.parameters, 32 // size
        means = [(0.0, 0.0)] * 2
        for part in range(parts):
            batch, _ = microbatch_at(workload, split, jnp.uint32(3), jnp.int32(step), jnp.int32(part), (32, size))
            drawn = workload.sample_targets(p, (), batch, key)
            of_part = factors_by_hand(p, np.asarray(drawn["x"], np.float64), np.asarray(drawn["y"], np.float64))
            means = [(a + b / parts, c + d / parts) for (a, c), (b, d) in zip(means, of_part, strict=True)]
        sums = [(0.95 * a + 0.05 * b, 0.95 * c + 0.05 * d) for (a, c), (b, d) in zip(sums, means, strict=True)]
        known = 0.95 * known + 0.05
        if step % 5 == 0:
            used = [(a / known, g / known) for a, g in sums]
        whole, _ = batch_of(workload, 32, step)
        gradient = jax.grad(lambda p: workload.loss(p, (), whole).mean() + workload.penalty(p))(p)  # noqa: B023
        moved = jax.tree.map(
            lambda a, b: (np.asarray(a, np.float64) - np.asarray(b, np.float64)) / rate, p, after.parameters
        )
        for name, (a, g) in zip(("in", "out"), used, strict=True):
            pi = np.sqrt((np.trace(a) / len(a)) / (np.trace(g) / len(g)))
            damped = np.kron(a + pi * np.sqrt(damping) * np.eye(len(a)), g + np.sqrt(damping) / pi * np.eye(len(g)))
            direction = np.linalg.solve(damped, np.asarray(gradient[name], np.float64).ravel()) * (step >= BURN_IN)
            np.testing.assert_allclose(moved[name].ravel(), direction, rtol=5e-3, atol=2e-3)


def test_factors_and_directions_are_those_of_kfac_jax():
    """The values that benchmarks/kfac_jax_values.py wrote. Its factors are exact expectations over labels: here every
    example comes with each label, its loss times the root of the label's probability."""
    known = json.loads((Path(__file__).parent / "kfac_jax.json").read_text())
    p = {
        name: {part: jnp.asarray(array, jnp.float32) for part, array in of.items()}
        for name, of in known["parameters"].items()
    }
    split = {"x": np.array(known["x"], np.float32), "y": np.array(known["y"], np.int32)}

    def outputs(p, x):
        return jnp.tanh(x @ p["a"]["w"] + p["a"]["b"][None]) @ p["c"]["w"] + p["c"]["b"][None]

    def loss(p, batch):
        losses = -jnp.take_along_axis(jax.nn.log_softmax(outputs(p, batch["x"])), batch["y"][:, None], 1)[:, 0]
        return losses * batch["root"] if "root" in batch else losses

    def every_label(p, state, batch, key):
        x, labels = jnp.repeat(batch["x"], 3, axis=0), jnp.tile(jnp.arange(3), len(batch["x"]))
        return {"x": x, "y": labels, "root": jnp.sqrt(jax.nn.softmax(outputs(p, batch["x"])).ravel())}

    workload = Workload(
        name="w", version="1", train=split, validation=split, test=split, init=lambda key: p, loss=loss, score=loss,
        score_goal="minimize", constant_loss=1.0, constant_score=1.0, sample_targets=every_label,
    )  # fmt: skip
    found = kronecker_factors(workload, jax.random.key(0), p, (), on_device(split), None)
    found = [(a, 3 * g) for a, g in found]  # of three rows for each example
    for mine, theirs in zip(found, known["factors"], strict=True):
        for factor, other in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(factor, other, atol=1e-6)
    gradient = jax.grad(lambda p: loss(p, on_device(split)).mean())(p)
    for damping, directions in known["directions"].items():
        for name, (a, g) in zip(("a", "c"), found, strict=True):
            of_a, of_g = _inverses(a, g, jnp.float32(damping))
            whole = of_a @ jnp.concatenate([gradient[name]["w"], gradient[name]["b"][None]]) @ of_g
            np.testing.assert_allclose(whole[:-1], directions[name]["w"], atol=2e-6)
            np.testing.assert_allclose(whole[-1], directions[name]["b"], atol=2e-6)


def test_layers_are_found_under_calls_and_with_their_own_bias_alone():
    base = network()
    split = base.train

    def loss(p, batch):
        x = jax.jit(lambda x: x @ p["a"]["w"] + p["a"]["b"][None])(batch["x"])  # a weight and a bias, under a call
        x = jax.checkpoint(lambda x: jax.nn.relu(x * p["gain"][None] + p["shift"][None]))(x)  # no bias of a layer
        x = x @ p["b"]["w"]
        x = jnp.tanh(x) @ p["tied"]
        x = jnp.tanh(x) @ p["tied"]
        return (x @ p["out"])[:, 0] ** 2 + (batch["x"] @ p["a"]["w"].T.T)[:, 0] * 0

    shapes = {
        "a": {"w": (6, 4), "b": (4,)},
        "gain": (4,),
        "shift": (4,),
        "b": {"w": (4, 3)},
        "tied": (3, 3),
        "out": (3, 1),
    }
    init = lambda key: jax.tree.map(
        lambda shape: jax.random.normal(key, shape), shapes, is_leaf=lambda s: type(s) is tuple
    )
    workload = Workload(
        name="w", version="1", train=split, validation=split, test=split, loss=loss, score=loss, init=init,
        score_goal="minimize", constant_loss=1.0, constant_score=1.0, sample_targets=lambda p, s, batch, key: batch,
    )  # fmt: skip
    names = [
        jax.tree_util.keystr(path)
        for path, _ in jax.tree_util.tree_leaves_with_path(jax.eval_shape(init, jax.random.key(0)))
    ]
    found = [(names[of.weight], of.bias if of.bias is None else names[of.bias], of.inputs, of.outputs)
             for of in dense_layers(workload)]  # fmt: skip
    assert found == [("['a']['w']", "['a']['b']", 7, 4), ("['b']['w']", None, 4, 3), ("['out']", None, 3, 1)]


def test_the_factors_of_digits_have_the_trace_of_inputs_and_of_the_softmax():
    """E |g|² of the output layer with drawn labels is Σ_c E p_c (1 − p_c)."""
    workload = digits(hidden=8)
    layers = workload.init(jax.random.key(0))
    batch = on_device(workload.train)
    of_key = jax.jit(lambda key: kronecker_factors(workload, key, layers, (), batch, None))
    drawn = [of_key(jax.random.key(k)) for k in range(20)]
    (a, _), *_, (_, g) = drawn[0]
    x = np.asarray(batch["picture"], np.float64)
    np.testing.assert_allclose(np.trace(a), (x**2).sum(axis=1).mean() + 1, rtol=1e-5)
    assert g.shape == (10, 10)
    p = np.asarray(jax.nn.softmax(mlp(layers, batch["picture"])), np.float64)
    expected = (p * (1 - p)).sum(axis=1).mean()
    assert np.mean([np.trace(of[-1][1]) for of in drawn]) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("n", [1, 2, 10, 16, 17, 65, 130, 600])
def test_an_inverse_is_numpys(n):
    x = np.random.default_rng(n).normal(size=(2 * n, n)).astype(np.float32)
    matrix = x.T @ x / len(x) + 0.01 * np.eye(n, dtype=np.float32)
    true = np.linalg.inv(matrix.astype(np.float64))
    np.testing.assert_allclose(jax.jit(inverse)(matrix), true, atol=2e-5 * np.abs(true).max())


def test_kfac_is_refused_where_it_cannot_work():
    study = lambda workload: Study(name="s", workloads=workload, batch_sizes=32, budgets=Steps(2), optimizers=KFAC())
    with pytest.raises(InputError, match=r"^optimizers: kfac needs targets .*'w' does not say how\. Give the workload"):
        study(network())
    with pytest.raises(InputError, match=r"^optimizers: kfac needs a dense layer, .* Use another optimizer\."):
        KFAC().prepared(lambda: ())


def test_targets_that_are_drawn_otherwise_can_be_told_apart_and_must_be_pure():
    base = network()
    drawn = [
        trace(replace(base, sample_targets=of))
        for of in (lambda p, s, b, key: b, lambda p, s, b, key: b | {"y": -b["y"]})
    ]
    assert drawn[0].targets_fingerprint != drawn[1].targets_fingerprint
    assert drawn[0].fingerprint == trace(base).fingerprint  # what was trained without them stays what it was
    random = lambda p, s, b, key: b | {"y": b["y"] + np.random.default_rng().normal()}
    with pytest.raises(InputError, match=r"sample_targets must draw random numbers from its key by jax\.random\.$"):
        trace(replace(base, sample_targets=random)).targets_fingerprint  # noqa: B018 - it is computed when asked for
    with pytest.raises(InputError, match=r"'w': sample_targets must return the batch, a dictionary"):
        trace(replace(base, sample_targets=lambda p, s, b, key: b["y"])).targets_fingerprint  # noqa: B018


# ── What is computed now and then ────────────────────────────────────────────────────────────────────────


def test_what_is_wanted_now_and_then_is_not_computed_in_between_under_vmap():
    """Under vmap a plain ``cond`` becomes a ``select`` of both sides; here the condition stays one for all trials."""
    big = lambda scale: lambda tree: {"x": jnp.sin(tree["x"]) * scale}
    each = lambda wanted, scale, x: sometimes(wanted, big(scale), {"x": x})["x"]
    wanted, scale, x = jnp.array([True, False]), jnp.array([2.0, 3.0]), jnp.ones((2, 3))
    found = jax.jit(jax.vmap(each))(wanted, scale, x)
    np.testing.assert_allclose(found, [np.sin(np.ones(3)) * 2, np.ones(3)], rtol=1e-6)
    np.testing.assert_allclose(jax.lax.map(lambda of: each(*of), (wanted, scale, x)), found, rtol=1e-6)
    traced = jax.make_jaxpr(jax.vmap(each))(wanted, scale, x)
    (condition,) = [equation for equation in traced.jaxpr.eqns if equation.primitive.name == "cond"]
    assert condition.invars[0].aval.shape == ()
    assert not any(equation.primitive.name == "sin" for equation in traced.jaxpr.eqns)
