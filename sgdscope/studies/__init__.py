"""The built-in studies, one file each, and how a study is found by name or path."""

from __future__ import annotations

import importlib
import runpy
import traceback
from pathlib import Path
from typing import Any

from sgdscope.errors import InputError
from sgdscope.study import Study

BUILT_IN = tuple(
    f"{workload}{sweep}"
    for workload in ("digits", "autoencoder", "lstm", "wide_resnet", "wide_resnet_skipinit")
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
            raise InputError(f"profile: {profile!r} is not one of {name}'s; there are {', '.join(module.PROFILES)}.")
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
    if not path.is_file():
        raise InputError(f"study {name!r} is neither built in ({', '.join(BUILT_IN)}) nor the path of a Python file.")
    try:
        defined = runpy.run_path(str(path))
    except InputError as error:
        raise InputError(f"{path}{_line(path, error)}: {error}") from error
    except Exception as error:
        raise InputError(f"{path}{_line(path, error)}: {type(error).__name__}: {error}") from error
    study = defined.get("study")
    if not isinstance(study, Study):
        raise InputError(f"{path} defines no `study`; it needs a line study = sgdscope.Study(...).")
    return study


def _line(path: Path, error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""
