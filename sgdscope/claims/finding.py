"""What a claim rests on: a few numbers with their intervals, and the zones that decide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy import special

from sgdscope.analysis.sweep import Cells
from sgdscope.stats.intervals import LEVEL, Estimate, Verdict, seeds_to_decide, t_quantile

# What effects are counted in: the score's own unit, octaves of a rate or of a batch size, octaves an octave, the
# logarithm of the loss, or the exponent of the bend.
SCORE, OCTAVES, LOG_BATCH_SIZE, SLOPE = "score", "octaves", "log₂ batch size", "slope"
LOG_LOSS, EXPONENT = "log loss", "exponent"
# The zone of a slope that is none, whether over batch sizes or epochs.
CONSTANT = (-0.25, 0.25)
# What is said where the margin is wide.
WIDE = (
    "the margin exceeds half of the errors of the best batch size, so a score within it says little. Declare a smaller "
    "margin, or test on more examples"
)
# Zones of what is more than nothing and less than nothing, to which 0 itself does not belong.
UP, DOWN = (math.nextafter(0, 1), math.inf), (-math.inf, math.nextafter(0, -1))


@dataclass(frozen=True)
class Effect:
    """One number that a claim rests on, and the zone in which it supports the claim.

    Unless a verdict is given it is that of the zone: supported where the 90 % interval lies inside, contradicted where
    the 95 % interval lies outside. ``seeds_50`` and ``seeds_80`` are the seeds in all with which an inconclusive effect
    is decided, one way or the other, with a chance of 50 and of 80 %, by :func:`~.intervals.seeds_to_decide`; None
    where more seeds will not settle it. Where ``if_equal`` these are the seeds that confirm scores equivalent if they
    are equal, by :func:`~sgdscope.stats.equivalence.seeds_to_confirm`. What does not decide is shown beside.
    """

    name: str
    estimate: Estimate
    zone: tuple[float, float]
    n: int
    unit: str
    verdict: Verdict
    seeds_50: int | None = None
    seeds_80: int | None = None
    decides: bool = True
    if_equal: bool = False

    def contradicts(self, parts: int) -> bool:
        """Return whether the effect contradicts a claim of so many parts: at 5 % divided by them, and at most 2.5 %."""
        if self.verdict != "contradicted" or parts <= 2:
            return self.verdict == "contradicted"
        low, high = self.zone
        error = (self.estimate.high95 - self.estimate.low95) / 2 / t_quantile(self.n)
        outside = max(low - self.estimate.value, self.estimate.value - high)
        return error == 0 or float(special.stdtr(self.n - 1, -outside / error)) * parts < 1 - LEVEL


@dataclass(frozen=True)
class Finding:
    """What the trials of one workload, budget and optimizer say of a claim.

    ``reason`` says why it is not tested, or what else is to be known. Where ``short_runs``, momentum reached its steady
    state at too few batch sizes, and the verdict rests on runs that are shorter. A claim about other claims has no
    effects of its own, and is given its verdict. Where ``in_percent``, scores are accuracies.
    """

    claim: str
    workload: str = ""
    budget: str = ""
    optimizer: str = ""
    effects: tuple[Effect, ...] = ()
    reason: str = ""
    given: str = ""
    short_runs: bool = False
    in_percent: bool = False

    @property
    def verdict(self) -> str:
        """Contradicted where an effect is, supported where all are, else inconclusive; not tested without effects.

        Of more than two effects each contradicts at 5 % divided by their number, so that the verdict is false in at
        most 5 % of studies.
        """
        parts = [effect for effect in self.effects if effect.decides]
        verdicts: list[str] = [effect.verdict for effect in parts]
        if not any(effect.contradicts(len(parts)) for effect in parts):
            verdicts = [verdict.replace("contradicted", "inconclusive") for verdict in verdicts]
        return self.given or together(verdicts)

    @property
    def reads(self) -> str:
        """The verdict as it is shown: of short runs it says so."""
        return shown(self.verdict, self.short_runs)

    @property
    def n(self) -> int:
        """The number of seeds, the least of the effects that decide."""
        return min((effect.n for effect in self.effects if effect.decides), default=0)


def shown(verdict: str, short_runs: bool) -> str:
    """Return a verdict with what limits it.

    >>> shown("supported", True), shown("not tested", True)
    ('supported, short runs only', 'not tested')
    """
    return f"{verdict}, short runs only" if short_runs and verdict in ("supported", "contradicted") else verdict


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
    seeds = seeds_to_decide(estimate, n, *zone, grid_error) if verdict == "inconclusive" else (None, None)
    return Effect(name, estimate, zone, n, unit, verdict, *seeds, decides)


def undecided(effect: Effect, why: str = "") -> Effect:
    """Return an effect that more seeds do not decide."""
    return replace(effect, name=effect.name + why, verdict="inconclusive", seeds_50=None, seeds_80=None)


def without_equivalences(finding: Finding, margin: float) -> Finding:
    """Return a finding without the verdicts of effects that say a score to lie within a wide margin, and say why.

    Such a verdict says little. A verdict that the margin is exceeded stands.
    """
    told = tuple(_without_equivalence(effect, margin) for effect in finding.effects)
    if told == finding.effects:
        return finding
    return replace(finding, effects=told, reason=". ".join([part for part in (finding.reason, WIDE) if part]))


def _without_equivalence(effect: Effect, margin: float) -> Effect:
    within = {"supported": effect.zone[1], "contradicted": effect.zone[0]}.get(effect.verdict)
    return undecided(effect) if effect.unit == SCORE and within == margin else effect


def rounded(zone: tuple[float, float]) -> tuple[float, float]:
    """Return a zone as it is written: an end next to 0 is 0.

    >>> rounded(UP)
    (0.0, inf)
    """
    low, high = (0.0 if abs(end) < 1e-300 else end for end in zone)
    return low, high


def undecided_at_an_edge(effect: Effect, *cells: Cells) -> Effect:
    """Return an effect without a verdict where one of its optima lies at an edge of the rates tried."""
    at_edge = any(of.censored for of in cells)
    return undecided(effect, ", the interval of one reaching the edge of the rates tried") if at_edge else effect
