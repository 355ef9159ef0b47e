"""ResNet-50 here against torchvision's with the same weights: outputs, loss and gradient.

Both in float64: in float32 a gradient that is a small difference of large numbers tells nothing.

Needs PyTorch and torchvision beside sgdscope. Run: python benchmarks/torchvision_resnet.py
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torchvision

from sgdscope.models.losses import cross_entropy
from sgdscope.models.normalization import ghost_batch_norm, running_norm
from sgdscope.models.resnet import RESNET_50, channels_of_blocks, resnet

PICTURES, SIDE = 4, 224
STRIDES = [stride for *_, stride in channels_of_blocks(RESNET_50, 64)]


def randomised(model):
    """Values that hide nothing: no scale is 0 or 1, no shift 0, and the running statistics are somebody's."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.ndim == 1:
            tensor.normal_(0, 0.1, generator=generator)


def ours(of):
    """Return parameters and state from torchvision's names, by ``of(name) -> array``."""
    kernel = lambda name: np.transpose(of(f"{name}.weight"), (2, 3, 1, 0))
    norm = lambda name: {"scale": of(f"{name}.weight"), "shift": of(f"{name}.bias")}
    running = lambda name: {"mean": of(f"{name}.running_mean"), "variance": of(f"{name}.running_var")}
    parameters = {"stem": kernel("conv1"), "norm": norm("bn1"), "blocks": []}
    parameters["head"] = {"weight": of("fc.weight").T, "bias": of("fc.bias")}
    state = {"norm": running("bn1"), "blocks": []}
    for stage, count in enumerate(RESNET_50, 1):
        for number in range(count):
            place = f"layer{stage}.{number}"
            block = {f"conv{i}": kernel(f"{place}.conv{i}") for i in (1, 2, 3)}
            block |= {f"norm{i}": norm(f"{place}.bn{i}") for i in (1, 2, 3)}
            left = {f"norm{i}": running(f"{place}.bn{i}") for i in (1, 2, 3)}
            if number == 0:
                block |= {"shortcut": kernel(f"{place}.downsample.0"), "shortcut_norm": norm(f"{place}.downsample.1")}
                left |= {"shortcut_norm": running(f"{place}.downsample.1")}
            parameters["blocks"].append(block)
            state["blocks"].append(left)
    return parameters, state


def off(mine, theirs):
    """The largest difference, as a share of the largest value."""
    mine, theirs = np.asarray(mine, np.float64), np.asarray(theirs, np.float64)
    return np.abs(mine - theirs).max() / np.abs(theirs).max()


def main():
    jax.config.update("jax_enable_x64", True)
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None)
    randomised(model)
    x = torch.randn(PICTURES, 3, SIDE, SIDE)
    label = torch.tensor([1, 10, 100, 999])
    values = {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}
    parameters, state = ours(values.__getitem__)
    pictures = np.transpose(x.numpy(), (0, 2, 3, 1))
    print(f"parameters: {sum(leaf.size for leaf in jax.tree.leaves(parameters)):,}")

    with torch.no_grad():
        theirs = model.eval()(x).numpy()
    mine = jax.jit(lambda p, s, x: resnet(p, s, x, STRIDES, running_norm)[0])(parameters, state, pictures)
    print(f"outputs in evaluation: off by {off(mine, theirs):.1e} of the largest")

    loss = torch.nn.functional.cross_entropy(model.train()(x), label)
    loss.backward()

    @jax.jit
    def loss_and_gradient(p):
        def of(p):
            outputs, left = resnet(p, state, pictures, STRIDES, lambda *a: ghost_batch_norm(*a, PICTURES))
            return cross_entropy(outputs, jnp.asarray(label.numpy())).mean(), left

        return jax.value_and_grad(of, has_aux=True)(p)

    (value, left), gradient = loss_and_gradient(parameters)
    print(f"loss in training: {value:.6f}, torchvision's {loss.item():.6f}")
    slopes, _ = ours(lambda name: dict(model.named_parameters())[name].grad.numpy() if "running" not in name else None)
    parts = jax.tree.leaves(jax.tree.map(off, gradient, slopes))
    print(f"gradient: off by at most {max(parts):.1e} of the largest value of its array, {len(parts)} arrays")
    # torchvision's running variance has Bessel's correction, and ours has not.
    _, theirs = ours(lambda name: model.state_dict()[name].detach().numpy())
    means = lambda tree: [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree) if path[-1].key == "mean"]
    print(f"running means: off by at most {max(map(off, means(left), means(theirs))):.1e}")


if __name__ == "__main__":
    main()
