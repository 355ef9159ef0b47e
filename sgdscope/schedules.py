"""Learning-rate schedules: each a value whose factor multiplies the initial learning rate."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from sgdscope.converters import real, shown
from sgdscope.errors import InputError
from sgdscope.formatting import exact


class Schedule(ABC):
    """A learning-rate schedule; ``str(schedule)`` is its name and part of a trial's identity."""

    @abstractmethod
    def factor(self, step: Any, updates: Any) -> Any:
        """Return the factor on the initial learning rate.

        Args:
            step: t, the updates already made: any shape, integers in [0, T).
            updates: T, the updates of the budget, broadcast against ``step``.
        """


@dataclass(frozen=True)
class Halving(Schedule):
    """The rate is held for half the budget, then halved ten times.

    With T updates in the budget and t the number of updates already made::

        factor(t) = 2^(-max(0, floor(20 t / T) - 9))

    so the first halving comes exactly at T/2, one more every T/20, and the last segment runs at 1/1024.

    Source: Smith, Elsen and De (2020), arXiv 2006.15081, as recalled; no warm-up.

    >>> import jax.numpy as jnp
    >>> [float(Halving().factor(jnp.int32(t), jnp.int32(40))) for t in (0, 19, 20, 22, 39)]
    [1.0, 1.0, 0.5, 0.25, 0.0009765625]
    """

    def factor(self, step: Any, updates: Any) -> Any:
        """Return 2^(-max(0, floor(20 t / T) - 9))."""
        import jax.numpy as jnp

        halvings = jnp.maximum(0, 20 * step // updates - 9)
        return jnp.exp2(-halvings.astype(jnp.float32))

    def __str__(self) -> str:
        return "halving"


HALVING = Halving()


@dataclass(frozen=True)
class Constant(Schedule):
    """The rate stays as it is.

    >>> import jax.numpy as jnp
    >>> float(Constant().factor(jnp.int32(39), jnp.int32(40)))
    1.0
    """

    def factor(self, step: Any, updates: Any) -> Any:
        """Return 1."""
        import jax.numpy as jnp

        return jnp.ones(jnp.shape(step), jnp.float32)

    def __str__(self) -> str:
        return "constant"


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from 1 to 0: ``(1 + cos(π t / T)) / 2``.

    Source: Loshchilov and Hutter (2017), arXiv 1608.03983, equation 5 without restarts.

    >>> import jax.numpy as jnp
    >>> [round(float(Cosine().factor(jnp.int32(t), jnp.int32(40))), 4) for t in (0, 20, 39)]
    [1.0, 0.5, 0.0015]
    """

    def factor(self, step: Any, updates: Any) -> Any:
        """Return (1 + cos(π t / T)) / 2."""
        import jax.numpy as jnp

        return (1 + jnp.cos(jnp.float32(math.pi) * _part(step, updates))) / 2

    def __str__(self) -> str:
        return "cosine"


@dataclass(frozen=True)
class WarmupStableDecay(Schedule):
    """The rate rises linearly, stays, and falls linearly to 0.

    Args:
        warmup: The part of the budget in which the rate rises. Default: 0.05.
        decay: The part of the budget, at its end, in which the rate falls. Default: 0.2.

    Raises:
        InputError: If a part is not a number from 0 to 1, or both are more than the whole budget.

    >>> import jax.numpy as jnp
    >>> wsd = WarmupStableDecay(warmup=0.25, decay=0.5)
    >>> str(wsd), [float(wsd.factor(jnp.int32(t), jnp.int32(8))) for t in (0, 1, 4, 6, 7)]
    ('wsd:0.25:0.5', [0.5, 1.0, 1.0, 0.5, 0.25])
    """

    warmup: float = 0.05
    decay: float = 0.2

    def __post_init__(self) -> None:
        for name in ("warmup", "decay"):
            part = real(f"schedule: {name}", getattr(self, name))
            if not 0 <= part <= 1:
                raise InputError(f"schedule: {name} must be a fraction of the budget from 0 to 1, not {shown(part)}.")
            object.__setattr__(self, name, part)
        if self.warmup + self.decay > 1:
            raise InputError(f"schedule: warmup {self.warmup} and decay {self.decay} are more than the whole budget.")

    def factor(self, step: Any, updates: Any) -> Any:
        """Return the smallest of (t + 1)/(warmup T), 1 and (T − t)/(decay T)."""
        import jax.numpy as jnp

        done, total = step.astype(jnp.float32), updates.astype(jnp.float32)
        rising = (done + 1) / jnp.maximum(1, jnp.float32(self.warmup) * total)
        falling = (total - done) / jnp.maximum(1, jnp.float32(self.decay) * total)
        return jnp.minimum(jnp.float32(1), jnp.minimum(rising, falling))

    def __str__(self) -> str:
        return f"wsd:{exact(self.warmup)}:{exact(self.decay)}"


def parse_schedule(text: str) -> Schedule:
    """Read a schedule as it is written on the command line and in a study's folder.

    >>> parse_schedule("halving"), parse_schedule("wsd"), parse_schedule("wsd:0.1:0.3")
    (Halving(), WarmupStableDecay(warmup=0.05, decay=0.2), WarmupStableDecay(warmup=0.1, decay=0.3))

    Raises:
        InputError: where the text names no schedule.
    """
    kind, *numbers = text.split(":")
    plain: dict[str, Schedule] = {"halving": Halving(), "constant": Constant(), "cosine": Cosine()}
    try:
        if kind in plain and not numbers:
            return plain[kind]
        if kind == "wsd" and len(numbers) in (0, 2):
            return WarmupStableDecay(*map(float, numbers))
    except InputError:
        raise
    except ValueError:
        pass
    raise InputError(
        f"schedule: {text!r} is not a schedule; there are halving, constant, cosine, wsd and wsd:WARMUP:DECAY."
    )


def _part(step: Any, updates: Any) -> Any:
    import jax.numpy as jnp

    return step.astype(jnp.float32) / updates.astype(jnp.float32)
