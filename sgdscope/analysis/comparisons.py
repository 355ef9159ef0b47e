"""Scores and rates against each other: batch sizes against their plateau, optimizers against SGD."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from sgdscope.analysis.derived import cell_warmed_up, momentum_of, of_sgd
from sgdscope.analysis.rate_choice import Chosen, inside, leads_over, scores_by_batch_size
from sgdscope.analysis.score_limits import margin_at
from sgdscope.analysis.sweep import Cells, cells_of, pair_on_common_seeds
from sgdscope.analysis.trial_table import INTERVALS_SCHEMA, OPTIMIZER_SCHEMA, Records, by_optimizer, measured_criteria
from sgdscope.stats.equivalence import equivalence
from sgdscope.stats.intervals import Estimate, bootstrapped

COMPARISONS_SCHEMA: dict[str, type[pl.DataType]] = {
    **OPTIMIZER_SCHEMA,
    "compared_with": pl.String,
    "regime": pl.String,
    "batch_size": pl.Int64,
    "warmed_up": pl.Boolean,
    "n": pl.Int64,
    "difference": pl.Float64,
    **INTERVALS_SCHEMA,
    "p_equivalent": pl.Float64,
    "p_beyond": pl.Float64,
    "margin": pl.Float64,
    "verdict": pl.String,
    "smallest_margin": pl.Float64,
    "power": pl.Float64,
    "seeds_needed": pl.Int64,
}
RATE_DIFFERENCES_SCHEMA: dict[str, type[pl.DataType]] = {
    **OPTIMIZER_SCHEMA,
    "criterion": pl.String,
    "regime": pl.String,
    "batch_sizes": pl.Int64,
    "n": pl.Int64,
    "value": pl.Float64,
    **INTERVALS_SCHEMA,
}


def comparisons(
    trials: pl.DataFrame, regimes: pl.DataFrame, records: Records, margin: float | None = None
) -> pl.DataFrame:
    """Return what test scores differ by, for each batch size of each regime, paired by seed.

    ``compared_with`` is ``plateau``, the mean of the batch sizes of the regime for each seed, or ``sgd``, the same
    batch size without momentum. A batch size has its share in the plateau: one of k that is d away from all others is
    d(k − 1)/k away from it. Differences are better-is-larger. ``verdict``, ``power``, ``seeds_needed`` and
    ``smallest_margin`` are of all batch sizes of the group together, as :func:`equivalence` has them: "supported" says
    that all are the same to within the margin. Scores are taken at rates chosen without them, for this test set. Batch
    sizes whose best rate lies at an edge of the rates tried are left out.

    Args:
        trials: a table of trials.
        regimes: which batch size is in which regime, as ``regime_of_batch_sizes`` gives it.
        records: what their workloads are, by name.
        margin: δ in units of the score; by ``score_margin`` from the group's mean score unless declared.
    """
    found = [
        (key, members, inside(scores_by_batch_size(members, records[key["workload"]])))
        for key, members in by_optimizer(trials)
    ]
    plain = of_sgd((key, scores) for key, _, scores in found)
    rows: list[dict[str, Any]] = []
    for key, members, scores in found:
        record = records[key["workload"]]
        sgd = plain.get((key["workload"], key["budget"]), {})
        for regime in ("noise", "curvature"):
            of_regime = _sizes(regimes, key, regime)
            mine = {size: chosen for size, chosen in scores.items() if size in of_regime}
            groups = {"plateau": _from_plateau(mine)}
            if momentum_of(key["optimizer"]) != 0:
                groups["sgd"] = leads_over(mine, sgd)
            for compared_with, differences in groups.items():
                if differences:
                    level = float(np.mean([chosen.scores for chosen in mine.values()]))
                    allowed = margin_at(level, record, margin)
                    row = key | {"compared_with": compared_with, "regime": regime}
                    rows += [
                        row | {"batch_size": size, "warmed_up": cell_warmed_up(members[size])} | of_size
                        for size, of_size in _compared(differences, allowed).items()
                    ]
    return pl.DataFrame(rows, schema=COMPARISONS_SCHEMA)


def rate_differences(trials: pl.DataFrame, regimes: pl.DataFrame, records: Records) -> pl.DataFrame:
    """Return by how many octaves the optimal effective rate of momentum lies above SGD's, on average over a regime.

    ``value`` is the mean of log₂ ε*/(1 − m) − log₂ ε*_SGD over the batch sizes, by the vertices; seeds are drawn
    jointly and everything is fitted anew, with the interval that slopes have. Batch sizes at which one of the rates
    lies at an edge of the rates tried are left out.

    Args:
        trials: a table of trials.
        regimes: which batch size is in which regime, as ``regime_of_batch_sizes`` gives it.
        records: what their workloads are, by name.
    """
    studied = list(by_optimizer(trials))
    plain = of_sgd(studied)
    rows: list[dict[str, Any]] = []
    for key, members in studied:
        momentum, sgd = momentum_of(key["optimizer"]), plain.get((key["workload"], key["budget"]))
        if not momentum or sgd is None:
            continue
        for criterion in measured_criteria(trials):
            pair = pair_on_common_seeds(*(cells_of(of, records[key["workload"]], criterion) for of in (members, sgd)))
            for regime in ("noise", "curvature"):
                shared = _sizes(regimes, key, regime) & set(pair[0].inside.sizes) & set(pair[1].inside.sizes)
                if shared and pair[0].n:
                    faster, slower = (cells.of(sorted(shared)) for cells in pair)
                    row = key | {"criterion": criterion, "regime": regime, "batch_sizes": len(shared)}
                    rows.append(row | {"n": faster.n} | vars(octaves_between(faster, slower, momentum)))
    return pl.DataFrame(rows, schema=RATE_DIFFERENCES_SCHEMA)


def octaves_between(momentum: Cells, sgd: Cells, m: float) -> Estimate:
    """Return the mean of log₂ ε*/(1 − m) − log₂ ε*_SGD over batch sizes that both have, on seeds that both have."""
    shift = -math.log2(1 - m)
    value = float((momentum.vertices - sgd.vertices).mean()) + shift
    drawn = momentum.drawn_means(stream=1) - sgd.drawn_means(stream=2) + shift
    return bootstrapped(value, drawn, momentum.n)


def _from_plateau(scores: Mapping[int, Chosen]) -> dict[int, np.ndarray]:
    """Return each batch size's difference from the mean over all of them, seed by seed; none where it is alone."""
    if len(scores) < 2:
        return {}
    plateau = np.mean([chosen.scores for chosen in scores.values()], axis=0)
    return {size: chosen.scores - plateau for size, chosen in scores.items()}


def _compared(differences: Mapping[int, np.ndarray], margin: float) -> dict[int, dict[str, Any]]:
    found = equivalence(np.array(list(differences.values())), margin)
    together = {
        "n": found.n,
        "margin": margin,
        "verdict": found.verdict,
        "smallest_margin": found.smallest_margin,
        "power": found.power,
        "seeds_needed": found.seeds_needed,
    }
    return {
        size: together
        | {"difference": float(found.mean[number])}
        | {
            name: float(getattr(found, name)[number])
            for name in ("low90", "high90", "low95", "high95", "p_equivalent", "p_beyond")
        }
        for number, size in enumerate(differences)
    }


def _sizes(regimes: pl.DataFrame, key: Mapping[str, Any], regime: str) -> set[int]:
    mine = pl.all_horizontal(pl.col(name) == value for name, value in key.items())
    return set(regimes.filter(mine & (pl.col("regime") == regime))["batch_size"])
