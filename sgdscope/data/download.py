"""Fetching the published data sets from where they are public."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pooch  # type: ignore[import-untyped]
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from sgdscope import atomic
from sgdscope.data.cifar10 import CIFAR10
from sgdscope.data.fashion_mnist import FASHION_MNIST
from sgdscope.data.mnist import MNIST
from sgdscope.data.ptb import PTB
from sgdscope.data.published import ContentError, DataSet, data_place, find, read_published, unpack
from sgdscope.errors import InputError, did_you_mean

DATA_SETS = {data_set.name: data_set for data_set in (MNIST, CIFAR10, PTB, FASHION_MNIST)}
CHUNK_SIZE = 2**16


def fetch(name: str, where: Path | None, console: Console) -> Path:
    """Fetch what a data set still lacks, and return the folder that holds it.

    A file that is there and right is left alone, and so is a file of the same name that is another data set's. Files
    are stored unpacked, each written aside, checked against its SHA-256 and renamed, so that at no time is there half a
    file under a file's name.

    Args:
        name: mnist, cifar10, ptb or fashion_mnist.
        where: the folder to write to; without it, SGDSCOPE_DATA, or the user's cache folder.
        console: where the source's terms and the progress are shown.

    Raises:
        InputError: where no mirror gives what was published, or the folder cannot be written.
    """
    if name not in DATA_SETS:
        raise InputError(f"data set {name!r} is not one of {', '.join(DATA_SETS)}.{did_you_mean(name, DATA_SETS)}")
    data_set = DATA_SETS[name]
    found = find(data_set, where)
    if found and any(_holds(other, data_set, found) for other in DATA_SETS.values() if other is not data_set):
        found = None
    folder = found or data_place(where) / data_set.folder
    wanting = [published for published in data_set.published if not found or not _right(data_set, found, published)]
    if not wanting:
        return folder
    if folder.is_file():
        raise InputError(f"data: {folder} is a file; give the folder to fetch {name} to.")
    console.print(data_set.source, highlight=False, markup=False, soft_wrap=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _progress(console) as progress:
            for published in wanting:
                _fetch(data_set, published, folder, progress)
    except OSError as error:
        raise InputError(f"data: {folder} cannot be written ({error.strerror}).") from error
    return folder


def _holds(other: DataSet, data_set: DataSet, found: Path) -> bool:
    """Return whether a folder has another data set's files under the names of this one's."""
    return any(_right(other, found, name) for name in other.published.keys() & data_set.published.keys())


def _right(data_set: DataSet, found: Path, published: str) -> bool:
    try:
        deque(read_published(data_set, found, published), maxlen=0)
    except ContentError:
        return False
    return True


def _fetch(data_set: DataSet, published: str, folder: Path, progress: Progress) -> None:
    """Fetch one published file from the first mirror that gives it, and store what it holds."""
    bar = _Bar(progress, progress.add_task(published))
    failures = []
    for mirror in data_set.mirrors:
        url = f"{mirror}{published}"
        progress.console.print(f"fetching {url}", highlight=False, markup=False, soft_wrap=True)
        try:
            with _aside(folder / published) as packed:
                bar.reset()
                pooch.HTTPDownloader(bar, CHUNK_SIZE)(url, str(packed), None)
                for name, content in unpack(data_set, packed, data_set.published[published]):
                    atomic.replace(folder / name, content)
                return
        except ContentError as error:
            failures.append(f"{url} {error.reason}")
        except OSError as error:
            if error.errno is not None:  # the disk's: the network's errors come from requests, without a number
                raise
            response = getattr(error, "response", None)
            why = type(error).__name__ if response is None else f"status {response.status_code}"
            failures.append(f"{url} cannot be fetched ({why})")
    raise InputError(f"{data_set.name}: {'; '.join(failures)}; try again later, or put {published} into {folder}.")


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield aside
    finally:
        aside.unlink(missing_ok=True)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal and not console.is_jupyter,
    )


@dataclass
class _Bar:
    """A download's progress as pooch tells it."""

    progress: Progress
    task: TaskID
    total: int = 0

    def update(self, count: int) -> None:
        self.progress.update(self.task, total=self.total or None, advance=count)

    def reset(self) -> None:
        self.progress.update(self.task, completed=0)

    def close(self) -> None:
        """Leave the bar as it is: where the file is a wrong one, the next mirror begins it again."""
