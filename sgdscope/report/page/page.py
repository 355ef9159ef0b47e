"""The page: one self-contained HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import markupsafe
import polars as pl

from sgdscope import atomic
from sgdscope.analysis.tables import StudyTables
from sgdscope.claims.decide import CLAIMS, ZONES, findings
from sgdscope.claims.finding import Finding
from sgdscope.errors import InputError
from sgdscope.report.figures import Figure, figures_against_epochs, figures_of
from sgdscope.report.page.data import Embedded
from sgdscope.report.page.overview import advice, bends, bends_caption, facts
from sgdscope.report.page.templates import rendered
from sgdscope.report.page.vega import bundle
from sgdscope.report.seen import CHANGES
from sgdscope.report.text.claims import answers, on_page
from sgdscope.report.text.summary import CAPTION, headings, how_chosen, saturation_sentences, sentences, summary_rows

RULES = (
    "Schedule: the learning rate is held for half the budget, then halved every twentieth of it, ten times. "
    "Learning rates are searched in factors of 2 until both ends are beaten, gain less than a tenth of what the best "
    "gains over the constant predictor, or diverge, and in half octaves on both sides of each best rate. A rate is "
    "beaten where of its paired t tests against the other rates one rejects, at 5 % shared among them. "
    "A rate at which more than 20 % of trials diverge is not eligible; a diverged trial counts as the "
    "constant predictor. The interval of an optimum is the hull of the rates that are not beaten, widened by half a "
    "step of the grid. "
    "The bend is where a line of free slope in log learning rate against log batch size becomes constant, "
    "by least squares through the vertices of parabolas within an octave of the best rates, seeds drawn jointly "
    "over all batch sizes, interval estimate ± t·SE; it is called identified where that interval lies "
    "inside the batch sizes of the study and the slope's lies above 0. A rate grows nowhere where the 90 % interval of "
    "its slope over all batch sizes lies within ±0.25, and at 95 % the rate at the smallest batch size within an "
    "octave of the others; it grows throughout where the bend lies at the largest batch size, at 95 % above the second "
    "largest, and the rate still grows between these two at 90 %. "
    "A best rate lies at an edge of the rates tried where its interval reaches it. Rates beyond may be better, so it "
    "is a bound in the fit, and no verdict rests on that batch size. "
    "A score is shown to hold, and momentum not to lead, by one-sided paired t tests at 2.5 % against the "
    "margin, upward from the smallest batch size until one fails; a score is shown to be lost, and momentum to lead, "
    "by the same tests at all batch sizes with Holm's correction. "
    "A cell whose best score gains under a tenth of what the best cell's gains over the constant predictor has learned "
    "next to nothing: it takes part in no fit and no claim. "
    "Training losses are compared by their logarithms. Losses below 2⁻²³ of the constant baseline's, and below 2⁻²³, "
    "are equal: float32 does not tell them apart. "
    f"{CHANGES} "
    "Scope: multi-epoch training under this schedule; intervals are over seeds, for this test set."
)


# What each table of the page holds; a figure's numbers are in one of them.
TABLES = {
    "optima": "Optimal learning rates, and what is best with them",
    "curves": "Every learning rate of every cell",
    "transitions": "Where the learning rate bends",
    "regimes": "Which regime each batch size is in",
    "score_limits": "Where the score falls, and where momentum leads",
    "training_curves": "Along training",
    "noise_scale": "Gradient noise scale along training",
    "trials": "Trials",
}
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


def write_page(tables: StudyTables, path: Path, folder: Path) -> Path:
    """Write the page of a study that has finished trials, and return its path.

    Args:
        tables: what the study has found.
        path: the page.
        folder: where the study is, as the commands that extend it name it.
    """
    embedded = Embedded()
    parts = _against_epochs(tables, embedded)
    parts += [
        _drawn(part.title, sentences(part), figures_of(part), number, embedded)
        for number, part in enumerate(tables.parts)
    ]
    found = findings(tables)
    tested = any(finding.effects for finding in found)
    keys = {figure["key"] for part in parts for figure in part["figures"]}
    shown = _tables(tables)
    html = rendered(
        "page.html.jinja",
        name=tables.declaration.name,
        facts=facts(tables),
        finished=tables.finished,
        pending=tables.pending,
        answers=answers(found) if tested else {},
        claims=on_page(found, lambda finding: _figure_of(finding, tables, keys)) if tested else [],
        zones=ZONES,
        bends_caption=bends_caption(tables),
        bends=[(part.title, bends(part)) for part in tables.parts if part.trials["batch_size"].n_unique() > 1],
        advice=advice(tables, folder),
        batch_sizes=tables.trials["batch_size"].unique().sort().to_list(),
        parts=parts,
        tables={name: TABLES[name] for name in shown},
        caption=CAPTION,
        how_chosen=how_chosen(tables.record),
        headings=headings(tables),
        rows=summary_rows(tables),
        rules=RULES,
        style=_own("page.css"),
        data=embedded.json(shown),
        bundle=markupsafe.Markup(bundle().replace("</script", "<\\/script")),  # noqa: S704
        script=_own("page.js"),
    )
    try:
        atomic.replace(path, html.encode(errors="replace"))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from error
    return path


def _figure_of(finding: Finding, tables: StudyTables, drawn: set[str]) -> str:
    """Return the key of the figure that shows a finding, as :func:`_drawn` gives it; empty where it is not drawn."""
    kind = CLAIMS[finding.claim].figure
    places = [(part.record.name, part.trials["budget"][0]) for part in tables.parts]
    workloads = [record.name for record in tables.declaration.workloads]
    key = ""
    if (finding.workload, finding.budget) in places:
        key = _key(kind, places.index((finding.workload, finding.budget)))
    elif finding.workload in workloads:
        key = _key(kind, workloads.index(finding.workload))
    return key if key in drawn else ""


def _against_epochs(tables: StudyTables, embedded: Embedded) -> list[dict[str, Any]]:
    """Return a part for each workload that was given several epoch budgets: what more epochs give."""
    parts = []
    for number, record in enumerate(tables.declaration.workloads):
        if figures := figures_against_epochs(tables, record.name):
            said = saturation_sentences(tables.saturation.filter(workload=record.name), tables.records)
            parts.append(_drawn(f"{record.name} against epochs", said, figures, number, embedded))
    return parts


def _drawn(
    title: str, said: Sequence[str], figures: Sequence[Figure], number: int, embedded: Embedded
) -> dict[str, Any]:
    """Return a part of the page; its figures' keys are told apart by its number."""
    shown: list[dict[str, Any]] = []
    for figure in figures:
        key = _key(figure.kind, number)
        panels = embedded.add(key, figure.chart, f"{figure.title}. {figure.seen}")
        shown.append({"key": key, "panels": panels, "figure": figure})
    for of, place in zip(shown, places([len(of["panels"]) for of in shown]), strict=True):
        of["place"] = place
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


def _own(name: str) -> markupsafe.Markup:
    """Return a file of ours, which stands in the page as it is."""
    return markupsafe.Markup((files("sgdscope.report.page") / name).read_text(encoding="utf-8"))  # noqa: S704
