"""The workload contract on one page: data, model, loss, score and augmentation.

A workload knows neither batch size nor optimizer. Its functions are pure JAX functions on any tree of
parameters, so it may be written with Flax, Equinox or nothing at all.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from sgdscope.converters import python_value, real, shown, whole
from sgdscope.errors import InputError
from sgdscope.records import SPLITS, Arrays, Layout, WorkloadRecord

Parameters = Any  # any tree of float arrays
Batch = Mapping[str, Any]  # arrays of shape (n, ...), the same n
Split = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Resident:
    """How examples are read that lie on the device: each epoch in another order, all of them once.

    Args:
        augment: ``augment(key, example) -> example``, applied to each training example at each visit, with a
            key of its own for (seed, visit); never in evaluation. Default: none.
    """

    augment: Callable[[Any, Any], Any] | None = None


@dataclass(frozen=True)
class Streams:
    """How a text is read: one long sequence of examples, cut into streams that are read side by side.

    The training split is then one sequence of N tokens, and its examples are the tokens. A batch of
    B = streams × unroll tokens re-cuts the sequence, taken as a ring, into ``B // unroll`` streams of equal
    length; each update reads the next ``unroll`` tokens of every stream, and what a stream carries from update
    to update begins anew with each epoch. The seed and the epoch decide where the ring is cut.

    ``training_loss`` gets arrays of shape (streams, unroll + 1), each stream's tokens with the one that follows, a
    ``state`` that is what the streams carry, and keys of shape (streams,). ``loss`` and ``score`` get tokens in their
    order, and ``()`` as the state.

    Args:
        unroll: tokens of each stream that an update reads, and through which the gradient is taken.
        carry: ``carry(n) -> tree`` of arrays (n, ...), what n streams carry when an epoch begins.
    """

    unroll: int
    carry: Callable[[int], Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "unroll", whole("streams: unroll", self.unroll, least=1))


@dataclass(frozen=True)
class Feed:
    """How examples come that are too many for a device: processes of the host read each when it is its turn.

    The splits then hold what identifies their examples, such as a hash of each one's file, and no device holds them.

    Args:
        layout: the shape and type of each array of an example.
        locate: ``locate(split, index) -> place``, a tuple of what tells ``read`` which example is meant.
        read: ``read(*place, visit) -> example``, a dictionary of arrays of just that layout; ``visit`` is (seed, epoch,
            index) in training, by which it may be augmented, and None in evaluation. It must be a pure function of a
            module that processes can import, best one that does not import JAX, which would take each seconds.
        bytes: what there is to read of each split, for a plan.
        circumstances: what an example depends on beside its place and visit, as the versions of libraries: a trial does
            not go on from a checkpoint of others.
    """

    layout: Layout
    locate: Callable[[str, int], tuple[Any, ...]]
    read: Callable[..., Arrays]
    bytes: Mapping[str, int]
    circumstances: str = ""


Reader = Resident | Streams | Feed
RESIDENT = Resident()


@dataclass(frozen=True, kw_only=True, eq=False)
class Workload:
    """A model and its data.

    Most workloads are ``init``, ``loss`` and ``score``. Training may differ from evaluation: in
    ``training_loss``, which may draw random numbers and may move a state on that no gradient is taken of, and
    in ``penalty``, which is part of the gradient and of no reported loss.

    Args:
        name: how tables and pages call it.
        version: change it whenever the functions change what they compute; it is part of a trial's identity.
        train: The training split: a dictionary of arrays with one leading axis of examples. Lists and arrays of
            other libraries are read as numpy reads them. Devices hold 32 bits: float64 is rounded to float32.
        validation: The split that chooses learning rates, likewise.
        test: The split whose scores are reported, likewise.
        init: ``init(key) -> parameters``, any tree of float arrays.
        loss: ``loss(parameters, state, batch) -> (n,)``, the loss of each of the n examples of a batch, not negative,
            since training losses are compared by their logarithms; training minimises its mean. ``state`` is what
            ``init_state`` began, or ``()`` for a model without a state. Where there is no ``init_state``, ``loss``,
            ``score`` and ``training_loss`` may leave ``state`` out: ``loss(parameters, batch)``.
        score: ``score(parameters, state, batch) -> (n,)``, the score of each example; a split's score is its mean.
        constant_loss: mean training loss of the best constant predictor, above 0; stands for a diverged trial.
        constant_score: its score, likewise.
        score_name: what the score is, for axes and tables.
        score_goal: whether a larger score is better.
        reader: how examples are read: ``Resident(augment)`` where they lie on the device, ``Streams(unroll, carry)``
            where they are one text, ``Feed(...)`` where the host reads them. Default: ``Resident()``.
        training_loss: ``training_loss(parameters, state, batch, keys) -> (losses, state)``, where training
            minimises something else than ``loss``: ``keys`` has shape (n,), one for each example and visit, so
            that dropout does not depend on how a batch is split. Without a state, ``state`` is ``()``; a function that
            leaves it out, ``training_loss(parameters, batch, keys)``, returns the losses alone.
        init_state: ``init_state() -> state``, any tree of float arrays, such as running statistics.
        penalty: ``penalty(parameters) -> scalar``, added to the mean loss in the gradient alone, such as L2.
        ghost_batch_size: examples per batch-norm statistic, where there are any: batch sizes are multiples of it.
        score_of_mean: what becomes of the mean score of a split, such as ``exp`` for a perplexity.
        evaluation_batch_size: examples per forward pass of an evaluation; a bound on memory, except that with
            ``streams`` each such piece of a split is read from a fresh start.
        fields: what else decides the numbers, such as a width; part of the identity.

    Raises:
        InputError: If a split is empty, ragged or differs from the others in its arrays, or holds a value that is
            not finite or that 32 bits do not hold.
    """

    name: str
    version: str
    train: Split = field(repr=False)
    validation: Split = field(repr=False)
    test: Split = field(repr=False)
    init: Callable[[Any], Parameters] = field(repr=False)
    loss: Callable[..., Any] = field(repr=False)
    score: Callable[..., Any] = field(repr=False)
    constant_loss: float
    constant_score: float
    score_name: str = "accuracy"
    score_goal: Literal["maximize", "minimize"] = "maximize"
    reader: Reader = field(default=RESIDENT, repr=False)
    training_loss: Callable[..., Any] | None = field(default=None, repr=False)
    init_state: Callable[[], Any] | None = field(default=None, repr=False)
    penalty: Callable[[Parameters], Any] | None = field(default=None, repr=False)
    ghost_batch_size: int = 1
    score_of_mean: Callable[[Any], Any] | None = field(default=None, repr=False)
    evaluation_batch_size: int = 1024
    fields: Mapping[str, float | int | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what in ("name", "version"):
            if not (isinstance(getattr(self, what), str) and getattr(self, what).strip()):
                raise InputError(f"workload: {what} must be a word, not {getattr(self, what)!r}.")
        where = f"workload {self.name!r}"
        if self.score_goal not in ("maximize", "minimize"):
            raise InputError(f"{where}: score_goal must be 'maximize' or 'minimize', not {self.score_goal!r}.")
        for what in ("constant_loss", "constant_score"):
            number = real(f"{where}: {what}", getattr(self, what))
            if not math.isfinite(number):
                raise InputError(f"{where}: {what} must be a finite number, not {number!r}.")
            object.__setattr__(self, what, number)
        if self.constant_loss <= 0:
            raise InputError(
                f"{where}: constant_loss {self.constant_loss!r} is not above 0; training losses are compared by their "
                f"logarithms, so add a constant to a loss that can be negative."
            )
        plain = {name: python_value(value) for name, value in self.fields.items()}
        for name, value in plain.items():
            if type(value) not in (bool, int, float, str):
                raise InputError(
                    f"{where}: fields[{name!r}] is {shown(value)}; only numbers and text identify a workload."
                )
        object.__setattr__(self, "fields", plain)
        if not isinstance(self.reader, Reader):
            raise InputError(
                f"{where}: reader is {shown(self.reader)}; use Resident(augment), Streams(unroll, carry) or Feed(...)."
            )
        if self.training_loss is None and (self.init_state is not None or self.streams is not None):
            what = "init_state" if self.init_state is not None else "streams"
            raise InputError(f"{where}: {what} is of no use without training_loss, which moves it on.")
        if self.streams is not None and (self.init_state or self.ghost_batch_size != 1):
            raise InputError(f"{where}: streams carry their own state; init_state and ghost batches do not apply.")
        self._add_state(where)
        for what in ("ghost_batch_size", "evaluation_batch_size"):
            object.__setattr__(self, what, whole(f"{where}: {what}", getattr(self, what), least=1))
        for split in SPLITS:
            object.__setattr__(self, split, _as_arrays(where, split, getattr(self, split)))
        for split in SPLITS:
            _check_split(where, split, getattr(self, split), self.train)
            if self.feed is None:  # else the arrays identify examples, and no device holds them
                for key, array in self.split(split).items():
                    _check_held(where, f"{split}[{key!r}]", array)

    def _add_state(self, where: str) -> None:
        """Give functions that leave out a state that there is not the form of all: with a state, which is ``()``."""
        stateless, same = self.init_state is None, self.score is self.loss
        loss = _with_state(where, "loss", self.loss, EVALUATION, stateless)
        score = loss if same else _with_state(where, "score", self.score, EVALUATION, stateless)
        object.__setattr__(self, "loss", loss)
        object.__setattr__(self, "score", score)
        if self.training_loss is not None:
            stateless = stateless and self.streams is None
            training_loss = _with_state(where, "training_loss", self.training_loss, TRAINING, stateless)
            object.__setattr__(self, "training_loss", training_loss)

    @property
    def augment(self) -> Callable[[Any, Any], Any] | None:
        """What is done to each training example at each visit, or None."""
        return self.reader.augment if isinstance(self.reader, Resident) else None

    @property
    def streams(self) -> Streams | None:
        """How the examples are read where they are one text, or None."""
        return self.reader if isinstance(self.reader, Streams) else None

    @property
    def feed(self) -> Feed | None:
        """How the examples are read where the host reads them, or None."""
        return self.reader if isinstance(self.reader, Feed) else None

    @property
    def unroll(self) -> int:
        """Tokens of each stream that an update reads; 1 where examples are no streams."""
        return 1 if self.streams is None else self.streams.unroll

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
            examples=(examples_in(self.train), examples_in(self.validation), examples_in(self.test)),
            score_name=self.score_name,
            score_goal=self.score_goal,
            constant_loss=float(self.constant_loss),
            constant_score=float(self.constant_score),
            ghost_batch_size=self.ghost_batch_size,
            unroll=self.unroll,
            evaluation_batch_size=1 if self.streams is None else self.evaluation_batch_size,
            chosen_on="test" if _equal(self.validation, self.test) else "validation",
        )


def examples_in(split: Batch) -> int:
    """Return N, the number of examples in a split.

    >>> examples_in({"x": np.zeros((5, 2))})
    5
    """
    return len(next(iter(split.values())))


def constant_classifier(labels: np.ndarray) -> tuple[float, float]:
    """Return the cross-entropy in nats and the accuracy of the best constant predictor of these labels.

    The best constant predictor gives each class its frequency f_c: its loss is −Σ f_c ln f_c, its accuracy
    max f_c.

    Args:
        labels: the class of each example, shape (n,); or one-hot, shape (n, classes).

    Raises:
        InputError: If the labels are not one class for each example.

    >>> loss, accuracy = constant_classifier(np.array([0, 0, 1, 1]))
    >>> round(loss, 4), accuracy
    (0.6931, 0.5)
    """
    counts = np.unique(_classes(labels), return_counts=True)[1]
    share = counts / counts.sum()
    return float(-(share * np.log(share)).sum()), float(share.max())


def _classes(labels: Any) -> np.ndarray:
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


# What loss and score are given, and what training_loss is.
EVALUATION = ("parameters", "state", "batch")
TRAINING = ("parameters", "state", "batch", "keys")


@dataclass(frozen=True, eq=False)
class _WithoutState:
    """``loss`` or ``score`` of a model without a state, called as all are."""

    function: Callable[..., Any]

    def __call__(self, parameters: Parameters, state: Any, batch: Any) -> Any:
        return self.function(parameters, batch)


@dataclass(frozen=True, eq=False)
class _TrainingWithoutState:
    """``training_loss`` of a model without a state, called as all are."""

    function: Callable[..., Any]

    def __call__(self, parameters: Parameters, state: Any, batch: Any, keys: Any) -> tuple[Any, Any]:
        return self.function(parameters, batch, keys), state


def _with_state(
    where: str, name: str, function: Callable[..., Any], arguments: tuple[str, ...], stateless: bool
) -> Callable[..., Any]:
    """Return a function that takes a state, from one that does or, in a model without a state, that leaves it out."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # there is none to look at
        return function
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p for p in signature.parameters.values() if p.kind in positional and p.default is p.empty]
    leaves_out = stateless and len(needed) == len(arguments) - 1
    try:
        signature.bind(*(arguments[1:] if leaves_out else arguments))
    except TypeError:
        raise InputError(
            f"{where}: {name} must take ({', '.join(arguments)}); state is () for a model without a state."
        ) from None
    if not leaves_out:
        return function
    return _WithoutState(function) if arguments is EVALUATION else _TrainingWithoutState(function)


