"""The workload contract on one page: data, model, loss, score and augmentation.

A workload knows neither batch size nor optimizer. Its functions are pure JAX functions on any tree of
parameters, so it may be written with Flax, Equinox or nothing at all.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from sgdscope.errors import InputError

Parameters = Any  # any tree of float arrays
Batch = Mapping[str, Any]  # arrays of shape (n, ...), the same n
Split = Mapping[str, np.ndarray]
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class WorkloadRecord:
    """What a study's folder keeps of a workload: all that identifies it and none of its functions or data."""

    name: str
    version: str
    fields: tuple[tuple[str, float | int | str], ...]
    data_sha256: str
    examples: tuple[int, int, int]
    score_name: str
    score_goal: Literal["maximize", "minimize"]
    constant_loss: float
    constant_score: float

    @property
    def score_sign(self) -> int:
        """+1 where a larger score is better, −1 where a smaller one is."""
        return 1 if self.score_goal == "maximize" else -1


@dataclass(frozen=True, kw_only=True, eq=False)
class Workload:
    """A model and its data.

    Args:
        name: how tables and pages call it.
        version: change it whenever the functions change what they compute; it is part of a trial's identity.
        train, validation, test: for each split a dictionary of arrays with one leading axis of examples.
        init: ``init(key) -> parameters``, any tree of float arrays.
        loss: ``loss(parameters, batch) -> (n,)``, the loss of each of the n examples of a batch, not negative,
            since training losses are compared by their logarithms; training minimises its mean.
        score: ``score(parameters, batch) -> (n,)``, the score of each example; a split's score is its mean.
        constant_loss: mean training loss of the best constant predictor, above 0; stands for a diverged trial.
        constant_score: its score, likewise.
        score_name: what the score is, for axes and tables.
        score_goal: whether a larger score is better.
        augment: ``augment(key, example) -> example``, applied to each training example at each visit, with a
            key of its own for (seed, visit); never in evaluation.
        fields: what else decides the numbers, such as a width; part of the identity.

    Raises:
        InputError: where a split is empty, ragged or differs from the others in its arrays.
    """

    name: str
    version: str
    train: Split
    validation: Split
    test: Split
    init: Callable[[Any], Parameters]
    loss: Callable[[Parameters, Any], Any]
    score: Callable[[Parameters, Any], Any]
    constant_loss: float
    constant_score: float
    score_name: str = "accuracy"
    score_goal: Literal["maximize", "minimize"] = "maximize"
    augment: Callable[[Any, Any], Any] | None = None
    fields: Mapping[str, float | int | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what in ("name", "version"):
            if not (isinstance(getattr(self, what), str) and getattr(self, what).strip()):
                raise InputError(f"workload: {what} must be a word, not {getattr(self, what)!r}.")
        where = f"workload {self.name!r}"
        if self.score_goal not in ("maximize", "minimize"):
            raise InputError(f"{where}: score_goal must be 'maximize' or 'minimize', not {self.score_goal!r}.")
        for what in ("constant_loss", "constant_score"):
            if not math.isfinite(getattr(self, what)):
                raise InputError(f"{where}: {what} must be a finite number, not {getattr(self, what)!r}.")
        if self.constant_loss <= 0:
            raise InputError(
                f"{where}: constant_loss {self.constant_loss!r} is not above 0; training losses are compared by their "
                f"logarithms, so add a constant to a loss that can be negative."
            )
        for name, value in self.fields.items():
            if type(value) not in (bool, int, float, str):
                raise InputError(f"{where}: fields[{name!r}] is {value!r}; only numbers and text identify a workload.")
        for split in SPLITS:
            _check_split(where, split, getattr(self, split), self.train)

    def split(self, name: str) -> Split:
        """Return one of the three splits by its name."""
        split: Split = getattr(self, name)
        return split

    def record(self) -> WorkloadRecord:
        """Return the identity of this workload; the data are hashed once for each call."""
        return WorkloadRecord(
            name=self.name,
            version=self.version,
            fields=tuple(sorted(self.fields.items())),
            data_sha256=_digest(self),
            examples=(_length(self.train), _length(self.validation), _length(self.test)),
            score_name=self.score_name,
            score_goal=self.score_goal,
            constant_loss=float(self.constant_loss),
            constant_score=float(self.constant_score),
        )


def constant_classifier(labels: np.ndarray) -> tuple[float, float]:
    """Return the cross-entropy in nats and the accuracy of the best constant predictor of these labels.

    The best constant predictor gives each class its frequency f_c: its loss is −Σ f_c ln f_c, its accuracy
    max f_c.

    >>> loss, accuracy = constant_classifier(np.array([0, 0, 1, 1]))
    >>> round(loss, 4), accuracy
    (0.6931, 0.5)
    """
    counts = np.unique(np.asarray(labels), return_counts=True)[1]
    share = counts / counts.sum()
    return float(-(share * np.log(share)).sum()), float(share.max())


def _length(split: Split) -> int:
    return len(next(iter(split.values())))


def _check_split(where: str, name: str, split: Split, train: Split) -> None:
    if not split:
        raise InputError(f"{where}: the {name} split has no arrays.")
    if split.keys() != train.keys():
        raise InputError(f"{where}: the {name} split has {sorted(split)}, the train split {sorted(train)}.")
    for key, array in split.items():
        array = np.asarray(array)
        if array.ndim == 0 or len(array) != _length(split) or len(array) == 0:
            raise InputError(
                f"{where}: {name}[{key!r}] has shape {array.shape}; every array of a split needs the same, "
                f"positive number of examples first."
            )
        if array.dtype.kind not in "biuf":
            raise InputError(f"{where}: {name}[{key!r}] holds {array.dtype}; only numbers can be trained on.")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(f"{where}: {name}[{key!r}] holds values that are not finite.")
        if array.shape[1:] != np.asarray(train[key]).shape[1:]:
            raise InputError(f"{where}: {name}[{key!r}] and train[{key!r}] differ in the shape of an example.")


def _digest(workload: Workload) -> str:
    digest = hashlib.sha256()
    for split in SPLITS:
        for key, array in sorted(workload.split(split).items()):
            array = np.ascontiguousarray(array)
            digest.update(f"{split}/{key}/{array.dtype.str}/{array.shape}/".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()
