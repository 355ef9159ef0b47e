"""What to choose: which batch sizes are equivalent, what each costs in time and score, and whether momentum helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from sgdscope.advice.next_trials import further_trials
from sgdscope.advice.predicted_rates import rate_for
from sgdscope.advice.recommended import recommended
from sgdscope.advice.timing import SECONDS_COLUMNS, seconds_by_batch_size
from sgdscope.analysis.comparisons import compare_scores
from sgdscope.analysis.derived import cell_warmed_up
from sgdscope.analysis.difference_from_sgd import DIFFERENCE_FROM_SGD_COLUMNS, SCORE_NAMES, margin_in
from sgdscope.analysis.methods import baseline_of
from sgdscope.analysis.rate_choice import Chosen, best_over_batch_sizes, chosen_scores, inside, scores_by_batch_size
from sgdscope.analysis.score_limits import plateau_end, shown_above
from sgdscope.analysis.tables import Tables
from sgdscope.analysis.trial_table import (
    BATCH_SIZE,
    CELL,
    CELL_COLUMNS,
    MARGIN,
    OPTIMIZER_COLUMNS,
    OPTIMIZER_SCHEMA,
    SEEDS,
    Records,
    by_optimizer,
)
from sgdscope.budget import Steps, known_budget
from sgdscope.frames import Column, Columns, schema, with_interval
from sgdscope.records import WorkloadRecord
from sgdscope.stats.intervals import named, t_interval

COSTS_COLUMNS: Columns = {
    **CELL_COLUMNS,
    "n": SEEDS,
    **with_interval("test_score", "Mean test score over seeds, at the optimal learning rate.", "score"),
    **with_interval(
        "difference", "Test score minus that of the equivalent batch sizes, paired by seed; larger is better.", "score"
    ),
    "shared": Column(pl.Int64, "Seeds that the difference is of: those of the equivalent batch sizes, too.", "seeds"),
    "margin": MARGIN,
    "verdict": Column(pl.String, "`equivalent` (within the margin), `worse`, `undecided` or `at the edge`."),
    "fastest": Column(pl.Boolean, "Whether it takes the fewest seconds of all equivalent batch sizes."),
    **{name: SECONDS_COLUMNS[name] for name in ("packs", "seconds", "seconds_low", "seconds_high", "relative")},
}
COSTS_SCHEMA = schema(COSTS_COLUMNS)
LEADS_COLUMNS: Columns = {
    **OPTIMIZER_COLUMNS,
    "over": Column(pl.String, "`equal batch sizes`, or at each one's own, `recommended` or `best batch sizes`."),
    "batch_size": BATCH_SIZE,
    "sgd_batch_size": Column(pl.Int64, "Batch size of the baseline that it is compared with.", "examples"),
    **{name: column for name, column in DIFFERENCE_FROM_SGD_COLUMNS.items() if name not in CELL_COLUMNS},
}
LEADS_SCHEMA = schema(LEADS_COLUMNS)


@dataclass(frozen=True)
class Advice:
    """What a study advises, each table computed when it is first asked for.

    Args:
        tables: what the study has found.
        batch_sizes: those for which learning rates are asked for. Default: all that were measured.
        learning_rates: the grid that was declared, where rates were not searched.
    """

    tables: Tables
    batch_sizes: Sequence[int] = ()
    learning_rates: Sequence[float] = ()

    @cached_property
    def seconds(self) -> pl.DataFrame:
        """The seconds of a trial, one row for each optimizer and batch size."""
        return seconds_by_batch_size(self.tables.trials)

    @cached_property
    def rates(self) -> pl.DataFrame:
        """The learning rate for each batch size asked for, by optimizer and criterion."""
        t = self.tables
        return rate_for(t.trials, t.optima, t.records, self.batch_sizes)

    @cached_property
    def costs(self) -> pl.DataFrame:
        """What each batch size costs in time and in score, one row for each optimizer and batch size."""
        return batch_size_costs(self.tables.trials, self.tables.score_limits, self.seconds, self.tables.records)

    @cached_property
    def recommended(self) -> pl.DataFrame:
        """The batch size and the learning rate to use, one row for each optimizer."""
        return recommended(self.costs, self.tables.optima, self.tables.records)

    @cached_property
    def leads(self) -> pl.DataFrame:
        """Score of momentum minus that of SGD, at each batch size and at each optimizer's best."""
        return leads(self.tables, self.recommended)

    @cached_property
    def further(self) -> pl.DataFrame:
        """Which further trials would settle what is open, those that settle most for their cost first."""
        t = self.tables
        return further_trials(
            t.trials, t.optima, t.transitions, t.score_limits, self.costs, self.leads, self.seconds, t.records,
            self.learning_rates,
        )  # fmt: skip

    def all(self) -> dict[str, pl.DataFrame]:
        """Return every table by its name."""
        return {name: getattr(self, name) for name in ("recommended", "rates", "costs", "leads", "seconds", "further")}


