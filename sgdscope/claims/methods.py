"""What is found of methods for curvature, for noise and in place of noise: C10, C10b, C11 and C12."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from sgdscope.analysis.edges import left_out, listed
from sgdscope.analysis.methods import (
    CURVATURE,
    NOISE,
    REGULARIZATION,
    Method,
    best_of,
    known_optimizer,
)
from sgdscope.analysis.rate_choice import Chosen, edges_of, inside, leads_over
from sgdscope.analysis.score_limits import best_level, is_wide, margin_of
from sgdscope.analysis.tables import Tables
from sgdscope.budget import Epochs, Steps, known_budget
from sgdscope.claims.finding import SCORE, Effect, Finding, in_zone, undecided, without_equivalences
from sgdscope.optimizers import SGD
from sgdscope.records import WorkloadRecord
from sgdscope.stats.equivalence import ALPHA, equivalence
from sgdscope.stats.intervals import Estimate, Verdict, estimated


def against_sgd(part: Tables) -> Iterator[Finding]:
    """Yield what a part, the trials of one workload and budget, says of C10 to C12, where it has other methods."""
    for method in part.methods:
        if method.baseline is None or not method.scores or not method.baseline_scores:
            continue
        margin = margin_of(method.baseline_scores, method.key["budget"], method.record, part.score_margin)
        wide = is_wide(margin, best_level(method.baseline_scores), method.record)
        for finding in _of_method(method, margin):
            yield without_equivalences(finding, margin) if wide else finding


def _of_method(method: Method, margin: float) -> Iterator[Finding]:
    budget, optimizer = known_budget(method.key["budget"]), known_optimizer(method.key["optimizer"])
    if isinstance(optimizer, (*CURVATURE, SGD)) and isinstance(budget, Epochs):
        yield _only_at_large_batches(method, margin)
        yield _equal_at_best(method, margin)
    if isinstance(optimizer, REGULARIZATION) and optimizer.searched and isinstance(budget, Steps):
        yield _in_place_of_noise(method, margin)
    if isinstance(optimizer, NOISE):
        yield _no_better(method, margin)


def _only_at_large_batches(method: Method, margin: float) -> Finding:
    """Return C10: at the smallest batch size the method is no better than SGD, and at the largest it is."""
    sizes, out = list(method.leads), _left_out(method)
    if len(sizes) < 2:
        return _found(method, "C10", reason=f"needs two batch sizes at which both have a score. {out}".rstrip())
    small, large = sizes[0], sizes[-1]
    return _found(
        method,
        "C10",
        _of_lead(f"score above SGD's at batch size {small}, the smallest", method.leads[small], (-math.inf, margin)),
        _of_lead(f"score above SGD's at batch size {large}, the largest", method.leads[large], (margin, math.inf)),
        reason=out,
    )


def _equal_at_best(method: Method, margin: float) -> Finding:
    """Return C10b: at their best batch sizes the method and SGD have the same score."""
    lead = method.lead_at_best
    if lead is None or method.best is None or method.baseline_best is None:
        return _found(method, "C10b", reason=_left_out(method) or "too few seeds at the best batch sizes")
    found = equivalence(lead[None], margin)
    ends = (float(getattr(found, end)[0]) for end in ("low90", "high90", "low95", "high95"))
    zone, estimate = (-margin, margin), Estimate(float(found.mean[0]), *ends)
    name = f"score at batch size {method.best[0]}, its best, above SGD's at {method.baseline_best[0]}"
    effect = in_zone(name, estimate, zone, found.n, SCORE)
    return _found(method, "C10b", replace(effect, verdict=found.verdict), reason=_left_out(method))


def _in_place_of_noise(method: Method, margin: float) -> Finding:
    """Return C11: with regularization that is tuned at both batch sizes, the largest loses no more than δ.

    Where SGD without it does not lose more than δ significantly, there is no noise to replace, and nothing is tested.
    """
    scores, plain_scores, out = inside(method.scores), inside(method.baseline_scores), _left_out(method)
    sizes = [size for size in scores if size in plain_scores]
    if len(sizes) < 2:
        return _found(method, "C11", reason=f"needs two batch sizes at which both have a score. {out}".rstrip())
    small, lost = _loss_at(sizes, scores, method.members, method.record)
    small_plain, lost_plain = _loss_at(sizes, plain_scores, method.of_baseline, method.record)
    own = _of_lead(f"score loss from batch size {small} to {sizes[-1]}, with regularization", lost, (-math.inf, margin))
    name = f"score loss of {method.baseline} from batch size {small_plain} to {sizes[-1]}"
    plain = replace(_of_lead(name, lost_plain, (margin, math.inf)), decides=False)
    if plain.verdict != "supported":
        reason = (
            f"without regularization batch size {sizes[-1]} does not lose more than δ significantly: nothing to replace"
        )
        return _found(method, "C11", replace(own, decides=False), plain, reason=f"{reason}. {out}".rstrip(". "))
    return _found(method, "C11", own, plain, reason=out)


def _loss_at(
    sizes: Sequence[int], scores: Mapping[int, Chosen], members: Mapping[int, pl.DataFrame], record: WorkloadRecord
) -> tuple[int, np.ndarray]:
    """Return the best of all batch sizes but the last, and what the last loses against that one, seed by seed."""
    best = best_of(members, sizes[:-1], record)
    if best is None:
        return sizes[0], np.zeros(0)
    return best[0], leads_over({0: best[1]}, {0: scores[sizes[-1]]}).get(0, np.zeros(0))


def _no_better(method: Method, margin: float) -> Finding:
    """Return C12: at no batch size is the method better than SGD with the same momentum by more than δ."""
    sizes, out = list(method.leads), _left_out(method)
    if not sizes:
        return _found(method, "C12", reason=out or "no batch size at which both have a score")
    leads = np.array([method.leads[size] for size in sizes])
    found = equivalence(leads, margin)
    most = int(found.mean.argmax())
    ends = (float(getattr(found, end)[most]) for end in ("low90", "high90", "low95", "high95"))
    estimate = Estimate(float(found.mean[most]), *ends)
    better = (found.p_beyond < ALPHA) & (found.mean > 0)
    verdict: Verdict = (
        "contradicted" if better.any() else "supported" if (found.high90 < margin).all() else "inconclusive"
    )
    if found.n < 2:
        verdict = "inconclusive"
    name = f"score above that of {method.baseline} at {listed(sizes)}, most at {sizes[most]}"
    effect = in_zone(name, estimate, (-math.inf, margin), found.n, SCORE)
    return _found(method, "C12", replace(effect, verdict=verdict), reason=out)


def _of_lead(name: str, values: np.ndarray, zone: tuple[float, float]) -> Effect:
    known = values[~np.isnan(values)]
    effect = in_zone(name, estimated(known), zone, len(known), SCORE)
    return effect if len(known) > 1 else undecided(effect)


def _left_out(method: Method) -> str:
    return left_out(edges_of(method.scores, method.baseline_scores))


def _found(method: Method, claim: str, *effects: Effect, reason: str = "") -> Finding:
    accuracies = method.record.in_percent
    return Finding(claim, **method.key, effects=effects, reason=reason, short_runs=False, in_percent=accuracies)
