"""What a claim rests on: a few numbers with their intervals, and the zones that decide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sgdscope.analysis.sweep import Cells
from sgdscope.stats.intervals import Estimate, Verdict, seeds_to_decide

# What effects are counted in: the score's own unit, octaves of a rate or of a batch size, octaves an octave, the
# logarithm of the loss, or the exponent of the bend.
SCORE, OCTAVES, LOG_BATCH_SIZE, SLOPE = "score", "octaves", "log₂ batch size", "slope"
LOG_LOSS, EXPONENT = "log loss", "exponent"
# The zone of a slope that is none, whether over batch sizes or epochs.
CONSTANT = (-0.25, 0.25)
# Zones of what is more than nothing and less than nothing, to which 0 itself does not belong.
UP, DOWN = (math.nextafter(0, 1), math.inf), (-math.inf, math.nextafter(0, -1))


@dataclass(frozen=True)
class Effect:
    """One number that a claim rests on, and the zone in which it supports the claim.

    Unless a verdict is given it is that of the zone: supported where the 90 % interval lies inside, contradicted where
    the 95 % interval lies outside. ``seeds_needed`` is the number of seeds at which it would be decided, one way or the
    other, if the estimate stayed as it is (of several scores together: if they were equal); None where it is decided,
    or no number would. What does not decide is shown beside.
    """

    name: str
    estimate: Estimate
    zone: tuple[float, float]
    n: int
    unit: str
    verdict: Verdict
    seeds_needed: int | None = None
    decides: bool = True


@dataclass(frozen=True)
class Finding:
    """What the trials of one workload, budget and optimizer say of a claim.

    ``reason`` says why it is not tested, or what else is to be known. A claim about other claims has no effects of its
    own, and is given its verdict.
    """

    claim: str
    workload: str = ""
    budget: str = ""
    optimizer: str = ""
    effects: tuple[Effect, ...] = ()
    reason: str = ""
    given: str = ""

    @property
    def verdict(self) -> str:
        """Contradicted where an effect is, supported where all are, else inconclusive; not tested without effects."""
        return self.given or together([effect.verdict for effect in self.effects if effect.decides])

    @property
    def n(self) -> int:
        """The number of seeds, the least of the effects that decide."""
        return min((effect.n for effect in self.effects if effect.decides), default=0)


def together(verdicts: Sequence[str]) -> str:
    """Return the verdict of a claim that makes several statements.

    >>> together(["supported", "inconclusive"]), together(["supported", "contradicted"]), together([])
    ('inconclusive', 'contradicted', 'not tested')
    """
    if not verdicts:
        return "not tested"
    if "contradicted" in verdicts:
        return "contradicted"
    return "supported" if set(verdicts) == {"supported"} else "inconclusive"


def in_zone(
    name: str,
    estimate: Estimate,
    zone: tuple[float, float],
    n: int,
    unit: str,
    *,
    grid_error: float = 0.0,
    decides: bool = True,
) -> Effect:
    """Return an effect whose verdict is that of its zone; ``grid_error`` is what seeds do not make smaller."""
    verdict = estimate.verdict(*zone)
    needed = seeds_to_decide(estimate, n, *zone, grid_error) if verdict == "inconclusive" else None
    return Effect(name, estimate, zone, n, unit, verdict, needed, decides)


def rounded(zone: tuple[float, float]) -> tuple[float, float]:
    """Return a zone as it is written: an end next to 0 is 0.

    >>> rounded(UP)
    (0.0, inf)
    """
    low, high = (0.0 if abs(end) < 1e-300 else end for end in zone)
    return low, high


def undecided_at_an_edge(effect: Effect, *cells: Cells) -> Effect:
    """Return an effect without a verdict where one of its optima lies at an edge of the rates tried."""
    if not any(of.censored for of in cells):
        return effect
    name = f"{effect.name}, one of them at the edge of the rates tried"
    return replace(effect, name=name, verdict="inconclusive", seeds_needed=None)
