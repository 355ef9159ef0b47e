"""PyTorch models as workloads: ``from_torch`` turns an ``nn.Module`` into a function that JAX trains.

PyTorch is needed where a study is declared, not where its results are read.
"""

from sgdscope.torch.workload import from_torch as from_torch

__all__ = ["from_torch"]
