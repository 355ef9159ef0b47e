"""Backends and the loop together, as most tests want them."""

from sgdscope.study import Study
from sgdscope.training.loop import Milestones, train
from sgdscope.training.packed import PackedBackend
from sgdscope.training.step import Kind
from sgdscope.training.traced import trace

METHODS = {"map": ("map", "inside"), "vmap": ("vmap", "inside"), "step": ("map", "outside"), None: (None, None)}


class Trainer:
    """Train packs of a workload's trials, measured at these fractions of their budget."""

    def __init__(self, workload, evaluate_at=(1.0,), method=None, noise_scale_at=(), sharpness_at=(), **how):
        batching, loop = METHODS[method]
        self.workload, self.milestones = workload, Milestones(evaluate_at, noise_scale_at, sharpness_at)
        self.backend = PackedBackend(
            trace(workload),
            batching=batching,
            loop=loop,
            noise_scale=bool(noise_scale_at),
            sharpness=bool(sharpness_at),
            **how,
        )

    def train(self, trials, on_updates=lambda updates: None, checkpoints=None):
        return train(self.backend, trials, self.milestones, checkpoints, on_updates)

    @property
    def method(self):
        return self.backend.provenance["method"]

    def __getattr__(self, name):
        return getattr(self.backend, name)


def kind_of(workload, batch_size, optimizer, **fields):
    """Return the kind of a study's trials."""
    study = Study(name="s", workloads=workload, batch_sizes=(batch_size,), optimizers=optimizer, **fields)
    return Kind.of(study.declaration().trial(optimizer, batch_size, 1.0, 0))
