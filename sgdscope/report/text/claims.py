"""The claims in words: what each rests on, and the talk's three questions answered from the verdicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from rich.console import Console
from rich.text import Text

from sgdscope.claims.decide import CLAIMS, ZONES, overall
from sgdscope.claims.finding import (
    DOWN,
    EXPONENT,
    LOG_BATCH_SIZE,
    LOG_LOSS,
    OCTAVES,
    SCORE,
    SLOPE,
    UP,
    Effect,
    Finding,
    rounded,
    together,
)
from sgdscope.formatting import number
from sgdscope.terminal import print_text, visible

# Which claims bear on which of the talk's questions.
QUESTIONS: dict[str, tuple[str, ...]] = {
    "How does SGD behave at different batch sizes?": ("C1", "C2", "C3", "C4", "C4b", "C5", "C6", "C7"),
    "Do large batch sizes generalize poorly?": ("C4", "C4b", "C8"),
    "What is the optimal learning rate for train versus test performance?": ("C3", "C6", "C8", "C9", "C9b"),
}
COLOURS = {"supported": "green", "contradicted": "red", "inconclusive": "yellow", "not tested": "dim"}
# What is said of a claim by its verdict: supported, contradicted, inconclusive.
PHRASES: dict[str, tuple[str, str, str]] = {
    "C0": (
        "the best score, with {who}, matches or exceeds the reference",
        "the best score, with {who}, stays below the reference",
        "whether the best score, with {who}, reaches the reference is not decided",
    ),
    "C1": (
        "below the bend the best score of {who} does not depend on the batch size",
        "even below the bend the best score of {who} depends on the batch size",
        "whether the best score of {who} depends on the batch size below the bend is not decided",
    ),
    "C2": (
        "below the bend {who} is no different from SGD",
        "even below the bend {who} differs from SGD",
        "whether {who} differs from SGD below the bend is not decided",
    ),
    "C3": (
        "below the bend the optimal learning rate of {who} is proportional to the batch size",
        "below the bend the optimal learning rate of {who} is not proportional to the batch size",
        "whether the optimal learning rate of {who} is proportional to the batch size below the bend is not decided",
    ),
    "C4": (
        "above the bend the best score of {who} falls",
        "above the bend the best score of {who} does not fall",
        "whether the best score of {who} falls above the bend is not decided",
    ),
    "C4b": (
        "the lowest training loss of {who} rises with the batch size there",
        "the lowest training loss of {who} does not rise with the batch size there",
        "whether the lowest training loss of {who} rises with the batch size there is not decided",
    ),
    "C5": (
        "above the bend {who} is ahead of SGD",
        "above the bend {who} is not ahead of SGD",
        "whether {who} is ahead of SGD above the bend is not decided",
    ),
    "C6": (
        "above the bend the optimal learning rate of {who} does not depend on the batch size",
        "above the bend the optimal learning rate of {who} still depends on the batch size",
        "whether the optimal learning rate of {who} depends on the batch size above the bend is not decided",
    ),
    "C7": (
        "the learning rate of {who} bends sharply",
        "the learning rate of {who} bends no more sharply than the smooth form, or less",
        "how sharply the learning rate of {who} bends is not decided",
    ),
    "C8": (
        "at a constant number of steps the score of {who} falls for large batches although their training loss is "
        "lower, and the optimal learning rate rises sublinearly",
        "at a constant number of steps not all that the talk says holds for {who}",
        "at a constant number of steps not all that the talk says is decided for {who}",
    ),
    "C9": (
        "as epochs grow, the score of {who} saturates, the train-optimal learning rate decays and the test-optimal one "
        "hardly changes",
        "as epochs grow, not all that the talk says holds for {who}",
        "as epochs grow, not all that the talk says is decided for {who}",
    ),
    "C9b": (
        "at the largest budget the learning rate of {who} that is best for the test is above the one that is best for "
        "the training loss",
        "at the largest budget the learning rate of {who} that is best for the test is not above the one that is best "
        "for the training loss",
        "which of the two optimal learning rates of {who} is the larger at the largest budget is not decided",
    ),
}
# What the numbers of a claim's effects are, in the order of the effects.
LABELS: dict[str, tuple[str, ...]] = {
    "C0": ("score",),
    "C1": ("largest difference from their mean",),
    "C2": ("largest difference in score", "octaves between the rates"),
    "C3": ("slope",),
    "C4": ("lost at the largest",),
    "C4b": ("for each doubling",),
    "C5": ("mean lead",),
    "C6": ("slope",),
    "C7": ("k",),
    "C7b": ("transition",),
    "C8": ("score lost", "training loss", "slope"),
    "C9": ("slope for the test", "for the training loss", "difference", "score gained at last"),
    "C9b": ("octaves above",),
}
# What the parts of a claim say, in the order of the effects.
PARTS: dict[str, tuple[str, ...]] = {
    "C2": ("the scores are the same", "the rates are the same"),
    "C8": ("the score falls", "the training loss is lower", "the rate rises sublinearly"),
    "C9": (
        "the test-optimal rate hardly changes",
        "the train-optimal rate decays",
        "it falls behind the other",
        "the score saturates",
    ),
}
VERDICTS = ("supported", "contradicted", "inconclusive")
# Whether large batches generalize poorly of their own is what C8 says of the score and of the loss of the same trials.
POORLY = {
    "supported": "Yes, of their own: they lose score where they fit the training data better.",
    "contradicted": "Not of their own, as far as a constant number of steps tells.",
    "inconclusive": "Whether they do of their own, at a constant number of steps, is not decided.",
    "not tested": "Whether they do of their own is not tested: it takes a sweep at a constant number of steps.",
}


def answers(findings: Sequence[Finding]) -> dict[str, str]:
    """Return a paragraph for each of the talk's questions, made from the verdicts; numbers stand with the claims."""
    said = {}
    for question, claims in QUESTIONS.items():
        mine = [finding for finding in findings if finding.claim in claims]
        sentences = [POORLY[_poorly(mine)]] if "poorly" in question else []
        tested = [finding for finding in mine if finding.verdict in VERDICTS]
        for where in dict.fromkeys(_where(finding) for finding in tested):
            here = [finding for finding in tested if _where(finding) == where]
            n = min(finding.n for finding in here)
            sentences.append(f"On {where}, n = {n}: {'; '.join(c for of in claims for c in _clauses(of, here))}.")
        untested = [claim for claim in claims if claim not in {finding.claim for finding in tested}]
        if untested:
            sentences.append(f"Not tested: {', '.join(untested)}.")
        said[question] = " ".join(sentences)
    return said


