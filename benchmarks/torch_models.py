"""PyTorch modules in sgdscope against PyTorch itself: processor time of one update of one model, in one process.

    pip install 'sgdscope[torch]'
    python benchmarks/torch_models.py RESULTS [ROUNDS [NETWORKS]]

Each round times, one after the other on one core, K = 8 models of each network for some updates of SGD with momentum:
sgdscope as one program of K trials; PyTorch eager, model after model; `torch.compile` of forward and backward; and
`torch.func` over the K models at once, compiled. Times are processor seconds of the process, which what else runs on
the machine changes less than the seconds of a clock. Compiling is timed apart, likewise. Writes README.md and
torch_models.csv into RESULTS.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import polars as pl
import torch
from torch import nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.utils.data import TensorDataset

import sgdscope as sg
from sgdscope.torch import from_torch
from sgdscope.training.jax_setup import COMPILER_OPTIONS, pinned
from sgdscope.training.step import Kind, Recipe, Settings, goes_on, one_update, repeated, start
from sgdscope.version import __version__

MODELS, RATE, MOMENTUM = 8, 0.01, 0.9


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))


def cnn() -> nn.Module:
    block = lambda c, d: [nn.Conv2d(c, d, 3, padding=1, bias=False), nn.BatchNorm2d(d), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*block(1, 16), *block(16, 32), nn.Flatten(), nn.Linear(1568, 10))


class LSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.out = nn.Embedding(200, 64), nn.Linear(64, 200)
        self.layers = nn.LSTM(64, 64, 2, batch_first=True)

    def forward(self, tokens):
        return self.out(self.layers(self.embedding(tokens))[0]).transpose(1, 2)


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.out = nn.Embedding(200, 64), nn.Linear(64, 200)
        layer = nn.TransformerEncoderLayer(64, 4, 256, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(32), persistent=False)

    def forward(self, tokens):
        return self.out(self.layers(self.embedding(tokens), mask=self.mask, is_causal=True)).transpose(1, 2)


def vectors(n: int) -> TensorDataset:
    return TensorDataset(torch.randn(n, 64), torch.randint(0, 10, (n,)))


def images(n: int) -> TensorDataset:
    return TensorDataset(torch.randn(n, 1, 28, 28), torch.randint(0, 10, (n,)))


def texts(n: int) -> TensorDataset:
    tokens = torch.randint(0, 200, (n, 33))
    return TensorDataset(tokens[:, :-1], tokens[:, 1:])


# The network, its data, the batch sizes, and about how many updates a second its torch loop makes.
NETWORKS = {
    "mlp": (mlp, vectors, {16: 300, 256: 60}),
    "lstm": (LSTM, texts, {16: 8}),
    "transformer": (Transformer, texts, {16: 8}),
    "cnn": (cnn, images, {16: 12}),
}


def ours(name: str, batch_size: int):
    make, data, _ = NETWORKS[name]
    part = data(512)
    accuracy = lambda output, target: (output.argmax(1) == target).float()
    workload = from_torch(
        name=name, version="1", make=make, train=part, validation=part, test=part, loss=nn.CrossEntropyLoss(),
        score=accuracy, constant_score=0.1, ghost_batch_size=16 if name == "cnn" else 1,
    )  # fmt: skip
    study = sg.Study(name="s", workloads=workload, batch_sizes=(batch_size,), budgets=sg.Steps(10**6))
    kind = Kind.of(study.declaration().trial(sg.SGD(momentum=MOMENTUM), batch_size, RATE, 0))
    recipe = Recipe(workload, kind)
    split = {key: jnp.asarray(array) for key, array in workload.train.items()}
    several = lambda value: jnp.full(MODELS, value)
    settings = Settings(
        several(jnp.float32(RATE)), {"momentum": several(jnp.float32(MOMENTUM))}, jnp.arange(MODELS, dtype=jnp.uint32),
        several(jnp.int32(10**6)),
    )  # fmt: skip

    @partial(jax.jit, compiler_options=COMPILER_OPTIONS["cpu"])
    def trained(settings, updates):
        def one(own):
            state = start(workload, recipe.kind.optimizer, own)
            return repeated(one_update(recipe, split, own), partial(goes_on, updates), state).parameters

        return jax.lax.map(one, settings)

    def run(updates):
        with pinned():
            jax.block_until_ready(trained(settings, jnp.int32(updates)))

    return run


def batches(data: TensorDataset, batch_size: int, updates: int):
    for _ in range(updates):
        chosen = torch.randint(0, len(data), (batch_size,))
        yield tuple(tensor[chosen] for tensor in data.tensors)


def of_torch(name: str, batch_size: int, compiled: bool):
    make, data, _ = NETWORKS[name]
    part, models, loss = data(512), [make() for _ in range(MODELS)], nn.CrossEntropyLoss()
    optimizers = [torch.optim.SGD(m.parameters(), RATE, MOMENTUM) for m in models]
    losses = [lambda x, y, m=m: loss(m(x), y) for m in models]
    losses = [torch.compile(f, dynamic=False) for f in losses] if compiled else losses

    def run(updates):
        for own, optimizer in zip(losses, optimizers, strict=True):
            for x, y in batches(part, batch_size, updates):
                optimizer.zero_grad()
                own(x, y).backward()
                optimizer.step()

    return run


def packed(name: str, batch_size: int):
    make, data, _ = NETWORKS[name]
    part, shape = data(512), make()
    parameters, buffers = stack_module_state([make() for _ in range(MODELS)])
    loss = nn.functional.cross_entropy
    of_model = lambda p, b, x, y: loss(functional_call(shape, (p, b), (x,)), y)
    gradients = vmap(grad_and_value(of_model))
    held = {key: value.detach() for key, value in parameters.items()}
    velocity = {key: torch.zeros_like(value) for key, value in held.items()}

    @torch.compile(dynamic=False)
    def update(held, velocity, x, y):
        found, _ = gradients(held, buffers, x, y)
        velocity = {key: MOMENTUM * v + found[key] for key, v in velocity.items()}
        return {key: p - RATE * velocity[key] for key, p in held.items()}, velocity

    def run(updates):
        nonlocal held, velocity
        with torch.no_grad():
            for x, y in batches(part, batch_size * MODELS, updates):
                cut = lambda a: a.reshape(MODELS, batch_size, *a.shape[1:])
                held, velocity = update(held, velocity, cut(x), cut(y))

    return run


PEERS = {
    "sgdscope": ours,
    "eager": lambda name, size: of_torch(name, size, False),
    "torch.compile": lambda name, size: of_torch(name, size, True),
    "torch.func": packed,
}


def seconds(run, updates: int) -> float:
    spent = lambda: sum(os.times()[:4])  # of this process, and of compilers that it starts
    begun = spent()
    run(updates)
    return spent() - begun


def main(folder: str, rounds: int = 3, names: str = ",".join(NETWORKS)) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    rows = []
    for name in names.split(","):
        for size, updates in NETWORKS[name][2].items():
            runs, compiling = {}, {}
            for peer, prepare in PEERS.items():
                try:
                    runs[peer] = prepare(name, size)
                    compiling[peer] = seconds(runs[peer], 1)
                except Exception as error:
                    runs.pop(peer, None)
                    print(f"{name} at {size}: {peer} does not run: {type(error).__name__}: {error}"[:300], flush=True)
            for number in range(rounds):
                for peer, run in runs.items():
                    each = 1000 * seconds(run, updates) / updates / MODELS
                    row = {"network": name, "batch_size": size, "peer": peer, "round": number, "ms": each}
                    rows.append(row | {"compiling_s": compiling[peer]})
                    print(row, f"{compiling[peer]:.1f} s of compiling", flush=True)
        table = pl.DataFrame(rows)
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        table.write_csv(place / "torch_models.csv")
        (place / "README.md").write_text(report(table, rounds))


def report(table: pl.DataFrame, rounds: int) -> str:
    """Return the page: the median time of each peer, and the median over rounds of its ratio to ours."""
    versions = ", ".join([f"sgdscope {__version__}", *(f"{name} {version(name)}" for name in ("jax", "torch"))])
    lines = [
        "# PyTorch models against PyTorch",
        f"`python benchmarks/torch_models.py RESULTS {rounds}`: one core, {versions}; medians of {rounds} rounds, "
        f"lowest to highest in brackets.",
        "",
        "Milliseconds of processor time for one update of one model of 8. *Ratio* is the time of PyTorch over the time "
        "of sgdscope in the same round: above 1, sgdscope is faster. Other programs ran on the machine.",
        "",
        "| network | batch size | trained by | ms an update | ratio | s of compiling |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    own = table.filter(peer="sgdscope").select("network", "batch_size", "round", own="ms")
    for (name, size, peer), part in table.join(own, on=["network", "batch_size", "round"], how="left").group_by(
        "network", "batch_size", "peer", maintain_order=True
    ):
        ms, ratio = part["ms"], (part["ms"] / part["own"]).drop_nulls()
        spread = lambda s: f"{s.median():.3g} [{s.min():.3g}, {s.max():.3g}]" if len(s) else ""
        ours = "" if peer == "sgdscope" else spread(ratio)
        lines.append(f"| {name} | {size} | {peer} | {spread(ms)} | {ours} | {part['compiling_s'][0]:.1f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]), *sys.argv[3:4])
