"""The page: one self-contained HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from sgdscope import atomic
from sgdscope.advice.advice import Advice
from sgdscope.analysis.tables import StudyTables
from sgdscope.claims.decide import ZONES, family, findings
from sgdscope.claims.finding import Finding
from sgdscope.errors import InputError
from sgdscope.report.figures import figures_against_epochs, figures_of
from sgdscope.report.figures.change import CHANGES
from sgdscope.report.figures.figure import Figure, seeds, several_batch_sizes
from sgdscope.report.page.data import Embedded
from sgdscope.report.page.overview import advice, facts, headline, limits
from sgdscope.report.page.templates import rendered_page
from sgdscope.report.text.claims import NOT_TESTED, Row, by_question, claim_rows
from sgdscope.report.text.commands import Words
from sgdscope.report.text.summary import caption, headings, saturation_sentences, sentences, summary_rows

RULES = (
    "Schedule: by default the learning rate is constant for half the budget and is then halved ten times, every "
    "twentieth of the budget.",
    "Search: learning rates are tried in factors of 2 until both ends are worse than the best, gain less than a tenth "
    "of what the best gains over the constant baseline, or diverge; then in half octaves beside each best rate. A rate "
    "is worse if one of its paired t tests against the other rates rejects, at 5 % shared among them.",
    "Failed to train: a trial that diverged, or collapsed: it gained less than half of what the best learning rate of "
    "its cell gains over the constant baseline. A rate at which more than 20 % of trials fail cannot be the best.",
    "Optimal learning rate: the rate with the best mean over seeds; a diverged trial counts as the constant baseline. "
    "The interval contains all rates that are not worse, and half a step of the grid beyond.",
    "Transition batch size: a line of free slope in log learning rate against log batch size becomes constant there. "
    "The line is fitted by least squares to the maxima of cubics through the rates within an octave of the best one, "
    "or of parabolas where there are three. Seeds are resampled jointly over all batch sizes for the interval, "
    "estimate ± t·SE. It is identified if its interval lies inside the batch sizes of the study and that of the slope "
    "above 0.",
    "One regime: the optimal rate does not grow if the 90 % interval of its slope over all batch sizes lies within "
    "±0.25 and, at 95 %, the other rates lie within an octave of the smallest batch size's. It grows throughout if the "
    "transition lies at the largest batch size, at 95 % above the second largest, and the rate still grows between "
    "these two at 90 %.",
    "Edge: a best rate's interval may reach the edge of the rates tried. Rates beyond may be "
    "better, so it is a bound in the fit, and no verdict rests on that batch size.",
    "Equivalent: a batch size joins, upward from the smallest, if one-sided paired t tests at 2.5 % against the margin "
    "pass against each smaller one that has joined. Worse, and better than sgd: the same tests at all batch sizes with "
    "Holm's correction.",
    "Excluded from fits and claims: a cell whose score improves less than 10 % as much over the constant baseline as "
    "the best cell's.",
    "Training losses are compared by their logarithms. Losses below 2⁻²³ of the constant baseline's, and below 2⁻²³, "
    "are equal, as float32 cannot resolve them.",
    CHANGES,
    "Scope: multi-epoch training under this schedule. Intervals are over seeds, for this test set.",
)


# What each table of the page holds; a figure's numbers are in one of them.
TABLES = {
    "optima": "Optimal learning rates and best results",
    "curves": "Results at every learning rate",
    "failures": "Where training fails",
    "transitions": "Transition batch sizes",
    "regimes": "Regime of each batch size",
    "score_limits": "Largest equivalent batch sizes, and where momentum is better",
    "difference_from_sgd": "Differences from SGD in best score",
    "test_set": "Intervals over seeds and test examples",
    "best_by_method": "Each method at its best batch size",
    "training_curves": "Loss and score along training",
    "noise_scale": "Gradient noise scale along training",
    "sharpness": "Learning rate times sharpness along training",
    "trials": "Trials",
}
# What the page says of its table beside what the terminal says.
LOWEST_LOSS = "The training loss is the geometric mean at the learning rate with the lowest one."
TRIAL_COLUMNS = (
    "workload",
    "budget",
    "optimizer",
    "batch_size",
    "learning_rate",
    "seed",
    "status",
    "steps",
    "diverged_at_step",
    "train_loss",
    "validation_score",
    "test_score",
    "seconds",
)


def write_page(
    tables: StudyTables, path: Path, folder: Path | None, found: Advice | None = None, words: Words | None = None
) -> Path:
    """Write the page of a study that has finished trials, and return its path.

    Args:
        tables: what the study has found.
        path: the page.
        folder: where the study is, as the commands that extend it name it; None where no command does.
        found: what the study advises. Default: it is made of the tables.
        words: how the command line names the study. Default: Python trained it.
    """
    embedded = Embedded()
    parts = []
    for number, record in enumerate(tables.declaration.workloads):
        if figures := figures_against_epochs(tables, record.name):
            said = saturation_sentences(tables.saturation.filter(workload=record.name), tables.records)
            parts.append(_drawn(f"{record.name} against epochs", said, figures, number, embedded))
    for number, part in enumerate(tables.parts):
        parts.append(_drawn(part.title, sentences(part), figures_of(part), number, embedded))
    first = _first(parts)
    for drawn in [each["figures"] for each in parts]:
        for figure, place in zip(drawn, places([len(figure["panels"]) for figure in drawn]), strict=True):
            figure["place"] = place
    of_claims = findings(tables)
    keys = {figure["key"] for part in parts for figure in part["figures"]} | ({first["key"]} if first else set())
    shown = _tables(tables)
    rows = claim_rows(of_claims)
    html = rendered_page(
        "page.html.jinja",
        name=tables.declaration.name,
        headline=headline(tables),
        facts=facts(tables),
        finished=tables.finished,
        pending=tables.pending,
        claims=[
            (question, [(row, _figure_of(row, of_claims, tables, keys)) for row in of])
            for question, of in by_question([row for row in rows if row.verdict != NOT_TESTED])
        ],
        untested=[row for row in rows if row.verdict == NOT_TESTED],
        zones=f"{ZONES} {family(of_claims)}",
        scope=f"Batch sizes with 95 % intervals over {seeds(tables.optima)}.",
        limits=[(part.title, limits(part)) for part in tables.parts if several_batch_sizes(part)],
        advice=advice(tables, folder, found or Advice(tables, (), tables.declaration.learning_rates), words),
        first=first,
        batch_sizes=tables.trials["batch_size"].unique().sort().to_list(),
        parts=parts,
        tables={name: TABLES[name] for name in shown},
        caption=f"{caption(tables)} {LOWEST_LOSS}",
        headings=headings(tables),
        rows=summary_rows(tables),
        rules=RULES,
        data=embedded.json(shown),
    )
    try:
        atomic.replace(path, html.encode(errors="replace"))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from error
    return path


def _first(parts: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Take the figure of the first screen out of its part: that of the two regimes, or else the first one."""
    every = [(part, figure) for part in parts for figure in part["figures"]]
    place = next((k for k, (_, figure) in enumerate(every) if figure["figure"].name == "two-regimes"), 0)
    if not every:
        return None
    part, first = every[place]
    part["figures"].remove(first)
    return {**first, "place": "wide"}


