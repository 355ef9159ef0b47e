"""The workload contract on one page: data, model, loss, score and augmentation.

A workload knows neither batch size nor optimizer. Its functions are pure JAX functions on any tree of
parameters, so it may be written with Flax, Equinox or nothing at all.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from sgdscope.converters import function, mapping, python_value, real, shown, whole, word
from sgdscope.errors import InputError
from sgdscope.records import SPLITS, Arrays, Layout, WorkloadRecord
from sgdscope.workloads.arrays import as_arrays, check_held, check_split, classes, digest, equal

Parameters = Any  # any tree of float arrays
Batch = Mapping[str, Any]  # arrays of shape (n, ...), the same n
Split = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Resident:
    """Read examples that the device holds: all of them once an epoch, each epoch in another order.

    Args:
        augment: ``augment(key, example) -> example``, applied to each training example at each visit, with a key of
            its own for (seed, visit). Evaluation never augments. Default: none.

    >>> import jax
    >>> import sgdscope as sg
    >>> noisy = lambda key, example: example | {"x": example["x"] + jax.random.normal(key, example["x"].shape)}
    >>> reader = sg.Resident(augment=noisy)
    """

    augment: Callable[[Any, Any], Any] | None = None

    def __post_init__(self) -> None:
        function("resident: augment", self.augment, optional=True)


@dataclass(frozen=True)
class Streams:
    """Read a text: one long sequence of examples, cut into streams that are read side by side.

    The training split is one sequence of N tokens, and its examples are the tokens. A batch of B = streams × unroll
    tokens cuts the sequence, taken as a ring, into ``B // unroll`` streams of equal length. Each update reads the next
    ``unroll`` tokens of every stream. The state that a stream carries from update to update begins anew with each
    epoch. The seed and the epoch decide where the ring is cut.

    ``training_loss`` gets arrays of shape (streams, unroll + 1), each stream's tokens with the token that follows, a
    ``state`` that the streams carry, and keys of shape (streams,). ``loss`` and ``score`` get tokens in their order,
    and ``()`` as the state.

    Args:
        unroll: The tokens of each stream that an update reads, and through which the gradient is taken.
        carry: ``carry(n) -> tree`` of arrays (n, ...): the state of n streams when an epoch begins.

    >>> import jax.numpy as jnp
    >>> import sgdscope as sg
    >>> sg.Streams(unroll=35, carry=lambda n: jnp.zeros((n, 200))).carry(4).shape
    (4, 200)
    """

    unroll: int
    carry: Callable[[int], Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "unroll", whole("streams: unroll", self.unroll, least=1))
        function("streams: carry", self.carry)


@dataclass(frozen=True)
class Feed:
    """Read examples that are too many for a device: data-loading workers read each example when it is needed.

    The splits hold what identifies their examples, such as a hash of each example's file. No device holds the examples.

    Args:
        layout: The shape and type of each array of an example.
        locate: ``locate(split, index) -> place``, a tuple that tells ``read`` which example is meant.
        read: ``read(*place, visit) -> example``, a dictionary of arrays of that layout. ``visit`` is (seed, epoch,
            index) in training, by which an example may be augmented, and None in evaluation. It must be a pure
            function in a module that workers can import, preferably without JAX, whose import takes seconds.
        bytes: The bytes to read of each split, for a plan.
        circumstances: What an example depends on beside its place and visit, such as the versions of libraries. A
            trial does not resume from a checkpoint with other circumstances. Default: nothing.

    >>> import numpy as np
    >>> import sgdscope as sg
    >>> feed = sg.Feed(
    ...     layout={"x": ((2,), np.dtype("float32"))},
    ...     locate=lambda split, index: (split, index),
    ...     read=lambda split, index, visit: {"x": np.full(2, index, np.float32)},
    ...     bytes={"train": 800, "validation": 80, "test": 80},
    ... )
    >>> feed.read(*feed.locate("train", 3), None)["x"].tolist()
    [3.0, 3.0]
    """

    layout: Layout
    locate: Callable[[str, int], tuple[Any, ...]]
    read: Callable[..., Arrays]
    bytes: Mapping[str, int]
    circumstances: str = ""

    def __post_init__(self) -> None:
        mapping("feed: layout", self.layout, "shapes and types")
        function("feed: locate", self.locate)
        function("feed: read", self.read)
        sizes = mapping("feed: bytes", self.bytes, "sizes by split")
        sizes = {split: whole(f"feed: bytes[{split!r}]", size, least=0) for split, size in sizes.items()}
        object.__setattr__(self, "bytes", sizes)
        if not isinstance(self.circumstances, str):
            raise InputError(f"feed: circumstances: {shown(self.circumstances)} is not text.")


Reader = Resident | Streams | Feed
RESIDENT = Resident()


@dataclass(frozen=True, kw_only=True, eq=False)
class Workload:
    """Declare a model with its data, loss and score.

    Most workloads are ``init``, ``loss`` and ``score``. Training may differ from evaluation in ``training_loss``, which
    may draw random numbers and may move on a state without a gradient, and in ``penalty``, which is part of the
    gradient and of no reported loss.

    Args:
        name: The name of the workload in tables and reports.
        version: A word that you change whenever the functions compute something else. It is part of a trial's identity.
        train: The training split: a dictionary of arrays with one leading axis of examples. Lists and arrays of
            other libraries are read as numpy reads them. Devices hold 32 bits: float64 is rounded to float32.
        validation: The split that chooses learning rates, likewise.
        test: The split whose scores are reported, likewise.
        init: ``init(key) -> parameters``, any tree of float arrays.
        loss: ``loss(parameters, state, batch) -> (n,)``, the loss of each of the n examples of a batch, not negative,
            since training losses are compared by their logarithms. Training minimizes the mean. ``state`` is what
            ``init_state`` began, or ``()`` for a model without a state. Where there is no ``init_state``, ``loss``,
            ``score`` and ``training_loss`` may leave ``state`` out: ``loss(parameters, batch)``.
        score: ``score(parameters, state, batch) -> (n,)``, the score of each example. The score of a split is the mean.
        constant_loss: The mean training loss of the best constant baseline, above 0. A diverged trial counts with it.
        constant_score: The score of the best constant baseline, likewise.
        score_name: The name of the score on axes and in tables. Default: ``accuracy``.
        score_goal: Which score is better, ``maximize`` for a larger or ``minimize`` for a smaller one.
            Default: ``maximize``.
        reader: How examples are read: ``Resident(augment)`` where the device holds them, ``Streams(unroll, carry)``
            where they are one text, ``Feed(...)`` where data-loading workers read them. Default: ``Resident()``.
        training_loss: ``training_loss(parameters, state, batch, keys) -> (losses, state)``, where training minimizes
            something else than ``loss``. ``keys`` has shape (n,), one key for each example and visit, so that dropout
            does not depend on how a batch is cut. Without a state, ``state`` is ``()``. A function that leaves it out,
            ``training_loss(parameters, batch, keys)``, returns the losses alone. Default: ``loss``.
        init_state: ``init_state() -> state``, any tree of float32 or int32 arrays, such as running statistics.
            Default: none.
        penalty: ``penalty(parameters) -> scalar``, added to the mean loss in the gradient alone, such as L2.
            Default: none.
        ghost_batch_size: Examples per batch-norm statistic, where there are any. Batch sizes are multiples of it. Where
            ``training_loss`` takes statistics over all of the batch that it is given, sgdscope gives it one ghost batch
            at a time and takes the mean of the states that it returns, of whole numbers the first. Default: 1.
        sample_targets: ``sample_targets(parameters, state, batch, key) -> batch``, the batch with targets that are
            drawn from the model, as K-FAC needs them: for a cross-entropy, labels by the model's probabilities.
            Default: none.
        uniform_loss: ``uniform_loss(parameters, state, batch) -> (n,)``, the loss of each example against targets that
            are equally likely, as label smoothing needs it. Default: none.
        score_of_mean: A function of the mean score of a split, such as ``exp`` for a perplexity. Default: the mean.
        evaluation_batch_size: Examples per forward pass of an evaluation, a bound on memory. With ``Streams`` each
            piece of a split is read from a fresh start, so that the size counts. Default: 1024.
        cpu_microbatch_size: About how many examples of a forward pass suit a CPU's cache. Where a study gives no
            microbatch size, batches are cut into such parts on a CPU. Default: batches are not cut.
        fields: What else decides the numbers, such as a width. The fields are part of a trial's identity.
            Default: none.

    Raises:
        InputError: If a field has a wrong type, or if a split is empty, ragged, differs from the others in its arrays,
            or holds a value that is not finite or does not fit in 32 bits.

    >>> import jax.numpy as jnp
    >>> import sgdscope as sg
    >>> split = {"x": np.array([[0.0], [1.0]]), "y": np.array([0.0, 1.0])}
    >>> error = lambda weights, batch: (batch["x"] @ weights - batch["y"]) ** 2
    >>> workload = sg.Workload(
    ...     name="line", version="1", train=split, validation=split, test=split, init=lambda key: jnp.zeros(1),
    ...     loss=error, score=error, score_name="squared error", score_goal="minimize",
    ...     constant_loss=0.25, constant_score=0.25,
    ... )
    >>> workload.record().examples
    (2, 2, 2)
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
    sample_targets: Callable[..., Any] | None = field(default=None, repr=False)
    uniform_loss: Callable[..., Any] | None = field(default=None, repr=False)
    cpu_microbatch_size: int | None = None

    def __post_init__(self) -> None:
        for what in ("name", "version"):
            word(f"workload: {what}", getattr(self, what))
        where = f"workload {self.name!r}"
        if not (isinstance(self.score_goal, str) and self.score_goal in ("maximize", "minimize")):
            raise InputError(f"{where}: score_goal must be 'maximize' or 'minimize', not {shown(self.score_goal)}.")
        word(f"{where}: score_name", self.score_name)
        for what in ("init", "loss", "score"):
            function(f"{where}: {what}", getattr(self, what))
        for what in ("training_loss", "init_state", "penalty", "score_of_mean", "sample_targets", "uniform_loss"):
            function(f"{where}: {what}", getattr(self, what), optional=True)
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
        given = mapping(f"{where}: fields", self.fields, "numbers and text")
        plain = {name: python_value(value) for name, value in given.items()}
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
        if self.cpu_microbatch_size is not None:
            size = whole(f"{where}: cpu_microbatch_size", self.cpu_microbatch_size, least=1)
            object.__setattr__(self, "cpu_microbatch_size", size)
        for split in SPLITS:
            object.__setattr__(self, split, as_arrays(where, split, getattr(self, split)))
        for split in SPLITS:
            check_split(where, split, getattr(self, split), self.train)
            if self.feed is None:  # else the arrays identify examples, and no device holds them
                for key, array in self.split(split).items():
                    check_held(where, f"{split}[{key!r}]", array)

    def _add_state(self, where: str) -> None:
        """Give functions that leave out a state that there is not the form of all: with a state, which is ``()``."""
        stateless, same = self.init_state is None, self.score is self.loss
        loss = _with_state(where, "loss", self.loss, EVALUATION, stateless)
        score = loss if same else _with_state(where, "score", self.score, EVALUATION, stateless)
        object.__setattr__(self, "loss", loss)
        object.__setattr__(self, "score", score)
        if self.uniform_loss is not None:
            uniform_loss = _with_state(where, "uniform_loss", self.uniform_loss, EVALUATION, stateless)
            object.__setattr__(self, "uniform_loss", uniform_loss)
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
            data_sha256=digest({name: self.split(name) for name in SPLITS}),
            examples=(examples_in(self.train), examples_in(self.validation), examples_in(self.test)),
            score_name=self.score_name,
            score_goal=self.score_goal,
            constant_loss=float(self.constant_loss),
            constant_score=float(self.constant_score),
            ghost_batch_size=self.ghost_batch_size,
            unroll=self.unroll,
            evaluation_batch_size=1 if self.streams is None else self.evaluation_batch_size,
            chosen_on="test" if equal(self.validation, self.test) else "validation",
            microbatch_size=self.microbatch_here,
        )

    @property
    def microbatch_here(self) -> int | None:
        """About how many examples of a forward pass suit the devices that JAX has here; None for the whole batch."""
        if self.cpu_microbatch_size is None:
            return None
        import jax

        return self.cpu_microbatch_size if jax.default_backend() == "cpu" else None


