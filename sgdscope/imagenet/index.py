"""ImageNet (ILSVRC 2012) as it lies in folders: an index that is built once, and the fixed split.

Training images are in ``train/CLASS/``; validation images, which are this study's test split, in ``val/CLASS/``, or
all in ``val/`` beside the list of their classes. Nothing is unpacked, copied or written there.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import io
import os
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.progress import track

from sgdscope import atomic
from sgdscope.data.order import examples_at
from sgdscope.data.published import data_place
from sgdscope.errors import InputError
from sgdscope.imagenet.images import looked_at, need_libraries
from sgdscope.streaming.workers import end, leave_to_parent, obituary, pool, without_interrupts
from sgdscope.system import cache_folder, cores

# Of 1,281,167 images one of the study's authors holds out 10,000 in later code (github.com/google-deepmind/
# deepmind-research, nfnets/dataset.py). A smaller set gives a tenth.
HELD_OUT = 10_000
SHARE_HELD_OUT = 10
# The images that are held out are the first of this seed's order: fixed for ever, and of all classes.
SPLIT_SEED = 0

FOLDERS = ("train", "val")
# The classes of a flat val/, by the names of its images in their order: a class a line, or as published a number a
# line, which the published meta.mat gives a class.
CLASS_LIST = "imagenet_2012_validation_synset_labels.txt"
NUMBER_LIST, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
LIST_FOLDERS = (".", "val", "data", "ILSVRC2012_devkit_t12/data")

# What file managers, notebooks, network disks and operating systems leave in folders, in lower case; and all that is
# hidden, whose names begin with a dot.
LITTER = {"@eadir", "#recycle", "$recycle.bin", "__macosx", "system volume information", "lost+found", "icon\r"}
LITTER |= {"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "synofile_thumb"}

# So many files are read before the index is written once more: a minute or two.
KEPT_AFTER = 50_000
# Files that are handed over to the processes at once, and that one of them is given together.
HANDED_OVER, TOGETHER = 8192, 64
# Threads that ask for files' sizes and times, and for how many of them each at a time.
ASKED_AT_ONCE, ASKED_TOGETHER = 16, 1000
INDEX_SCHEMA = {"file": pl.String, "bytes": pl.Int64, "modified": pl.Int64, "sha256": pl.UInt64}


@dataclass(frozen=True)
class ImageNet:
    """Images in files and what is known of them.

    Args:
        folder: which the files' names are relative to.
        classes: the names of the classes; a label is a place in it.
        splits: "train", "validation" and "test", each with ``label``, uint16, and ``sha256``, uint64: the first eight
            bytes of each file's hash, by which a study knows its data.
        files: the names of each split's files.
        bytes: the size of each split's files, together.
    """

    folder: Path
    classes: tuple[str, ...]
    splits: Mapping[str, Mapping[str, np.ndarray]]
    files: Mapping[str, Sequence[str]]
    bytes: Mapping[str, int]

    def path(self, split: str, index: int) -> Path:
        """Return where an image lies."""
        return self.folder / self.files[split][index]


def read_imagenet(where: Path | None = None, train_on_all: bool = False) -> ImageNet:
    """Return the images in a folder: of the training set 10,000 for validation, or a tenth where it is small.

    The index of a folder is built when it is first asked for, and kept in the user's cache: every file is read and
    decoded. Later only names, sizes and times are looked at, and files that are new or changed are read.

    Args:
        where: the folder that has ``train`` and ``val``, or one that has it as ``imagenet``; SGDSCOPE_DATA, or the
            user's cache, by default.
        train_on_all: train on all, as the paper does. Validation is then the test split.

    Raises:
        InputError: where the folder is not laid out so, or holds a file that is damaged or no image: it names all.

    Source: Russakovsky et al. (2015), arXiv 1409.0575.
    """
    need_libraries()
    folder = _folder(where)
    listed = _listed(folder)
    class_of = {"train": _folders(listed["train"])}
    classes = tuple(sorted(set(class_of["train"])))
    class_of["val"] = _classes_of(folder, listed["val"], classes)
    strangers = set(class_of["val"]) - set(classes)
    if strangers:
        raise InputError(f"imagenet: {folder / 'val'} has {_some(strangers)}, which {folder / 'train'} has not.")
    # Last, since it may take hours the first time.
    index = _index(folder, [file for files in listed.values() for file in files])
    number = {name: place for place, name in enumerate(classes)}

    count = len(listed["train"])
    chosen = {"train": ("train", np.arange(count)), "test": ("val", np.arange(len(listed["val"])))}
    if train_on_all:
        chosen["validation"] = chosen["test"]
    else:
        held_out = examples_at(SPLIT_SEED, np.arange(min(HELD_OUT, max(1, count // SHARE_HELD_OUT))), count)
        chosen["train"] = "train", np.setdiff1d(np.arange(count), held_out)
        chosen["validation"] = "train", np.sort(held_out)
    files = {split: [listed[part][place] for place in places] for split, (part, places) in chosen.items()}
    splits: dict[str, dict[str, np.ndarray]] = {
        split: {
            "label": np.array([number[class_of[part][place]] for place in places], np.uint16),
            "sha256": np.array([index[file][1] for file in files[split]], np.uint64),
        }
        for split, (part, places) in chosen.items()
    }
    sizes = {split: sum(index[file][0] for file in names) for split, names in files.items()}
    return ImageNet(folder, classes, splits, files, sizes)


def of_classes(data: ImageNet, count: int) -> ImageNet:
    """Return the images of the first so many classes."""
    chosen = {split: np.flatnonzero(arrays["label"] < count) for split, arrays in data.splits.items()}
    splits = {split: {key: a[chosen[split]] for key, a in arrays.items()} for split, arrays in data.splits.items()}
    files = {split: [data.files[split][int(place)] for place in places] for split, places in chosen.items()}
    # In proportion: what a plan says of them needs no more.
    sizes = {split: round(data.bytes[split] * len(files[split]) / len(data.files[split])) for split in files}
    return ImageNet(data.folder, data.classes[:count], splits, files, sizes)


def _folder(where: Path | None) -> Path:
    place = data_place(where)
    for folder in (place, place / "imagenet"):
        if all((folder / name).is_dir() for name in FOLDERS):
            return folder.resolve()
    raise InputError(
        f"imagenet is not in {place}; --data names the folder of its images, which has train/CLASS/ and val/CLASS/, "
        f"or all of them in val/. They can be had from image-net.org alone."
    )


def _listed(folder: Path) -> dict[str, list[str]]:
    """Return the names of all files of each part, relative to the folder, in their order.

    Raises:
        InputError: where a part has none, or anything lies where no image belongs: it names all.
    """
    listed, misplaced, litter = dict[str, list[str]](), list[str](), list[str]()
    for part in FOLDERS:
        listed[part] = []
        for relative, folders, files in _walked(folder, part):
            for names in (folders, files):
                litter += [f"{relative}/{name}" for name in names if _is_litter(name)]
                names[:] = [name for name in names if not _is_litter(name)]
            depth = relative.count("/") + 1
            # Links may lead round in circles, so that a folder in a class is refused with whatever it has.
            inside = files + folders if depth > 2 else files if depth == 1 and (part == "train" or folders) else []
            misplaced += [f"{relative}/{name}" for name in sorted(inside)]
            if depth > 2:
                folders.clear()
            listed[part] += [f"{relative}/{name}" for name in files if name not in (CLASS_LIST, NUMBER_LIST, META)]
        listed[part].sort()
    unnamed = [name for names in listed.values() for name in names if not _is_text(name)]
    if unnamed:
        said = ", ".join(name.encode(errors="backslashreplace").decode() for name in unnamed)
        raise InputError(f"imagenet: {folder} has files whose names are not UTF-8: {said}; rename them.")
    if misplaced:
        raise InputError(
            f"imagenet: {folder} has files where no image belongs: {', '.join(misplaced)}; images lie in "
            f"train/CLASS and val/CLASS, or all of them in val."
        )
    for part, found in listed.items():
        if not found:
            raise InputError(f"imagenet: {folder / part} has no images; they lie in {folder / part / 'CLASS'}.")
    if litter:
        Console(stderr=True, markup=False, highlight=False).print(
            f"imagenet: {folder} has hidden and system files that are no images; they are left out: {_some(litter)}.",
            soft_wrap=True,
        )
    return listed


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in LITTER


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _walked(folder: Path, part: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield each folder of a part, relative to the folder of all, and the names of the folders and files in it."""

    def refuse(error: OSError) -> None:
        raise InputError(f"imagenet: {error.filename} cannot be read ({error.strerror}).") from error

    for above, folders, files in os.walk(folder / part, onerror=refuse, followlinks=True):
        folders.sort()
        yield Path(above).relative_to(folder).as_posix(), folders, files


