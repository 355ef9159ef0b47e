"""The claims: one row each, with its statement, verdict, numbers, rule and figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

from sgdscope.claims.decide import CLAIMS, ZONES, family, overall, reading
from sgdscope.claims.finding import (
    EXPONENT,
    LOG_BATCH_SIZE,
    LOG_LOSS,
    OCTAVES,
    SCORE,
    SLOPE,
    Effect,
    Finding,
    rounded,
)
from sgdscope.formatting import estimate, number
from sgdscope.frames import finite
from sgdscope.report.figures.figure import counted
from sgdscope.terminal import print_text, visible

COLOURS = {"supported": "green", "contradicted": "red", "inconclusive": "yellow", "not tested": "dim"}
NOT_TESTED = "not tested"
# The questions of the paper, and the claims that answer them; all others belong to the first.
QUESTIONS = {
    "How does SGD behave at different batch sizes?": (),
    "Do large batch sizes generalize worse?": ("C8", "C11"),
    "Which learning rate is best for training and for test performance?": ("C9", "C9b"),
    "Which methods help?": ("C10", "C10b", "C12"),
}


class Row(NamedTuple):
    """One claim.

    ``reads`` is the verdict with what limits it, ``numbers`` has a sentence for each finding, and ``figure`` is the
    anchor of the figure that shows it.
    """

    claim: str
    statement: str
    verdict: str
    reads: str
    numbers: list[str]
    rule: str
    figure: str


def claim_rows(findings: Sequence[Finding]) -> list[Row]:
    """Return the claims with what was found of each."""
    rows = []
    for name, claim in CLAIMS.items():
        mine = [finding for finding in findings if finding.claim == name]
        said = [sentence(finding) for finding in mine]
        rows.append(Row(name, claim.sentence, overall(mine), reading(mine), said, claim.rule, claim.figure))
    return rows


def by_question(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Return rows under the question that they answer; a question without rows is left out."""
    first, *_ = QUESTIONS
    of = {claim: question for question, claims in QUESTIONS.items() for claim in claims}
    found = {question: [row for row in rows if of.get(row.claim, first) == question] for question in QUESTIONS}
    return [(question, mine) for question, mine in found.items() if mine]


def print_claims(findings: Sequence[Finding], console: Console) -> None:
    """Print each claim with its verdict, its numbers, and the rule and the figure of those that were tested."""
    for question, rows in by_question(claim_rows(findings)):
        console.print(Text(question, "bold"))
        for row in rows:
            colour = COLOURS[row.verdict]
            console.print(Text.assemble((row.reads, colour), f"  {row.statement} ({row.claim})"))
            for said in row.numbers:
                print_text(console, visible(said), indent=4)
            if row.verdict != NOT_TESTED:
                print_text(console, f"Rule: {row.rule} (figure {row.figure or 'none'}).", indent=4, style="dim")
    console.print(Text(f"{ZONES} {family(findings)}", "dim"))


def sentence(finding: Finding) -> str:
    """Say what was found of a claim: whose it is, its verdict, the numbers that decide and then the others."""
    effects = sorted(finding.effects, key=lambda effect: not effect.decides)
    parts = [_effect(effect, _written(effect, finding)) for effect in effects] + (
        [_as_sentence(finding.reason)] if finding.reason else []
    )
    if not finding.workload:
        return " ".join(parts)
    subject = ", ".join(filter(None, (finding.workload, finding.budget, finding.optimizer)))
    said = f"{finding.reads} ({counted(finding.n)})" if finding.n else finding.verdict
    return f"{subject}: {said}. {' '.join(parts)}".strip()


def _as_sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}."


