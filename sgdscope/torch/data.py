"""A PyTorch data set as the arrays of a split."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, Subset, TensorDataset, default_collate

from sgdscope.errors import InputError
from sgdscope.torch.reading import named


def arrays_of(where: str, dataset: Any) -> dict[str, np.ndarray]:
    """Return the arrays of a data set: the inputs "x", or "x0", "x1", ... where there are several, and the target "y".

    Raises:
        InputError: If it is no data set of inputs with targets, or gives other examples each time.
    """
    return named(where, list(map(_array, _tensors(where, dataset))))


def _array(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    array: np.ndarray = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def _tensors(where: str, dataset: Any) -> list[torch.Tensor]:
    if isinstance(dataset, TensorDataset):
        return list(dataset.tensors)
    if isinstance(dataset, Subset):
        index = torch.as_tensor(list(dataset.indices))
        return [tensor[index] for tensor in _tensors(where, dataset.dataset)]
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise InputError(
            f"{where} is a {type(dataset).__name__}. Give a torch.utils.data.Dataset with a length, such as "
            f"TensorDataset(x, y)."
        )
    try:
        first, again = default_collate([dataset[0]]), default_collate([dataset[0]])
        if not all(torch.equal(a, b) for a, b in zip(first, again, strict=True)):
            raise InputError(
                f"{where} gives another example each time it is read. Give a DataLoader of it for each split, or leave "
                f"random transforms out, and augment by sgdscope.Resident(augment)."
            )
        return list(default_collate([dataset[place] for place in range(len(dataset))]))
    except (TypeError, RuntimeError) as error:
        raise InputError(f"{where} does not give tensors of one shape, (x, y): {str(error).splitlines()[0]}") from error
