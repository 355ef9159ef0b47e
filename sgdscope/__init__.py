"""sgdscope measures how stochastic gradient descent behaves at each batch size.

Declare: Study, Seeds, SeedsAt, Workload, Resident, Streams, Feed, constant_classifier, Epochs, Steps, Unlimited
Optimizers: SGD, Adam, AdamW, KFAC, SVRG, AlphaSVRG, GradientPenalty, L2, LabelSmoothing, SAM, Optax, Values
Schedules: Halving, Constant, Cosine, WarmupStableDecay
Built in: studies, workloads
Run: run, plan, configure_jax, exit_together
Read: load, load_table, compare, Result, Analysis, Comparison
Errors: SgdscopeError, InputError

>>> import sgdscope as sg
>>> study = sg.Study(
...     name="two-sizes", workloads=sg.workloads.digits(), batch_sizes=(256, 1024), budgets=sg.Epochs(5)
... )
>>> study.optimizers
(SGD(momentum=0.0), SGD(momentum=0.9))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sgdscope.version import __version__ as __version__

if TYPE_CHECKING:
    from sgdscope import studies as studies
    from sgdscope import workloads as workloads
    from sgdscope.budget import Epochs, Steps, Unlimited
    from sgdscope.comparison.comparison import Comparison, compare
    from sgdscope.errors import InputError, SgdscopeError
    from sgdscope.optimizers import (
        KFAC,
        L2,
        SAM,
        SGD,
        SVRG,
        Adam,
        AdamW,
        AlphaSVRG,
        GradientPenalty,
        LabelSmoothing,
        Optax,
        Values,
    )
    from sgdscope.result import Analysis, Result, load, load_table, plan, run
    from sgdscope.schedules import Constant, Cosine, Halving, WarmupStableDecay
    from sgdscope.seeds import Seeds, SeedsAt
    from sgdscope.streaming.distributed import exit_together
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
    **dict.fromkeys(("KFAC", "SVRG", "AlphaSVRG", "GradientPenalty", "L2", "LabelSmoothing", "SAM"), "optimizers"),
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
    "plan": "result",
    "compare": "comparison.comparison",
    "Comparison": "comparison.comparison",
    "load": "result",
    "load_table": "result",
    "configure_jax": "training.jax_setup",
    "exit_together": "streaming.distributed",
    "Result": "result",
    "Analysis": "result",
    "SgdscopeError": "errors",
    "InputError": "errors",
}

__all__ = [
    "KFAC",
    "L2",
    "SAM",
    "SGD",
    "SVRG",
    "Adam",
    "AdamW",
    "AlphaSVRG",
    "Analysis",
    "Comparison",
    "Constant",
    "Cosine",
    "Epochs",
    "Feed",
    "GradientPenalty",
    "Halving",
    "InputError",
    "LabelSmoothing",
    "Optax",
    "Resident",
    "Result",
    "Seeds",
    "SeedsAt",
    "SgdscopeError",
    "Steps",
    "Streams",
    "Study",
    "Unlimited",
    "Values",
    "WarmupStableDecay",
    "Workload",
    "compare",
    "configure_jax",
    "constant_classifier",
    "exit_together",
    "load",
    "load_table",
    "plan",
    "run",
    "studies",
    "workloads",
]


def __getattr__(name: str) -> Any:
    if name in ("studies", "workloads"):
        return import_module(f"sgdscope.{name}")
    if name not in _HOME:
        from sgdscope.deprecated import earlier

        return earlier(name)
    return getattr(import_module(f"sgdscope.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
