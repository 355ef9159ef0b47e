"""The sharpness of a trial at one point of its training: the largest eigenvalue of the Hessian of its training loss.

Sources: Lanczos (1950), doi 10.6028/jres.045.026; Pearlmutter (1994), doi 10.1162/neco.1994.6.1.147; Cohen et al.
(2021), arXiv 2103.00065.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import eigh_tridiagonal

from sgdscope.training.sampling import microbatch_at, sharpness_key
from sgdscope.training.step import Settings, State, mean_loss, penalized
from sgdscope.workloads.base import Batch, Workload, examples_in

# The metrics under which the numbers are kept: λ_max, how far from it an eigenvalue may be, and the learning rate then.
SHARPNESS_METRICS = ("sharpness", "sharpness_residual", "learning_rate")

# Examples whose mean loss has the Hessian, and products with it: see docs/development-notes.
EXAMPLES, PRODUCTS = 1024, 16
# A vector that is shorter than this part of the product before it is rounding: the space is exhausted.
EXHAUSTED = 1e-6


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Krylov:
    """Where the iteration of Lanczos stands; a product is the mean of those with the Hessians of its parts."""

    vector: Any  # v_j, a tree like the parameters, of length 1
    previous: Any  # v_{j−1}
    product: Any  # H v_j, as far as it has come
    diagonal: Any  # α_j, float32 (PRODUCTS,)
    beside: Any  # β_j, float32 (PRODUCTS,)
    count: Any  # parts of products so far, int32


def parts_of_split(workload: Workload) -> tuple[int, int]:
    """Return in how many parts, of how many examples, the loss is taken: whole ghost batches, of distinct examples.

    >>> from sgdscope.workloads.digits import digits
    >>> parts_of_split(digits())
    (1, 1024)
    """
    ghost = workload.ghost_batch_size
    most = min(examples_in(workload.train), max(EXAMPLES, ghost))
    fitting = min(most, workload.evaluation_batch_size, workload.microbatch_here or most)
    size = max(ghost, fitting // ghost * ghost)
    return max(1, most // size), size


def products_of(workload: Workload) -> int:
    """Return how many parts of products an estimate takes."""
    return PRODUCTS * parts_of_split(workload)[0]


def no_products(parameters: Any) -> Krylov:
    """Return where the iteration begins, of parameters or of their shapes, before its first vector is drawn."""
    vector, previous, product = (jax.tree.map(lambda a: np.zeros(a.shape, np.float32), parameters) for _ in range(3))
    return Krylov(
        vector, previous, product, np.zeros(PRODUCTS, np.float32), np.zeros(PRODUCTS, np.float32), np.int32(0)
    )


def add_product(workload: Workload, train_split: Batch, settings: Settings, state: State, krylov: Krylov) -> Krylov:
    """Return where the iteration stands after one part of a product more."""
    parts, size = parts_of_split(workload)
    number, place = krylov.count % parts, krylov.count // parts
    drawn = _drawn(settings.seed, state)
    vector = jax.tree.map(partial(jnp.where, krylov.count == 0), drawn, krylov.vector)
    # The same examples at every step of a trial, the first of its first epoch, as they come there.
    first = jnp.int32(0)
    batch, keys = microbatch_at(workload, train_split, settings.seed, first, number, (parts * size, size))
    gradient = lambda parameters: jax.grad(mean_loss(workload), has_aux=True)(parameters, state.model, batch, keys)[0]
    _, product = jax.jvp(gradient, (state.parameters,), (vector,))
    product = jax.tree.map(lambda total, part: total + part / parts, krylov.product, product)
    # What follows counts only after the last part of a product.
    if workload.penalty is not None:
        nothing = jax.tree.map(jnp.zeros_like, state.parameters)
        of_penalty = lambda parameters: penalized(workload, parameters, nothing)
        _, more = jax.jvp(of_penalty, (state.parameters,), (vector,))
        whole = jax.tree.map(jnp.add, product, more)
    else:
        whole = product
    before = jnp.where(place > 0, krylov.beside[jnp.maximum(place - 1, 0)], 0.0)
    whole = jax.tree.map(lambda w, p: w - before * p, whole, krylov.previous)
    alpha = _dot(whole, vector)
    whole = jax.tree.map(lambda w, v: w - alpha * v, whole, vector)
    beta = jnp.sqrt(_dot(whole, whole))
    following = jax.tree.map(lambda w: w / jnp.maximum(beta, jnp.float32(1e-30)), whole)
    done = Krylov(
        following,
        vector,
        jax.tree.map(jnp.zeros_like, product),
        krylov.diagonal.at[place].set(alpha),
        krylov.beside.at[place].set(beta),
        krylov.count + 1,
    )
    going = Krylov(vector, krylov.previous, product, krylov.diagonal, krylov.beside, krylov.count + 1)
    found: Krylov = jax.tree.map(partial(jnp.where, number == parts - 1), done, going)
    return found


def largest_eigenvalue(diagonal: np.ndarray, beside: np.ndarray) -> tuple[float, float]:
    """Return the largest eigenvalue of a symmetric matrix H by Lanczos, and how far from it one of H's may be.

    With v_1 drawn at random and β_0 = 0,

        w = H v_j − β_{j−1} v_{j−1},    α_j = w·v_j,    β_j = |w − α_j v_j|,    v_{j+1} = (w − α_j v_j)/β_j,

    it is the largest eigenvalue θ of the tridiagonal matrix of α and β. It never exceeds H's. With s the last entry of
    its eigenvector, H has an eigenvalue within |β s| of θ.

    Args:
        diagonal: α, shape (k,).
        beside: β, shape (k,).

    >>> largest_eigenvalue(np.array([2.0, 2.0]), np.array([1.0, 0.0]))
    (3.0, 0.0)
    """
    if not (np.isfinite(diagonal).all() and np.isfinite(beside).all()):
        return float("nan"), float("nan")
    diagonal, beside = diagonal.astype(np.float64), beside.astype(np.float64)
    length = np.hypot(diagonal, beside)
    ends = np.flatnonzero(beside <= EXHAUSTED * length.max())
    k = int(ends[0]) + 1 if len(ends) else len(diagonal)
    values, vectors = eigh_tridiagonal(diagonal[:k], beside[: k - 1])
    return float(values[-1]), float(abs(beside[k - 1] * vectors[-1, -1]))


def _drawn(seed: Any, state: State) -> Any:
    """Return a random direction of length 1, its own for each seed and step."""
    leaves, tree = jax.tree.flatten(state.parameters)
    keys = jax.random.split(sharpness_key(seed, state.step), len(leaves))
    drawn = [jax.random.normal(key, leaf.shape, jnp.float32) for key, leaf in zip(keys, leaves, strict=True)]
    length = jnp.sqrt(_dot(drawn, drawn))
    return jax.tree.unflatten(tree, [leaf / length for leaf in drawn])


def _dot(a: Any, b: Any) -> Any:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum((jnp.vdot(x, y) for x, y in pairs), start=jnp.float32(0))