def batch_size_costs(
    trials: pl.DataFrame, score_limits: pl.DataFrame, seconds: pl.DataFrame, records: Records
) -> pl.DataFrame:
    """Return what each batch size costs in time and in score, with 95 % intervals, one row for each optimizer's.

    ``verdict`` is ``worse`` if a batch size is worse by more than δ than the plateau, or than the best batch size
    (:func:`best_over_batch_sizes`), each by Holm's p values over the batch sizes. It is ``equivalent`` up to the lower
    end of B_score, where each is worse by less than δ, the smallest by definition; else ``undecided``. At a constant
    number of steps, and wherever a small batch size is worse than the best one, only those are equivalent that are
    worse by less than δ than the best batch size. If the best rate of a batch size lies at an edge of the rates tried,
    the batch size is ``at the edge`` and not compared, since better rates may lie beyond.
    ``difference`` is the test score minus the mean of the equivalent batch sizes, paired by seed; larger is better.
    ``fastest`` marks the equivalent batch size that took the fewest seconds.

    Args:
        trials: a table of trials.
        score_limits: their B_score.
        seconds: what their trials took.
        records: what their workloads are, by name.
    """
    rows: list[dict[str, Any]] = []
    for key, members in by_optimizer(trials):
        by_size = scores_by_batch_size(members, records[key["workload"]])
        if not by_size:
            continue
        margin = margin_in(score_limits, key)
        scores = np.array([chosen.scores for chosen in by_size.values()])
        verdicts = np.full(len(by_size), "at the edge")
        known = inside(by_size)
        if known:
            within = np.array([size in known for size in by_size])
            of_known = {size: members[size] for size in known}
            steps = isinstance(known_budget(key["budget"]), Steps)
            verdicts[within] = _verdicts(of_known, known, scores[within], margin, records[key["workload"]], steps)
        held = verdicts == "equivalent"
        for number, size in enumerate(by_size):
            row = key | {"batch_size": size, "n": by_size[size].n, "margin": margin, "verdict": str(verdicts[number])}
            if held.any() and len(by_size) > 1:
                differences = scores[number] - scores[held].mean(axis=0)
                row |= named("difference", t_interval(differences)) | {"shared": int((~np.isnan(differences)).sum())}
            rows.append(row | by_size[size].as_measured("test_score", records[key["workload"]].score_sign))
    timed = ("packs", "seconds", "seconds_low", "seconds_high", "relative")
    table = pl.DataFrame(rows, schema={name: kind for name, kind in COSTS_SCHEMA.items() if name not in timed})
    table = table.join(seconds.select(*CELL, *timed), on=CELL, how="left", maintain_order="left")
    held = pl.when(pl.col("verdict") == "equivalent").then(pl.col("seconds"))
    fastest = (held == held.min().over(*OPTIMIZER_SCHEMA)).fill_null(value=False)
    return table.with_columns(fastest=fastest).select(*COSTS_SCHEMA)


