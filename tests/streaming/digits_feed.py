"""Digits as a feed, in a module without JAX: what the processes read."""

import functools
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np

from sgdscope.data.digits_file import read_digits
from sgdscope.errors import InputError

LAYOUT = {"picture": ((64,), np.dtype(np.float32)), "label": ((), np.dtype(np.uint8))}


@functools.cache
def splits():
    return read_digits()


def locate(split, index):
    return split, index


def read(split, index, visit):
    return {key: array[index] for key, array in splits()[split].items()}


def read_marked(split, index, visit):
    """The label says which visit it is of, so that a test can see what training was given."""
    seed, epoch, place = visit or (9, 9, index)
    assert place == index
    return {"picture": np.full(64, index, np.float32), "label": np.uint8((seed * 16 + epoch) % 256)}


def read_doubles(of_whom, split, index, visit):
    example = read(split, index, visit)
    if (of_whom == "evaluation") == (visit is None):
        example["picture"] = example["picture"].astype(np.float64)
    return example


def read_or_fail(split, index, visit):
    if split == "train" and index == 100:
        raise InputError("image 100 cannot be read.")
    return read(split, index, visit)


def read_but_the_last(split, index, visit):
    if split == "train" and index == 1023:
        raise InputError("image 1023 cannot be read.")
    return read(split, index, visit)


def die_in_a_process(split, index, visit):
    if multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(split, index, visit)


def read_or_die(flag, split, index, visit):
    """Die where a file is there, once."""
    if index == 100 and Path(flag).exists():
        Path(flag).unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return read(split, index, visit)
