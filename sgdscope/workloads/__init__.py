"""The built-in workloads: data, model, loss, score and augmentation, one file each.

>>> import sgdscope as sg
>>> sg.workloads.digits().name
'digits'
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgdscope.workloads.autoencoder import autoencoder
    from sgdscope.workloads.char_lm import char_lm
    from sgdscope.workloads.digits import digits
    from sgdscope.workloads.fashion_mnist import fashion_mnist, fashion_mnist_convnet
    from sgdscope.workloads.lstm import lstm
    from sgdscope.workloads.tabular import classifier, from_csv, regressor
    from sgdscope.workloads.wide_resnet import wide_resnet
    from sgdscope.workloads.wide_resnet_skipinit import wide_resnet_skipinit

__all__ = [
    "autoencoder", "char_lm", "classifier", "digits", "fashion_mnist", "fashion_mnist_convnet", "from_csv", "lstm",
    "regressor", "wide_resnet", "wide_resnet_skipinit",
]  # fmt: skip
# Of names that are not in the file of the same name.
FILES = dict.fromkeys(("classifier", "from_csv", "regressor"), "tabular") | {"fashion_mnist_convnet": "fashion_mnist"}


class _Workloads(ModuleType):
    """The package, in which a workload's name is its function, also once its file of the same name is imported."""

    def __getattr__(self, name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{FILES.get(name, name)}"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):  # which the import of the file sets
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return __all__


sys.modules[__name__].__class__ = _Workloads