def _verdicts(
    members: Mapping[int, pl.DataFrame],
    by_size: Mapping[int, Chosen],
    scores: np.ndarray,
    margin: float,
    record: WorkloadRecord,
    steps: bool,
) -> np.ndarray:
    place, plateau = plateau_end(scores, margin)
    held = np.arange(len(scores)) < place.within
    lost = ~held
    lost[1:] &= shown_above(plateau - scores[1:], margin)
    best = best_over_batch_sizes(members, record)
    if best is not None:
        size, chosen = best
        if size in by_size and (record.chosen_on == "validation" or by_size[size].unpaired):
            chosen = by_size[size]  # where no seeds are shared, scores are by number
        behind = chosen.at(next(iter(by_size.values())).seeds) - scores
        short = shown_above(behind, margin)
        if steps:
            held[:] = True
        if steps or (short & held).any():  # then what was passed upward is no plateau
            held &= shown_above(-behind, -margin, together=False)
        lost |= short
    verdicts: np.ndarray = np.where(lost, "worse", np.where(held, "equivalent", "undecided"))
    return verdicts


def leads(tables: Tables, recommended: pl.DataFrame) -> pl.DataFrame:
    """Return test scores of each optimizer minus its baseline's, paired by seed, with 95 % intervals and verdicts.

    The baseline is the SGD of :func:`~sgdscope.analysis.methods.baseline_of`. ``over`` is ``equal batch sizes``, the
    rows of :func:`~sgdscope.analysis.difference_from_sgd.difference_from_sgd`; ``recommended``, one row with the
    batch size that is recommended for each, which is one of those rows where both batch sizes are the same; or ``best
    batch sizes``, one row with each optimizer's best: batch size and learning rate are chosen together by the
    validation score, or where there is none by the scores of the other seeds, so that choosing flatters neither. That
    row is ``at the edge`` where the best rate of any batch size lies at an edge of the rates tried.

    Args:
        tables: what the study has found.
        recommended: one batch size for each optimizer, by :func:`~sgdscope.advice.recommended.recommended`.
    """
    use: dict[tuple[Any, ...], int] = {
        tuple(row[name] for name in OPTIMIZER_SCHEMA): row["batch_size"] for row in recommended.rows(named=True)
    }
    equal = tables.difference_from_sgd.with_columns(over=pl.lit("equal batch sizes"), sgd_batch_size="batch_size")
    studied = {tuple(key.values()): (key, members) for key, members in by_optimizer(tables.trials)}
    rows: list[dict[str, Any]] = []
    for key, members in studied.values():
        record, baseline = tables.records[key["workload"]], baseline_of(key["optimizer"])
        _, sgd = studied.get((key["workload"], key["budget"], baseline), ({}, None))
        if sgd is None:
            continue
        cells = [(members, use.get(tuple(key.values()))), (sgd, use.get((key["workload"], key["budget"], baseline)))]
        pairs = {
            "recommended": [_at(size, of, record) for of, size in cells],
            "best batch sizes": [best_over_batch_sizes(of, record) for of, _ in cells],
        }
        for over, (one, other) in pairs.items():
            if one is None or other is None:
                continue
            (size, chosen), (sgds_size, sgds) = one, other
            place = {"over": over, "baseline": baseline, "batch_size": size, "sgd_batch_size": sgds_size}
            same = equal.filter(**key, batch_size=size) if (over, size) == ("recommended", sgds_size) else equal.clear()
            if len(same):  # one comparison has one verdict
                rows.append(same.row(0, named=True) | place)
                continue
            margin = margin_in(tables.score_limits, key)
            (row,) = compare_scores([(chosen, sgds)], margin, SCORE_NAMES, record.score_sign)
            rows += [key | place | {"warmed_up": cell_warmed_up(members[size])} | row] if row["n"] else []
    best_rows = pl.DataFrame(rows, schema=LEADS_SCHEMA)
    return pl.concat([equal.select(*LEADS_SCHEMA), best_rows]).sort(
        *OPTIMIZER_SCHEMA, pl.col("over") != "equal batch sizes", maintain_order=True
    )


def _at(size: int | None, members: Mapping[int, pl.DataFrame], record: WorkloadRecord) -> tuple[int, Chosen] | None:
    """Return a batch size that has scores, with them."""
    chosen = None if size is None else chosen_scores(members[size], record)
    return None if size is None or chosen is None else (size, chosen)
