"""The claims of the study, each with its verdict from data: supported, contradicted, inconclusive or not tested.

Source of the claims: S. L. Smith, E. Elsen, S. De, "On the Generalization Benefit of Noise in Stochastic Gradient
Descent", ICML 2020 (arXiv 2006.15081), as told in the authors' talk.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from sgdscope.analysis.curve import curve, joined, on_common_seeds
from sgdscope.analysis.rate_choice import spread_left_one_out
from sgdscope.analysis.score_limits import margin_at
from sgdscope.analysis.tables import Tables
from sgdscope.analysis.trial_table import INTERVALS_COLUMNS, OPTIMIZER_COLUMNS, OPTIMIZER_SCHEMA, SEEDS
from sgdscope.claims.batch_sizes import cases, sweep
from sgdscope.claims.epochs import ladders, over_epochs
from sgdscope.claims.finding import SCORE, Finding, in_zone, rounded, shown, together, undecided
from sgdscope.claims.methods import against_sgd
from sgdscope.claims.sharpness import at_the_limit
from sgdscope.errors import InputError
from sgdscope.frames import Column, Columns, schema
from sgdscope.stats.intervals import estimated

CLAIMS_COLUMNS: Columns = {
    "claim": Column(pl.String, "Number of the claim, such as C4."),
    **OPTIMIZER_COLUMNS,
    "verdict": Column(
        pl.String,
        "`supported`, `contradicted`, `inconclusive` or `not tested`; with `, short runs only` if momentum reached its "
        "steady state at too few batch sizes.",
    ),
    "effect": Column(pl.String, "What was measured."),
    "decides": Column(pl.Boolean, "Whether the verdict rests on this number; the others are context."),
    "effect_verdict": Column(pl.String, "Verdict of this number alone."),
    "value": Column(pl.Float64, "Estimate of the effect.", "see `unit`"),
    **INTERVALS_COLUMNS,
    "unit": Column(pl.String, "Unit of the effect."),
    "zone_low": Column(pl.Float64, "Lower end of the zone in which the effect supports the claim.", "see `unit`"),
    "zone_high": Column(pl.Float64, "Upper end of the zone in which the effect supports the claim.", "see `unit`"),
    "n": SEEDS,
    **{
        f"seeds_{chance}": Column(
            pl.Int64,
            f"Seeds in all that would decide with a chance of {chance} %, of equal scores (C1, C2) if they are equal; "
            f"missing if decided, or if no number up to 100 would.",
            "seeds",
        )
        for chance in (50, 80)
    },
    "reason": Column(pl.String, "Why the claim was not tested, or what else to know."),
}
CLAIMS_SCHEMA = schema(CLAIMS_COLUMNS)


@dataclass(frozen=True)
class Claim:
    """One claim of the paper, the rule that decides it, which figure shows it and what it takes to test it."""

    sentence: str
    rule: str
    figure: str
    needs: str


BATCH_SIZES = "a sweep over batch sizes at a constant epoch budget"
EQUIVALENCE = (
    "two one-sided t tests at 5 % against ±δ, paired by seed, all of which must pass; contradicted if one difference "
    "exceeds δ by Holm's p values"
)
STEADY = (
    "Batch sizes in momentum's steady state, with at least 20/(1 − m) updates, decide if there are enough; otherwise "
    "the verdict is of short runs only"
)
NEEDS_METHODS = "a sweep over batch sizes at a constant epoch budget, with SGD and with Adam or K-FAC"
ZONES = (
    "A claim is supported if the 90 % interval lies inside the required range, contradicted if the 95 % interval lies "
    "outside, and inconclusive otherwise. If a claim has more than two parts, each contradicts at 5 % divided by their "
    "number. Shown are 95 % intervals over seeds, and 90 % where they say so, for this test set and schedule."
)
CLAIMS: dict[str, Claim] = {
    "C0": Claim(
        "The schedule matches or exceeds the original test score of the architecture.",
        "the best score is above the reference minus δ",
        "best-score",
        "a reference score to compare with",
    ),
    "C1": Claim(
        "Noise-dominated: the best score does not depend on the batch size.",
        f"the difference of each pair of batch sizes: {EQUIVALENCE}",
        "best-score",
        BATCH_SIZES,
    ),
    "C2": Claim(
        "Noise-dominated: SGD and momentum are identical.",
        f"the difference in score: {EQUIVALENCE}; and the effective optimal rates within half an octave. {STEADY}",
        "best-score",
        f"{BATCH_SIZES}, with momentum and without",
    ),
    "C3": Claim(
        "Noise-dominated: the optimal learning rate is proportional to the batch size.",
        f"slope of log ε* against log B within 0.75 to 1.25; square-root growth would be 0.25 to 0.75. {STEADY}",
        "optimal-learning-rate",
        BATCH_SIZES,
    ),
    "C4": Claim(
        "Curvature-dominated, constant epochs: the best score falls with the batch size.",
        "the score at the largest batch size below the plateau by more than δ, and the slope of the score against log "
        "B below 0, paired by seed; the loss at the smallest curvature-dominated batch size is shown beside",
        "best-score",
        BATCH_SIZES,
    ),
    "C4b": Claim(
        "Curvature-dominated, constant epochs: the best training loss rises with the batch size.",
        "slope of the log training loss against log B above 0, seed by seed",
        "training-loss",
        BATCH_SIZES,
    ),
    "C5": Claim(
        "Curvature-dominated: momentum outperforms SGD.",
        f"the mean difference at equal batch size above δ, paired by seed. {STEADY}",
        "best-score",
        f"{BATCH_SIZES}, with momentum and without",
    ),
    "C6": Claim(
        "Curvature-dominated: the optimal learning rate does not depend on the batch size.",
        f"slope of log ε* against log B within ±0.25. {STEADY}",
        "optimal-learning-rate",
        BATCH_SIZES,
    ),
    "C7": Claim(
        "The transition between the regimes is sharp.",
        "the exponent k of ε* = ε_max (1 + (B_n/B)^k)^(−s/k) with a free slope s, whose smooth form is k = 1: "
        "supported if its 95 % interval lies above 3, contradicted if below 2",
        "optimal-learning-rate",
        BATCH_SIZES,
    ),
    "C7b": Claim(
        "The transition lies at about 512 for the Wide-ResNet with batch normalization at 200 epochs.",
        "the 95 % interval of the transition batch size within an octave of 512; contradicted if outside",
        "optimal-learning-rate",
        "the study `wide_resnet` at 200 epochs",
    ),
    "C8": Claim(
        "Constant steps: the score falls for large batches although the training loss is lower; the optimal learning "
        "rate rises sublinearly.",
        "the score at the largest batch size below that of the best smaller ones by more than δ, the difference in "
        "log training loss of the same trials below 0, and the slope of log ε* against log B within 0 to 1; rates are "
        "chosen anew in each draw of seeds",
        "best-score",
        "a sweep over batch sizes at a constant number of steps",
    ),
    "C9": Claim(
        "As epochs grow the score saturates, the train-optimal learning rate decays, and the test-optimal one hardly "
        "changes.",
        "slopes of log ε* against log epochs, test within ±0.25, train below −0.25, and below the other; the score by "
        "the rule of the unlimited budget",
        "rates-by-epochs",
        "three or more epoch budgets at one batch size",
    ),
    "C9b": Claim(
        "Large learning rates generalize well early in training: at the largest budget the test-optimal rate is above "
        "the train-optimal one.",
        "octaves between the two above 0",
        "rates-by-epochs",
        "three or more epoch budgets at one batch size",
    ),
    "C10": Claim(
        "Methods made for curvature (momentum, Adam, K-FAC) help only at large batches or at a constant number of "
        "steps.",
        "constant epochs, the difference to SGD at equal batch size, paired by seed: at the smallest batch size below "
        "δ, and at the largest above δ",
        "difference-from-sgd",
        NEEDS_METHODS,
    ),
    "C10b": Claim(
        "Constant epochs: curvature can be ignored by reducing the batch size, so that SGD at its best batch size "
        "equals those methods at theirs.",
        f"the difference of the scores at the best batch sizes, which the validation split chooses: {EQUIVALENCE}",
        "best-by-method",
        NEEDS_METHODS,
    ),
    "C11": Claim(
        "Explicit regularization can replace the noise of small batches.",
        "constant steps, the score loss from the best smaller batch size to the largest below δ, with the strength of "
        "regularization and the learning rate searched at each batch size; tested only if SGD without it loses more "
        "than δ",
        "difference-from-sgd",
        "a sweep over batch sizes at a constant number of steps, with and without regularization of searched strength",
    ),
    "C12": Claim(
        "Methods against gradient noise (SVRG) do not work well on neural networks.",
        "the difference to SGD with the same momentum at equal batch size and updates, paired by seed, below δ at "
        "every batch size by one-sided t tests at 5 %; contradicted if one exceeds δ by Holm's p values",
        "difference-from-sgd",
        "a sweep over batch sizes with SVRG and with SGD of the same momentum",
    ),
    "C13": Claim(
        "Behaviour is similar in all cases.",
        "C1 to C7 have the same verdict in every workload; contradicted if one of them is both supported and "
        "contradicted",
        "",
        "sweeps at constant epochs of two or more workloads",
    ),
    "C14": Claim(
        "Our own: the optimal learning rate sits at the limit of stability if curvature-dominated, and below it if "
        "noise-dominated.",
        "log₂ of the largest ε·λ_max after the start of training over 2(1 + m), at the optimal rate, in the mean over "
        "the batch sizes of a regime: within ±1 octave where curvature-dominated, and below −1 octave where "
        "noise-dominated",
        "sharpness",
        f"{BATCH_SIZES}, with SGD or momentum and `sharpness_at`",
    ),
    "C15": Claim(
        "Our own: the larger the batch size, the nearer the optimal learning rate lies to where training fails.",
        "slope against log B of the octaves between the optimal rate and the smallest from which on more than 20 % of "
        "training runs fail, below 0 by its 95 % interval",
        "score-by-learning-rate",
        f"{BATCH_SIZES}, with learning rates at which training fails",
    ),
}
SIDE_BY_SIDE = ("C1", "C2", "C3", "C4", "C4b", "C5", "C6", "C7")


def findings(tables: Tables, reference: float | None = None) -> list[Finding]:
    """Return what the trials say of each claim, in their order; one without a case stands for a claim not tested.

    Args:
        tables: of one study or of several together.
        reference: the score that the architecture's authors published, for C0.
    """
    found: dict[str, list[Finding]] = defaultdict(list)
    several = [part for part in tables.parts if part.trials["batch_size"].n_unique() > 1]
    of_ladders = [finding for ladder in ladders(tables) for finding in over_epochs(ladder)]
    for finding in [f for part in several for f in (*sweep(part, at_the_limit), *against_sgd(part))] + of_ladders:
        found[finding.claim].append(finding)
    if reference is not None:
        found["C0"] = against_reference(tables, reference)
    found["C13"] = [_alike(found)]
    return [
        finding
        for claim, of in CLAIMS.items()
        for finding in found[claim] or [Finding(claim, reason=f"needs {of.needs}")]
    ]


def claims(tables: Tables, reference: float | None = None) -> pl.DataFrame:
    """Return :func:`findings` as a table: one row for each effect, and one for each finding that has none."""
    rows: list[dict[str, Any]] = []
    for finding in findings(tables, reference):
        row = {name: getattr(finding, name) for name in ("claim", *OPTIMIZER_SCHEMA, "reason")}
        row |= {"verdict": finding.reads}
        rows += [
            row
            | {"effect": effect.name, "decides": effect.decides, "effect_verdict": effect.verdict}
            | asdict(effect.estimate)
            | {"unit": effect.unit}
            | dict(zip(("zone_low", "zone_high"), rounded(effect.zone), strict=True))
            | {"n": effect.n, "seeds_50": effect.seeds_50, "seeds_80": effect.seeds_80}
            for effect in finding.effects
        ] or [row]
    return pl.DataFrame(rows, schema=CLAIMS_SCHEMA)


def overall(findings: Sequence[Finding]) -> str:
    """Return the verdict over all cases of a claim; those in which it is not tested say nothing."""
    return together([finding.verdict for finding in findings if finding.verdict != "not tested"])


def reading(findings: Sequence[Finding]) -> str:
    """Return :func:`overall` as it is shown: where it rests on short runs it says so."""
    verdict = overall(findings)
    return shown(verdict, any(finding.short_runs for finding in findings if finding.verdict == verdict))


def family(findings: Sequence[Finding]) -> str:
    """Say how many verdicts were tested, and how often they may be false."""
    n = sum(bool(finding.effects) and finding.verdict != "not tested" for finding in findings)
    each = "Each is false in at most 5 % of studies. They are not corrected for their number."
    return f"{n} verdicts were tested. {each}" if n > 1 else ""


def against_reference(tables: Tables, reference: float) -> list[Finding]:
    """Return C0: the best score over budgets, optimizers and batch sizes, chosen without the scores that are compared.

    Where the test scores themselves choose, each seed is scored in the cell, and at the rate, that the others choose.

    Args:
        tables: of one workload.
        reference: the score that the architecture's authors published.

    Raises:
        InputError: where there are several workloads.
    """
    found = [(case, size) for part in tables.parts for case in cases(part) for size in case.all_scores]
    if len({case.record.name for case, _ in found}) > 1:
        raise InputError("--reference is the score of one workload, but the folders have several. Name one at a time.")
    if not found:
        return []
    case, _ = found[0]
    sign, measured = case.record.score_sign, [curve(c.members[size], case.record, "score") for c, size in found]
    tested = [curve(c.members[size], case.record, "score", "test_score") for c, size in found]
    chooses, reports = joined(on_common_seeds(measured)), joined(on_common_seeds(tested))
    if not reports.seeds.size or not reports.eligible.any():
        return []
    best = int((chooses if case.record.chosen_on == "validation" else reports).best()[0])
    own = reports.goodness[best] if case.record.chosen_on == "validation" else spread_left_one_out(reports)
    own = own[~np.isnan(own)]
    n, values = len(own), sign * own
    margin = margin_at(float(own.mean()), case.record, tables.score_margin)
    zone = (reference - margin, math.inf) if sign > 0 else (-math.inf, reference + margin)
    chosen, size = found[int(np.searchsorted(np.cumsum([len(of.rates) for of in measured]), best, side="right"))]
    of, accuracies = chosen.key, case.record.in_percent
    where = Finding("C0", case.record.name, of["budget"], of["optimizer"], in_percent=accuracies)
    effect = in_zone(f"best score, at batch size {size}", estimated(values), zone, n, SCORE)
    if effect.verdict != "supported" and any(of.censored for of in measured):
        # A score that was reached was reached, but one that was not may be beyond the rates tried.
        effect = undecided(effect, " (better rates may lie beyond an edge of the rates tried)")
    return [replace(where, effects=(effect,))]


def _alike(found: dict[str, list[Finding]]) -> Finding:
    """Return C13: whether each of C1 to C7 is decided alike in all workloads, whose verdicts are its reason."""
    by_claim = {claim: _by_workload(found[claim]) for claim in SIDE_BY_SIDE}
    told = {w for verdicts in by_claim.values() for w, verdict in verdicts.items() if verdict != "not tested"}
    workloads = sorted(told)
    if len(workloads) < 2:
        return Finding("C13", reason=f"needs {CLAIMS['C13'].needs}")
    apart = any({"supported", "contradicted"} <= set(verdicts.values()) for verdicts in by_claim.values())
    alike = all(
        set(workloads) <= verdicts.keys() and set(verdicts.values()) in ({"supported"}, {"contradicted"})
        for verdicts in by_claim.values()
    )
    side_by_side = "; ".join(
        f"{claim} " + ", ".join(f"{workload} {verdict}" for workload, verdict in verdicts.items())
        for claim, verdicts in by_claim.items()
    )
    verdict = "contradicted" if apart else "supported" if alike else "inconclusive"
    return Finding("C13", ", ".join(workloads), reason=side_by_side, given=verdict)


def _by_workload(findings: Sequence[Finding]) -> dict[str, str]:
    by_workload: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_workload[finding.workload].append(finding)
    return {workload: overall(of) for workload, of in sorted(by_workload.items())}
