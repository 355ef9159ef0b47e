"""The arrays of a workload: read as numpy reads them, checked, and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from sgdscope.errors import InputError

Split = Mapping[str, np.ndarray]


def classes(labels: Any) -> np.ndarray:
    """Return one class for each example; one-hot labels of shape (n, classes) say the same."""
    array = np.asarray(labels)
    if array.dtype.kind == "O" and len({type(label) for label in array.flat}) == 1:
        array = np.array(array.tolist())  # words or whole numbers, as tables of other libraries hold them
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all():
        array = array.argmax(axis=1)
    if array.ndim != 1 or not len(array):
        raise InputError(
            f"constant_classifier: labels of shape {array.shape} are not one class for each example; give an array of "
            f"shape (n,)."
        )
    if array.dtype.kind not in "biufUS":
        raise InputError(f"constant_classifier: labels of type {array.dtype} are no classes; give whole numbers.")
    if array.dtype.kind == "f" and not (np.isfinite(array) & (array == np.round(array))).all():
        wrong = array[~(np.isfinite(array) & (array == np.round(array)))][0]
        raise InputError(
            f"constant_classifier: the label {wrong:g} is no class; classes are whole numbers. For a regression give "
            f"constant_loss and constant_score yourself."
        )
    return array


def equal(a: Split, b: Split) -> bool:
    """Return whether two splits hold the same arrays."""
    return all(np.array_equal(a[key], b[key]) for key in a)


def as_arrays(where: str, name: str, split: Any) -> Split:
    """Return a split as numpy's arrays, where it is plain what its values mean."""
    if not isinstance(split, Mapping):
        raise InputError(
            f"{where}: {name} is a {type(split).__name__}; give a dictionary of arrays, such as {{'x': inputs, 'y': "
            f"labels}}, whose first axis is that of examples."
        )
    for key in split:
        if not isinstance(key, str):
            raise InputError(f"{where}: {name} names an array {key!r}; name arrays by text, such as 'x'.")
    return {key: _as_array(where, f"{name}[{key!r}]", values) for key, values in split.items()}


def _as_array(where: str, place: str, values: Any) -> np.ndarray:
    if isinstance(values, np.ma.MaskedArray):
        if np.ma.is_masked(values):
            masked = int(np.ma.getmaskarray(values).sum())
            raise InputError(
                f"{where}: {place} masks {masked:,} values, and training would use what lies under the mask. Fill "
                f"them, or leave those examples out."
            )
        values = values.data
    try:
        array = np.asarray(values)
    except Exception as error:
        first_line = (str(error).strip() or repr(error)).splitlines()[0]
        raise InputError(
            f"{where}: {place} is a {type(values).__name__} that numpy cannot read as an array: {first_line}"
        ) from error
    if array.dtype == np.longdouble and array.dtype.itemsize > 8:  # JAX takes no more than 64 bits
        array = array.astype(np.float64)
    # Numbers in the other order of bytes are the same numbers, and JAX takes only the machine's own.
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


# What to do about arrays that hold no numbers, by numpy's kind of type.
NO_NUMBERS = {
    "c": "give the real and the imaginary part as two arrays",
    "M": "convert dates to numbers, such as days since the first",
    "m": "divide by a unit of time, such as np.timedelta64(1, 's')",
    "U": "number the words, such as by np.unique(values, return_inverse=True)[1]",
    "S": "number the words, such as by np.unique(values, return_inverse=True)[1]",
    "V": "give each field as an array of its own",
    "F": "convert the array by .astype(np.float32)",
    "O": "give an array of one numeric type, with as many values for every example",
}


def check_split(where: str, name: str, split: Split, train: Split) -> None:
    """Refuse a split that is empty, ragged, not finite, or made of other arrays than the training split."""
    if not split:
        raise InputError(f"{where}: the {name} split has no arrays.")
    first = next(iter(split.values()))
    if split.keys() != train.keys():
        raise InputError(f"{where}: the {name} split has {sorted(split)}, the train split {sorted(train)}.")
    for key, array in split.items():
        if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
            raise InputError(
                f"{where}: {name}[{key!r}] holds {array.dtype}; only numbers can be trained on: "
                f"{NO_NUMBERS['F' if array.dtype.kind == 'V' and not array.dtype.names else array.dtype.kind]}."
            )
        if array.ndim == 0 or len(array) != len(first) or len(array) == 0:
            raise InputError(
                f"{where}: {name}[{key!r}] has shape {array.shape}; every array of a split needs the same, "
                f"positive number of examples first."
            )
        if array.shape[1:] != train[key].shape[1:]:
            raise InputError(f"{where}: {name}[{key!r}] and train[{key!r}] differ in the shape of an example.")
        if array.dtype.kind in "fV":  # V is bfloat16
            _refuse(where, f"{name}[{key!r}]", array, ~np.isfinite(array), "", "values that are not finite: ")


def check_held(where: str, place: str, array: np.ndarray) -> None:
    """Refuse values that become others in the 32 bits in which devices hold them; a float that rounds is none."""
    if array.dtype.itemsize <= 4:
        return
    if array.dtype.kind in "iu":
        limits = np.iinfo(np.int32 if array.dtype.kind == "i" else np.uint32)
        _refuse(
            where, place, array, (array < limits.min) | (array > limits.max),
            "which 32-bit integers do not hold. Subtract an offset, or number the values by "
            "np.unique(values, return_inverse=True)[1]",
        )  # fmt: skip
        return
    with np.errstate(over="ignore"):
        held = array.astype(np.float32)
    _refuse(
        where, place, array, ~np.isfinite(held),
        f"which float32 does not hold, since it ends at {np.finfo(np.float32).max:.3g}. Scale the array, or leave that "
        f"example out",
    )  # fmt: skip
    # Whole numbers that repeat, one for each example, are labels; as such they must stay apart.
    changed = held != array
    if array.ndim == 1 and changed.any() and (array == np.round(array)).all():
        distinct = np.unique(array)
        if 2 * len(distinct) <= len(array) and len(np.unique(held)) < len(distinct):
            _refuse(
                where, place, array, changed,
                "a label that float32 does not tell from others, since it holds whole numbers up to 16,777,216. Number "
                "the labels by np.unique(values, return_inverse=True)[1]",
            )  # fmt: skip


def _refuse(where: str, place: str, array: np.ndarray, wrong: np.ndarray, what: str, holds: str = "") -> None:
    """Raise InputError with the first value that is wrong, if any."""
    if wrong.any():
        index = np.unravel_index(int(wrong.argmax()), array.shape)
        at = f"{array[index]} at index {', '.join(map(str, index))}"
        raise InputError(f"{where}: {place} holds {holds}{at}{', ' if what else ''}{what}.")


def digest(splits: Mapping[str, Split]) -> str:
    """Return the SHA-256 of all arrays, with their names, types and shapes."""
    digest = hashlib.sha256()
    for split, arrays in splits.items():
        for key, array in sorted(arrays.items()):
            array = np.ascontiguousarray(array)
            digest.update(f"{split}/{key}/{array.dtype.str}/{array.shape}/".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()
