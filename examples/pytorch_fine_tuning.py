"""Fine-tuning of a PyTorch checkpoint: all seeds start from the same parameters and differ in the order of examples."""

from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset

import sgdscope as sg
from sgdscope.torch import from_torch

digits, checkpoint = sg.workloads.digits(), Path("checkpoint.pt")


def images(split: str, classes: int) -> TensorDataset:  # classes 0: the digits 0 to 4, classes 1: 5 to 9
    picture, label = (torch.tensor(array) for array in digits.split(split).values())
    return TensorDataset(picture[label // 5 == classes], label[label // 5 == classes].long() % 5)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 5))


def fine_tuned() -> nn.Module:
    (module := network()).load_state_dict(torch.load(checkpoint))
    return module


if not checkpoint.exists():  # yours does: this one tells the digits 0 to 4
    old, (x, y) = network(), images("train", 0).tensors
    optimizer = torch.optim.Adam(old.parameters(), 0.01)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(old(x), y).backward()
        optimizer.step()
    torch.save(old.state_dict(), checkpoint)

data = {split: images(split, 1) for split in ("train", "validation", "test")}
workload = from_torch(name="new-digits", version="1", make=fine_tuned, loss=nn.CrossEntropyLoss(), **data)
study = sg.Study(name="new-digits", workloads=workload, batch_sizes=(4, 16, 64), budgets=sg.Epochs(5), seeds=5)
