"""sgdscope measures how stochastic gradient descent behaves at each batch size.

Declare: Study, Seeds, SeedsAt, Workload, Resident, Streams, Feed, constant_classifier, Epochs, Steps, Unlimited
Optimizers: SGD, Adam, AdamW, Optax, Values
Schedules: Halving, Constant, Cosine, WarmupStableDecay
Built in: studies.get, workloads.digits and others
Run: run, plan_study, load_study, configure_jax, exit_together
Read: Result
Mistakes: InputError
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sgdscope.version import __version__ as __version__

if TYPE_CHECKING:
    from sgdscope import studies as studies
    from sgdscope import workloads as workloads
    from sgdscope.budget import Epochs, Steps, Unlimited
    from sgdscope.engine.run import plan_study
    from sgdscope.errors import InputError
    from sgdscope.optimizers import SGD, Adam, AdamW, Optax, Values
    from sgdscope.result import Result, run
    from sgdscope.schedules import Constant, Cosine, Halving, WarmupStableDecay
    from sgdscope.seeds import Seeds, SeedsAt
    from sgdscope.streaming.distributed import exit_together
    from sgdscope.studies import load_study
    from sgdscope.study import Study
    from sgdscope.training.jax_setup import configure_jax
    from sgdscope.workloads.base import Feed, Resident, Streams, Workload, constant_classifier


# Names are loaded when they are first used, so that what needs no JAX does not wait for it.
_HOME = {
    "Seeds": "seeds",
    "SeedsAt": "seeds",
    "Study": "study",
    "Workload": "workloads.base",
    "Resident": "workloads.base",
    "Streams": "workloads.base",
    "Feed": "workloads.base",
    "constant_classifier": "workloads.base",
    "SGD": "optimizers",
    "Adam": "optimizers",
    "AdamW": "optimizers",
    "Optax": "optimizers",
    "Values": "optimizers",
    "Halving": "schedules",
    "Constant": "schedules",
    "Cosine": "schedules",
    "WarmupStableDecay": "schedules",
    "Epochs": "budget",
    "Steps": "budget",
    "Unlimited": "budget",
    "run": "result",
    "plan_study": "engine.run",
    "load_study": "studies",
    "configure_jax": "training.jax_setup",
    "exit_together": "streaming.distributed",
    "Result": "result",
    "InputError": "errors",
}

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Constant",
    "Cosine",
    "Epochs",
    "Feed",
    "Halving",
    "InputError",
    "Optax",
    "Resident",
    "Result",
    "Seeds",
    "SeedsAt",
    "Steps",
    "Streams",
    "Study",
    "Unlimited",
    "Values",
    "WarmupStableDecay",
    "Workload",
    "configure_jax",
    "constant_classifier",
    "exit_together",
    "load_study",
    "plan_study",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in ("studies", "workloads"):
        return import_module(f"sgdscope.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'sgdscope' has no attribute {name!r}")
    return getattr(import_module(f"sgdscope.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
