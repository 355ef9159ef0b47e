"""The exceptions of sgdscope, suggestions for typos, and tracebacks kept in files."""

import hashlib
import sysconfig
import traceback
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

HERE = Path(__file__).parent
INSTALLED = tuple(Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib"))


class SgdscopeError(Exception):
    """The base of every exception that sgdscope raises itself.

    >>> import sgdscope as sg
    >>> try:
    ...     sg.studies.get("digts")
    ... except sg.SgdscopeError as error:
    ...     print(error)
    study 'digts' is neither built in nor the path of a Python file. Did you mean digits?
    """


class InputError(SgdscopeError, ValueError):
    """An input that the user can correct. The message names the input, what is wrong with it, and what to do.

    >>> import sgdscope as sg
    >>> sg.Epochs(0)
    Traceback (most recent call last):
    sgdscope.errors.InputError: budgets: epochs must be a positive finite number, not 0.
    """


class Terminated(BaseException):
    """The process was told to end (SIGTERM), as Slurm and Kubernetes do before they kill it."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question that names the known word nearest to a misspelt one; nothing where none is near.

    >>> did_you_mean("runn", ["run", "plan"]), did_you_mean("frob", ["run", "plan"])
    (' Did you mean run?', '')
    """
    by_letters = {name.lower().lstrip("-"): name for name in known}
    near = get_close_matches(word.lower().lstrip("-"), by_letters, n=1, cutoff=0.7)
    return f" Did you mean {by_letters[near[0]]}?" if near else ""


def is_defect(error: BaseException) -> bool:
    """Return whether an exception is a defect of sgdscope: its own code raised it, or called what did.

    A user's function that raises is not one, and neither is what the device or the machine refuses.
    """
    if isinstance(error, RuntimeError | MemoryError | OSError):  # as JAX raises where a program fails on the device
        return False
    if type(error.__cause__).__name__ == "_RemoteTraceback":  # raised where a data-loading worker reads
        return False
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if HERE in path.parents:
            return True
        if path.is_file() and not any(folder in path.parents for folder in INSTALLED):
            return False
    return True


def keep_traceback(error: BaseException, folders: Sequence[Path]) -> Path | None:
    """Write an exception's traceback to the first of some folders that can be written; None where none can.

    The file is named by its content, so that the same failure has one file.
    """
    text = "".join(traceback.format_exception(error))
    name = f"{type(error).__name__}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:12]}.txt"
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8", errors="replace")
        except OSError:
            continue
        return folder / name
    return None
