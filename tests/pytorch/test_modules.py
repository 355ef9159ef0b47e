"""Kinds of modules, one by one: loss, gradients and moved buffers of JAX against PyTorch's autograd."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")

import torch.nn.functional as F  # noqa: N812
from torch import nn

from sgdscope.errors import InputError
from sgdscope.torch.draws import Context
from sgdscope.torch.graph import EXAMPLES, as_array, export
from sgdscope.torch.layers import largest

DRAW = torch.Generator().manual_seed(0)
torch.manual_seed(0)  # of the modules' parameters
IMAGE, SEQUENCE, VECTOR = (torch.randn(EXAMPLES, *shape, generator=DRAW) for shape in ((8, 12, 12), (10, 16), (16,)))
INDEX = torch.randint(0, 20, (EXAMPLES, 10), generator=DRAW)


class Of(nn.Module):
    """A function of a list of modules and of an array."""

    def __init__(self, function, *modules):
        super().__init__()
        self.layers, self.function = nn.ModuleList(modules), function

    def forward(self, *arrays):
        result = self.function(self.layers, *arrays)
        return result[0] if isinstance(result, tuple) else result


def alone(module):
    return Of(lambda m, x: m[0](x), module)


def after(module, *shape):
    """A module after a layer with parameters, so that a gradient goes through it."""
    return Of(lambda m, x: m[1](m[0](x)), nn.Conv2d(8, 8, 1), module)


def activations(m, x):
    h = 2 * m[0](x)
    return sum(
        f(h)
        for f in (
            F.gelu, F.silu, F.mish, F.hardswish, F.elu, F.selu, F.celu, F.softplus, F.leaky_relu, F.relu6, F.hardtanh,
            F.logsigmoid, F.tanhshrink, F.hardsigmoid, F.softsign, m[1], torch.erf, torch.atan, torch.abs,
        )
    )  # fmt: skip


def images(m, x):
    """Layers that keep channels last, with what breaks the chain between them."""
    h = m[1](m[0](x))
    h = F.gelu(h + x) * m[2](F.relu(h)).sigmoid() + 1 - h
    left, right = m[3](h).clamp(-1, 1), F.hardswish(m[4](h))
    wide = torch.where(left > 0, left, right) + torch.maximum(left, right) * m[5]()
    return F.max_pool2d(F.max_pool2d(wide, 2), (3, 2)).flatten(1) @ m[6](wide.mean((2, 3)))[0, :48].view(48, 1)


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(8, 1, 1))

    def forward(self):
        return self.scale


def reductions(m, x):
    h = m[0](x)
    parts = [
        h.std(1),
        h.var(1),
        h.amax(1),
        h.max(1).values,
        h.min(1)[0],
        torch.logsumexp(h, 1),
        h.prod(1),
        h.norm(dim=1),
    ]
    parts += [h.sort(1)[0][:, 3], torch.topk(h, 3).values[:, 2], torch.cumsum(h, 1)[:, 5], h.softmax(1)[:, 0]]
    return torch.stack(parts, 1)


def shapes(m, x):
    h = m[0](x)
    h = torch.cat([h[:, ::2], h.flip(1)[:, 1::3], h.roll(1, 1)[:, :2]], 1).unsqueeze(1)
    a, b = h.expand(-1, 2, -1).repeat(1, 1, 2).split([3, h.shape[2] * 2 - 3], 2)
    c = torch.gather(b, 2, b.argsort(2).detach()[:, :, :4]).masked_fill(b[:, :, :4] > 0.5, 0.1)
    h = F.pad(a, (1, 2)).tril() + 0 * F.pad(a, (2, 1), mode="replicate")
    return torch.where(h > 0, h, -h).flatten(1).sum(1, keepdim=True) + c.permute(0, 2, 1).reshape(x.shape[0], -1)


def in_place(m, x):
    h = m[0](x)
    h[:, ::2] = 0.5
    h.add_(1.0)
    h[:, 1] += x[:, 0]
    return F.relu_(h)


def losses(m, x):
    h, zero = m[0](x), torch.zeros(x.shape[0], dtype=torch.long)
    classes = F.cross_entropy(h, zero, label_smoothing=0.1) + F.nll_loss(h.log_softmax(1), zero)
    classes = classes + F.cross_entropy(h, zero, weight=torch.arange(1.0, 17)) + F.cross_entropy(h, x.softmax(1))
    pairs = F.mse_loss(h, x) + F.l1_loss(h, x) + F.smooth_l1_loss(h, x) + F.huber_loss(h, x)
    two = F.binary_cross_entropy_with_logits(h, x.sigmoid()) + F.binary_cross_entropy(h.sigmoid(), x.sigmoid())
    return (classes + pairs + two + F.kl_div(h.log_softmax(1), x.softmax(1)))[None]


def without_gradient(m, x):
    h = m[0](x)
    with torch.no_grad():
        scale = h.abs().mean(1, keepdim=True) + 1
    return h / scale + h.detach() * h


def attention(m, x):
    q = m[0](x)[:, None]
    return F.scaled_dot_product_attention(q, x[:, None], x[:, None], is_causal=True)


def tied(m, x):
    return F.linear(m[0](x), m[0].weight)


def frozen(module):
    return module.requires_grad_(False)


CASES = {
    "conv1d": (Of(lambda m, x: m[0](x.transpose(1, 2)), nn.Conv1d(16, 8, 3, padding=1)), SEQUENCE),
    "conv2d": (alone(nn.Conv2d(8, 8, 3, padding=1)), IMAGE),
    "conv2d no padding": (alone(nn.Conv2d(8, 8, 5)), IMAGE),
    "conv2d stride": (alone(nn.Conv2d(8, 8, 3, stride=2, padding=1)), IMAGE),
    "conv2d groups": (alone(nn.Conv2d(8, 8, 3, padding="same", groups=4)), IMAGE),
    "conv2d even": (alone(nn.Conv2d(8, 8, 4, stride=2, padding=(1, 2), dilation=2)), IMAGE),
    "conv transpose": (alone(nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1, groups=2)), IMAGE),
    "conv3d": (Of(lambda m, x: m[0](x[:, None]), nn.Conv3d(1, 2, 3, padding=1)), IMAGE),
    "group norm": (alone(nn.GroupNorm(4, 8)), IMAGE),
    "layer norm": (alone(nn.LayerNorm(16)), SEQUENCE),
    "instance norm": (alone(nn.InstanceNorm2d(8, affine=True)), IMAGE),
    "rms norm": (alone(nn.RMSNorm(16)), SEQUENCE),
    "batch norm 1d": (alone(nn.BatchNorm1d(16)), VECTOR),
    "batch norm 2d": (Of(lambda m, x: m[1](m[0](x)), nn.BatchNorm2d(8, affine=False), nn.Conv2d(8, 2, 1)), IMAGE),
    "frozen batch norm": (Of(lambda m, x: m[1](m[0](x)), frozen(nn.BatchNorm1d(16)), nn.Linear(16, 2)), VECTOR),
    "gru": (alone(nn.GRU(16, 8, 2, batch_first=True, bidirectional=True)), SEQUENCE),
    "rnn": (Of(lambda m, x: m[0](x.transpose(0, 1)), nn.RNN(16, 8, nonlinearity="relu")), SEQUENCE),
    "lstm": (alone(nn.LSTM(16, 8, 2, batch_first=True, bidirectional=True)), SEQUENCE),
    "lstm projection": (alone(nn.LSTM(16, 8, batch_first=True, proj_size=3)), SEQUENCE),
    "cells": (Of(lambda m, x: m[0](x[:, 0])[0] + m[1](x[:, 1]), nn.LSTMCell(16, 8), nn.GRUCell(16, 8)), SEQUENCE),
    "multihead": (Of(lambda m, x: m[0](x, x, x)[0], nn.MultiheadAttention(16, 2, batch_first=True)), SEQUENCE),
    "attention": (Of(attention, nn.Linear(16, 16)), SEQUENCE),
    "embedding": (alone(nn.Embedding(20, 8, padding_idx=0)), INDEX),
    "embedding bag": (alone(nn.EmbeddingBag(20, 8)), INDEX),
    "tied": (Of(tied, nn.Embedding(20, 8)), INDEX),
    "pools": (
        after(nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2, ceil_mode=True), nn.AdaptiveAvgPool2d(2))),
        IMAGE,
    ),
    "images": (
        Of(
            images,
            nn.Conv2d(8, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, 1),
            nn.Conv2d(8, 8, 5, padding=2, bias=False),
            nn.Conv2d(8, 8, 3, padding=1, groups=2),
            Scale(),
            nn.Linear(8, 48),
        ),
        IMAGE,
    ),
    "adaptive pools": (after(nn.Sequential(nn.AdaptiveAvgPool2d(5), nn.AdaptiveMaxPool2d(1))), IMAGE),
    "upsample": (after(nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.UpsamplingNearest2d(15))), IMAGE),
    "pixel shuffle": (after(nn.PixelShuffle(2)), IMAGE),
    "activations": (Of(activations, nn.Linear(16, 16), nn.PReLU()), VECTOR),
    "reductions": (Of(reductions, nn.Linear(16, 16)), VECTOR),
    "shapes": (Of(shapes, nn.Linear(16, 16)), VECTOR),
    "in place": (Of(in_place, nn.Linear(16, 8)), VECTOR),
    "losses": (Of(losses, nn.Linear(16, 16)), VECTOR),
    "no gradient": (Of(without_gradient, nn.Linear(16, 16)), VECTOR),
    "weight norm": (alone(nn.utils.parametrizations.weight_norm(nn.Linear(16, 8))), VECTOR),
    "spectral norm": (alone(nn.utils.parametrizations.spectral_norm(nn.Linear(16, 8))), VECTOR),
    "item": (Of(lambda m, x: m[0](x) * x.mean().item(), nn.Linear(16, 8)), VECTOR),
    "fourier": (Of(lambda m, x: torch.fft.rfft(m[0](x)).abs(), nn.Linear(16, 8)), VECTOR),
}


@pytest.mark.filterwarnings("ignore")  # PyTorch's own, of its export
@pytest.mark.parametrize("case", CASES)
def test_a_module_computes_what_it_computes_in_pytorch(case):
    module, x = CASES[case]
    before = {name: as_array(tensor).copy() for name, tensor in module.state_dict().items()}
    graph = export(module.train(), [x])
    n = 4  # not the number of examples with which it was exported
    x = x[:n]
    output = module(x).float()
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    loss = (output * weight + 0.1 * output**2).sum()
    loss.backward()
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}

    def mine(parameters):
        (result,), moved = graph({**before, **parameters}, [jnp.asarray(as_array(x))], Context(n, n, None))
        return (result * weight.numpy() + 0.1 * result**2).sum(), (result, moved)

    (_, (result, moved)), gradient = jax.jit(jax.value_and_grad(mine, has_aux=True))({k: before[k] for k in trained})
    own = output.detach().numpy()
    np.testing.assert_allclose(result, own, rtol=1e-4, atol=1e-5 * np.abs(own).max())
    largest = max(np.abs(p.grad.numpy()).max() for p in trained.values())
    for name, p in trained.items():
        np.testing.assert_allclose(gradient[name], p.grad.numpy(), rtol=1e-4, atol=1e-4 * largest)
    after_it = dict(module.named_buffers())
    assert moved.keys() == {name for name, b in after_it.items() if not np.array_equal(before[name], b.numpy())}
    for name, buffer in moved.items():
        np.testing.assert_allclose(buffer, after_it[name].numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sides", [(2, 2), (3, 1)])
def test_at_a_tie_of_a_max_pool_the_gradient_goes_where_pytorch_sends_it(sides):
    x = torch.randint(0, 3, (2, 5, 6, 8), generator=DRAW).float().requires_grad_()
    y = F.max_pool2d(x, sides)
    weight = torch.randn(y.shape, generator=DRAW)
    (y * weight).sum().backward()
    last = lambda tensor: jnp.asarray(tensor.detach().numpy()).transpose(0, 2, 3, 1)
    mine, gradient = jax.vjp(lambda x: largest(x, sides), last(x))
    np.testing.assert_array_equal(mine, last(y))
    np.testing.assert_array_equal(gradient(last(weight))[0], last(x.grad))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda m, x: m[0](x) if x.sum() > 0 else x[:, :8], "decides by the numbers in a tensor"),
        (lambda m, x: m[0](x)[x[:, 0] > 0].sum()[None], "shape depends on the numbers"),
        (lambda m, x: m[0](x) + torch.zeros(EXAMPLES, 8), "works for a batch of 11 examples only"),
        (lambda m, x: torch.linalg.lu(m[0](x)[:, None])[2], "the operation linalg_lu.* has no counterpart in JAX"),
        (lambda m, x: F.linear(x, F.dropout(m[0].weight)), "draws random numbers for a whole batch at once"),
    ],
)
def test_what_cannot_be_had_is_named(function, sentence):
    module = Of(function, nn.Linear(16, 8))
    tensors = {name: as_array(p) for name, p in module.named_parameters()}
    applied = lambda x: export(module, [VECTOR])(tensors, [x], Context(4, 4, None))
    with pytest.raises(InputError, match=sentence):
        jax.eval_shape(applied, jnp.zeros((4, 16)))