def _figure_of(row: Row, found: Sequence[Finding], tables: StudyTables, drawn: set[str]) -> str:
    """Return the key of the first figure that shows a claim, as :func:`_drawn` gives it; empty where none is drawn."""
    places = [(part.record.name, part.trials["budget"][0]) for part in tables.parts]
    workloads = [record.name for record in tables.declaration.workloads]
    for finding in found:
        if finding.claim != row.claim or not finding.n:
            continue
        place = (finding.workload, finding.budget)
        known = places.index(place) if place in places else workloads.index(finding.workload)
        if (key := _key(row.figure, known)) in drawn:
            return key
    return ""


def _drawn(
    title: str, said: Sequence[str], figures: Sequence[Figure], number: int, embedded: Embedded
) -> dict[str, Any]:
    """Return a part of the page; its number makes its figures' keys different from other parts'."""
    shown: list[dict[str, Any]] = []
    for figure in figures:
        key = _key(figure.name, number)
        panels = embedded.add(key, figure.chart, f"{figure.title}. {figure.sentence}")
        shown.append({"key": key, "panels": panels, "figure": figure})
    return {"title": title, "sentences": said, "figures": shown}


def places(panels: Sequence[int]) -> list[str]:
    """Return where figures of so many panels stand: two halves beside each other, alone or across the page.

    >>> places([1, 1, 2, 1])
    ['half', 'half', 'wide', 'alone']
    """
    found: list[str] = []
    for number, count in enumerate(panels):
        if count > 1:
            found.append("wide")
        elif found.count("half") % 2 or panels[number + 1 : number + 2] == [1]:
            found.append("half")
        else:
            found.append("alone")
    return found


def _key(kind: str, number: int) -> str:
    return f"{kind}-{number + 1}" if number else kind


def _tables(tables: StudyTables) -> dict[str, pl.DataFrame]:
    """Return the tables that the page shows: workload and budget only where there are several."""
    every = {name: getattr(tables, name) for name in TABLES} | {"trials": tables.trials.select(TRIAL_COLUMNS)}
    alike = [name for name in ("workload", "budget") if tables.trials[name].n_unique() == 1]
    return {name: table.drop(alike) for name, table in every.items() if not table.is_empty()}