def _folders(files: Sequence[str]) -> list[str]:
    """Return the folder that each file lies in: for training images their class."""
    return [file.rsplit("/", 2)[-2] for file in files]


def _classes_of(folder: Path, files: Sequence[str], classes: Collection[str]) -> list[str]:
    """Return the class of each validation image: its folder, or its line in a list."""
    if all(file.count("/") == 2 for file in files):
        return _folders(files)
    for part in LIST_FOLDERS:
        for name in (CLASS_LIST, NUMBER_LIST):
            path = folder / part / name
            if not path.is_file():
                continue
            lines = _lines(path)
            if len(lines) != len(files):
                raise InputError(
                    f"imagenet: {path} has {len(lines)} lines for {len(files)} images in {folder / 'val'}."
                )
            names = [text for _, text in lines] if name == CLASS_LIST else _names(path, lines)
            for (number, text), of in zip(lines, names, strict=True):
                if of not in classes:
                    raise InputError(
                        f"imagenet: {path}, line {number}: {text!r} is no class of {folder / 'train'}; a class is a "
                        f"folder there."
                    )
            return names
    raise InputError(
        f"imagenet: {folder / 'val'} has no folders of classes, and no list of them is there; put {CLASS_LIST}, or "
        f"{NUMBER_LIST} with {META}, into {folder}."
    )


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines of a list that are not empty, each with its number in the file.

    A byte-order mark tells the encoding, and is no part of the first line.
    """
    try:
        content = path.read_bytes()
        marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if marked else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"imagenet: {path} is no list of classes ({error}).") from error
    lines = io.StringIO(text, newline=None)  # ends lines as an editor does
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def _names(path: Path, lines: Sequence[tuple[int, str]]) -> list[str]:
    """Return the names of classes that the published list numbers."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    meta = path.with_name(META)
    try:
        with meta.open("rb") as file:
            synsets = loadmat(file, squeeze_me=True)["synsets"]
        names = {int(number): str(name) for number, name in zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)}
    except FileNotFoundError:
        raise InputError(
            f"imagenet: {meta} is missing; it names the classes that the list beside it numbers."
        ) from None
    except (OSError, KeyError, ValueError, TypeError, NotImplementedError, MatReadError) as error:
        raise InputError(f"imagenet: {meta} is not the published one ({error}).") from error
    for number, text in lines:
        if not (text.isdecimal() and int(text) in names):
            raise InputError(f"imagenet: {path}, line {number}: {text!r} is not the number of a class in {meta}.")
    return [names[int(text)] for _, text in lines]


