import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from trainers import Trainer

from sgdscope.budget import Steps
from sgdscope.optimizers import SGD
from sgdscope.study import Study
from sgdscope.training.jax_setup import pinned
from sgdscope.training.precision import products_in_bfloat16
from sgdscope.training.step import mean_loss
from sgdscope.workloads.base import Workload
from sgdscope.workloads.digits import digits

rng = np.random.default_rng(0)
A, B = (rng.normal(size=shape).astype(np.float32) for shape in ((5, 7), (7, 3)))


def rounded(a):
    return np.asarray(a, np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)


def test_a_matrix_product_rounds_its_operands_and_not_its_result():
    with pinned():
        product = np.asarray(products_in_bfloat16(jnp.matmul)(A, B))
    np.testing.assert_allclose(product, rounded(A) @ rounded(B), rtol=1e-6, atol=1e-6)
    assert np.abs(product - A @ B).max() > 1e-3
    assert np.abs(product - rounded(product)).max() > 1e-4


def test_a_convolution_rounds_its_result_too():
    x = rng.normal(size=(1, 9, 2)).astype(np.float32)
    kernel = rng.normal(size=(3, 2, 4)).astype(np.float32)

    def convolved(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1,), "VALID", dimension_numbers=("NHC", "HIO", "NHC"))

    with pinned():
        found = np.asarray(products_in_bfloat16(convolved)(x, kernel))
    exact = sum(rounded(x[0, a : a + 7]) @ rounded(kernel[a]) for a in range(3))
    np.testing.assert_array_equal(found, rounded(found))
    np.testing.assert_allclose(found[0], exact, rtol=2**-8, atol=1e-5)


def in_everything(product):
    """A function whose products lie in a loop, in branches, in a call, in a rematerialized part, under a rule."""

    @jax.custom_jvp
    def mine(a):
        return product(a, B[:, :1])

    mine.defjvp(lambda primals, tangents: (mine(*primals), product(tangents[0], B[:, :1])))

    def function(a, yes):
        scanned, _ = jax.lax.scan(lambda sums, row: (sums + product(row[None], B)[0], None), jnp.zeros(3), a)
        looped = jax.lax.fori_loop(0, 3, lambda _, sums: sums + product(a, B), jnp.zeros((5, 3)))
        chosen = jax.lax.cond(yes, lambda a: product(a, B), lambda a: -product(a, B), a)
        again = jax.checkpoint(lambda a: jnp.tanh(product(a, B)))(a)
        return scanned.sum() + (looped * chosen).sum() + jax.jit(product)(a, B).sum() + again.sum() + mine(a).sum()

    return function


@pytest.mark.parametrize("yes", [True, False])
def test_loops_branches_and_calls_are_entered(yes):
    def by_hand(a, b):
        a, b = (jnp.asarray(x).astype(jnp.bfloat16).astype(jnp.float32) for x in (a, b))
        return a @ b

    with pinned():
        ours = jax.jit(products_in_bfloat16(in_everything(jnp.matmul)))(A, yes)
        assert float(ours) == pytest.approx(float(in_everything(by_hand)(A, yes)), rel=1e-6)
        assert float(ours) != pytest.approx(float(in_everything(jnp.matmul)(A, yes)), rel=1e-6)
        # Under vmap, as a pack is trained, and of a gradient, which is a tree.
        many = jax.vmap(products_in_bfloat16(in_everything(jnp.matmul)), (0, None))(np.stack([A, 2 * A]), yes)
        assert float(many[0]) == pytest.approx(float(ours), rel=1e-5)
        gradient = products_in_bfloat16(jax.grad(lambda tree, yes: in_everything(jnp.matmul)(tree["a"], yes)))
        assert gradient({"a": A}, yes)["a"].shape == A.shape


def regression():
    x = rng.normal(size=(64, 6)).astype(np.float32)
    split = {"x": x, "y": (x @ rng.normal(size=(6, 1)))[:, 0].astype(np.float32)}
    loss = lambda p, state, batch: 0.5 * ((batch["x"] @ p)[:, 0] - batch["y"]) ** 2
    return Workload(
        name="w", version="1", train=split, validation=split, test=split, loss=loss, score=loss,
        init=lambda key: jax.random.normal(key, (6, 1)), constant_loss=10.0, constant_score=10.0, score_goal="minimize",
    )  # fmt: skip


def trained(workload, method, rate, updates):
    study = Study(name="s", workloads=workload, batch_sizes=(64,), budgets=Steps(updates), compute_dtype="bfloat16")
    trainer = Trainer(workload, (1.0,), method=method, slots=1, compute_dtype="bfloat16")
    (outcome,) = trainer.train([study.declaration().trial(SGD(), 64, rate, 3)])
    trainer.close()
    curve = [m.value for m in outcome.measurements if m.metric == "minibatch_loss"]
    (loss,) = (m.value for m in outcome.measurements if (m.split, m.metric) == ("train", "loss"))
    return curve, loss, np.asarray(workload.init(jax.random.split(jax.random.key(3))[0]), np.float64)


@pytest.mark.parametrize("method", ["map", "vmap", "step"])
def test_a_trial_in_bfloat16_is_descent_with_rounded_products(method):
    """Linear regression by the full batch, with the gradient written down by hand."""
    workload = regression()
    curve, _, p = trained(workload, method, 0.5, 8)
    x, y = workload.train["x"], workload.train["y"][:, None]
    losses = []
    for halvings in (0, 0, 0, 0, 1, 3, 6, 8):  # one at half of the eight updates, and every 0.4 of an update after it
        residual = rounded(x) @ rounded(p) - y
        losses.append(0.5 * (residual**2).mean())
        p = p - 0.5 / 2**halvings * rounded(x).T @ rounded(residual / 64)
    np.testing.assert_allclose(curve, losses, rtol=2e-3)


def test_evaluation_is_not_rounded():
    workload = regression()
    curve, loss, p = trained(workload, "map", 1e-30, 1)
    x, y = workload.train["x"], workload.train["y"][:, None]
    exact, of_rounded = (0.5 * ((a @ b - y) ** 2).mean() for a, b in ((x, p), (rounded(x), rounded(p))))
    assert loss == pytest.approx(exact, rel=1e-6)
    assert curve[0] == pytest.approx(of_rounded, rel=1e-6)
    assert exact != pytest.approx(of_rounded, rel=1e-4)


def test_no_product_of_a_gradient_is_left_in_float32():
    def dtypes(traced):
        return {str(v.aval.dtype) for e in traced.eqns if e.primitive.name == "dot_general" for v in e.invars}

    workload = digits(hidden=8)
    parameters = workload.init(jax.random.key(0))
    gradient = jax.value_and_grad(mean_loss(workload), has_aux=True)
    arguments = (parameters, (), {key: array[:4] for key, array in workload.train.items()}, None)
    inlined = jax.make_jaxpr(products_in_bfloat16(gradient))(*arguments)
    assert dtypes(inlined) == {"bfloat16"}
    assert dtypes(jax.make_jaxpr(gradient)(*arguments)) == {"float32"}
