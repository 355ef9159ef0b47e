"""A PyTorch DataLoader: data-loading workers read and transform each image when it is needed."""

from multiprocessing import parent_process

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import sgdscope as sg
from sgdscope.data.digits_file import read_digits
from sgdscope.torch import from_torch


class Shifted(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Digits, in training shifted by up to one pixel; yours would open the file of an image."""

    def __init__(self, split: str) -> None:
        self.arrays, self.split = read_digits()[split], split

    def __len__(self) -> int:
        return len(self.arrays["label"])

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = torch.tensor(self.arrays["picture"][index]).reshape(8, 8)
        if self.split == "train":
            image = image.roll(torch.randint(-1, 2, (2,)).tolist(), (0, 1))
        return image.flatten(), torch.tensor(int(self.arrays["label"][index]))


if parent_process() is None:  # data-loading workers import this file for the data set alone
    loss, score = sg.constant_classifier(read_digits()["train"]["label"])
    workload = from_torch(
        name="shifted-digits", version="1", make=lambda: nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)),
        train=DataLoader(Shifted("train")), validation=DataLoader(Shifted("validation")),
        test=DataLoader(Shifted("test")), loss=nn.CrossEntropyLoss(), constant_loss=loss, constant_score=score,
    )  # fmt: skip
    study = sg.Study(
        name="shifted-digits", workloads=workload, optimizers=sg.SGD(momentum=0.9),
        batch_sizes=(4, 16, 64), budgets=sg.Epochs(5), seeds=5,
    )  # fmt: skip
