"""What from_torch makes of a module, and what it refuses, in one sentence."""

import pickle
import random
import time

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")

from networks import cnn, images, mlp, vectors
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)

import sgdscope.torch.operations as operations
from sgdscope.errors import InputError
from sgdscope.torch import from_torch
from sgdscope.workloads.base import constant_classifier


def workload(make=mlp, data=vectors, **how):
    splits = {"train": data(24, 0), "validation": data(8, 1), "test": data(8, 2)}
    return from_torch(**{"name": "w", "version": "1", "make": make, "loss": nn.CrossEntropyLoss(), **splits, **how})


class Own(nn.Module):
    """A linear layer, and a function of its results."""

    def __init__(self, function):
        super().__init__()
        self.layer, self.function = nn.Linear(5, 3), function
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        return self.function(self, self.layer(x))


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.round(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def counts(module, h):
    module.seen.add_(h.detach().abs().sum())
    return h * (1 + 0 * module.seen)


def called(module, h):
    module.calls = getattr(module, "calls", 0) + 1
    return h / module.calls


class Endless(IterableDataset):
    def __iter__(self):
        return iter(())


class Embedded(nn.Module):
    """Looks rows up whose gradients would be scaled by how often the batch has them."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Embedding(9, 3, scale_grad_by_freq=True)

    def forward(self, x):
        return self.rows((x[:, 0].abs() * 3).long().clamp(0, 8))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"make": lambda: Own(lambda m, h: Straight.apply(h))}, r"gradient of the parameter layer.\w+ is another"),
        ({"make": lambda: Own(lambda m, h: h - h.mean(0) * m.training)}, "training loss .* the other examples"),
        ({"make": lambda: Own(lambda m, h: h / h.abs().max() if m.training else h)}, "training loss .* other examples"),
        ({"make": lambda: Own(lambda m, h: h - h[-1] * (not m.training))}, "in evaluation mode .* other examples"),
        (
            {"make": lambda: nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3, track_running_stats=False))}
            | {"ghost_batch_size": 4},
            "in evaluation mode depends on the other examples of its batch.*track_running_stats=True",
        ),
        ({"make": lambda: Own(lambda m, h: h * 2 if random.random() < 0.001 else h)}, "Python's module random"),
        ({"make": lambda: Own(lambda m, h: h if m.training else h + np.random.rand())}, "of numpy"),  # noqa: NPY002
        ({"make": lambda: Own(lambda m, h: h * np.random.default_rng().random())}, "another result each time"),
        ({"make": lambda: Own(lambda m, h: h * (time.perf_counter_ns() % 1000))}, "another result each time"),
        ({"make": lambda: Own(called)}, "another result each time"),
        ({"make": lambda: Own(lambda m, h: F.dropout(h))}, "draws random numbers in evaluation mode"),
        ({"make": cnn, "data": images}, r"statistics of its batch \(1\).*Give ghost_batch_size"),
        ({"loss": nn.CrossEntropyLoss(reduction="sum")}, "reduction='sum'"),
        (
            {"loss": nn.CrossEntropyLoss(weight=torch.arange(1.0, 4)), "constant_loss": 1, "constant_score": 0.4},
            "divides by the sum of its class weights",
        ),
        ({"loss": nn.CrossEntropyLoss(ignore_index=1)}, "ignores targets that are 1"),
        ({"make": lambda: Embedded()}, "scale_grad_by_freq=True"),
        ({"loss": lambda output, y: output.mean(), "constant_loss": 1, "constant_score": 0.4}, "one number for each"),
        ({"loss": lambda output, y: output.mean(1) ** 2}, "give constant_loss"),
        ({"train": Endless()}, "train is a Endless"),
        ({"train": TensorDataset(torch.zeros(3, 5))}, "gives 1 array"),
        ({"make": lambda: nn.Linear(4, 3)}, "torch.export cannot export the module"),
    ],
)
def test_what_would_train_something_else_is_refused(how, sentence):
    with pytest.raises(InputError, match=f"(?s)workload 'w'.*{sentence}"):
        workload(**how)


def test_the_operation_that_computes_something_else_is_named(monkeypatch):
    monkeypatch.setitem(operations.OPERATIONS, "relu", lambda x: abs(x))
    with pytest.raises(InputError, match=r"the operation relu.default .*gives other numbers in JAX than in PyTorch"):
        workload()


def test_the_buffer_that_moves_otherwise_is_named(monkeypatch):
    name = "_native_batch_norm_legit_functional"
    right = operations.OPERATIONS[name]
    wrong = lambda context, *a: (*(r := right(context, *a))[:4], 2 * r[4])
    monkeypatch.setitem(operations.OPERATIONS, name, wrong)
    with pytest.raises(InputError, match=r"the buffer 1.running_var moves otherwise in JAX"):
        workload(make=cnn, data=images, ghost_batch_size=4)


def test_the_workload_of_classes_has_its_constant_baseline():
    made = workload()
    assert (made.constant_loss, made.constant_score) == constant_classifier(made.train["y"])
    assert made.init_state is None
    assert made.record().examples == (24, 8, 8)


def test_a_data_set_is_read_in_any_of_its_forms():
    whole = vectors(40, 0)

    class Items(Dataset):
        def __len__(self):
            return 24

        def __getitem__(self, place):
            return whole[place]

    part, rest = random_split(whole, [24, 16], torch.Generator().manual_seed(0))
    made = workload(train=part, validation=rest, test=Items())
    np.testing.assert_array_equal(made.train["x"], whole.tensors[0][part.indices].numpy())
    np.testing.assert_array_equal(made.test["x"], whole.tensors[0][:24].numpy())

    class Noisy(Items):
        def __getitem__(self, place):
            return torch.rand(5), torch.tensor(0)

    with pytest.raises(InputError, match="another example each time"):
        workload(train=Noisy())


class Two(nn.Module):
    """Two inputs, tied weights, a frozen layer and a regression."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.frozen = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 1).requires_grad_(False)
        self.b.weight = self.a.weight

    def forward(self, x, scale):
        return self.frozen(torch.tanh(self.b(torch.tanh(self.a(x))))) * scale[:, None]


def test_several_inputs_tied_and_frozen_parameters_and_a_regression():
    def data(n, seed):
        x = torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))
        return TensorDataset(x, x[:, 0].exp(), x.sum(1, keepdim=True))

    error = lambda output, y: (output - y).abs()[:, 0]
    made = workload(
        Two,
        data,
        loss=nn.MSELoss(),
        score=error,
        score_name="absolute error",
        score_goal="minimize",
        constant_score=2.0,
    )
    assert set(made.init(jax.random.key(0))) == {"a.weight", "a.bias", "b.bias"}
    assert set(made.train) == {"x0", "x1", "y"}
    assert made.constant_loss == pytest.approx(made.train["y"].var())