# ── The index ────────────────────────────────────────────────────────────────────────────────────────────


def _index(folder: Path, files: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return the size and the hash of every file; read are those that the kept index does not know as they are."""
    path = cache_folder() / "imagenet" / f"{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}.parquet"
    known, now = _kept(path), dict(zip(files, _sizes_and_times([f"{folder}/{file}" for file in files]), strict=True))
    digests = {file: known[file][2] for file in files if file in known and known[file][:2] == now[file]}
    new = [file for file in files if file not in digests]
    wrong = {}
    try:
        for number, (file, (digest, why)) in enumerate(zip(new, _checked(folder, new), strict=True), 1):
            if why is None:
                digests[file] = digest
            else:
                wrong[file] = why
            if number % KEPT_AFTER == 0:
                _keep(path, digests, now)
    finally:  # also where it is interrupted, what has been read need not be read again
        if new or known.keys() - digests.keys():
            _keep(path, digests, now)
    if wrong:
        said = "; ".join(f"{file} ({why})" for file, why in wrong.items())
        raise InputError(f"imagenet: {folder} has files that are no whole images: {said}; delete or replace them.")
    return {file: (now[file][0], digest) for file, digest in digests.items()}


def _sizes_and_times(files: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the size and the time of change of each file; a disk far away is asked for several at once."""

    def of_some(first: int) -> list[tuple[int, int]]:
        return [_size_and_time(file) for file in files[first : first + ASKED_TOGETHER]]

    with ThreadPoolExecutor(ASKED_AT_ONCE) as threads:
        for found in threads.map(of_some, range(0, len(files), ASKED_TOGETHER)):
            yield from found


def _size_and_time(file: str) -> tuple[int, int]:
    try:
        found = os.stat(file)  # noqa: PTH116 - a Path for each of a million files takes seconds
    except OSError as error:
        raise InputError(f"imagenet: {file} cannot be read ({error.strerror}).") from error
    return found.st_size, found.st_mtime_ns


def _keep(path: Path, digests: Mapping[str, int], now: Mapping[str, tuple[int, int]]) -> None:
    """Keep the index; where it cannot be written there is none, and all is read again the next time."""
    buffer = io.BytesIO()
    rows = [(file, *now[file], digest) for file, digest in digests.items()]
    pl.DataFrame(rows, schema=INDEX_SCHEMA, orient="row").write_parquet(buffer)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.replace(path, buffer.getvalue())


def _kept(path: Path) -> dict[str, tuple[int, int, int]]:
    try:
        table = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError):  # none yet, or a damaged one: it is built anew
        return {}
    if table.schema != pl.Schema(INDEX_SCHEMA):
        return {}
    return {file: (size, modified, digest) for file, size, modified, digest in table.iter_rows()}


