"""A workload from a PyTorch module: its data, loss and score."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from sgdscope.converters import function, whole, word
from sgdscope.errors import InputError
from sgdscope.models.normalization import cuts_ghosts
from sgdscope.records import SPLITS
from sgdscope.torch.data import arrays_of
from sgdscope.torch.door import check
from sgdscope.torch.draws import Context
from sgdscope.torch.graph import EXAMPLES, Graph, as_array, export, operation, own_name
from sgdscope.torch.initialization import recorded
from sgdscope.torch.reading import feed_of
from sgdscope.workloads.base import RESIDENT, Batch, Reader, Workload, constant_classifier

# The operations that normalize by the statistics of a batch.
BATCH_NORMS = ("_native_batch_norm_legit_functional.default", "_native_batch_norm_legit.no_stats")


def from_torch(
    *,
    name: str,
    version: str,
    make: Callable[[], nn.Module],
    train: Any,
    validation: Any,
    test: Any,
    loss: Callable[..., Any],
    score: Literal["accuracy"] | Callable[..., Any] = "accuracy",
    score_name: str = "accuracy",
    score_goal: Literal["maximize", "minimize"] = "maximize",
    constant_loss: float | None = None,
    constant_score: float | None = None,
    ghost_batch_size: int = 1,
    evaluation_batch_size: int = 1024,
    fields: Mapping[str, float | int | str] | None = None,
) -> Workload:
    """Return a PyTorch module with its data as a workload like any other.

    ``torch.export`` writes the module down as a list of operations, in training and in evaluation mode, which are
    applied in JAX. One batch is then compared with PyTorch's own loss, gradients, buffers and evaluation, to 1e-4.
    The parameters of each seed are drawn from the distributions that ``make`` draws from. Dropout draws from a key of
    each example. Frozen parameters and buffers begin with the same values in each seed.

    Args:
        name: The name of the workload in tables and reports.
        version: A word that you change whenever the module or the loss computes something else.
        make: ``make() -> nn.Module``, a new module each time, whose random numbers are PyTorch's.
        train: The training split: a ``torch.utils.data.Dataset`` of ``(x, y)``, or of several inputs and a target,
            which is held in memory, or a ``DataLoader`` of one, whose examples workers read when they are needed.
        validation: The split that chooses learning rates, likewise.
        test: The split whose scores are reported, likewise.
        loss: A loss of ``torch.nn``, such as ``nn.CrossEntropyLoss()``, or ``loss(output, target) -> (n,)``.
        score: ``score(output, target) -> (n,)``, the score of each example. Default: ``"accuracy"``, the share of
            classes that are right.
        score_name: The name of the score. Default: ``accuracy``.
        score_goal: Which score is better, ``maximize`` or ``minimize``. Default: ``maximize``.
        constant_loss: The mean training loss of the best constant baseline. Default: computed for
            ``nn.CrossEntropyLoss`` of classes and ``nn.MSELoss``.
        constant_score: The score of the best constant baseline. Default: computed for the accuracy of classes.
        ghost_batch_size: Examples for each statistic of a batch normalization. A module with a batch normalization
            needs it, so that its statistics do not change with the batch size. Default: 1.
        evaluation_batch_size: Examples of each pass of an evaluation. Default: 1024.
        fields: What else decides the numbers, such as a width. Default: none.

    Returns:
        The workload.

    Raises:
        InputError: If the module cannot be exported or made anew, if an operation has no counterpart in JAX, or if
            JAX and PyTorch disagree; the sentence names the operation, parameter or buffer.

    >>> import torch
    >>> from torch import nn
    >>> from torch.utils.data import TensorDataset
    >>> x = torch.linspace(-1, 1, 64)[:, None]
    >>> data = TensorDataset(x, (x[:, 0] > 0).long())
    >>> workload = from_torch(
    ...     name="line", version="1", make=lambda: nn.Linear(1, 2), train=data, validation=data, test=data,
    ...     loss=nn.CrossEntropyLoss(),
    ... )
    >>> round(workload.constant_loss, 3), workload.constant_score
    (0.693, 0.5)
    """
    word("from_torch: name", name)
    where = f"workload {name!r}"
    function(f"{where}: make", make)
    function(f"{where}: loss", loss)
    scores = _accuracy(loss) if isinstance(score, str) and score == "accuracy" else score
    function(f"{where}: score", scores)
    ghost_batch_size = whole(f"{where}: ghost_batch_size", ghost_batch_size, least=1)
    given: Mapping[str, Any] = dict(zip(SPLITS, (train, validation, test), strict=True))
    reader: Reader = RESIDENT
    if any(isinstance(data, DataLoader) for data in given.values()):
        splits, reader = feed_of(where, given)
        targets, held = None, {split: {"example": np.arange(len(data.dataset))} for split, data in given.items()}
    else:
        held = splits = {split: arrays_of(f"{where}: {split}", data) for split, data in given.items()}
        targets = splits["train"]["y"]
    _check_mean(where, loss, [arrays["y"] for arrays in splits.values()])
    try:
        module, init = recorded(make)
        heads = _Heads(module.cpu(), each_example(loss), scores)
        bridge = _bridge(heads, splits["train"], ghost_batch_size)
        check(bridge, heads, loss, init, splits["train"])
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    constant_loss, constant_score = _constants(where, loss, score, targets, constant_loss, constant_score)
    return Workload(
        name=name,
        version=version,
        train=held["train"],
        validation=held["validation"],
        test=held["test"],
        reader=reader,
        init=init,
        loss=partial(bridge.evaluated, 0),
        score=partial(bridge.evaluated, 1),
        training_loss=cuts_ghosts(partial(bridge.trained)),  # as the check has seen
        init_state=(lambda: dict(bridge.state)) if bridge.state else None,
        constant_loss=constant_loss,
        constant_score=constant_score,
        score_name=score_name,
        score_goal=score_goal,
        ghost_batch_size=ghost_batch_size,
        evaluation_batch_size=evaluation_batch_size,
        fields=fields or {},
    )


def _check_mean(where: str, loss: Any, targets: Sequence[np.ndarray]) -> None:
    """Refuse a loss of a batch that is no mean over its examples, which the first examples alone may not show."""
    if getattr(loss, "weight", None) is not None and getattr(loss, "reduction", "") == "mean":
        raise InputError(
            f"{where}: loss divides by the sum of its class weights, which differs between batches. Use a loss without "
            f"weight, or one with reduction='none' that multiplies each example's loss by its weight."
        )
    ignored = getattr(loss, "ignore_index", None)
    if ignored is not None and any((of == ignored).any() for of in targets):
        raise InputError(
            f"{where}: loss ignores targets that are {ignored}, so that a batch is not the mean of its examples. Drop "
            f"these examples."
        )


class _Heads(nn.Module):  # type: ignore[misc]
    """A module with its loss, and in evaluation its score, of each example."""

    def __init__(self, model: nn.Module, losses: Callable[..., Any], scores: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.loss_of_examples, self.scores = model, losses, scores

    def forward(self, *arrays: torch.Tensor) -> Any:
        """Return (losses,), or (losses, scores) in evaluation, each of shape (n,)."""
        *inputs, target = arrays
        output = self.model(*inputs)
        functions = [("loss", self.loss_of_examples), ("score", self.scores)][: 1 if self.training else 2]
        return tuple(_of_examples(name, function(output, target), target.shape[0]) for name, function in functions)


def _of_examples(name: str, values: Any, n: int) -> torch.Tensor:
    """Return one number for each example: the mean of an example's where there are several."""
    if not isinstance(values, torch.Tensor) or values.ndim == 0 or values.shape[0] != n:
        shape = tuple(map(str, values.shape)) if isinstance(values, torch.Tensor) else type(values).__name__
        raise InputError(
            f"{name} must return one number for each example, shape (n,), but returns shape {shape}. Give a loss of "
            f"torch.nn, or one with reduction='none'."
        )
    return values.float() if values.ndim == 1 else values.float().flatten(1).mean(1)


