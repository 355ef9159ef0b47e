"""Files that are seen whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from sgdscope.errors import InputError


def replace(path: Path, content: bytes) -> None:
    """Write a file aside, synchronise it and rename it into place; leaves nothing behind where that fails."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write(path: Path, content: bytes) -> None:
    """Write a file of a study's folder as :func:`replace` does, with its own folder where there is none.

    Raises:
        InputError: where it cannot be written or the disk is full; one sentence.
    """
    try:
        path.parent.mkdir(exist_ok=True)
        replace(path, content)
    except OSError as error:
        what = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
        raise InputError(
            f"{path} cannot be written: {what}; what was committed before is valid, "
            f"and the same command goes on from there."
        ) from error
