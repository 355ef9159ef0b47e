"""Compute budgets: the one place where a budget becomes a number of parameter updates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sgdscope.converters import positive, real, shortened, shown, whole
from sgdscope.errors import InputError
from sgdscope.formatting import exact

# The order of examples counts positions in 32 bits, and a training curve multiplies a step by 50 in 32 bits.
MOST_EXAMPLES = 2**31 - 1
MOST_UPDATES = (2**31 - 1) // 50
# A score has saturated at E when neither 2E nor 4E gains on it.
LEAST_DOUBLINGS = 2
# From one epoch to a million; each is a search of its own.
MOST_DOUBLINGS = 20


@dataclass(frozen=True)
class Epochs:
    """A constant number of passes over the training set: the cost does not depend on the batch size.

    With N training examples and batch size B the number of updates is n·N/B, rounded to the nearest whole
    number (at least 1), so that every batch size sees n·N examples to within one batch.

    Args:
        n: The number of epochs, above 0. A fraction is allowed.

    Raises:
        InputError: If ``n`` is not a positive finite number.

    >>> Epochs(30).updates(batch_size=64, examples=1024)
    480
    """

    n: float

    def __post_init__(self) -> None:
        n = real("budgets: epochs", self.n)
        if not (math.isfinite(n) and n > 0):
            raise InputError(f"budgets: epochs must be a positive finite number, not {shown(self.n)}.")
        object.__setattr__(self, "n", n)

    def updates(self, batch_size: int, examples: int) -> int:
        """Return the number of parameter updates for this batch size and training-set size."""
        updates = self.n * examples / batch_size
        # What is no number of updates at all, as infinity, is refused as it is.
        return _checked(max(1, round(updates)) if updates <= MOST_UPDATES else updates, batch_size, self)

    def __str__(self) -> str:
        return f"epochs:{exact(self.n)}"


@dataclass(frozen=True)
class Steps:
    """A constant number of parameter updates: the cost is proportional to the batch size.

    Args:
        n: The number of updates, at least 1.

    Raises:
        InputError: If ``n`` is not a whole number of at least 1.

    >>> Steps(9765).updates(batch_size=64, examples=50_000)
    9765
    """

    n: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole("budgets: steps", self.n, least=1, most=2**63 - 1))

    def updates(self, batch_size: int, examples: int) -> int:
        """Return the number of parameter updates, which is the same for every batch size."""
        return _checked(self.n, batch_size, self)

    def __str__(self) -> str:
        return f"steps:{self.n}"


TrialBudget = Epochs | Steps


@dataclass(frozen=True)
class Unlimited:
    """As many epochs as it takes: first, 2·first, 4·first, … until nothing is gained by more, or to a ceiling.

    Its trials are those of :class:`Epochs`, with rates searched anew at each doubling. When to stop is
    :mod:`sgdscope.analysis.saturation`'s to say, for each workload, optimizer and batch size by itself.

    Args:
        first: The epochs to begin with.
        ceiling: The most epochs, first·2^k with k of at least 2. Two doublings show whether a score has saturated.
        loss_floor: A training loss that is low enough. Default: none.

    Raises:
        InputError: If a number is not positive, or ``ceiling`` is not first·2^k.

    >>> [str(budget) for budget in Unlimited(5, 40).budgets]
    ['epochs:5', 'epochs:10', 'epochs:20', 'epochs:40']
    """

    first: float
    ceiling: float
    loss_floor: float | None = None

    def __post_init__(self) -> None:
        for name in ("first", "ceiling", "loss_floor"):
            number = getattr(self, name)
            if number is not None or name != "loss_floor":
                object.__setattr__(self, name, positive(f"budgets: {name} of an unlimited budget", number))
        doublings = max(LEAST_DOUBLINGS, round(math.log2(self.ceiling) - math.log2(self.first)))
        for number in (self.first, self.ceiling):
            if number > MOST_EXAMPLES:
                raise InputError(
                    f"budgets: {exact(number)} epochs of an unlimited budget are too many; use at most "
                    f"{MOST_EXAMPLES:,}."
                )
        if doublings > MOST_DOUBLINGS:
            raise InputError(
                f"budgets: an unlimited budget from {exact(self.first)} to {exact(self.ceiling)} doubles {doublings} "
                f"times; use at most {MOST_DOUBLINGS} doublings."
            )
        if self.ceiling != math.ldexp(self.first, doublings):
            raise InputError(
                f"budgets: ceiling {exact(self.ceiling)} of an unlimited budget is not {exact(self.first)}·2^k with k "
                f"of at least {LEAST_DOUBLINGS}; the nearest is {exact(math.ldexp(self.first, doublings))}."
            )

    @property
    def budgets(self) -> tuple[Epochs, ...]:
        """The budgets of its trials, from the first to the ceiling."""
        doublings = round(math.log2(self.ceiling) - math.log2(self.first))
        return tuple(Epochs(math.ldexp(self.first, k)) for k in range(doublings + 1))

    def __str__(self) -> str:
        floor = "" if self.loss_floor is None else f":{exact(self.loss_floor)}"
        return f"unlimited:{exact(self.first)}:{exact(self.ceiling)}{floor}"


Budget = TrialBudget | Unlimited


def _checked(updates: float, batch_size: int, budget: TrialBudget) -> int:
    if updates > MOST_UPDATES or updates * batch_size > MOST_EXAMPLES:
        many = f"{round(updates):,}" if updates < 1e15 else "over 10^15"
        raise InputError(
            f"budgets: {shortened(str(budget))} at batch size {batch_size} is {many} updates, "
            f"more than one trial may take ({MOST_UPDATES:,} updates, {MOST_EXAMPLES:,} examples)."
        )
    return int(updates)


def parse_budget(text: str) -> Budget:
    """Read a budget as it is written on the command line.

    >>> parse_budget("epochs:30"), parse_budget("steps:9765"), parse_budget("unlimited:5:320")
    (Epochs(n=30.0), Steps(n=9765), Unlimited(first=5.0, ceiling=320.0, loss_floor=None))

    Raises:
        InputError: where the text is neither ``epochs:N`` nor ``steps:N`` nor ``unlimited:FIRST:CEILING[:LOSS_FLOOR]``.
    """
    kind, *numbers = text.split(":")
    try:
        if kind == "epochs" and len(numbers) == 1:
            return Epochs(float(numbers[0]))
        if kind == "steps" and len(numbers) == 1:
            return Steps(int(numbers[0]))
        if kind == "unlimited" and len(numbers) in (2, 3):
            return Unlimited(*map(float, numbers))
    except InputError:
        raise
    except ValueError:
        pass
    raise InputError(
        f"budgets: {shown(text)} is not a budget; write epochs:N, steps:N or unlimited:FIRST:CEILING[:LOSS_FLOOR], "
        f"for example epochs:30."
    )


def known_budget(text: str) -> Budget | None:
    """Return a budget that a table names; None for an unknown kind, as in tables from elsewhere.

    >>> known_budget("epochs:30"), known_budget("a night")
    (Epochs(n=30.0), None)
    """
    try:
        return parse_budget(text)
    except InputError:
        return None
