"""How fast a training step of a wide residual network is inside a loop, with our gradient of convolution and JAX's.

    python benchmarks/convolution.py [DEPTH WIDTH BATCH_SIZE ...]

One device with one thread, as studies compile it. Each figure is the median over rounds of examples a second of
processor time, which other work on the machine disturbs less than the clock's; the rounds take turns.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sgdscope.models import convolution as ours
from sgdscope.models import wide_resnet as network
from sgdscope.training.jax_setup import COMPILER_OPTIONS, pinned
from sgdscope.workloads.base import Workload
from sgdscope.workloads.wide_resnet import wide_resnet

ROUNDS = 5
SECONDS = 1.0
PACK = 2


def of_jax(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """The same convolution with the gradient that JAX derives."""
    return ours._forward(x, kernel, stride)


def programs(workload: Workload) -> dict[str, tuple[Callable[[int], Any], int]]:
    """Return functions of the number of steps, with the trials that each trains: one step a call, a loop, a pack."""
    batch = {key: jnp.asarray(array) for key, array in workload.split("train").items()}
    parameters = jax.jit(workload.init)(jax.random.key(0))
    assert workload.training_loss
    assert workload.init_state

    def step(carry: Any) -> Any:
        i, parameters, state = carry

        def mean_loss(parameters: Any) -> Any:
            losses, left = workload.training_loss(parameters, state, batch, None)
            return losses.mean(), left

        gradient, state = jax.grad(mean_loss, has_aux=True)(parameters)
        return i + 1, jax.tree.map(lambda p, g: p - 1e-3 * g, parameters, gradient), state

    def loop(carry: Any, end: Any) -> Any:
        return lax.while_loop(lambda carry: carry[0] < end, step, carry)

    one = (jnp.int32(0), parameters, workload.init_state())
    pack = jax.tree.map(lambda a: jnp.stack([a] * PACK), one)
    options = COMPILER_OPTIONS["cpu"]
    single = jax.jit(step).lower(one).compile(compiler_options=options)
    looped = jax.jit(loop).lower(one, 1).compile(compiler_options=options)
    mapped = jax.jit(lambda carry, end: lax.map(lambda c: loop(c, end), carry)).lower(pack, 1)
    mapped = mapped.compile(compiler_options=options)

    def one_at_a_time(steps: int) -> Any:
        carry = one
        for _ in range(steps):
            carry = single(carry)
        return carry

    return {
        "one step a call": (one_at_a_time, 1),
        "while_loop": (lambda steps: looped(one, steps), 1),
        f"map of {PACK}": (lambda steps: mapped(pack, steps), PACK),
    }


def seconds_of(program: Callable[[int], Any], steps: int) -> float:
    begun = time.process_time()
    jax.block_until_ready(program(steps))
    return time.process_time() - begun


def main(depth: int, width: int, batch_size: int) -> None:
    rng = np.random.default_rng(0)
    split = {
        "picture": rng.integers(0, 256, (batch_size, 32, 32, 3), dtype=np.uint8),
        "label": rng.integers(0, 10, batch_size, dtype=np.uint8),
    }
    workload = wide_resnet(
        dict.fromkeys(("train", "validation", "test"), split), depth, width, ghost_batch_size=min(64, batch_size)
    )
    timed: dict[tuple[str, str], tuple[Callable[[int], Any], int, int]] = {}
    with pinned():
        for gradient, function in (("ours", ours.convolution), ("JAX's", of_jax)):
            network.convolution = function
            for form, (program, trials) in programs(workload).items():
                once = min(seconds_of(program, 1) for _ in range(2))
                timed[form, gradient] = program, trials, max(1, int(SECONDS / once))
        network.convolution = ours.convolution
        speed: dict[tuple[str, str], list[float]] = {name: [] for name in timed}
        for _ in range(ROUNDS):
            for name, (program, trials, steps) in timed.items():
                speed[name].append(batch_size * trials * steps / seconds_of(program, steps))
    print(f"WRN-{depth}-{width}, batch size {batch_size}: examples a second, median of {ROUNDS}")
    for form in dict.fromkeys(form for form, _ in speed):
        mine, theirs = (statistics.median(speed[form, gradient]) for gradient in ("ours", "JAX's"))
        print(f"  {form:16} ours {mine:7.1f}   JAX's {theirs:7.1f}   ratio {mine / theirs:5.1f}")


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]] or [10, 1, 16]
    for size in given[2:]:
        main(given[0], given[1], size)