def on_page(findings: Sequence[Finding], figures: Callable[[Finding], str]) -> list[dict[str, Any]]:
    """Return what the page shows of each claim; ``figures`` names the figure of a finding, or is empty."""
    shown = []
    for claim, of in CLAIMS.items():
        mine = [finding for finding in findings if finding.claim == claim]
        tested = [finding for finding in mine if finding.n]
        details = [f"{subject(f)}: {f.verdict}. {described(f)}" if f.workload else described(f) for f in mine]
        shown.append(
            {"claim": claim, "sentence": of.sentence, "rule": of.rule, "verdict": overall(mine), "details": details}
            | {"numbers": numbers(tested) if tested else "", "figure": next(filter(None, map(figures, tested)), "")}
        )
    return shown


def print_claims(findings: Sequence[Finding], console: Console) -> None:
    """Print the answers to the three questions, and each claim with its findings and the rule that decided."""
    for question, answer in answers(findings).items():
        console.print(Text(question, "bold"))
        print_text(console, visible(answer), indent=2)
        console.print()
    for claim, of in CLAIMS.items():
        mine = [finding for finding in findings if finding.claim == claim]
        verdict = overall(mine)
        console.print(Text.assemble((f"{claim:<4}", "bold"), (verdict, COLOURS[verdict]), f"  {of.sentence}"))
        for finding in mine:
            tested = f", n = {finding.n}" if finding.n else ""
            heading = f"{subject(finding)}: {finding.verdict}{tested}. " if finding.workload else ""
            print_text(console, visible(heading + described(finding)), indent=4)
        if any(finding.effects for finding in mine):
            print_text(console, f"rule: {of.rule} (figure {of.figure})", indent=4, style="dim")
    console.print(Text(ZONES, "dim"))


def described(finding: Finding) -> str:
    """Return the numbers of a finding in words, those that decide first."""
    effects = sorted(finding.effects, key=lambda effect: not effect.decides)
    parts = [_with_zone(effect) for effect in effects]
    return "; ".join(parts + [finding.reason] * bool(finding.reason))


def subject(finding: Finding) -> str:
    """Return whose finding it is."""
    return ", ".join(filter(None, (_where(finding), finding.optimizer)))


def _where(finding: Finding) -> str:
    return f"{finding.workload} at {finding.budget}" if finding.budget else finding.workload


def as_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return the claims, their rules and findings as plain values; what is infinite is null."""
    return [
        {
            "claim": claim,
            "sentence": of.sentence,
            "verdict": overall(mine),
            "rule": of.rule,
            "figure": of.figure,
            "findings": [
                {name: getattr(finding, name) for name in ("workload", "budget", "optimizer", "verdict", "n", "reason")}
                | {"effects": [_plain(effect) for effect in finding.effects]}
                for finding in mine
            ],
        }
        for claim, of in CLAIMS.items()
        if (mine := [finding for finding in findings if finding.claim == claim])
    ]


def amount(effect: Effect) -> str:
    """Return an estimate with its 95 % interval, in the effect's unit."""
    value, low, high = (effect.estimate.value, effect.estimate.low95, effect.estimate.high95)
    written = WRITTEN.get(effect.unit) or _to_the_interval(high - low)
    text = f"{written(value)} [{written(low)}, {written(high)}]"
    return f"a factor of {text}" if effect.unit == LOG_LOSS else text


