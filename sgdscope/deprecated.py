"""Earlier public names: each warns with the name to use now."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

from sgdscope.errors import did_you_mean

# The earlier names of the package: the name to use, and the module and attribute that do its work.
NAMES = {
    "Momentum": ("sgdscope.SGD(momentum=0.9)", "deprecated", "momentum"),
    "plan_study": ("sgdscope.plan", "result", "plan"),
    "load_study": ("sgdscope.studies.get", "studies", "get"),
}


def warn(old: str, new: str, depth: int = 3) -> None:
    """Warn that a name is deprecated, at the place that uses the name.

    Args:
        old: The earlier name.
        new: The name to use.
        depth: How many frames up the use of the name is. Default: the caller of the caller.
    """
    warnings.warn(f"{old} is deprecated. Use {new}.", DeprecationWarning, stacklevel=depth)


def earlier(name: str) -> Any:
    """Return what does the work of an earlier name of the package.

    Raises:
        AttributeError: If the package never had the name.
    """
    import sgdscope

    if name not in NAMES:
        meant = did_you_mean(name, sgdscope.__all__)
        raise AttributeError(f"module 'sgdscope' has no attribute {name!r}.{meant}")
    new, module, attribute = NAMES[name]
    warn(f"sgdscope.{name}", new, depth=4)
    return getattr(import_module(f"sgdscope.{module}"), attribute)


def momentum(coefficient: float = 0.9) -> Any:
    """Return ``SGD(momentum=coefficient)``, as ``Momentum`` did."""
    return import_module("sgdscope.optimizers").SGD(momentum=coefficient)