class Counted(nn.Module):
    """A layer whose noise fades with the batches that it has seen, and which counts examples to no end."""

    def __init__(self):
        super().__init__()
        self.layer = nn.utils.parametrizations.spectral_norm(nn.Linear(5, 3))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        self.register_buffer("examples", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        if not self.training:
            return self.layer(x) / (1 + self.batches)
        self.batches += 1
        self.examples += x.shape[0]
        return self.layer(x) + torch.randn_like(x[:, :3]) / (1 + self.batches)


def test_an_integer_buffer_is_carried_where_it_matters_and_dropped_where_it_does_not():
    made = workload(Counted)
    state = made.init_state()
    assert {name.rpartition(".")[2] for name in state} == {"batches", "_u", "_v"}
    batch = {key: jax.numpy.asarray(array) for key, array in made.train.items()}
    keys = jax.random.split(jax.random.key(0), 24)
    moved = made.training_loss(made.init(keys[0]), state, batch, keys)[1]
    assert (int(moved["batches"]), moved["batches"].dtype) == (1, np.int32)
    with pytest.raises(InputError, match="buffer batches moves once for each batch"):
        workload(Counted, ghost_batch_size=12)


def test_two_classes_by_logits_have_an_accuracy():
    data = lambda n, seed: TensorDataset(x := vectors(n, seed).tensors[0], (x[:, :1] > 0).float())
    made = workload(lambda: nn.Linear(5, 1), data, loss=nn.BCEWithLogitsLoss(), constant_loss=0.69, constant_score=0.5)
    perfect = {"weight": jax.numpy.eye(1, 5), "bias": jax.numpy.zeros(1)}
    assert made.score(perfect, (), made.test).mean() == 1


class Noised(Dataset):
    """Vectors with noise of each of the three generators, which a transform may draw from."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, place):
        x, y = self.data[place]
        return x + torch.rand(5) + random.random() + np.random.rand(), y  # noqa: NPY002


def test_a_loader_is_a_feed_whose_transforms_draw_from_each_visit():
    loader = lambda n, seed: DataLoader(Noised(vectors(n, seed)), batch_size=4, shuffle=True)
    made = workload(data=loader, constant_loss=1.1, constant_score=0.4)
    feed = pickle.loads(pickle.dumps(made.feed.read))
    states = random.getstate(), torch.get_rng_state()
    read = lambda *visit: feed("train", 3, visit)["x"]
    np.testing.assert_array_equal(read(0, 1, 3), read(0, 1, 3))
    assert not np.isclose(read(0, 1, 3), read(0, 2, 3)).any()
    assert not np.isclose(read(0, 1, 3), read(1, 1, 3)).any()
    assert (random.getstate(), torch.get_rng_state().tolist()) == (states[0], states[1].tolist())
    assert {key: (array.shape, array.dtype) for key, array in feed("test", 0, None).items()} == made.feed.layout
    assert made.record().examples == (24, 8, 8)


@pytest.mark.parametrize(
    ("train", "sentence"),
    [
        (DataLoader(Endless()), "IterableDataset"),
        (DataLoader(vectors(24, 0), sampler=RandomSampler(range(24), replacement=True)), "RandomSampler"),
        (DataLoader(vectors(24, 0), sampler=WeightedRandomSampler([1.0] * 24, 24)), "WeightedRandomSampler"),
        (vectors(24, 0), "train is a TensorDataset. Give a DataLoader for all splits or none"),
    ],
)
def test_a_loader_that_is_no_feed_is_refused(train, sentence):
    others = {"validation": DataLoader(vectors(8, 1)), "test": DataLoader(vectors(8, 2))}
    with pytest.raises(InputError, match=f"workload 'w': .*{sentence}"):
        workload(train=train, **others)
