"""What batch sizes at one budget say of the study's claims: C1 to C7 at constant epochs, C8 at constant steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from sgdscope.analysis.comparisons import octaves_between
from sgdscope.analysis.curve import Curve, curve, on_common_seeds
from sgdscope.analysis.derived import cell_warmed_up, momentum_of, of_sgd
from sgdscope.analysis.edges import Edges, left_out, listed
from sgdscope.analysis.exclusions import learning
from sgdscope.analysis.failures import distance_to_failure
from sgdscope.analysis.rate_choice import Chosen, edges_of, inside, leads_over, scores_by_batch_size
from sgdscope.analysis.regimes import FEWEST_IN_REGIME, batch_sizes_to_add, regime_limits
from sgdscope.analysis.score_limits import best_level, is_wide, margin_of, plateau_end
from sgdscope.analysis.slopes import grid_error, sharpness_of
from sgdscope.analysis.sweep import cells_of, pair_on_common_seeds
from sgdscope.analysis.tables import Tables
from sgdscope.analysis.transitions import (
    AT_EDGE,
    FEWEST_BATCH_SIZES,
    IDENTIFIED,
    NOWHERE,
    THROUGHOUT,
    slope_of,
    transition_of,
)
from sgdscope.analysis.trial_table import Criterion, measured_criteria
from sgdscope.budget import MOST_EXAMPLES, Steps, known_budget
from sgdscope.claims.finding import (
    CONSTANT,
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
    in_zone,
    undecided,
    without_equivalences,
)
from sgdscope.formatting import points
from sgdscope.records import WorkloadRecord
from sgdscope.stats.equivalence import equivalence, pairs_of, seeds_to_confirm
from sgdscope.stats.intervals import Estimate, Verdict, bootstrapped, estimated, resampled_seeds

# Zones of a slope of log ε* against log B, and of the octaves between two rates.
PROPORTIONAL, SUBLINEAR, EQUAL_RATES = (0.75, 1.25), (0.0, 1.0), (-0.5, 0.5)
# A transition whose exponent k is above the first is sharp, below the second it is not; the smooth form has k = 1.
SHARP, SMOOTH = 3.0, 2.0
# Where the talk, as recalled, puts the bend of the Wide-ResNet with batch normalization at 200 epochs.
TALKS_BEND, TALKS_WORKLOAD, TALKS_BUDGET = 512, "wide_resnet", "epochs:200"
# What is said of each regime; and of momentum against plain SGD.
NOISE, CURVATURE = ("C1", "C2", "C3"), ("C4", "C4b", "C5", "C6")
AGAINST_SGD = ("C2", "C5")


@dataclass(frozen=True)
class Case:
    """The cells of one workload, budget and optimizer, and those of plain SGD beside it, that have learned anything.

    ``unlearned`` are the batch sizes at which the score hardly improved: no claim is about them.
    """

    part: Tables = field(repr=False)
    key: Mapping[str, str]
    members: Mapping[int, pl.DataFrame] = field(repr=False)
    sgd: Mapping[int, pl.DataFrame] = field(repr=False)
    unlearned: tuple[int, ...] = ()

    @property
    def record(self) -> WorkloadRecord:
        """What the workload is."""
        return self.part.records[self.key["workload"]]

    @cached_property
    def limits(self) -> tuple[float | None, float | None]:
        """Where the noise-dominated regime ends and the optimizer's curvature-dominated one begins; None if unknown."""
        return regime_limits(self.part.transitions, *self.key.values())

    @cached_property
    def all_scores(self) -> dict[int, Chosen]:
        """Test scores by batch size, at rates that were chosen without them."""
        return scores_by_batch_size(self.members, self.record)

    @cached_property
    def of_sgd(self) -> dict[int, Chosen]:
        """Plain SGD's test scores by batch size, as :attr:`all_scores`."""
        return scores_by_batch_size(self.sgd, self.record)

    @cached_property
    def scores(self) -> dict[int, Chosen]:
        """The scores of :attr:`all_scores` whose rate lies inside the rates tried: claims rest on these alone."""
        return inside(self.all_scores)

    @cached_property
    def leads(self) -> dict[int, np.ndarray]:
        """By how much the score is better than SGD's, by batch size, seed by seed."""
        return leads_over(self.scores, inside(self.of_sgd))

    def edges(self, regime: str = "", beside_sgd: bool = False) -> Edges:
        """Return at which batch sizes, of a regime or of all, the score's best rate lies at an edge of those tried.

        Args:
            regime: ``noise`` or ``curvature``; of all batch sizes where it is empty.
            beside_sgd: whether those count at which SGD's does.
        """
        edges = edges_of(self.all_scores, self.of_sgd) if beside_sgd else edges_of(self.all_scores)
        return {size: ends for size, ends in edges.items() if not regime or self.belongs(size, regime)}

    @cached_property
    def margin(self) -> float:
        """δ: what was declared, or else that of the plateau's score, of plain SGD if it is there."""
        scores = self.of_sgd or self.all_scores
        return margin_of(scores, self.key["budget"], self.record, self.part.score_margin)

    @cached_property
    def wide_margin(self) -> bool:
        """Whether δ is more than half of the errors of the best batch size, so that equivalence says little."""
        return is_wide(self.margin, best_level(self.of_sgd or self.all_scores), self.record)

    def belongs(self, size: int, regime: str) -> bool:
        """Return whether a batch size is known to be in a regime."""
        low, high = self.limits
        return (low is not None and size < low) if regime == "noise" else (high is not None and size > high)

    def sizes(self, regime: str) -> list[int]:
        """Return the batch sizes of a regime that have a score, chosen inside the rates tried."""
        return [size for size in self.scores if self.belongs(size, regime)]

    @property
    def has_momentum(self) -> bool:
        """Whether the optimizer is SGD with momentum, of which C2 and C5 speak."""
        return bool(momentum_of(self.key["optimizer"]))

    def steady(self, sizes: Sequence[int]) -> list[int]:
        """Return the batch sizes at which momentum had updates enough to reach its steady state."""
        return [size for size in sizes if cell_warmed_up(self.members[size]) is not False]

    def by_steady_state(self, sizes: Sequence[int], fewest: int = 1) -> Iterator[tuple[list[int], str, bool]]:
        """Yield batch sizes, what to add to the name of what they give, and whether it decides.

        Those at which momentum reached its steady state decide, and all of them are shown beside; where there are
        fewer than it takes, all decide.
        """
        steady = self.steady(sizes)
        enough = len(steady) >= fewest
        if enough:
            yield steady, ", in momentum's steady state" if len(steady) < len(sizes) else "", True
        if sizes and (len(steady) < len(sizes) or not enough):
            yield list(sizes), ", all batch sizes" if enough else "", not enough

    def missing(self, regime: str) -> str:
        """Return why a regime is not identified; empty where it is."""
        sizes, (low, high) = self.sizes(regime), self.limits
        whose = "SGD's" if regime == "noise" else "its"
        if regime == "noise" and not self.sgd:
            return "plain SGD was not trained; its learning rate decides where the regime ends"
        if max(chosen.n for chosen in self.all_scores.values()) == 1:
            return "one seed gives no interval"
        edges = left_out(self.edges())
        if (low if regime == "noise" else high) is None:
            rate = f"{whose} learning rate for the test score"
            unknown = f"{rate} does not grow significantly with the batch size, so no regime has an end"
            return f"{unknown}. {edges}" if edges else unknown
        if len(sizes) >= FEWEST_IN_REGIME:
            return ""
        most, multiple = self.record.examples[0] or MOST_EXAMPLES, self.record.batch_multiple
        possible = range(multiple, most + 1, multiple)
        add = batch_sizes_to_add(list(self.members), low, high, possible)[regime]
        text = f"{_counted(sizes)} {regime}-dominated; at least {FEWEST_IN_REGIME} are needed"
        if low == 0 or high == math.inf:
            grows = "grows nowhere" if low == 0 else "grows throughout"
            text = f"{whose} learning rate {grows} between {self.extent(regime)}, so {text[0].lower()}{text[1:]}"
        edges = left_out(self.edges(regime))
        if edges:
            return f"{text}. {edges}"
        if self.unlearned:
            return f"{text}; {self.without_learning}"
        return f"{text}. {f'Add {listed(add)}.' if add else 'No batch size can be added; try more seeds.'}"

    def extent(self, regime: str) -> str:
        """Return the smallest and the largest batch size over which the rate that limits a regime was followed."""
        members = self.sgd if regime == "noise" else self.members
        sizes = cells_of(members, self.record, "score").inside.sizes
        return f"{sizes[0]:g} and {sizes[-1]:g}"

    @property
    def without_learning(self) -> str:
        """Say at which batch sizes the score hardly improved."""
        at = ", ".join(map(str, self.unlearned))
        gain = "less than 10 % as much over the constant baseline as at the best batch size"
        return f"at {at} the score improved {gain}"

    def found(self, claim: str, *effects: Effect, reason: str = "", short_runs: bool = False) -> Finding:
        """Return what this case says of a claim."""
        finding = Finding(
            claim, **self.key, effects=effects, reason=reason, short_runs=short_runs, in_percent=self.record.in_percent
        )
        return without_equivalences(finding, self.margin) if effects and self.wide_margin else finding

    def untested(self, claims: Sequence[str], reason: str) -> Iterator[Finding]:
        """Yield why claims are not tested, those about momentum only where it is one."""
        for claim in claims:
            if claim not in AGAINST_SGD or self.has_momentum:
                yield self.found(claim, reason=reason)


