"""The built-in studies, one file each, found by name.

>>> import sgdscope as sg
>>> sg.studies.get("digits").batch_sizes
(2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""

from __future__ import annotations

from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

from sgdscope.errors import InputError, did_you_mean
from sgdscope.formatting import exact
from sgdscope.study import EXTENSIBLE, Declaration, Study
from sgdscope.study_file import read_study

# Studies of methods on the digits, which need no data and so have no profiles.
ON_DIGITS = ("methods", "noise_reduction", "regularization")
# Studies that compare methods, which hold all that they compare and so have no sweeps.
OF_METHODS = (*ON_DIGITS, "autoencoder_methods")
BUILT_IN = (
    "digits", *ON_DIGITS, "fashion_mnist", "fashion_mnist_convnet", "autoencoder", "autoencoder_methods", "lstm",
    "char_lm", "wide_resnet", "wide_resnet_skipinit", "imagenet_resnet50",
)  # fmt: skip
PROFILES = ("small", "laptop", "full")
SWEEPS = ("steps", "epochs")
# Fields that the command line can set, by which a folder may differ from the built-in study.
OPTIONS = (
    "optimizers", "batch_sizes", "learning_rates", "budgets", "seeds", "first_seed", "schedule", "score_margin",
    "evaluate_at", "noise_scale_at", "sharpness_at", "microbatch_size", "devices_per_trial", "compute_dtype",
)  # fmt: skip
# Data, model, and what a study needs beside the package.
ABOUT = {
    "digits": ("UCI digits", "fully connected", "nothing"),
    **dict.fromkeys(ON_DIGITS, ("UCI digits", "fully connected", "nothing")),
    "fashion_mnist": ("Fashion-MNIST", "fully connected", "sgdscope data fetch fashion_mnist"),
    "fashion_mnist_convnet": ("Fashion-MNIST", "convolutional", "sgdscope data fetch fashion_mnist"),
    **dict.fromkeys(("autoencoder", "autoencoder_methods"), ("MNIST", "autoencoder", "sgdscope data fetch mnist")),
    "lstm": ("Penn TreeBank", "LSTM", "sgdscope data fetch ptb"),
    "char_lm": ("Penn TreeBank", "GPT of characters", "sgdscope data fetch ptb"),
    "wide_resnet": ("CIFAR-10", "Wide ResNet with batch normalization", "sgdscope data fetch cifar10"),
    "wide_resnet_skipinit": ("CIFAR-10", "Wide ResNet with SkipInit", "sgdscope data fetch cifar10"),
    "imagenet_resnet50": ("ImageNet", "ResNet-50", "--data DIR with ImageNet, a cluster"),
}
# Folders and commands of earlier versions name a sweep of a study as a study of its own.
EARLIER = {f"{name}_{sweep}": (name, sweep) for name in BUILT_IN if name not in OF_METHODS for sweep in SWEEPS}


def get(
    name: str,
    profile: str | None = None,
    data: str | Path | None = None,
    train_on_all: bool = False,
    sweep: str | None = None,
) -> Study:
    """Return a built-in study by its name, or the ``study`` that a Python file defines.

    Args:
        name: A built-in study's name, or the path of a Python file.
        profile: The size of a built-in study on a published data set, ``laptop``, ``small`` or ``full``: see
            ``sgdscope studies``. Default: the smaller one.
        data: The folder of that data set. Default: SGDSCOPE_DATA, or the user's cache folder.
        train_on_all: Train on all examples and choose on the test set, as the paper does, instead of holding out a
            validation split. Default: False.
        sweep: What a built-in study varies: ``steps`` for batch sizes at a constant number of steps, ``epochs`` for
            epoch budgets at one batch size. Default: batch sizes at a constant number of epochs.

    Raises:
        InputError: If there is no study, profile or sweep of that name, if the data are missing or wrong, or if the
            file fails. The message then has the file's own error and line.

    >>> import sgdscope as sg
    >>> sg.studies.get("digits", sweep="steps").name
    'digits-steps'
    """
    named, (name, implied) = name, EARLIER.get(name, (name, None))
    if implied and sweep:
        raise InputError(f"sweep: study {named!r} is a sweep already; give {name} with the sweep {sweep!r}.")
    sweep = sweep or implied
    if sweep and (name in OF_METHODS or name not in BUILT_IN):
        raise InputError(f"sweep: study {name!r} has none; it is for studies of batch sizes such as digits.")
    if name not in BUILT_IN:
        _check_ungiven(name, profile, data, train_on_all)
        path = Path(name)
        if not path.exists():
            raise InputError(_no_study(name, path))
        return read_study(path)
    if sweep not in (None, *SWEEPS):
        meant = did_you_mean(str(sweep), SWEEPS)
        raise InputError(f"sweep: {sweep!r} is not one of {name}'s; there are {' and '.join(SWEEPS)}.{meant}")
    module: Any = import_module(f"sgdscope.studies.{name}")
    if not hasattr(module, "PROFILES"):
        _check_ungiven(name, profile, data, train_on_all)
        study: Study = module.study
        return module.SWEEPS.applied_to(study, sweep) if sweep else study
    profile = profile or next(name for name in PROFILES if name in module.PROFILES)
    if profile not in module.PROFILES:
        meant = did_you_mean(profile, module.PROFILES)
        raise InputError(f"profile: {profile!r} is not one of {name}'s; there are {', '.join(module.PROFILES)}.{meant}")
    read = module.read(None if data is None else Path(data), train_on_all=train_on_all)
    return declared(name, read, profile, sweep)


def declared(name: str, data: Any, profile: str, sweep: str | None = None) -> Study:
    """Return a built-in study on a published data set that has been read."""
    module: Any = import_module(f"sgdscope.studies.{name}")
    study: Study = module.study(data, profile)
    return module.SWEEPS[profile].applied_to(study, sweep) if sweep else study


def _check_ungiven(name: str, profile: str | None, data: str | Path | None, train_on_all: bool) -> None:
    for field, value in (("profile", profile), ("data", data), ("train_on_all", train_on_all)):
        if value:
            raise InputError(f"{field}: not available for study {name!r}. Only downloaded data sets have it.")


def origin_of(declaration: Declaration) -> tuple[str, ...] | None:
    """Return the words after ``sgdscope run`` that name a study; None where it is not a built-in one.

    Of its fields those are named in which the built-in study differs or has more. Of a study on downloaded data only
    the profile is named, since the data may not be there to read its fields by.
    """
    for workload, sweep in product(BUILT_IN, (None, *SWEEPS)):
        if sweep and workload in OF_METHODS:
            continue
        words = (workload, "--sweep", sweep) if sweep else (workload,)
        for profile in (None,) if workload in ("digits", *ON_DIGITS) else PROFILES:
            if declaration.name != "-".join(filter(None, (workload, profile, sweep))).replace("_", "-"):
                continue
            if profile and [record.name for record in declaration.workloads] != [workload.removesuffix("_methods")]:
                return None
            if profile:
                on_all = ("--train-on-all",) if declaration.workloads[0].chosen_on == "test" else ()
                return (*words, "--profile", profile, *on_all)
            theirs = get(workload, sweep=sweep).declaration()
            if theirs.workloads != declaration.workloads:
                return None
            return (*words, *_differing(theirs, declaration))
    return None


def _differing(theirs: Declaration, declaration: Declaration) -> list[str]:
    """Return the options by which a study becomes one that a declaration holds, or a smaller one of its kind."""
    words: list[str] = []
    more = theirs.beyond(declaration)
    for name in OPTIONS:
        mine, other = getattr(declaration, name), getattr(theirs, name)
        if (name in EXTENSIBLE and name not in more and bool(mine) == bool(other)) or mine in (other, None):
            continue
        values = mine if isinstance(mine, tuple) else (mine,)
        words += [f"--{name.replace('_', '-')}", *(exact(v) if isinstance(v, float) else str(v) for v in values)]
    return words


def _no_study(name: str, path: Path) -> str:
    """Say that a name is no study's, and which may have been meant."""
    if path.suffix or len(path.parts) > 1 or name.startswith("~"):
        near = [other.name for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        where = "" if path.parent.is_dir() else f", since there is no folder {path.parent}"
        return f"{name}: there is no such file{where}.{did_you_mean(path.name, near)}"
    if meant := did_you_mean(name, (*BUILT_IN, *EARLIER)):
        return f"study {name!r} is neither built in nor the path of a Python file.{meant}"
    return f"study {name!r} is neither built in ({', '.join(BUILT_IN)}) nor the path of a Python file."


def overview() -> list[tuple[str, ...]]:
    """Return a table of the built-in studies, its headings first: study, data, model, sweep, profiles, needs."""
    rows: list[tuple[str, ...]] = [("study", "data", "model", "sweep", "profiles", "needs")]
    for name in BUILT_IN:
        module: Any = import_module(f"sgdscope.studies.{name}")
        data, model, needs = ABOUT[name]
        profiles = ", ".join(sorted(getattr(module, "PROFILES", ()), reverse=True)) or "–"
        sweeps = "methods" if name in OF_METHODS else ", ".join(("batch sizes", *SWEEPS))
        rows.append((name, data, model, sweeps, profiles, needs))
    return rows
