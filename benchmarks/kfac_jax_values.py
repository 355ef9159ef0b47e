"""Write what kfac-jax computes for a small network, which tests/training/test_methods.py compares K-FAC with.

    python benchmarks/kfac_jax_values.py > tests/training/kfac_jax.json

It runs in an environment of its own with kfac-jax 0.0.8 and jax 0.6.2: kfac-jax fails with later versions of JAX. The
factors are those of the exact Fisher matrix, and directions are the gradient divided by it at two dampings.
"""

import json

import jax
import jax.numpy as jnp
import kfac_jax  # type: ignore[import-not-found]
import numpy as np

rng = np.random.default_rng(7)
x = jnp.asarray(rng.normal(size=(16, 4)), jnp.float32)
y = jnp.asarray(rng.integers(0, 3, 16))
first = {"w": rng.normal(size=(4, 5)), "b": rng.normal(size=5)}
parameters = {"a": first, "c": {"w": rng.normal(size=(5, 3)) * 0.5, "b": np.zeros(3)}}
parameters = jax.tree.map(lambda array: jnp.asarray(array, jnp.float32), parameters)


def outputs(p, x):
    return jnp.tanh(x @ p["a"]["w"] + p["a"]["b"]) @ p["c"]["w"] + p["c"]["b"]


def loss(p, batch):
    x, y = batch
    logits = outputs(p, x)
    kfac_jax.register_softmax_cross_entropy_loss(logits, targets=y)
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()


curvature = kfac_jax.BlockDiagonalCurvature(loss, params_index=0)
arguments = (parameters, (x, y))
state = curvature.init(jax.random.key(0), arguments, None, -1)
state = curvature.update_curvature_matrix_estimate(
    state, 0.0, 1.0, 0.0, len(x), jax.random.key(1), arguments, estimation_mode="fisher_exact"
)
mean = lambda p: -jnp.take_along_axis(jax.nn.log_softmax(outputs(p, x)), y[:, None], 1).mean()
gradient, directions = jax.grad(mean)(parameters), {}
for damping in (0.1, 1.0):
    known = curvature.update_cache(state, damping, None, -1, False, None)
    directions[damping] = curvature.multiply_inverse(known, gradient, damping, False, False, None)
plain = lambda tree: jax.tree.map(lambda array: np.asarray(array).round(8).tolist(), tree)
factors = [[factor.value for factor in block.factors] for block in state.blocks_states]
found = {"x": x, "y": y, "parameters": parameters, "factors": factors, "directions": directions}
print(json.dumps(plain(found)))