def _checked(folder: Path, files: Sequence[str]) -> Iterator[tuple[int, str | None]]:
    """Yield of each file the first eight bytes of its SHA-256, and why it is no image where it is none."""
    if not files:
        return
    console, what = Console(stderr=True), f"reading the images in {folder}"
    if not console.is_terminal:
        console.print(f"{what}: {len(files):,} that are new, once", highlight=False)
    processes, begun = pool(cores(), leave_to_parent), set[BaseProcess]()
    checked = _looked_at([f"{folder}/{file}" for file in files], processes, begun)
    shown = track(checked, what, len(files), console=console, transient=True, disable=not console.is_terminal)
    try:
        try:
            yield from shown
        finally:
            end(processes, begun)
    except BrokenProcessPool as error:
        raise InputError(f"imagenet: {folder}: {obituary(begun)}") from error


def _looked_at(
    paths: Sequence[str], processes: ProcessPoolExecutor, begun: set[BaseProcess]
) -> Iterator[tuple[int, str | None]]:
    """Yield what each file is found to be, of which a few thousand are handed over at a time.

    The processes that are there when files have been handed over are added to ``begun``.
    """
    others, waiting = set(active_children()), deque[Iterator[tuple[int, str | None]]]()
    for first in range(0, len(paths), HANDED_OVER):
        with without_interrupts():
            waiting.append(processes.map(looked_at, paths[first : first + HANDED_OVER], chunksize=TOGETHER))
        begun |= set(active_children()) - others
        if len(waiting) > 1:  # the next are there before these are done
            yield from waiting.popleft()
    for checked in waiting:
        yield from checked


def _some(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