def _to_the_interval(width: float) -> Callable[[float], str]:
    """Write numbers with two digits of the interval's width."""
    decimals = max(0, 1 - math.floor(math.log10(width))) if 0 < width < math.inf else None
    return lambda value: number(value, ".4g" if decimals is None else f"z.{decimals}f")


def _factor(value: float) -> str:
    return "beyond any" if value > 700 else number(math.exp(value))


WRITTEN: dict[str, Callable[[float], str]] = {
    LOG_LOSS: _factor,
    LOG_BATCH_SIZE: lambda value: number(2**value, ".0f"),
    SLOPE: lambda value: number(value, "z.2f"),
    OCTAVES: lambda value: number(value, "z.2f"),
    EXPONENT: number,
}


def _with_zone(effect: Effect) -> str:
    unit = f" {effect.unit}" if effect.unit == OCTAVES else ""
    text = f"{effect.name}: {amount(effect)}{unit}, to be {_zone(effect)}"
    if not effect.decides:
        return f"beside, {text}"
    text += f", {effect.verdict}"
    if effect.seeds_needed is None:
        undecided = effect.verdict == "inconclusive" and effect.n > 1
        return f"{text} (which more seeds alone would not decide)" if undecided else text
    together = effect.unit == SCORE and effect.zone[0] == -effect.zone[1]
    return f"{text} (about {effect.seeds_needed} seeds would decide{', if they are equal' if together else ''})"


def _zone(effect: Effect) -> str:
    low, high = effect.zone
    written = WRITTEN.get(effect.unit) or partial(number, form=".3g")
    if math.isinf(low):
        return f"below {written(high)}" if effect.zone != DOWN or effect.unit == LOG_LOSS else "below 0"
    if math.isinf(high):
        return f"above {written(low)}" if effect.zone != UP or effect.unit == LOG_LOSS else "above 0"
    return f"within ±{written(high)}" if low == -high else f"within {written(low)} to {written(high)}"


def _clauses(claim: str, findings: Sequence[Finding]) -> list[str]:
    """Return what is said of a claim: a clause for each verdict, or for each finding whose parts differ in theirs."""
    said = []
    for verdict in VERDICTS:
        mine = [finding for finding in findings if (finding.claim, finding.verdict) == (claim, verdict)]
        by_parts: dict[str, list[str]] = {}
        for finding in mine:
            by_parts.setdefault(_parts(finding), []).append(_name(finding))
        for parts, names in by_parts.items():
            phrase = PHRASES[claim][VERDICTS.index(verdict)].format(who=" and ".join(names))
            said.append(f"{phrase}{parts} ({claim})")
    return said


def _parts(finding: Finding) -> str:
    """Return which of a claim's parts hold, do not, or are not decided, where their verdicts differ."""
    decisive = [effect.verdict for effect in finding.effects if effect.decides]
    if len(set(decisive)) < 2:
        return ""
    words = dict(zip(VERDICTS, ("supported is that", "contradicted that", "not decided whether"), strict=True))
    named = list(zip(decisive, PARTS[finding.claim], strict=False))
    groups = {verdict: " and ".join(part for of, part in named if of == verdict) for verdict in VERDICTS}
    return ": " + ", ".join(f"{words[verdict]} {parts}" for verdict, parts in groups.items() if parts)


def numbers(findings: Sequence[Finding]) -> str:
    """Return the numbers that decide a claim, for each of its tested findings, and the least n."""
    said = []
    for finding in findings:
        decisive = [effect for effect in finding.effects if effect.decides]
        amounts = [
            f"{label} {amount(effect)}" + (f" {effect.verdict}" if len(decisive) > 1 else "")
            for label, effect in zip(LABELS[finding.claim], decisive, strict=False)
        ]
        said.append((f"{_name(finding)} " if len(findings) > 1 else "") + ", ".join(amounts))
    return f"{'; '.join(said)}; n = {min(finding.n for finding in findings)}"


def _name(finding: Finding) -> str:
    return "SGD" if finding.optimizer == "sgd" else finding.optimizer


def _poorly(findings: Sequence[Finding]) -> str:
    """Return what C8 says of score and loss alone, over all cases."""
    verdicts = [
        together([effect.verdict for effect in finding.effects if effect.decides and effect.unit != SLOPE])
        for finding in findings
        if finding.claim == "C8" and finding.effects
    ]
    return together(verdicts)


def _plain(effect: Effect) -> dict[str, Any]:
    numbers = dict(zip(("zone_low", "zone_high"), rounded(effect.zone), strict=True)) | vars(effect.estimate)
    return {name: getattr(effect, name) for name in ("name", "unit", "n", "verdict", "decides", "seeds_needed")} | {
        name: value if math.isfinite(value) else None for name, value in numbers.items()
    }
