"""Files that are seen whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from sgdscope.errors import InputError


def write(path: Path, content: bytes) -> None:
    """Write a file aside, synchronise it and rename it into place, with its folder where there is none.

    Raises:
        InputError: where it cannot be written or the disk is full; one sentence.
    """
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(exist_ok=True)
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        aside.unlink(missing_ok=True)
        what = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
        raise InputError(
            f"{path} cannot be written: {what}; what was committed before is valid, "
            f"and the same command goes on from there."
        ) from error
