"""What of an update's time is the order of examples, the forward pass, the backward pass with SGD, and momentum.

    python benchmarks/update.py [BATCH_SIZE ...]

The `digits` network on one device in a loop, as studies compile it: each part is the difference of two programs that
differ in it alone. Microseconds an update, medians of rounds in turns, with the speed of each pass's matrix
products.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp

from sgdscope.optimizers import SGD
from sgdscope.training.jax_setup import COMPILER_OPTIONS, pinned
from sgdscope.training.sampling import microbatch_at
from sgdscope.training.traced import trace
from sgdscope.workloads.digits import digits

ROUNDS = 9
UPDATES = 4000
# Read from the first, each does what those before it do, and more.
STEPS = ("forward, always the same batch", "order of examples", "backward and SGD", "momentum")


def step(wanted: int, batch_size: int, carry: Any) -> Any:
    """Do the first so many parts of an update."""
    workload = digits()
    parameters, velocity, _, number = carry
    split = {key: jnp.asarray(array) for key, array in workload.train.items()}
    at = number if wanted else number * 0  # not a constant, or the batch would be computed once
    sizes = (batch_size, batch_size)
    batch, _ = microbatch_at(workload, split, jnp.uint32(3), at, jnp.int32(0), sizes)
    if not wanted:
        batch = {key: array[:batch_size] + (number < 0).astype(array.dtype) for key, array in split.items()}
    mean = lambda parameters: workload.loss(parameters, (), batch).mean()
    if wanted < 2:
        return parameters, velocity, jnp.isfinite(mean(parameters)), number + 1
    loss, gradient = jax.value_and_grad(mean)(parameters)
    if wanted == 2:
        parameters = jax.tree.map(lambda p, g: p - 1e-6 * g, parameters, gradient)
    else:
        parameters, velocity = SGD().update(gradient, velocity, parameters, 1e-6, {"momentum": 0.9}, None)
    return parameters, velocity, jnp.isfinite(loss), number + 1


def program(wanted: int, batch_size: int) -> Callable[[], float]:
    """Return a function that takes the microseconds of an update."""
    parameters = digits().init(jax.random.key(0))
    carry = (parameters, jax.tree.map(jnp.zeros_like, parameters), jnp.bool_(True), jnp.int32(0))
    loop = lambda carry, end: jax.lax.while_loop(
        lambda carry: (carry[3] < end) & carry[2], partial(step, wanted, batch_size), carry
    )
    compiled = jax.jit(loop).lower(carry, jnp.int32(1)).compile(compiler_options=COMPILER_OPTIONS["cpu"])

    def microseconds() -> float:
        begun = time.perf_counter()
        jax.block_until_ready(compiled(carry, jnp.int32(UPDATES)))
        return (time.perf_counter() - begun) / UPDATES * 1e6

    return microseconds


def main(*sizes: str) -> None:
    for size in map(int, sizes or ("4", "16", "64", "256")):
        with pinned():
            programs = [program(wanted, size) for wanted in range(len(STEPS))]
            taken: list[list[float]] = [[] for _ in programs]
            for _ in range(ROUNDS):
                for microseconds, values in zip(programs, taken, strict=True):
                    values.append(microseconds())
        medians = [statistics.median(values) for values in taken]
        parts = [medians[0], *(after - before for before, after in pairwise(medians))]
        # A backward pass has twice the products of a forward one.
        forward = size * trace(digits()).operations_per_example / 3
        print(f"batch size {size}: {medians[-1]:.1f} µs, n = {ROUNDS}")
        for name, part, operations in zip(STEPS, parts, (forward, 0, 2 * forward, 0), strict=True):
            speed = f", {operations / part / 1e3:.0f} GFLOP/s" if operations else ""
            print(f"  {name:32} {part:6.1f} µs{speed}")


if __name__ == "__main__":
    main(*sys.argv[1:])
