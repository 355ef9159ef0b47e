"""Small PyTorch networks and data sets."""

import torch
from torch import nn
from torch.utils.data import TensorDataset

CLASSES, TOKENS, LENGTH = 3, 11, 6


def mlp(dropout=0.0):
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, CLASSES))


def cnn(dropout=0.0):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout2d(dropout), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(24, CLASSES),
    )  # fmt: skip


class LSTM(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, 8)
        self.layers = nn.LSTM(8, 8, 2, batch_first=True, dropout=dropout)
        self.out = nn.Linear(8, TOKENS)

    def forward(self, tokens):
        return self.out(self.layers(self.embedding(tokens))[0])


class Transformer(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, 8)
        self.place = nn.Parameter(torch.randn(LENGTH, 8) / 50)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.out = nn.Linear(8, TOKENS)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(LENGTH), persistent=False)

    def forward(self, tokens):
        return self.out(self.layers(self.embedding(tokens) + self.place, mask=self.mask, is_causal=True))


def vectors(n, seed):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 5, generator=draw)
    return TensorDataset(x, x[:, :CLASSES].argmax(1))


def images(n, seed):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, 8, 8, generator=draw)
    return TensorDataset(x, x.mean((2, 3)).argmax(1))


def texts(n, seed):
    tokens = torch.randint(0, TOKENS, (n, LENGTH + 1), generator=torch.Generator().manual_seed(seed))
    return TensorDataset(tokens[:, :-1], tokens[:, 1:])


def of_tokens(output, target):
    return nn.functional.cross_entropy(output.transpose(1, 2), target, reduction="none")


def right_tokens(output, target):
    return (output.argmax(-1) == target).float()


OF_TEXT = {"loss": of_tokens, "score": right_tokens, "constant_loss": 2.4, "constant_score": 0.1}
NETWORKS = {
    "mlp": (mlp, vectors, {"loss": nn.CrossEntropyLoss()}),
    "cnn": (cnn, images, {"loss": nn.CrossEntropyLoss(), "ghost_batch_size": 4}),
    "lstm": (LSTM, texts, OF_TEXT),
    "transformer": (Transformer, texts, OF_TEXT),
}


def workload_of(name, dropout=0.0):
    from sgdscope.torch import from_torch

    make, data, how = NETWORKS[name]
    splits = {"train": data(48, 0), "validation": data(16, 1), "test": data(16, 2)}
    return from_torch(name=name, version="1", make=lambda: make(dropout), **splits, **how)
