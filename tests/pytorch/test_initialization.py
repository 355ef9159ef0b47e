"""Parameters that JAX draws have the distributions that PyTorch draws from."""

import jax
import numpy as np
import pytest
from scipy.stats import ks_2samp

torch = pytest.importorskip("torch", reason="the extra torch is not installed")

from torch import nn

from sgdscope.errors import InputError
from sgdscope.torch.initialization import recorded


class Drawn(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(40, 50), nn.LayerNorm(9)
        self.embedding = nn.Embedding(60, 30, padding_idx=2)
        self.convolution, self.lstm = nn.Conv2d(4, 12, 5), nn.LSTM(12, 20)
        self.attention = nn.MultiheadAttention(32, 4)
        self.truncated, self.orthogonal, self.xavier = (nn.Parameter(torch.empty(40, 30)) for _ in range(3))
        nn.init.trunc_normal_(self.truncated, std=0.02, a=-0.03, b=0.03)
        nn.init.orthogonal_(self.orthogonal, gain=2.0)
        nn.init.xavier_normal_(self.xavier)
        self.own = nn.Parameter(torch.randn(50, 30) * 0.02 + 1)
        self.parts = nn.Parameter(torch.empty(20, 60))
        self.parts.data[:, ::2].uniform_(-1, 0)
        self.parts.data[:, 1::2] = 7.0
        self.sliced = nn.Parameter((torch.rand(30, 40) @ torch.rand(40, 30)).T)
        self.weighted = nn.utils.parametrizations.weight_norm(nn.Linear(40, 30))
        self.twice = nn.ModuleList([nn.Linear(30, 30)] * 2)


@pytest.fixture(scope="module")
def drawn():
    before = torch.get_rng_state()
    module, init = recorded(Drawn)
    assert torch.equal(before, torch.get_rng_state())
    return dict(module.named_parameters()), jax.jit(init)


def test_each_parameter_is_drawn_from_the_distribution_of_pytorch(drawn):
    named, init = drawn
    parameters = init(jax.random.key(4))
    assert {name: p.shape for name, p in parameters.items()} == {name: tuple(p.shape) for name, p in named.items()}
    torch.manual_seed(5)
    other = dict(Drawn().named_parameters())
    for name, p in parameters.items():
        mine, theirs = np.asarray(p).reshape(-1), other[name].detach().numpy().reshape(-1)
        if theirs.std() == 0:
            assert (mine == theirs).all(), name
        else:
            assert ks_2samp(mine, theirs).pvalue > 1e-4, name


def test_what_was_drawn_keeps_its_structure(drawn):
    p = drawn[1](jax.random.key(0))
    np.testing.assert_allclose(p["orthogonal"].T @ p["orthogonal"], 4 * np.eye(30), atol=1e-5)
    assert (np.asarray(p["embedding.weight"])[2] == 0).all()
    assert (np.asarray(p["parts"])[:, 1::2] == 7).all()
    assert (np.asarray(p["parts"])[:, ::2] < 0).all()
    assert np.abs(p["truncated"]).max() <= 0.03
    size, direction = (np.asarray(p[f"weighted.parametrizations.weight.original{i}"]) for i in (0, 1))
    np.testing.assert_allclose(size[:, 0], np.linalg.norm(direction, axis=1), rtol=1e-5)


def test_seeds_differ_in_what_is_drawn_and_in_nothing_else(drawn):
    one, two = drawn[1](jax.random.key(0)), drawn[1](jax.random.key(1))
    same = {name for name in one if (np.asarray(one[name]) == np.asarray(two[name])).all()}
    assert same == {"norm.weight", "norm.bias", "attention.in_proj_bias", "attention.out_proj.bias"}


def test_a_checkpoint_is_the_start_of_all_seeds():
    kept = {name: p.detach().clone() for name, p in nn.Linear(3, 2).state_dict().items()}

    def make():
        module = nn.Linear(3, 2)
        module.load_state_dict(kept)
        return module

    _, init = recorded(make)
    for seed in range(2):
        np.testing.assert_array_equal(init(jax.random.key(seed))["weight"], kept["weight"].numpy())


class FromNumpy(nn.Module):
    def __init__(self):
        super().__init__()
        self.p = nn.Parameter(torch.from_numpy(np.random.default_rng().normal(size=3).astype(np.float32)))


class Decides(nn.Module):
    def __init__(self):
        super().__init__()
        self.p = nn.Parameter(torch.randn(3))
        if self.p.sum() > 0:
            nn.init.zeros_(self.p)


ONE = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ONE, "make returns the same module each time"),
        (lambda: "net", "make returns a str"),
        (lambda: nn.Linear(2, 2).requires_grad_(False), "without parameters to train"),
        (FromNumpy, "make draws p from other random numbers than PyTorch's"),
        (Decides, "make decides by a random number"),
    ],
)
def test_what_cannot_be_drawn_anew_is_refused(make, sentence):
    with pytest.raises(InputError, match=sentence):
        recorded(make)
