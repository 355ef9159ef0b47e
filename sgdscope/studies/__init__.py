"""The built-in studies, one file each, and how a study is found by name or path."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgdscope.errors import InputError, did_you_mean
from sgdscope.study import Declaration, Study
from sgdscope.study_file import read_study

BUILT_IN = tuple(
    f"{workload}{sweep}"
    for workload in ("digits", "autoencoder", "lstm", "wide_resnet", "wide_resnet_skipinit", "imagenet_resnet50")
    for sweep in ("", "_steps", "_epochs")
)


def load_study(
    name: str, profile: str | None = None, data: str | Path | None = None, train_on_all: bool = False
) -> Study:
    """Return a built-in study by its name, or the ``study`` that a Python file defines.

    Args:
        name: a built-in study's name, or the path of a Python file.
        profile: how large a built-in study on a published data set is: ``small``, which is also meant where none
            is given, or ``full``.
        data: where that data set is; SGDSCOPE_DATA, or the user's cache folder, unless told otherwise.
        train_on_all: train on all examples and choose on the test set, as the talk does, rather than hold out a
            validation split.

    Raises:
        InputError: where there is no such study or profile, the data are not there or not right, or the file
            fails: its own error, with its line.
    """
    module: Any = importlib.import_module(f"sgdscope.studies.{name}") if name in BUILT_IN else None
    if hasattr(module, "PROFILES"):
        profile = profile or "small"
        if profile not in module.PROFILES:
            meant = did_you_mean(profile, module.PROFILES)
            raise InputError(
                f"profile: {profile!r} is not one of {name}'s; there are {', '.join(module.PROFILES)}.{meant}"
            )
        where = None if data is None else Path(data)
        declared: Study = module.study(module.read(where, train_on_all=train_on_all), profile)
        return declared
    for field, value in (("profile", profile), ("data", data), ("train_on_all", train_on_all)):
        if value:
            raise InputError(f"{field}: study {name!r} has none; it is for built-in studies on published data sets.")
    if module is not None:
        built_in: Study = module.study
        return built_in
    path = Path(name)
    if not path.exists():
        raise InputError(_no_study(name, path))
    return read_study(path)


@dataclass(frozen=True)
class Origin:
    """How the command line names a built-in study, and the fields that it then has, as far as they are known."""

    words: tuple[str, ...]
    fields: Mapping[str, Sequence[Any]]


def origin_of(declaration: Declaration) -> Origin | None:
    """Return the built-in study that a folder's declaration is a form of, by its name; None where it is another's."""
    for built_in in BUILT_IN:
        workload, sweep = next(
            (built_in.removesuffix(end), end) for end in ("_steps", "_epochs", "") if built_in.endswith(end)
        )
        for profile in ("",) if workload == "digits" else ("small", "full"):
            if declaration.name != "-".join(filter(None, (workload, profile, sweep[1:]))).replace("_", "-"):
                continue
            if profile:  # its data may not be there to read the fields by
                on_all = ("--train-on-all",) if declaration.workloads[0].chosen_on == "test" else ()
                return Origin((built_in, "--profile", profile, *on_all), {})
            theirs = load_study(built_in).declaration()
            if theirs.workloads != declaration.workloads:
                return None
            names = ("optimizers", "batch_sizes", "learning_rates", "budgets")
            return Origin((built_in,), {name: getattr(theirs, name) for name in names} | {"seeds": (theirs.seeds,)})
    return None


def _no_study(name: str, path: Path) -> str:
    """Say that a name is no study's, and which may have been meant."""
    if path.suffix or len(path.parts) > 1 or name.startswith("~"):
        near = [other.name for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        where = "" if path.parent.is_dir() else f", since there is no folder {path.parent}"
        return f"{name}: there is no such file{where}.{did_you_mean(path.name, near)}"
    if meant := did_you_mean(name, BUILT_IN):
        return f"study {name!r} is neither built in nor the path of a Python file.{meant}"
    return f"study {name!r} is neither built in ({', '.join(BUILT_IN)}) nor the path of a Python file."