def _counted(sizes: Sequence[int]) -> str:
    """Return how many batch sizes there are, and which, up to the verb."""
    if not sizes:
        return "No batch size is"
    noun, verb = ("batch size", "is") if len(sizes) == 1 else ("batch sizes", "are")
    return f"Only {len(sizes)} {noun} ({listed(sizes)}) {verb}"


def cases(part: Tables) -> Iterator[Case]:
    """Yield the cases of a part, one for each optimizer, plain SGD first."""
    studied = list(learning(part.trials, part.records))
    plain = of_sgd((of.key, of.learned) for of in studied)
    for of in sorted(studied, key=lambda of: (momentum_of(of.key["optimizer"]) != 0, of.key["optimizer"])):
        sgd = plain.get((of.key["workload"], of.key["budget"]), {})
        yield Case(part, of.key, of.learned, sgd, of.unlearned)


# ── Batch sizes at constant epochs ───────────────────────────────────────────────────────────────────────────


def sweep(part: Tables, *more: Callable[[Case], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield what a part, the trials of one workload and budget, says of C1 to C7 or, at constant steps, of C8.

    Args:
        part: the trials.
        more: what else to ask of each case at constant epochs.
    """
    budget = known_budget(part.trials["budget"][0])
    if budget is None:
        return  # of another tool: what it holds constant is not known
    at_steps = isinstance(budget, Steps)
    for case in cases(part):
        if len(case.members) > 1 and case.all_scores:
            for findings in (at_constant_steps,) if at_steps else (in_noise, in_curvature, transition, failing, *more):
                yield from findings(case)
        elif case.unlearned:
            yield from case.untested(("C8",) if at_steps else (*NOISE, *CURVATURE, "C7"), case.without_learning)


def in_noise(case: Case) -> Iterator[Finding]:
    """Yield what is found of C1 to C3: the noise-dominated regime."""
    sizes, missing = case.sizes("noise"), case.missing("noise")
    if missing:
        yield from case.untested(NOISE, missing)
        return
    scores, pairs = np.array([case.scores[size].scores for size in sizes]), pairs_of(len(sizes))
    between = ["between " + listed(np.array(sizes)[pair != 0]) for pair in pairs]
    out = left_out(case.edges("noise"))
    name = f"difference in score among {listed(sizes)}"
    yield case.found("C1", _equal_scores(case, name, between, scores, pairs), reason=out)
    yield _slope(case, "C3", sizes, PROPORTIONAL, out)
    if not case.has_momentum:
        return
    compared = [size for size in sizes if size in case.leads]
    out = left_out(case.edges("noise", beside_sgd=True))
    if not compared:
        yield case.found("C2", reason=out or "plain SGD was not trained on the same seeds")
        return
    effects = []
    for kept, where, decides in case.by_steady_state(compared):
        leads = np.array([case.leads[size] for size in kept])
        effect = _equal_scores(case, f"score against SGD{where}", [f"at {size}" for size in kept], leads)
        effects.append(replace(effect, decides=decides))
    for kept, where, decides in case.by_steady_state(compared):
        own, plain = (
            cells_of({size: of[size] for size in kept}, case.record, "score") for of in (case.members, case.sgd)
        )
        if own.sizes and own.sizes == plain.sizes:
            own, plain = pair_on_common_seeds(own, plain)
            apart = octaves_between(own, plain, momentum_of(case.key["optimizer"]) or 0.0)
            error, name = math.hypot(own.mean_grid_error, plain.mean_grid_error), f"effective rate above SGD's{where}"
            effects.append(in_zone(name, apart, EQUAL_RATES, own.n, OCTAVES, grid_error=error, decides=decides))
    yield case.found("C2", *effects, reason=out, short_runs=not case.steady(compared))


def in_curvature(case: Case) -> Iterator[Finding]:
    """Yield what is found of C4 to C6: the curvature-dominated regime."""
    sizes, missing = case.sizes("curvature"), case.missing("curvature")
    if missing:
        yield from case.untested(CURVATURE, missing)
        return
    scores = np.array([chosen.scores for chosen in case.scores.values()])
    _, plateau = plateau_end(scores, case.margin)
    out = left_out(case.edges())
    first, last = (
        _of_scores(f"score loss at batch size {size}", plateau - case.scores[size].scores, (case.margin, math.inf))
        for size in (sizes[0], sizes[-1])
    )
    trend = _per_octave(sizes, np.array([case.scores[size].scores for size in sizes]))
    falls = _of_scores(f"score gain per doubling from batch size {sizes[0]} to {sizes[-1]}", trend, DOWN)
    yield case.found("C4", last, falls, replace(first, decides=False), reason=out)
    if "train_loss" in measured_criteria(pl.concat(list(case.members.values()))):
        yield _rising_loss(case)
    else:
        yield case.found("C4b", reason="the training loss was not measured")
    yield _slope(case, "C6", sizes, CONSTANT, left_out(case.edges("curvature")))
    if not case.has_momentum:
        return
    compared = [size for size in sizes if size in case.leads]
    effects = []
    for kept, where, decides in case.by_steady_state(compared):
        lead = np.mean([case.leads[size] for size in kept], axis=0)
        name, zone = f"mean score above SGD's at batch sizes {kept[0]} to {kept[-1]}{where}", (case.margin, math.inf)
        effects.append(replace(_of_scores(name, lead, zone), decides=decides))
    out = left_out(case.edges("curvature", beside_sgd=True))
    reason = out if compared or out else "plain SGD was not trained on the same seeds"
    yield case.found("C5", *effects, reason=reason, short_runs=not case.steady(compared))


def _rising_loss(case: Case) -> Finding:
    """Return C4b: over the curvature-dominated batch sizes whose best rate for the loss lies inside the rates tried."""
    members = {size: cell for size, cell in case.members.items() if case.belongs(size, "curvature")}
    curves = {size: curve(cell, case.record, "train_loss") for size, cell in members.items()}
    edges: Edges = {size: of.censored for size, of in curves.items() if of.censored}
    sizes = [size for size in members if curves[size].eligible.any() and not curves[size].censored]
    if len(sizes) < FEWEST_IN_REGIME:
        few = f"{_counted(sizes)} curvature-dominated with a best training loss; at least {FEWEST_IN_REGIME} are needed"
        return case.found("C4b", reason=f"{few}. {left_out(edges)}".rstrip())
    losses = _best_log_losses({size: members[size] for size in sizes}, case.record)
    slopes = _per_octave(sizes, losses)
    n = int((~np.isnan(slopes)).sum())
    effect = in_zone("change of the training loss per doubling of B", estimated(slopes), UP, n, LOG_LOSS)
    return case.found("C4b", effect, reason=left_out(edges))


def transition(case: Case) -> Iterator[Finding]:
    """Yield what is found of C7, whether the transition is sharp, and of the transition batch size."""
    found = cells_of(case.members, case.record, "score")
    row = transition_of(found)
    out = left_out(found.censored)
    if row["status"] != IDENTIFIED:
        yield from case.untested(("C7", "C7b"), f"{_no_transition(case, row)} {out}".rstrip())
        return
    sharp = sharpness_of(found)
    low, high = sharp["k_low"], sharp["k_high"]
    verdict = sharp_verdict(sharp)
    k = Estimate(sharp["k"], low, high, low, high)
    between = ["the transition is sharper than the smooth form, k = 1"] * (verdict == "inconclusive" and low > 1)
    effect = Effect("exponent k", k, (SHARP, math.inf), found.n, EXPONENT, verdict)
    yield case.found("C7", effect, reason=". ".join([*between, out] if out else between))
    place = [math.log2(row[name]) for name in ("transition", "transition_low", "transition_high")]
    transition = Estimate(place[0], place[1], place[2], place[1], place[2])
    talk = math.log2(TALKS_BEND)
    effect = in_zone("transition batch size", transition, (talk - 1, talk + 1), found.n, LOG_BATCH_SIZE)
    if (case.record.name, case.key["budget"]) == (TALKS_WORKLOAD, TALKS_BUDGET):
        yield case.found("C7b", effect, reason=out)
        return
    reason = "the paper gives no transition for this workload and budget"
    yield case.found("C7b", replace(effect, decides=False), reason=reason)


def sharp_verdict(sharp: Mapping[str, float]) -> Verdict:
    """Return the verdict of C7 from what :func:`~sgdscope.analysis.slopes.sharpness_of` found."""
    return "supported" if sharp["k_low"] > SHARP else "contradicted" if sharp["k_high"] < SMOOTH else "inconclusive"


def failing(case: Case) -> Iterator[Finding]:
    """Yield what is found of C15: how far above the optimal rate training fails, by batch size."""
    found = cells_of(case.members, case.record, "score").inside
    found = found.of([size for size, c in zip(found.sizes, found.curves, strict=True) if not c.stable[-1]])
    if len(found.sizes) < FEWEST_IN_REGIME:
        count = len(found.sizes)
        few = f"training fails at the largest learning rates of {count or 'no'} batch size{'s' * (count > 1)}"
        yield case.found("C15", reason=f"{few}; at least {FEWEST_IN_REGIME} are needed. Add larger rates")
        return
    slope, error = distance_to_failure(found)
    name = f"octaves from the optimal rate to where training fails, per doubling from {found.sizes[0]:g}"
    effect = in_zone(f"{name} to {found.sizes[-1]:g}", slope, DOWN, found.n, SLOPE, grid_error=error)
    yield case.found("C15", effect, reason=left_out(case.edges()))


def _no_transition(case: Case, row: Mapping[str, Any]) -> str:
    """Say why there is no transition to look at, and what would tell."""
    if row["status"] in (NOWHERE, THROUGHOUT):
        regime = "curvature" if row["status"] == NOWHERE else "noise"
        add = "smaller batch sizes or more epochs" if row["status"] == NOWHERE else "larger batch sizes"
        where = case.extent("curvature")
        return f"the learning rate {row['status']} between {where}: {regime}-dominated throughout. Add {add}."
    if row["status"] == AT_EDGE:
        return f"fewer than {FEWEST_BATCH_SIZES} batch sizes have their best learning rate inside the rates tried."
    if row["batch_sizes"] < FEWEST_BATCH_SIZES:
        return f"{row['batch_sizes']} batch sizes of {FEWEST_BATCH_SIZES} needed have an optimum"
    return "the transition batch size is not identified"


# ── Batch sizes at constant steps ────────────────────────────────────────────────────────────────────────────


def at_constant_steps(case: Case) -> Iterator[Finding]:
    """Yield what is found of C8: at the same, score-optimal rate the score falls and the training loss is lower."""
    sizes = list(case.scores)
    out = left_out(case.edges())
    if len(sizes) < FEWEST_IN_REGIME:
        few = f"{len(sizes)} batch sizes of {FEWEST_IN_REGIME} needed have a score"
        yield case.found("C8", reason=f"{few}. {out}" if out else few)
        return
    if "train_loss" not in measured_criteria(pl.concat(list(case.members.values()))):
        yield case.found("C8", reason="the training loss was not measured")
        return
    last, (peak, drop, changes, n) = sizes[-1], _against_the_peak(case, sizes)
    where = listed(peak)
    lost = f"score loss from batch size{'s' * (len(peak) > 1)} {where} to {last}"
    name = f"training loss at {last} against {where}"
    strong, weak = (
        in_zone(f"{name}, at the {of}-optimal rates", change, DOWN, n, LOG_LOSS)
        for of, change in zip(("score", "loss"), changes, strict=True)
    )
    # The loss at the largest batch size was reached, and may be lower still; those that it is compared with must stand.
    against = {*peak} | ({last} if weak.verdict != "supported" else set())
    if any(curve(case.members[size], case.record, "train_loss").censored for size in against):
        weak = undecided(weak, ", the interval of one reaching the edge of the rates tried")
    weak_form = strong.verdict != "supported" and weak.verdict == "supported"
    found = cells_of({size: case.members[size] for size in sizes}, case.record, "score")
    lower = "weak form: the loss is lower only at the rates that are best for the loss"
    reasons = [lower] * weak_form + [out] * bool(out)
    yield case.found(
        "C8",
        in_zone(lost, drop, (case.margin, math.inf), n, SCORE),
        strong,
        replace(weak, decides=False),
        in_zone("growth of ε* with B", slope_of(found), SUBLINEAR, n, SLOPE, grid_error=grid_error(found)),
        reason=". ".join(reasons),
    )


def _against_the_peak(case: Case, sizes: Sequence[int]) -> tuple[list[int], Estimate, list[Estimate], int]:
    """Return what the largest batch size loses against the peak, and how its training loss differs from the peak's.

    The peak are the smaller batch sizes whose score, of what chooses, is within δ of the best; their mean is compared.
    Seeds are drawn jointly over all batch sizes, and rates and peak are chosen anew in each draw: the training loss
    changes much from one rate to the next, so that to take the chosen rates as given makes its interval too narrow.

    Returns:
        The peak; the score lost; the change of log training loss at the rates that are best for the score and at those
        that are best for the loss; the number of seeds.
    """
    columns: list[tuple[Criterion, str | None]] = [("score", None), ("score", "test_score"), ("train_loss", None)]
    curves = on_common_seeds([curve(case.members[size], case.record, *of) for size in sizes for of in columns])
    chooses, reports, losses = (curves[start :: len(columns)] for start in range(len(columns)))
    n = min(c.n for c in curves)

    def at_best(of: list[Curve], by: list[Curve], seeds: np.ndarray) -> np.ndarray:
        rates = [np.searchsorted(own.rates, c.rates[c.best(seeds)]) for own, c in zip(of, by, strict=True)]
        return np.array([_means(own.goodness, r, seeds) for own, r in zip(of, rates, strict=True)])

    def changes(seeds: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        chosen_by = at_best(chooses, chooses, seeds)[:-1]
        peak = chosen_by >= chosen_by.max(axis=0) - case.margin
        found = [at_best(*of, seeds) for of in ((reports, chooses), (losses, chooses), (losses, losses))]
        return peak[:, 0], [(peak * of[:-1]).sum(axis=0) / peak.sum(axis=0) - of[-1] for of in found]

    peak, whole = changes(np.arange(len(curves[0].seeds))[None])
    drawn = changes(resampled_seeds(len(curves[0].seeds)))[1]
    scores = np.array([np.nanmean(case.scores[size].scores) for size in sizes])  # not flattered where the test chooses
    values = [float(scores[:-1][peak].mean() - scores[-1]), *(float(of[0]) for of in whole[1:])]
    drop, *of_losses = (bootstrapped(value, draws, n) for value, draws in zip(values, drawn, strict=True))
    return [size for size, best in zip(sizes, peak, strict=False) if best], drop, of_losses, n


def _means(goodness: np.ndarray, rates: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Return the mean over the seeds of each draw at its rate, over all seeds where a draw has no trial of it."""
    drawn, every = goodness[rates[:, None], seeds], np.nanmean(goodness[rates], axis=1)
    counts = (~np.isnan(drawn)).sum(axis=1)
    means: np.ndarray = np.where(counts > 0, np.nansum(drawn, axis=1) / np.maximum(counts, 1), every)
    return means


# ── What they share ──────────────────────────────────────────────────────────────────────────────────────────


def _equal_scores(
    case: Case, name: str, where: Sequence[str], scores: np.ndarray, contrasts: np.ndarray | None = None
) -> Effect:
    """Return the largest of several differences in score, with the verdict over all of them.

    Args:
        case: whose they are.
        name: what they are.
        where: what tells each of them.
        scores: shape (k, n).
        contrasts: which differences of the rows are compared. Default: the rows themselves.
    """
    contrasts, margin = np.eye(len(scores)) if contrasts is None else contrasts, case.margin
    found = equivalence(contrasts @ scores, margin)
    worst = int(np.abs(found.mean).argmax())
    ends = (float(getattr(found, end)[worst]) for end in ("low90", "high90", "low95", "high95"))
    estimate = Estimate(float(found.mean[worst]), *ends)
    smallest = found.smallest_margin
    within = f"all within ±{points(smallest, case.record.in_percent)}" if math.isfinite(smallest) else "one seed"
    open_still = found.verdict == "inconclusive"
    seeds = seeds_to_confirm(scores, contrasts, margin) if open_still else (None, None)
    described = f"{name}, most {where[worst]} ({within})"
    return Effect(described, estimate, (-margin, margin), found.n, SCORE, found.verdict, *seeds, if_equal=True)


def _of_scores(name: str, values: np.ndarray, zone: tuple[float, float]) -> Effect:
    """Return the mean of a value of each seed in the score's unit."""
    return in_zone(name, estimated(values), zone, int((~np.isnan(values)).sum()), SCORE)


def _slope(case: Case, claim: str, sizes: Sequence[int], zone: tuple[float, float], out: str) -> Finding:
    """Return what the slope of log ε* over batch sizes says: by the score, which decides, and by the training loss."""
    effects = []
    for criterion in measured_criteria(pl.concat(list(case.members.values()))):
        by = "test score" if criterion == "score" else "training loss"
        for kept, where, decides in case.by_steady_state(sizes, FEWEST_IN_REGIME):
            cells = cells_of({size: case.members[size] for size in kept}, case.record, criterion).inside
            if len(cells.sizes) < FEWEST_IN_REGIME or not cells.n:
                continue
            name, error = f"growth of ε* with B at {listed(kept)} by the {by}{where}", grid_error(cells)
            decides &= criterion == "score"
            effects.append(in_zone(name, slope_of(cells), zone, cells.n, SLOPE, grid_error=error, decides=decides))
    short_runs = len(case.steady(sizes)) < FEWEST_IN_REGIME
    return case.found(claim, *effects, reason=out, short_runs=short_runs)


def _best_log_losses(members: Mapping[int, pl.DataFrame], record: WorkloadRecord) -> np.ndarray:
    """Return the logarithm of the best training loss by batch size, seed by seed, shape (k, n)."""
    curves = on_common_seeds([curve(cell, record, "train_loss") for cell in members.values()])
    return np.array([-found.goodness[found.best()[0]] for found in curves])


def _per_octave(sizes: Sequence[int], values: np.ndarray) -> np.ndarray:
    """Return for each seed the slope of values, shape (k, n), against log₂ B."""
    x = np.log2(sizes) - np.log2(sizes).mean()
    slopes: np.ndarray = np.round(x @ values / (x @ x), 12)  # equal losses have no slope, whatever rounding says
    return slopes
