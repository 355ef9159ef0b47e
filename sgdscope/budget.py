"""Compute budgets: the one place where a budget becomes a number of parameter updates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sgdscope.errors import InputError

# The order of examples counts positions in 32 bits, and a training curve multiplies a step by 50 in 32 bits.
MOST_EXAMPLES = 2**31 - 1
MOST_UPDATES = (2**31 - 1) // 50


@dataclass(frozen=True)
class Epochs:
    """A constant number of passes over the training set: the cost does not depend on the batch size.

    With N training examples and batch size B the number of updates is n·N/B, rounded to the nearest whole
    number (at least 1), so that every batch size sees n·N examples to within one batch.

    >>> Epochs(30).updates(batch_size=64, examples=1024)
    480
    """

    n: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.n) and self.n > 0):
            raise InputError(f"budgets: epochs must be a positive finite number, not {self.n!r}.")

    def updates(self, batch_size: int, examples: int) -> int:
        """Return the number of parameter updates for this batch size and training-set size."""
        return _checked(max(1, round(self.n * examples / batch_size)), batch_size, self)

    def __str__(self) -> str:
        return f"epochs:{exact(self.n)}"


@dataclass(frozen=True)
class Steps:
    """A constant number of parameter updates: the cost is proportional to the batch size.

    >>> Steps(9765).updates(batch_size=64, examples=50_000)
    9765
    """

    n: int

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 1:
            raise InputError(f"budgets: steps must be a whole number of at least 1, not {self.n!r}.")

    def updates(self, batch_size: int, examples: int) -> int:
        """Return the number of parameter updates, which is the same for every batch size."""
        return _checked(self.n, batch_size, self)

    def __str__(self) -> str:
        return f"steps:{self.n}"


Budget = Epochs | Steps


def exact(number: float) -> str:
    """Write a number as short as can be and so that it is read back the same.

    >>> exact(30.0), exact(0.9), exact(10 / 3)
    ('30', '0.9', '3.3333333333333335')
    """
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number))


def _checked(updates: int, batch_size: int, budget: Budget) -> int:
    if updates > MOST_UPDATES or updates * batch_size > MOST_EXAMPLES:
        raise InputError(
            f"budgets: {budget} at batch size {batch_size} is {updates:,} updates, "
            f"more than one trial may take ({MOST_UPDATES:,} updates, {MOST_EXAMPLES:,} examples)."
        )
    return updates


def parse_budget(text: str) -> Budget:
    """Read a budget as it is written on the command line.

    >>> parse_budget("epochs:30"), parse_budget("steps:9765")
    (Epochs(n=30.0), Steps(n=9765))

    Raises:
        InputError: where the text is neither ``epochs:N`` nor ``steps:N``.
    """
    kind, _, number = text.partition(":")
    try:
        if kind == "epochs":
            return Epochs(float(number))
        if kind == "steps":
            return Steps(int(number))
    except InputError:
        raise
    except ValueError:
        pass
    raise InputError(f"budgets: {text!r} is not a budget; write epochs:N or steps:N, for example epochs:30.")
