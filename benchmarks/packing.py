"""What a trial costs at each batch size by how many are trained together, and how far that is from the bound.

    python benchmarks/packing.py RESULTS [WORKLOAD ...]

For each workload and batch size it times updates of packs of 1, 2, 4, … trials by each method, on all devices of the
machine: ``map`` (each device's trials one after the other, one for each device being as good as many) and ``vmap``.
The cost is that of an epoch of one trial; relative to the cheapest batch size it would be 1 everywhere if small batches
did not starve the device. The bound of an update is the larger of its operations over the measured peak of
matrix products and its bytes over the measured bandwidth, both of the same library on the same devices with the same
threads: operations are those of matrix products and convolutions, bytes those that parameters, gradient and velocity
pass through the cache or memory, at the bandwidth of arrays as large. Rounds take turns. Real data are read from
SGDSCOPE_DATA. Writes README.md and packing.csv into RESULTS.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import polars as pl
from jax.sharding import PartitionSpec

from sgdscope.data.cifar10 import read_cifar10
from sgdscope.data.mnist import read_mnist
from sgdscope.data.ptb import read_ptb
from sgdscope.errors import InputError
from sgdscope.optimizers import SGD
from sgdscope.schedules import HALVING
from sgdscope.training.jax_setup import COMPILER_OPTIONS, configure_jax, pinned
from sgdscope.training.packed import Batching, PackedBackend
from sgdscope.training.programs import Update
from sgdscope.training.step import Kind, state_bytes
from sgdscope.training.traced import TracedWorkload, trace
from sgdscope.workloads.autoencoder import autoencoder
from sgdscope.workloads.base import Workload, examples_in
from sgdscope.workloads.digits import digits
from sgdscope.workloads.lstm import lstm
from sgdscope.workloads.wide_resnet import wide_resnet

ROUNDS = 5
# What a matrix product needs to reach its peak, and an array to lie in memory rather than in a cache.
SIDE = {"cpu": 1024, "gpu": 8192}
# How often an update passes as many bytes as the parameters have: they are read forward and backward; the gradient is
# written and read; parameters and velocity are read and written.
PASSES = 8
LEAST_BYTES = {"cpu": 0, "gpu": 2**29}
# The trials of a pack, as far as each workload's states fit in this memory.
PACKS = (1, 2, 4, 16, 64)
MOST_BYTES = 2**31
# An update of a pack that would take longer is left out.
MOST_SECONDS = 2.0
WORKLOADS: dict[str, tuple[Callable[[], Workload], tuple[int, ...]]] = {
    "digits": (digits, (4, 8, 16, 32, 64, 128, 256, 512, 1024)),
    "autoencoder": (lambda: autoencoder(read_mnist(None)), (16, 64, 256, 1024, 4096)),
    "wide_resnet": (lambda: wide_resnet(read_cifar10(None)), (64, 256, 1024, 4096)),
    "lstm": (lambda: lstm(read_ptb(None)), (35, 70, 140, 280, 560, 1120)),
}


def on_each_device(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """Compile a function of one device's share for all devices at once, as the engine does."""
    mesh = jax.make_mesh((jax.device_count(),), ("trial",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = PartitionSpec("trial")
    body = jax.shard_map(lambda *each: jax.lax.map(lambda one: function(*one), each), mesh=mesh, in_specs=spec,
                         out_specs=spec, check_vma=False)  # fmt: skip
    stacked = [jnp.stack([a] * jax.device_count()) for a in arguments]
    options: dict[str, Any] = COMPILER_OPTIONS[jax.default_backend()]
    compiled = jax.jit(body).lower(*stacked).compile(compiler_options=options)
    return lambda: jax.block_until_ready(compiled(*stacked))


def best_of(program: Callable[[], Any]) -> float:
    """Return the shortest of several times: a bound is what the machine can do."""
    program()
    taken = []
    for _ in range(5):
        begun = time.perf_counter()
        program()
        taken.append(time.perf_counter() - begun)
    return min(taken)


def peak() -> float:
    """Return the operations a second of matrix products on all devices together."""
    repeats, side = 4, SIDE[jax.default_backend()]
    a = jnp.ones((side, side)) / side

    def products(a: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, repeats, lambda _, b: a @ b, a)

    return 2 * side**3 * repeats * jax.device_count() / best_of(on_each_device(products, a))


def bandwidth(size: int) -> float:
    """Return the bytes a second that all devices together read and write, of arrays of a size in bytes.

    On a GPU they are of half a gigabyte, since a pack's states lie in memory together.
    """
    size = max(size, LEAST_BYTES[jax.default_backend()])
    repeats = max(4 if jax.default_backend() == "cpu" else 64, 2**26 // size)
    array = jnp.ones(max(1, size // 4))

    def scaled(array: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, repeats, lambda _, a: a * 0.999, array)

    return 2 * size * repeats * jax.device_count() / best_of(on_each_device(scaled, array))


def backends(traced: TracedWorkload) -> dict[tuple[Batching, int], PackedBackend]:
    """Return a backend for each way of batching and pack size that fits."""
    shapes = traced.shapes
    devices, memory = jax.devices(), 2 * state_bytes(shapes.parameters) + state_bytes(shapes.model)
    made: dict[tuple[Batching, int], PackedBackend] = {}
    for trials in PACKS:
        used = devices[: min(trials, len(devices))]
        slots = trials // len(used)
        if trials * memory <= MOST_BYTES:
            # By ``map`` a device's trials take turns: more of them than one tell nothing new.
            ways: tuple[Batching, ...] = ("map", "vmap") if slots == 1 else ("vmap",)
            made |= {
                (way, trials): PackedBackend(traced, devices=used, batching=way, loop="inside", slots=slots)
                for way in ways
            }
    return made


def megabytes(backend: PackedBackend, kind: Kind) -> float:
    """Return what a pack takes on each of its devices: its state, the data, and what an update needs for a while."""
    needed = backend.prepare(Update(kind, backend.capacity)).result().memory_analysis()
    return (needed.argument_size_in_bytes + needed.temp_size_in_bytes) / 1e6


def timed(name: str) -> list[dict[str, Any]]:
    """Return a row for each batch size, method and pack size of a workload."""
    make, sizes = WORKLOADS[name]
    workload = make()
    examples = examples_in(workload.train)
    traced = trace(workload)
    with pinned():
        of_state = state_bytes(traced.shapes.parameters) * 2  # parameters and velocity
        # Before there are backends, which begin to compile at once.
        flops, bytes_a_second = peak(), bandwidth(of_state)
        ready = backends(traced)
    rows = []
    for size in sizes:
        operations, kind = size * traced.operations_per_example, Kind(size, size, SGD(), HALVING)
        seconds: dict[tuple[Batching, int], list[float]] = {}
        for key, backend in ready.items():
            if operations * key[1] / flops > MOST_SECONDS:
                continue
            try:
                backend.seconds_per_update(kind)  # also whether it fits in memory
            except Exception as error:
                print(f"{name} at {size}, {key}: {str(error).splitlines()[0]}", flush=True)
            else:
                seconds[key] = []
        for _ in range(ROUNDS):
            for key in seconds:
                seconds[key].append(ready[key].seconds_per_update(kind))
        bound = max(operations / flops, PASSES * of_state / 2 / bytes_a_second)
        for (method, trials), values in seconds.items():
            median = statistics.median(values)
            rows.append(
                {
                    "workload": name,
                    "batch_size": size,
                    "method": method,
                    "trials": trials,
                    "microseconds_per_update": median * 1e6,
                    "lowest": min(values) * 1e6,
                    "highest": max(values) * 1e6,
                    "seconds_per_epoch": median * examples / size,
                    "bound_microseconds": bound * 1e6,
                    "over_bound": median / bound,
                    "bound_by": "operations" if operations / flops >= bound else "bytes",
                    "megabytes": megabytes(ready[method, trials], kind),
                    "gigaflops": operations / median / 1e9,
                    "peak_gigaflops": flops / 1e9,
                    "gigabytes_a_second": bytes_a_second / 1e9,
                }
            )
        print(rows[-1], flush=True)
    for backend in ready.values():
        backend.close()
    return rows


def written(table: pl.DataFrame, names: Sequence[str]) -> str:
    """Return the results as a page: for each workload what an epoch costs, and how far that is from the bound."""
    device, count = jax.devices()[0].device_kind, jax.device_count()
    lines = [
        "# The cost of a trial by batch size and pack size",
        f"`python benchmarks/packing.py {' '.join(['RESULTS', *names])}`: sgdscope {version('sgdscope')}, jax "
        f"{version('jax')}, {count} {device} device{'s' if count > 1 else ''}; medians of {ROUNDS} rounds. Every "
        "figure with its range is in [packing.csv](packing.csv).",
    ]
    for (name,), rows in table.group_by("workload", maintain_order=True):
        packs = rows.select("method", "trials").unique(maintain_order=True).sort("method", "trials").rows()
        least = rows["seconds_per_epoch"].min()
        peaks = rows.row(0, named=True)
        lines += [
            "",
            f"## {name}",
            f"Seconds of an epoch of one trial over {least:.3g} s, the least of all; in brackets the fastest over the "
            f"bound, at {peaks['peak_gigaflops']:.0f} GFLOP/s and {peaks['gigabytes_a_second']:.0f} GB/s, all devices.",
            "",
            "| batch size | " + " | ".join(f"{method} {trials}" for method, trials in packs) + " | bound |",
            "| --- |" + " --- |" * (len(packs) + 1),
        ]
        for (size,), of_size in rows.group_by("batch_size", maintain_order=True):
            found = {(row["method"], row["trials"]): row for row in of_size.iter_rows(named=True)}
            cells = [f"{found[k]['seconds_per_epoch'] / least:.2f}" if k in found else "" for k in packs]
            fastest = of_size.sort("seconds_per_epoch").row(0, named=True)
            over = f"× {fastest['over_bound']:.2f} ({fastest['bound_by']})"
            lines.append(f"| {size:,} | " + " | ".join(cells) + f" | {over} |")
        largest = rows.filter(pl.col("batch_size") == rows["batch_size"].max())
        memory = {(row["method"], row["trials"]): row["megabytes"] for row in largest.iter_rows(named=True)}
        sizes = " | ".join(f"{memory[key]:.4g}" if key in memory else "" for key in packs)
        lines.append(f"| MB a device at {rows['batch_size'].max():,} | {sizes} | |")
    return "\n".join([*lines, ""])


def main(results: str, *names: str) -> None:
    """Time the workloads and write the results."""
    configure_jax()
    rows = []
    for name in names or WORKLOADS:
        try:
            rows += timed(name)
        except InputError as error:
            print(f"{name} is left out: {error}")
            continue
        table = pl.DataFrame(rows).with_columns(pl.col(pl.Float64).round_sig_figs(4))
        folder = Path(results)
        folder.mkdir(parents=True, exist_ok=True)
        table.write_csv(folder / "packing.csv")
        (folder / "README.md").write_text(written(table, names))


if __name__ == "__main__":
    main(*sys.argv[1:])
