"""How convolutions of many trials, each with a kernel of its own, are trained fastest.

    python benchmarks/packed_convolution.py RESULTS [BATCH_SIZE ...]

Each layer of the Wide-ResNet 16-4 is run forward and backward (gradients of its input and of its kernel) inside a loop,
as training does, for packs of trials, in four forms: one trial after the other (`map`), the grouped convolution that
`vmap` makes (`grouped`), one matrix product of all patches (`patches`), and the sum over the k² shifted inputs of a
matrix product each (`taps`), the last two batched over trials. Where PyTorch is installed and the device is a CPU, its
convolution of one trial is timed too (`PyTorch`), with one thread as the others. Milliseconds a trial, medians of
rounds in turns. A form whose pack would take more than a few seconds is left out. Writes README.md and
packed_convolution.csv into RESULTS.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jax import lax

from sgdscope.models.convolution import convolution
from sgdscope.training.jax_setup import COMPILER_OPTIONS, pinned

ROUNDS = 5
PACKS = (1, 4, 16)
MOST_SECONDS = 4.0
# Side of the picture, channels in and out, and stride: the layers of a Wide-ResNet 16-4, all with kernels of 3 × 3.
LAYERS = {
    "first, 3 to 16": (32, 3, 16, 1),
    "widening, 16 to 64": (32, 16, 64, 1),
    "group 1, 64": (32, 64, 64, 1),
    "halving, 64 to 128": (32, 64, 128, 2),
    "group 2, 128": (16, 128, 128, 1),
    "halving, 128 to 256": (16, 128, 256, 2),
    "group 3, 256": (8, 256, 256, 1),
}
# How often each layer comes in the network.
TIMES = dict(zip(LAYERS, (1, 1, 3, 1, 3, 1, 3), strict=True))
Form = Callable[[Any, Any], Any]


def shifted(x: jax.Array, stride: int) -> list[jax.Array]:
    """Return what each of the 3 × 3 offsets of a kernel sees of pictures (n, h, w, c)."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    h, w = x.shape[1:3]
    return [padded[:, a : a + h : stride, b : b + w : stride] for a in range(3) for b in range(3)]


def patches(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolve as one matrix product with all patches."""
    return jnp.concatenate(shifted(x, stride), axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def taps(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolve as the sum over offsets of a matrix product each."""
    offsets = kernel.reshape(9, *kernel.shape[2:])
    return sum((seen @ offset for seen, offset in zip(shifted(x, stride), offsets, strict=True)), start=jnp.float32(0))


def loop(form: str, stride: int) -> Callable[..., Any]:
    """Return a function of inputs, kernels, and a number of rounds, with a leading axis of trials."""
    of_form = {"map": convolution, "grouped": convolution, "patches": patches, "taps": taps}[form]

    def step(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        y, back = jax.vjp(lambda x, kernel: of_form(x, kernel, stride), x, kernel)
        dx, dkernel = back(y)
        return x - 1e-6 * dx, kernel - 1e-6 * dkernel

    def of_trials(x: jax.Array, kernel: jax.Array, rounds: Any) -> Any:
        return lax.fori_loop(0, rounds, lambda _, both: jax.vmap(step)(*both), (x, kernel))

    def in_turn(x: jax.Array, kernel: jax.Array, rounds: Any) -> Any:
        return lax.map(lambda both: lax.fori_loop(0, rounds, lambda _, each: step(*each), both), (x, kernel))

    return in_turn if form == "map" else of_trials


def of_jax(form: str, layer: str, batch_size: int, trials: int) -> Callable[[int], float]:
    """Return a function of a number of rounds that takes the seconds of all of them."""
    side, c_in, c_out, stride = LAYERS[layer]
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(trials, batch_size, side, side, c_in)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(trials, 3, 3, c_in, c_out)) / np.sqrt(9 * c_in), jnp.float32)
    options: dict[str, Any] = COMPILER_OPTIONS[jax.default_backend()]
    compiled = jax.jit(loop(form, stride)).lower(x, kernel, 1).compile(compiler_options=options)

    def seconds(rounds: int) -> float:
        begun = time.perf_counter()
        jax.block_until_ready(compiled(x, kernel, rounds))
        return time.perf_counter() - begun

    return seconds