def as_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return the claims, their rules and findings as plain values; what is infinite is null."""
    return [
        {
            "claim": claim,
            "sentence": of.sentence,
            "verdict": reading(mine),
            "rule": of.rule,
            "figure": of.figure,
            "findings": [
                {name: getattr(finding, name) for name in ("workload", "budget", "optimizer", "n", "reason")}
                | {"verdict": finding.reads}
                | {"effects": [_plain(effect) for effect in finding.effects]}
                for finding in mine
            ],
        }
        for claim, of in CLAIMS.items()
        if (mine := [finding for finding in findings if finding.claim == claim])
    ]


@dataclass(frozen=True)
class Written:
    """How the numbers of an effect are written: each by itself where not by its interval, and the unit behind."""

    each: Callable[[float], str] | None = None
    scale: float = 1
    unit: str = ""


def _written(effect: Effect, finding: Finding) -> Written:
    """Return how an effect is written: a score that is an accuracy in percent, and a difference of such in points."""
    if effect.unit == SCORE and finding.in_percent:
        return Written(scale=100, unit=" %" if finding.claim == "C0" else " points")
    return WRITTEN.get(effect.unit, Written())


def amount(effect: Effect, written: Written) -> str:
    """Return an estimate with the interval that decides, in the effect's unit: of 90 % where it supports the claim.

    A logarithm of the loss is written as a factor, that of a batch size as a batch size.
    """
    of = effect.estimate
    supports = effect.decides and effect.verdict == "supported" and math.isfinite(of.high90 - of.low90)
    ends = (of.value, of.low90, of.high90) if supports else (of.value, of.low95, of.high95)
    level = " (90 %)" * supports
    if written.each is None:
        value, low, high = (end * written.scale for end in ends)
        return f"{estimate(value, low, high)}{written.unit}{level}"
    said, *interval = map(written.each, ends)
    return f"{'a factor of ' * (effect.unit == LOG_LOSS)}{said} [{', '.join(interval)}]{written.unit}{level}"


WRITTEN = {
    LOG_LOSS: Written(lambda value: "∞" if value > 700 else number(math.exp(value))),
    LOG_BATCH_SIZE: Written(lambda value: number(2**value, ".0f")),
    SLOPE: Written(lambda value: number(value, "z.2f")),
    OCTAVES: Written(lambda value: number(value, "z.2f"), unit=" octaves"),
    EXPONENT: Written(number),
}


def _effect(effect: Effect, written: Written) -> str:
    text = f"{effect.name[0].upper()}{effect.name[1:]}: {amount(effect, written)}; required: {_zone(effect, written)}."
    if not effect.decides:
        return f"Context: {text}"
    if effect.verdict != "inconclusive" or effect.n < 2 or effect.unit == EXPONENT:
        return f"{text} {effect.verdict.capitalize()}."
    if effect.seeds_50 is None:
        if effect.if_equal:
            return f"{text} Inconclusive; how many seeds would decide is not known."
        return f"{text} Inconclusive; more seeds will not settle it."
    if effect.if_equal:
        most = f" and {effect.seeds_80} with 80 %" if effect.seeds_80 else ""
        confirm = f"{effect.seeds_50} seeds confirm it with a chance of 50 %{most}"
        return f"{text} Inconclusive; if scores are equal, {confirm}."
    most = f", {effect.seeds_80} with 80 %" if effect.seeds_80 else "; 100 seeds do not reach 80 %"
    return f"{text} Inconclusive; {effect.seeds_50} seeds would decide with a chance of 50 %{most}."


def _zone(effect: Effect, written: Written) -> str:
    low, high = rounded(effect.zone)
    each = written.each or (lambda value: number(value * written.scale, ".3g"))
    if math.isinf(low):
        return f"less than {each(high)}{written.unit}"
    if math.isinf(high):
        return f"more than {each(low)}{written.unit}"
    return f"within ±{each(high)}{written.unit}" if low == -high else f"{each(low)} to {each(high)}{written.unit}"


def _plain(effect: Effect) -> dict[str, Any]:
    numbers = dict(zip(("zone_low", "zone_high"), rounded(effect.zone), strict=True)) | vars(effect.estimate)
    said = {name: getattr(effect, name) for name in ("name", "unit", "n", "verdict", "decides", "seeds_50", "seeds_80")}
    return said | finite(numbers)