def examples_in(split: Batch) -> int:
    """Return N, the number of examples in a split.

    >>> examples_in({"x": np.zeros((5, 2))})
    5
    """
    return len(next(iter(split.values())))


def constant_classifier(labels: np.ndarray) -> tuple[float, float]:
    """Return the cross-entropy in nats and the accuracy of the best constant baseline of labels.

    The best constant baseline gives each class its frequency f_c. Its loss is −Σ f_c ln f_c, its accuracy max f_c.

    Args:
        labels: The class of each example, shape (n,), or one-hot labels, shape (n, classes).

    Returns:
        The loss and the accuracy, for ``constant_loss`` and ``constant_score``.

    Raises:
        InputError: If the labels are not one class for each example.

    >>> loss, accuracy = constant_classifier(np.array([0, 0, 1, 1]))
    >>> round(loss, 4), accuracy
    (0.6931, 0.5)
    """
    counts = np.unique(classes(labels), return_counts=True)[1]
    share = counts / counts.sum()
    return float(-(share * np.log(share)).sum()), float(share.max())


# What loss and score are given, and what training_loss is.
EVALUATION = ("parameters", "state", "batch")
TRAINING = ("parameters", "state", "batch", "keys")


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
    if arguments is EVALUATION:
        return lambda parameters, state, batch: function(parameters, batch)
    return lambda parameters, state, batch, keys: (function(parameters, batch, keys), state)
