"""A PyTorch network for a table: two half-moons, with dropout."""

import torch
from torch import nn
from torch.utils.data import TensorDataset

import sgdscope as sg
from sgdscope.torch import from_torch


def moons(n: int, seed: int) -> TensorDataset:
    draw = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 2, (n,), generator=draw)
    angle = torch.pi * torch.rand(n, generator=draw)
    x = torch.where(label == 1, 1 - angle.cos(), angle.cos())
    y = torch.where(label == 1, 0.5 - angle.sin(), angle.sin())
    return TensorDataset(torch.stack([x, y], 1) + 0.2 * torch.randn(n, 2, generator=draw), label)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 2))


workload = from_torch(
    name="moons", version="1", make=network, loss=nn.CrossEntropyLoss(),
    train=moons(512, seed=0), validation=moons(512, seed=1), test=moons(1024, seed=2),
)  # fmt: skip
study = sg.Study(name="moons", workloads=workload, batch_sizes=(8, 32, 128, 512), budgets=sg.Epochs(20), seeds=5)
