"""Seeds: how many a study trains, and at which learning rates of a cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

from sgdscope.converters import shown, whole
from sgdscope.errors import InputError

# So many trials are named, searched and shown in minutes; beyond them memory ends first.
MOST_SEEDS = 10_000
# At how many seeds `run --until-decided` looks at what is open. The looks are declared here, before any data.
LOOKS = (5, 10, 15, 20, 30, 40, 60, 100)


@dataclass(frozen=True)
class Seeds:
    """How many seeds the learning rates of a cell get: few where the search looks, many where the question is.

    Seeds are numbered upwards from the study's first seed, so that all rates share the seeds of the search.

    Args:
        search: Seeds at every learning rate that the search tries. Default: 5.
        near_best: Seeds at the best rate and half an octave on both sides of it. These seeds choose the rate.
            Default: ``search``.
        best: Seeds at the best rate. The seeds beyond ``near_best`` did not choose the rate: where there are 10 or
            more, they report its score. Default: ``near_best``.
        rates: Seeds at the five rates within an octave of each criterion's best, for claims about learning rates (C3,
            C6, C7, C9 and the transition batch size). Default: ``search``.

    Raises:
        InputError: If a number is not whole, or is smaller than the one that it extends.

    >>> Seeds(search=5, near_best=10, best=30)
    Seeds(search=5, near_best=10, best=30, rates=5)
    >>> str(Seeds(5, 10, 30)), Seeds.of(15)
    ('5,10,30', Seeds(search=15, near_best=15, best=15, rates=15))
    """

    search: int = 5
    near_best: int = None  # type: ignore[assignment]
    best: int = None  # type: ignore[assignment]
    rates: int = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        search = whole("seeds", self.search, most=MOST_SEEDS)
        if search < 1:
            raise InputError(f"seeds: {shown(search)} leaves nothing to train; give at least 1, better 5 or more.")
        self._set("search", search)
        for name, least in (("near_best", "search"), ("best", "near_best"), ("rates", "search")):
            fewest, value = getattr(self, least), getattr(self, name)
            number = fewest if value is None else whole(f"seeds: {name}", value, most=MOST_SEEDS)
            if number < fewest:
                raise InputError(f"seeds: {name}={shown(number)} is below {least}={fewest}. Give at least {fewest}.")
            self._set(name, number)

    def _set(self, name: str, value: int) -> None:
        object.__setattr__(self, name, value)

    @classmethod
    def of(cls, seeds: int | Seeds) -> Seeds:
        """Return the same number of seeds at every rate where a whole number is given."""
        return seeds if isinstance(seeds, Seeds) else cls(seeds, seeds, seeds, seeds)

    @property
    def plain(self) -> int | Seeds:
        """The whole number where all rates get the same number of seeds, else these seeds."""
        return self.search if len(set(astuple(self))) == 1 else self

    @property
    def most(self) -> int:
        """The most seeds that a learning rate gets."""
        return max(self.best, self.rates)

    def united(self, other: Seeds) -> Seeds:
        """Return the larger of both numbers, field by field."""
        return Seeds(*map(max, astuple(self), astuple(other)))

    def exceeds(self, other: Seeds) -> bool:
        """Return whether some learning rate gets more seeds than ``other`` gives it."""
        return self.united(other) != other

    def __str__(self) -> str:
        """Write the seeds as ``--seeds`` reads them."""
        if isinstance(self.plain, int):
            return str(self.plain)
        text = f"{self.search},{self.near_best},{self.best}"
        return text if self.rates == self.search else f"{text},rates={self.rates}"


@dataclass(frozen=True)
class SeedsAt:
    """More seeds at one optimizer and batch size.

    Args:
        optimizer: As a table of trials names it, such as ``momentum:0.9``.
        batch_size: Of the cells.
        seeds: What these cells get where it is more than the study's seeds.

    Raises:
        InputError: If a field has a wrong type.

    >>> str(SeedsAt("sgd", 256, Seeds(5, 10, 30)))
    'sgd@256=5,10,30'
    """

    optimizer: str
    batch_size: int
    seeds: Seeds

    def __post_init__(self) -> None:
        if not isinstance(self.optimizer, str):
            raise InputError(f"seeds_at: optimizer {shown(self.optimizer)} is not a name, such as 'momentum:0.9'.")
        object.__setattr__(self, "batch_size", whole("seeds_at: batch_size", self.batch_size, least=1))
        object.__setattr__(self, "seeds", Seeds.of(self.seeds))

    def __str__(self) -> str:
        """Write the seeds as ``--seeds-at`` reads them."""
        return f"{self.optimizer}@{self.batch_size}={self.seeds}"


def parse_seeds(text: str, field: str = "seeds") -> int | Seeds:
    """Read seeds as they are written on the command line: ``N``, ``SEARCH,NEAR_BEST,BEST`` or ``name=N,...``.

    >>> parse_seeds("15"), parse_seeds("5,10,30"), parse_seeds("search=5,best=30")
    (15, Seeds(search=5, near_best=10, best=30, rates=5), Seeds(search=5, near_best=5, best=30, rates=5))

    Raises:
        InputError: If the text is neither.
    """
    parts = [part.strip() for part in text.split(",")]
    names = [f.name for f in fields(Seeds)]
    given: dict[str, Any] = {}
    for name, part in zip(names, parts, strict=False):
        named, equals, number = part.rpartition("=")
        name = named.strip() if equals else name
        if name not in names or name in given or len(parts) > len(names):
            raise InputError(
                f"{field}: {shown(text)} is not a number of seeds. Write N, or 5,10,30 for search, near_best and best."
            )
        try:
            given[name] = int(number)
        except ValueError:
            raise InputError(f"{field}: {shown(number.strip())} is not a whole number.") from None
    return given["search"] if len(parts) == 1 and "=" not in text else Seeds(**given)


def parse_seeds_at(text: str) -> SeedsAt:
    """Read more seeds of a cell as they are written on the command line: ``OPTIMIZER@BATCH_SIZE=SEEDS``.

    >>> parse_seeds_at("momentum:0.9@256=5,10,30")
    SeedsAt(optimizer='momentum:0.9', batch_size=256, seeds=Seeds(search=5, near_best=10, best=30, rates=5))

    Raises:
        InputError: If the text is not of this form.
    """
    optimizer, _, rest = text.rpartition("@")  # numbers of an optimizer may hold a = too
    size, _, seeds = rest.partition("=")
    if not (optimizer and size.isdecimal() and seeds):
        raise InputError(f"seeds_at: {shown(text)} is not OPTIMIZER@BATCH_SIZE=SEEDS, such as sgd@256=5,10,30.")
    return SeedsAt(optimizer, int(size), Seeds.of(parse_seeds(seeds, "seeds_at")))


def united_at(*several: Sequence[SeedsAt]) -> tuple[SeedsAt, ...]:
    """Return one entry for each optimizer and batch size, with the most seeds of each."""
    found: dict[tuple[str, int], Seeds] = {}
    for entry in (entry for entries in several for entry in entries):
        key = entry.optimizer, entry.batch_size
        found[key] = entry.seeds.united(found.get(key, entry.seeds))
    return tuple(SeedsAt(*key, seeds) for key, seeds in sorted(found.items()))
