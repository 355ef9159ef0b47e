"""Where the published data sets are found, and the check that what is found is what was published.

One place is looked at: the path that was given, else SGDSCOPE_DATA, else the user's cache folder. Where no path was
given and the data set is not there, the folder of a package of the operating system is looked at too.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import shlex
import tarfile
import zlib
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import IO

from sgdscope.errors import InputError
from sgdscope.system import cache_folder

GZIP_MAGIC = b"\x1f\x8b"
Files = Generator[tuple[str, IO[bytes] | BufferedIOBase], None, None]


@dataclass(frozen=True)
class Content:
    """What a file holds once it is unpacked: its bytes' number and SHA-256."""

    size: int
    sha256: str


@dataclass(frozen=True)
class DataSet:
    """A data set as it was published.

    Args:
        name: how the command line calls it.
        folder: the folder that it is usually unpacked to; looked for inside the place that was given.
        published: the published files, and the names of the contents that each holds: one, gzipped or not, or
            the several members of a tar.
        contents: what was published, by name.
        mirrors: what to put before a published file's name to fetch it, in the order to try.
        source: whom to thank and whose terms hold, in a sentence.
        package: the folder in which a package of the operating system has it. Default: there is no such package.
    """

    name: str
    folder: str
    published: Mapping[str, tuple[str, ...]]
    contents: Mapping[str, Content]
    mirrors: tuple[str, ...]
    source: str
    package: Path | None = None


class ContentError(Exception):
    """A file that is not what was published; the reason is a clause that goes on from the file's name."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} {reason}")
        self.reason = reason


def data_place(where: Path | None) -> Path:
    """Return the path that was given, else SGDSCOPE_DATA, else the folder for data in the user's cache."""
    given = where or os.environ.get("SGDSCOPE_DATA")
    return Path(given) if given else cache_folder() / "data"


def find(data_set: DataSet, where: Path | None = None) -> Path | None:
    """Return the folder, or the tar, that holds any of a data set's files, right or wrong; None where none does.

    Raises:
        InputError: where the place cannot be looked into.
    """
    place = data_place(where)
    names = [*data_set.published, *data_set.contents]
    try:
        if place.is_file():
            return place if _is_tar(data_set) else None
        # Data sets may share the names of their files, so a data set's own folder comes first.
        folders = [place / data_set.folder, place]
        if where is None and data_set.package is not None:
            folders.append(data_set.package)
        return next((folder for folder in folders if any((folder / name).is_file() for name in names)), None)
    except OSError as error:
        raise InputError(f"{data_set.name}: {place} cannot be read ({error.strerror or error}).") from error


def read_contents(data_set: DataSet, where: Path | None = None) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each of a data set's contents, every one checked against its SHA-256.

    Raises:
        InputError: where one is missing, damaged or another than was published.
    """
    found = find(data_set, where)
    if found is None:
        raise InputError(f"{data_set.name} is not in {data_place(where)}; {_fetch(data_set, where)} fetches it.")
    try:
        for published in data_set.published:
            yield from read_published(data_set, found, published)
    except ContentError as error:
        raise InputError(f"{data_set.name}: {error}; {_fetch(data_set, where)} fetches the right one.") from error


def check(data_set: DataSet, where: Path | None = None) -> None:
    """Read all of a data set; raises what ``read_contents`` raises."""
    deque(read_contents(data_set, where), maxlen=0)


def read_published(data_set: DataSet, found: Path, published: str) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of what one published file holds, be it there as published or unpacked.

    What is unpacked comes first: it is read sooner, and it is what fetching puts right.
    """
    names = data_set.published[published]
    packed = found if found.is_file() else found / published
    if packed.is_file() and not all((found / name).is_file() for name in names):
        yield from unpack(data_set, packed, names)
    else:
        for name in names:
            yield from unpack(data_set, found / name, (name,))


def unpack(data_set: DataSet, path: Path, names: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of what a file holds, unpacked in memory.

    Raises:
        ContentError: where that is not what was published under these names.
    """
    try:
        with closing(_members(path, names) if len(names) > 1 else _whole(path, names[0])) as files:
            for name, file in files:
                content = data_set.contents[name]
                # One byte more than there should be tells a longer file, however long it is.
                found = file.read(content.size + 1)
                if len(found) != content.size:
                    holds = f"{len(found):,}" if len(found) < content.size else "more"
                    raise ContentError(path, f"is not the published {name} ({holds} of {content.size:,} bytes)")
                if hashlib.sha256(found).hexdigest() != content.sha256:
                    raise ContentError(path, f"is not the published {name} (its SHA-256 differs)")
                yield name, found
    except FileNotFoundError:
        raise ContentError(path, "is missing") from None
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise ContentError(path, "is damaged and cannot be unpacked") from error
    except OSError as error:
        raise ContentError(path, f"cannot be read ({error.strerror or error})") from error


def _whole(path: Path, name: str) -> Files:
    with path.open("rb") as raw:
        zipped = raw.peek(2).startswith(GZIP_MAGIC)
        yield name, gzip.GzipFile(fileobj=raw) if zipped else raw


def _members(path: Path, names: tuple[str, ...]) -> Files:
    """Yield the regular members of a tar by the last part of their path, which is used for nothing else."""
    wanted = set(names)
    with tarfile.open(path) as tar:
        for member in tar:
            name = PurePosixPath(member.name).name
            if name in wanted and member.isfile() and (file := tar.extractfile(member)):
                wanted.remove(name)
                yield name, file
            if not wanted:
                return
    raise ContentError(path, f"holds no {min(wanted)}")


def _is_tar(data_set: DataSet) -> bool:
    return any(len(names) > 1 for names in data_set.published.values())


def _fetch(data_set: DataSet, where: Path | None) -> str:
    folder = where.parent if where and where.is_file() else where
    option = f" --data {shlex.quote(str(folder))}" if folder else ""
    return f"`sgdscope data fetch {data_set.name}{option}`"
