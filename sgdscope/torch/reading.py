"""A PyTorch DataLoader as a feed: data-loading workers read each example of its data set when it is needed."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler, default_collate

from sgdscope.errors import InputError
from sgdscope.records import Arrays
from sgdscope.torch.graph import as_array
from sgdscope.workloads.base import Feed

# Examples of each split that are read where a workload is declared.
FIRST = 16


def feed_of(where: str, loaders: Mapping[str, Any]) -> tuple[dict[str, dict[str, np.ndarray]], Feed]:
    """Return the first examples of each split, and the feed of all of them.

    The batch size, the shuffling and the workers of a loader are the study's; of the loader are taken its data set and
    how it makes arrays of an example. Random transforms draw from a seed of each visit to an example.

    Raises:
        InputError: If a split is no DataLoader of examples that a number finds, each once an epoch.
    """
    for split, loader in loaders.items():
        if not isinstance(loader, DataLoader):
            raise InputError(
                f"{where}: {split} is a {type(loader).__name__}. Give a DataLoader for all splits or none."
            )
        if isinstance(loader.dataset, IterableDataset):
            raise InputError(
                f"{where}: {split} has an IterableDataset. Give a data set with a length, read by dataset[i]."
            )
        sampler = loader.sampler
        if type(sampler) not in (SequentialSampler, RandomSampler) or getattr(sampler, "replacement", False):
            raise InputError(
                f"{where}: {split} samples examples by {type(sampler).__name__}, but a study visits each example once "
                f"an epoch. Leave the sampler out."
            )
    read = partial(read_example, dict(loaders))
    for split, loader in loaders.items():
        if not len(loader.dataset):
            raise InputError(f"{where}: {split} has no examples.")
    first = {
        split: [_tensors(loader, split, place, None) for place in range(min(FIRST, len(loader.dataset)))]
        for split, loader in loaders.items()
    }
    example = read("train", 0, None)
    layout = {key: (array.shape, array.dtype) for key, array in example.items()}
    size = sum(array.nbytes for array in example.values())
    feed = Feed(layout, _located, read, {split: size * len(loader.dataset) for split, loader in loaders.items()})
    try:
        return {
            split: {key: torch.cat([e[key] for e in of]).numpy() for key in layout} for split, of in first.items()
        }, feed
    except (KeyError, RuntimeError) as error:
        raise InputError(f"{where}: the data sets do not give tensors of one shape, (x, y): {error}.") from error


def named(where: str, tensors: Sequence[Any]) -> dict[str, Any]:
    """Return the inputs as "x", or as "x0", "x1", ... where there are several, and the target as "y".

    >>> named("train", [1, 2]), named("train", [1, 2, 3])
    ({'x': 1, 'y': 2}, {'x0': 1, 'x1': 2, 'y': 3})
    """
    if len(tensors) < 2:
        raise InputError(f"{where}: the data set gives {len(tensors)} array. Give inputs and targets, (x, y).")
    *inputs, target = tensors
    names = ["x"] if len(inputs) == 1 else [f"x{place}" for place in range(len(inputs))]
    return {**dict(zip(names, inputs, strict=True)), "y": target}


def read_example(loaders: Mapping[str, Any], split: str, index: int, visit: Any) -> Arrays:
    """Return the arrays of an example at a visit, or in evaluation where that is None."""
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)  # as PyTorch's own workers do
    return {key: as_array(tensor)[0] for key, tensor in _tensors(loaders[split], split, index, visit).items()}


def _tensors(loader: Any, split: str, index: int, visit: Any) -> dict[str, torch.Tensor]:
    """Return an example as a batch of one."""
    plain = loader.batch_size is None and loader.batch_sampler is None
    with _seeded(f"{split} {index} {visit}"):
        tensors = (default_collate if plain else loader.collate_fn)([loader.dataset[index]])
    tensors = [tensor.float() if tensor.dtype == torch.bfloat16 else tensor for tensor in tensors]
    return named(split, tensors)


def _located(split: str, index: int) -> tuple[str, int]:
    return split, index


@contextmanager
def _seeded(text: str) -> Iterator[None]:
    """Draw the random numbers of PyTorch, Python and numpy from a seed, and leave their generators as they were."""
    seed = int.from_bytes(sha256(text.encode()).digest()[:4], "little")
    python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - which transforms draw from
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            yield
    finally:
        random.setstate(python)
        np.random.set_state(of_numpy)  # noqa: NPY002
