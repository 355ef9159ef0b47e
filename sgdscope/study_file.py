"""Study files: Python files that define ``study``, run as modules under names from which any process finds them.

The module of ``/home/me/study.py`` is called ``sgdscope.study_file./home/me/study%2Epy``. Data-loading workers that
unpickle a function of it import it by that name, and two files of the same name in different folders stay apart.
"""

from __future__ import annotations

import contextlib
import importlib.util
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any
from urllib.parse import quote, unquote

from sgdscope.errors import InputError, Terminated
from sgdscope.study import Study

# Modules that study files imported from their own folders, by name: the next study file may have others of that name.
_beside = set[str]()
# Makes this module one that has submodules.
__path__: list[str] = []


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        """Compile the file as it is now: bytecode kept from a moment ago could be that of an earlier text."""
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


class _Finder(MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        """Return how a study file is loaded, from the path in its module's name."""
        if not fullname.startswith(f"{__name__}."):
            return None
        place = Path(unquote(fullname.removeprefix(f"{__name__}.")))
        if not place.is_absolute():
            raise ImportError("attempted relative import: a module beside a study file is imported by its name alone")
        return _spec(place)


sys.meta_path.append(_Finder())


def read_study(path: Path) -> Study:
    """Return the ``study`` that a Python file defines.

    Modules beside the file can be imported, as with ``python study.py``, also by data-loading workers. A block
    ``if __name__ == "__main__":`` is not run.

    Raises:
        InputError: If it is no such file, it fails, or it defines no study.
    """
    _check_file(path)
    from sgdscope.training.jax_setup import check_jax, pinned

    place = path.resolve()
    spec = _spec(place)
    module = importlib.util.module_from_spec(spec)
    interrupted: list[int] = []
    try:
        with pinned(), _as_script(place, path), _noting_interrupts(interrupted):
            sys.modules[spec.name] = module
            _Loader(spec.name, str(place)).exec_module(module)
    except BaseException as error:
        sys.modules.pop(spec.name, None)
        if isinstance(error, Terminated) or (interrupted and isinstance(error, KeyboardInterrupt)):
            raise
        where = _where(path, place, error)
        if isinstance(error, InputError):
            raise InputError(f"{where}: {error}") from error
        if isinstance(error, RuntimeError | AssertionError):  # as JAX raises where it cannot start
            check_jax()
        if isinstance(error, SystemExit):
            raise InputError(f"{where}: SystemExit({error.code!r}): a study file must not exit.") from error
        raise InputError(f"{where}: {_said(error)}") from error
    return _study_of(path, vars(module))


def _check_file(path: Path) -> None:
    if path.is_dir():
        more = " It holds a study's results" if (path / "study.json").is_file() else ""
        raise InputError(f"{path} is a folder, not a Python file that defines `study`.{more + '.' if more else ''}")
    if not path.is_file():
        raise InputError(f"{path} is not a Python file that defines `study`.")
    if path.suffix == ".ipynb":
        raise InputError(
            f"{path} is a notebook. Save the study as a Python file, or call sgdscope.run in the notebook."
        )


def _study_of(path: Path, defined: dict[str, Any]) -> Study:
    study = defined.get("study")
    if isinstance(study, Study):
        return study
    others = [name for name, value in defined.items() if isinstance(value, Study)]
    if "study" in defined:
        said = f"{path} defines no `study` that is a Study: it is of type {type(study).__name__}"
    else:
        said = f"{path} defines no `study`"
    if others:
        raise InputError(f"{said}. Rename {others[0]!r}, which is a Study, to `study`.")
    raise InputError(f"{said}; it needs a line study = sgdscope.Study(...).")


def _spec(place: Path) -> ModuleSpec:
    name = f"{__name__}.{quote(str(place), safe='/ ').replace('.', '%2E')}"
    spec = importlib.util.spec_from_file_location(name, place, loader=_Loader(name, str(place)))
    assert spec is not None  # noqa: S101 - a loader was given
    return spec


@contextlib.contextmanager
def _as_script(place: Path, path: Path) -> Iterator[None]:
    """Let a file import what lies beside it, first and from now on, and read no argument of our command."""
    folder = place.parent
    for name in _beside:
        sys.modules.pop(name, None)
    _beside.clear()
    if str(folder) in sys.path:
        sys.path.remove(str(folder))
    sys.path.insert(0, str(folder))
    before, arguments = set(sys.modules), sys.argv
    sys.argv = [str(path)]
    try:
        yield
    finally:
        sys.argv = arguments
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).is_relative_to(folder) and "site-packages" not in file and _is_beside(name, folder):
                _beside.add(name)


def _is_beside(name: str, folder: Path) -> bool:
    """Return whether a module is one that is found in a folder by its name."""
    first = name.partition(".")[0]
    return (folder / f"{first}.py").is_file() or (folder / first).is_dir()


@contextlib.contextmanager
def _noting_interrupts(noted: list[int]) -> Iterator[None]:
    """Tell Ctrl-C from a KeyboardInterrupt that a file raises itself."""

    def note(number: int, frame: Any) -> None:
        noted.append(number)
        signal.default_int_handler(number, frame)

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        if ours and signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _where(path: Path, place: Path, error: BaseException) -> str:
    """Say in which line of the file an error arose, and in which of a file beside it, if any."""
    places = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        places.append((Path(error.filename), error.lineno))
    own = [line for file, line in places if file == place]
    said = f"{path}, line {own[-1]}" if own and own[-1] else str(path)
    inside = [(file, line) for file, line in places if file != place and file.is_relative_to(place.parent)]
    inside = [(file, line) for file, line in inside if "site-packages" not in file.parts and file.suffix == ".py"]
    if inside and not isinstance(error, InputError):
        file, line = inside[-1]
        said += f", in {file.relative_to(place.parent)}" + (f", line {line}" if line else "")
    return said


def _said(error: BaseException) -> str:
    """Return an error's kind and the first line of what it says."""
    lines = (error.msg if isinstance(error, SyntaxError) else str(error)).strip().splitlines()
    return ": ".join([type(error).__name__, *lines[:1]])