def each_example(loss: Any) -> Any:
    """Return a loss without its mean over the batch."""
    if isinstance(loss, nn.Module):
        reduction = getattr(loss, "reduction", "none")
        if reduction not in ("mean", "none"):
            raise InputError(
                f"loss has reduction={reduction!r}. Use reduction='mean', so that the gradient does not grow with the "
                f"batch size."
            )
        if reduction == "mean":
            loss = copy.deepcopy(loss)
            loss.reduction = "none"
        return loss
    parameter = inspect.signature(loss).parameters.get("reduction")
    has_mean = parameter is not None and parameter.default == "mean"
    return partial(loss, reduction="none") if has_mean else loss


def _accuracy(loss: Callable[..., Any]) -> Callable[..., Any]:
    """Return whether each class is right, of logits of two classes where the loss takes these."""
    if isinstance(loss, nn.BCEWithLogitsLoss):
        return lambda output, target: ((output > 0) == (target > 0.5)).float()

    def accuracy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        classes = target if target.ndim < output.ndim else target.argmax(1)
        return (output.argmax(1) == classes).float()

    return accuracy


def _constants(
    where: str, loss: Any, score: Any, targets: Any, constant_loss: float | None, constant_score: float | None
) -> tuple[float, float]:
    """Return loss and score of the constant baseline, computed where targets are known, and it is plain how."""
    if targets is None:
        pass
    elif isinstance(loss, nn.CrossEntropyLoss) and targets.dtype.kind in "iu" and loss.weight is None:
        found = constant_classifier(targets.reshape(-1))
        constant_loss = found[0] if constant_loss is None else constant_loss
        constant_score = found[1] if constant_score is None and score == "accuracy" else constant_score
    elif isinstance(loss, nn.MSELoss) and constant_loss is None:
        constant_loss = float(targets.astype(np.float64).var(0).mean())
    for what, value in (("constant_loss", constant_loss), ("constant_score", constant_score)):
        if value is None:
            raise InputError(f"{where}: give {what}, that of the best constant baseline, for this loss and score.")
    return float(constant_loss), float(constant_score)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Bridge:
    """A module in JAX.

    Args:
        names: of the arrays of a batch, the inputs and the target.
        training: the graph in training mode.
        evaluation: the graph in evaluation mode.
        fixed: parameters that are not trained, and buffers that do not move, by name.
        state: the buffers that training moves, as they begin.
        ghost: the ghost batch size.
    """

    names: tuple[str, ...]
    training: Graph
    evaluation: Graph
    fixed: Mapping[str, Any]
    state: Mapping[str, Any]
    ghost: int

    def arrays(self, batch: Batch) -> list[Any]:
        """Return the arrays of a batch in the order in which the module takes them."""
        return [batch[name] for name in self.names]

    def trained(
        self, parameters: Any, state: Any, batch: Batch, keys: Any, piece: int | None = None
    ) -> tuple[Any, Any]:
        """Return the training losses, (n,), and the state that the batch leaves behind."""
        arrays = self.arrays(batch)
        context = Context(len(arrays[-1]), self.ghost, keys, piece)
        (losses,), moved = self.training({**self.fixed, **(state or {}), **parameters}, arrays, context)
        return losses, ({name: moved.get(name, state[name]) for name in state} if state else state)

    def evaluated(self, which: int, parameters: Any, state: Any, batch: Batch) -> Any:
        """Return the losses (0) or scores (1) in evaluation mode, (n,)."""
        arrays = self.arrays(batch)
        context = Context(len(arrays[-1]), 1, None)
        return self.evaluation({**self.fixed, **(state or {}), **parameters}, arrays, context)[0][which]


