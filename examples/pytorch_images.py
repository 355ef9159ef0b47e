"""A PyTorch network with convolutions and batch normalization: handwritten digits of 8 × 8 pixels."""

import torch
from torch import nn
from torch.utils.data import TensorDataset

import sgdscope as sg
from sgdscope.torch import from_torch

digits = sg.workloads.digits()


def images(split: str) -> TensorDataset:
    arrays = digits.split(split)
    return TensorDataset(torch.tensor(arrays["picture"]).reshape(-1, 1, 8, 8), torch.tensor(arrays["label"]).long())


def block(channels: int, outputs: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, outputs, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]


def network() -> nn.Module:
    return nn.Sequential(*block(1, 16), *block(16, 32), nn.Flatten(), nn.Linear(128, 10))


workload = from_torch(
    name="digits-cnn", version="1", make=network, loss=nn.CrossEntropyLoss(), ghost_batch_size=16,
    train=images("train"), validation=images("validation"), test=images("test"),
)  # fmt: skip
study = sg.Study(name="digits-cnn", workloads=workload, batch_sizes=(16, 64, 256), budgets=sg.Epochs(10), seeds=5)