def _equal(a: Split, b: Split) -> bool:
    return all(np.array_equal(a[key], b[key]) for key in a)


def _as_arrays(where: str, name: str, split: Any) -> Split:
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


def _check_split(where: str, name: str, split: Split, train: Split) -> None:
    if not split:
        raise InputError(f"{where}: the {name} split has no arrays.")
    if split.keys() != train.keys():
        raise InputError(f"{where}: the {name} split has {sorted(split)}, the train split {sorted(train)}.")
    for key, array in split.items():
        if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
            raise InputError(
                f"{where}: {name}[{key!r}] holds {array.dtype}; only numbers can be trained on: "
                f"{NO_NUMBERS['F' if array.dtype.kind == 'V' and not array.dtype.names else array.dtype.kind]}."
            )
        if array.ndim == 0 or len(array) != examples_in(split) or len(array) == 0:
            raise InputError(
                f"{where}: {name}[{key!r}] has shape {array.shape}; every array of a split needs the same, "
                f"positive number of examples first."
            )
        if array.shape[1:] != train[key].shape[1:]:
            raise InputError(f"{where}: {name}[{key!r}] and train[{key!r}] differ in the shape of an example.")
        if array.dtype.kind in "fV":  # V is bfloat16
            _refuse(where, f"{name}[{key!r}]", array, ~np.isfinite(array), "", "values that are not finite: ")


def _check_held(where: str, place: str, array: np.ndarray) -> None:
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


def _digest(workload: Workload) -> str:
    digest = hashlib.sha256()
    for split in SPLITS:
        for key, array in sorted(workload.split(split).items()):
            array = np.ascontiguousarray(array)
            digest.update(f"{split}/{key}/{array.dtype.str}/{array.shape}/".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()
