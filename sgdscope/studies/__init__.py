"""The built-in studies, one file each, and how a study is found by name or path."""

from __future__ import annotations

import importlib
import runpy
import traceback
from pathlib import Path

from sgdscope.errors import InputError
from sgdscope.study import Study

BUILT_IN = ("digits",)


def load_study(name: str) -> Study:
    """Return a built-in study by its name, or the ``study`` that a Python file defines.

    Raises:
        InputError: where there is no such study, or the file fails: its own error, with its line.
    """
    if name in BUILT_IN:
        built_in: Study = importlib.import_module(f"sgdscope.studies.{name}").study
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