def of_pytorch(layer: str, batch_size: int) -> Callable[[int], float]:
    """The same of PyTorch's convolution, channels last, as its oneDNN likes them best."""
    import torch

    torch.set_num_threads(1)
    side, c_in, c_out, stride = LAYERS[layer]
    x = torch.randn(batch_size, c_in, side, side).to(memory_format=torch.channels_last).requires_grad_()
    kernel = (torch.randn(c_out, c_in, 3, 3) / np.sqrt(9 * c_in)).requires_grad_()

    def seconds(rounds: int) -> float:
        begun = time.perf_counter()
        for _ in range(rounds):
            y = torch.nn.functional.conv2d(x, kernel, stride=stride, padding=1)
            dx, dkernel = torch.autograd.grad(y, (x, kernel), y.detach())
            with torch.no_grad():
                x.sub_(1e-6 * dx)
                kernel.sub_(1e-6 * dkernel)
        return time.perf_counter() - begun

    return seconds


def timed(layer: str, batch_size: int) -> list[dict[str, Any]]:
    """Return a row for each form and pack of a layer."""
    forms: dict[tuple[str, int], tuple[Callable[[int], float], int]] = {}
    keys = [(form, trials) for form in ("map", "grouped", "patches", "taps") for trials in PACKS]
    if jax.default_backend() == "cpu":
        keys = [key for key in keys if key[0] != "map" or key[1] == 1]  # one after the other, one tells all
        if importlib.util.find_spec("torch"):
            keys.append(("PyTorch", 1))
    for form, trials in keys:
        if any(f == form and t < trials and s(1) * trials / t > MOST_SECONDS for (f, t), (s, _) in forms.items()):
            continue
        try:
            seconds = of_pytorch(layer, batch_size) if form == "PyTorch" else of_jax(form, layer, batch_size, trials)
            seconds(1)
            forms[form, trials] = seconds, max(1, int(0.2 / seconds(1)))
        except Exception as error:
            print(f"{layer}, {form} {trials}: {str(error).splitlines()[0]}", flush=True)
    taken: dict[tuple[str, int], list[float]] = {key: [] for key in forms}
    for _ in range(ROUNDS):
        for (form, trials), (seconds, rounds) in forms.items():
            taken[form, trials].append(seconds(rounds) / rounds / trials * 1e3)
    rows = [
        {"layer": layer, "batch_size": batch_size, "form": form, "trials": trials, "n": ROUNDS,
         "milliseconds": statistics.median(values), "lowest": min(values), "highest": max(values)}
        for (form, trials), values in taken.items()
    ]  # fmt: skip
    print(layer, {f"{r['form']} {r['trials']}": round(r["milliseconds"], 2) for r in rows}, flush=True)
    return rows


def main(results: str, *sizes: str) -> None:
    with pinned():
        rows = [row for size in sizes or ("64",) for layer in LAYERS for row in timed(layer, int(size))]
    table = pl.DataFrame(rows).with_columns(pl.col(pl.Float64).round_sig_figs(4))
    folder = Path(results)
    folder.mkdir(parents=True, exist_ok=True)
    table.write_csv(folder / "packed_convolution.csv")
    torch = f", torch {version('torch')}" if importlib.util.find_spec("torch") else ""
    lines = [
        "# Convolutions of many trials",
        f"`python benchmarks/packed_convolution.py {' '.join(['RESULTS', *sizes])}`: jax {version('jax')}{torch}, one "
        f"{jax.devices()[0].device_kind} device; milliseconds a trial, forward and backward, medians of {ROUNDS} "
        "rounds; ranges are in [packed_convolution.csv](packed_convolution.csv).",
    ]
    for (size,), of_size in table.group_by("batch_size", maintain_order=True):
        keys = of_size.select("form", "trials").unique(maintain_order=True).rows()
        lines += [
            "",
            f"## Batch size {size}",
            "| layer | " + " | ".join(f"{form} {trials}" for form, trials in keys) + " |",
            "| --- |" + " --- |" * len(keys),
        ]
        sums = dict.fromkeys(keys, 0.0)
        for layer in LAYERS:
            found = {(r["form"], r["trials"]): r["milliseconds"]
                     for r in of_size.filter(pl.col("layer") == layer).iter_rows(named=True)}  # fmt: skip
            sums = {key: sums[key] + TIMES[layer] * found.get(key, float("nan")) for key in keys}
            lines.append(f"| {layer} | " + " | ".join(f"{found[k]:.3g}" if k in found else "" for k in keys) + " |")
        whole = " | ".join("" if np.isnan(sums[key]) else f"{sums[key]:.3g}" for key in keys)
        lines.append(f"| the network's thirteen | {whole} |")
    (folder / "README.md").write_text("\n".join([*lines, ""]))
    print("\n".join(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