def _bridge(heads: _Heads, train: Mapping[str, np.ndarray], ghost: int) -> Bridge:
    example = [torch.from_numpy(array[np.arange(EXAMPLES) % len(array)]) for array in train.values()]
    training, evaluation = (export(heads.train(mode), example) for mode in (True, False))
    for node in training.nodes:
        if ghost == 1 and node.op == "call_function" and operation(node) in BATCH_NORMS:
            raise InputError(
                f"the module normalizes by the statistics of its batch ({training.layer(node)}), so that what it "
                f"computes would change with the batch size. Give ghost_batch_size, such as 32, the examples for each "
                f"statistic."
            )
    tensors = dict(heads.named_parameters()) | dict(heads.named_buffers())
    fixed = {
        own_name(name): as_array(tensor)
        for name, tensor in tensors.items()
        if not tensor.requires_grad or not name.startswith("model.")
    }
    needed = _needed(training, evaluation)
    state = {name: fixed.pop(name) for name in training.moved if name in needed}
    of_norms = {
        training.tensors[source.name]
        for node in training.nodes
        if node.op == "call_function" and operation(node) in BATCH_NORMS
        for source in node.args[3:5]
        if getattr(source, "name", None) in training.tensors
    }
    if ghost > 1 and (others := state.keys() - of_norms):
        raise InputError(
            f"the buffer {min(others)} moves once for each batch. Ghost batches (ghost_batch_size={ghost}) can move "
            f"only the running statistics of a batch normalization."
        )
    return Bridge(tuple(train), training, evaluation, fixed, state, ghost)


def _needed(training: Graph, evaluation: Graph) -> set[str]:
    """Return the buffers on which a loss or a score depends, now or after more updates."""
    needed = training.buffers_behind(None) | evaluation.buffers_behind(None)
    while True:
        more = {name for moved in needed for name in training.buffers_behind(moved)} - needed
        if not more:
            return needed
        needed |= more
