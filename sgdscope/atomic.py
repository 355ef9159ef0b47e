"""Files that are seen whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sgdscope.errors import InputError

# How :func:`replace` ends the name of a file that it has not finished: with a number that no other process draws.
UNFINISHED = re.compile(r"(?P<name>.+)\.\d+\.part")
# What says that the disk lost or refused data; any other error of a synchronisation says that there is none.
LOST = (errno.EIO, errno.ENOSPC, errno.EDQUOT)


def replace(path: Path, content: bytes, synchronised: bool = True) -> None:
    """Write a file aside, synchronise it and rename it into place; leaves nothing behind where that fails.

    A symbolic link stays, and the file that it names is replaced. A device, named pipe or socket is never replaced.

    Args:
        path: the file.
        content: what it holds from now on.
        synchronised: False where it need not outlive a power failure.

    Raises:
        OSError: where it cannot be written.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "it is a device, a pipe or a socket, not a file")
    aside = path.with_name(f"{path.name}.{secrets.randbits(63)}.part")
    try:
        _write(aside, content, synchronised)
        try:
            aside.replace(path)
        except FileNotFoundError:  # this process stood still for so long that another cleared the file away
            _write(aside, content, synchronised)
            aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    if synchronised:
        synchronise_folder(path.parent)


def _write(path: Path, content: bytes, synchronised: bool) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        if synchronised:
            _synchronise(file.fileno())


def create(path: Path, content: bytes) -> bool:
    """Create a file, which of several processes that try only one does; return whether this one did.

    Raises:
        InputError: If the folder cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        return False
    except OSError as error:
        raise _unwritten(path, error) from error
    try:
        os.write(descriptor, content)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise _unwritten(path, error) from error
    finally:
        os.close(descriptor)
    return True


def write(path: Path, content: bytes) -> None:
    """Write a file of a study's folder as :func:`replace` does, with its own folder where there is none.

    Raises:
        InputError: where it cannot be written or the disk is full; one sentence.
    """
    try:
        path.parent.mkdir(exist_ok=True)
        replace(path, content)
    except OSError as error:
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: OSError) -> InputError:
    what = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else why(error)
    return InputError(
        f"{path} cannot be written: {what}. What was committed before is valid; run the same command to resume."
    )


class NotAFileError(InputError):
    """Where a file is expected there is a folder, a named pipe or the like."""


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading; what is no file, such as a named pipe, never makes this wait.

    Raises:
        InputError: where something is there that cannot be read: it may hold results, so it does not count as missing.
        FileNotFoundError: where there is nothing.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if path.is_symlink():
            raise InputError(
                f"{path} is a link to {path.readlink()}, which is not there; bring that file back, or delete the "
                f"link if it can be done without."
            ) from None
        raise
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotAFileError(f"{path} is not a file; move it away.")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def read(path: Path) -> bytes:
    """Return what a file holds; raises as :func:`opened` does."""
    with opened(path) as file:
        try:
            return file.read()
        except OSError as error:
            raise _unreadable(path, error) from error


def names(folder: Path) -> Sequence[str]:
    """Return the names of all that a folder holds, in their order; none where there is no folder.

    Raises:
        InputError: where it cannot be read, or is no folder.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries)
    except FileNotFoundError:
        if folder.is_symlink():
            raise InputError(f"{folder} is a link to {folder.readlink()}, which is not there.") from None
        return []
    except NotADirectoryError:
        raise InputError(f"{folder} must be a folder, and is a file; move it away or choose another folder.") from None
    except OSError as error:
        raise _unreadable(folder, error) from error


def synchronise_folder(folder: Path) -> str | None:
    """Make the names in a folder outlive a power failure.

    Returns:
        None, or why the file system cannot do this.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:  # a folder may be written that must not be listed
        return why(error)
    try:
        return _synchronise(descriptor)
    finally:
        os.close(descriptor)


def why(error: OSError) -> str:
    """Return the system's words for an error."""
    return error.strerror or str(error) or type(error).__name__


def _synchronise(descriptor: int) -> str | None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in LOST:
            raise
        return why(error)
    return None


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path} cannot be read: {why(error)}; make it readable, since what it holds does not count as missing."
    )
