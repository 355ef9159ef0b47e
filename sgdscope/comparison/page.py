"""The page of a comparison: one self-contained HTML file that opens offline, in the style of a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from sgdscope.analysis.tables import COLUMNS as OF_STUDIES
from sgdscope.claims.decide import CLAIMS
from sgdscope.comparison.figures import figures_of
from sgdscope.comparison.words import (
    claim_sentences,
    effort_sentences,
    rate_sentences,
    score_sentences,
    table,
    transition_sentences,
)
from sgdscope.report.page.data import Embedded
from sgdscope.report.page.page import RULES, TRIAL_COLUMNS, places
from sgdscope.report.page.templates import rendered_page

if TYPE_CHECKING:
    from sgdscope.comparison.comparison import Comparison

TABLES = {
    "score_difference": "Differences in best score",
    "rate_difference": "Differences in optimal learning rate",
    "transition_difference": "Transition batch sizes",
    "claim_verdicts": "Claims of the paper",
    "trials": "Trials",
}
COMPARISON_RULES = (
    "Compared: trials of the same workload, budget, optimizer and batch size. Where each study has one of its own, "
    "these are compared. Each study is compared with the first one.",
    "Best score: two-sided paired t tests of a difference beyond the margin at 5 %, and two one-sided tests at 5 % "
    "within it, both with Holm's correction over batch sizes and studies. Studies that share fewer than 3 seeds are "
    "compared as independent samples, by Welch's t test.",
    "Optimal learning rate: the same tests in octaves, against half an octave. The optimum lies between the rates "
    "tried; seeds are resampled, and the error that the grid of rates leaves is added.",
    "Transition batch size: the same tests against one octave, where both transitions are identified.",
    "Claims: verdicts differ only where one is supported and the other contradicted. A verdict that is decided in one "
    "study alone is no difference.",
)


def page(comparison: Comparison) -> str:
    """Return the page of a comparison."""
    from sgdscope.comparison.comparison import COLUMNS

    embedded = Embedded()
    figures: list[dict[str, Any]] = []
    for key, figure in figures_of(comparison).items():
        panels = embedded.add(key, figure.chart, f"{figure.title}. {figure.caption}")
        figures.append({"key": key, "panels": panels, "figure": figure})
    for of, place in zip(figures, places([len(of["panels"]) for of in figures]), strict=True):
        of["place"] = place
    shown = comparison.tables() | {"trials": _trials(comparison)}
    described = COLUMNS | {"trials": OF_STUDIES["trials"]}
    summary = table(comparison)
    return rendered_page(
        "comparison.html.jinja",
        name=" · ".join(comparison.names),
        first=comparison.what_differs_sentence,
        scores=[*effort_sentences(comparison), *score_sentences(comparison)],
        others=[
            *rate_sentences(comparison),
            *transition_sentences(comparison),
            *claim_sentences(comparison),
            *comparison.notices,
        ],
        names=comparison.names,
        claims=_claims(comparison),
        batch_sizes=shown["trials"]["batch_size"].unique().sort().to_list(),
        figures=figures,
        tables={name: TABLES[name] for name, rows in shown.items() if not rows.is_empty()},
        caption=summary.caption,
        headings=summary.headings,
        rows=summary.rows,
        rules=(*COMPARISON_RULES, *RULES),
        data=embedded.json({name: rows for name, rows in shown.items() if not rows.is_empty()}, described),
    )


def _claims(comparison: Comparison) -> list[tuple[str, str, list[str], str]]:
    """Return each claim with its statement, its verdict in each study, and ``opposite`` where two are."""
    found = []
    for (claim,), rows in comparison.claim_verdicts.group_by("claim", maintain_order=True):
        verdicts = [rows["reference_verdict"][0], *rows["verdict"]]
        opposite = "opposite" if "opposite" in rows["comparison"] else ""
        found.append((str(claim), CLAIMS[str(claim)].sentence, verdicts, opposite))
    return found


def _trials(comparison: Comparison) -> pl.DataFrame:
    """Return the trials of all studies, with the study in the first column."""
    tables = []
    for side in comparison.sides:
        trials = side.tables.trials
        names = [name for name in TRIAL_COLUMNS if name in trials.columns]
        tables.append(trials.select(pl.lit(side.name).alias("study"), *names))
    return pl.concat(tables, how="diagonal_relaxed")
