"""The gradient noise of a trial at one point of its training: |G|² and tr Σ, from two batch sizes.

Source: McCandlish, Kaplan, Amodei et al. (2018), arXiv 1812.06162, appendix A.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgdscope.training.sampling import drawn_batch
from sgdscope.training.step import Settings, State, mean_loss, penalized
from sgdscope.workloads.base import Batch, Workload

# The metrics under which the two numbers are kept.
NOISE_METRICS = ("gradient_square_norm", "gradient_noise_trace")

# Examples of an estimate: about the largest noise scale that it can tell from infinity.
EXAMPLES = 1024
# Of a small batch: smaller ones would make the network's parameters, not its examples, what takes the time.
SMALL = 16
# Ghost batches are as large as they are; so many of them tell a variance to about a third.
FEWEST_BATCHES = 16


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sums:
    """The gradients of the small batches so far, after Welford: no difference of two large sums is ever taken."""

    mean: Any  # their mean, a tree like the parameters
    squares: Any  # Σ |g − mean|², float32
    count: Any  # how many, int32


def small_batches(workload: Workload) -> tuple[int, int]:
    """Return M and b of an estimate: how many small batches, of how many examples.

    Under batch normalization an example has no gradient of its own, and the small batch is the ghost batch.

    >>> from sgdscope.workloads.digits import digits
    >>> small_batches(digits())
    (64, 16)
    """
    size = workload.ghost_batch_size if workload.ghost_batch_size > 1 else SMALL
    return max(FEWEST_BATCHES, EXAMPLES // size), size


def no_sums(parameters: Any) -> Sums:
    """Return the sums before the first small batch, of parameters or of their shapes."""
    mean = jax.tree.map(lambda a: np.zeros(a.shape, np.float32), parameters)
    return Sums(mean, np.float32(0), np.int32(0))


def add_small_batch(workload: Workload, train_split: Batch, settings: Settings, state: State, sums: Sums) -> Sums:
    """Return the sums after one small batch more."""
    _, size = small_batches(workload)
    batch, keys = drawn_batch(workload, train_split, settings.seed, state.step, sums.count, size)
    gradient, _ = jax.grad(mean_loss(workload), has_aux=True)(state.parameters, state.model, batch, keys)
    gradient = penalized(workload, state.parameters, gradient)
    count = sums.count + 1
    difference = jax.tree.map(jnp.subtract, gradient, sums.mean)
    share = 1 / count.astype(jnp.float32)
    mean = jax.tree.map(lambda m, d: m + share * d, sums.mean, difference)
    square = sum((jnp.vdot(d, d) for d in jax.tree.leaves(difference)), start=jnp.float32(0))
    return Sums(mean, sums.squares + (1 - share) * square, count)


def gradient_noise(mean_square: float, squares: float, batches: int, size: int) -> tuple[float, float]:
    """Return |G|² and tr Σ, each without bias, from the gradients g of M independent small batches of b examples.

    With ḡ their mean and B = M b,

        tr Σ = b Σ |g − ḡ|² / (M − 1),    |G|² = |ḡ|² − tr Σ / B,

    the two-batch-size estimates, written so that nothing cancels where the gradient is large; |G|² may be negative.
    G is the gradient that is descended, with the penalty's. Examples are independent draws, with augmentation and
    dropout as in training; with ghost batches, Σ is b times the covariance of a ghost batch's gradient.

    Args:
        mean_square: |ḡ|².
        squares: Σ |g − ḡ|² over the small batches.
        batches: M, at least 2.
        size: b.

    >>> g = np.array([[3.0, 1.0], [1.0, 1.0]])  # two batches of 4 examples
    >>> gradient_noise((g.mean(axis=0) ** 2).sum(), ((g - g.mean(axis=0)) ** 2).sum(), 2, 4)
    (4.0, 8.0)
    """
    trace = size * float(squares) / (batches - 1)
    return float(mean_square) - trace / (batches * size), trace


def gradient_noises(sums: Sums, batches: int, size: int) -> list[tuple[float, float]]:
    """Return |G|² and tr Σ of each slot of a pack, from sums whose arrays have a leading axis of slots."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(sums.mean)]
    with np.errstate(over="ignore", invalid="ignore"):  # a trial that diverges has no gradient that is finite
        return [
            gradient_noise(
                sum(float((leaf[slot].astype(np.float64) ** 2).sum()) for leaf in leaves), squares, batches, size
            )
            for slot, squares in enumerate(np.asarray(sums.squares))
        ]
