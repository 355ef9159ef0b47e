"""The page: one self-contained HTML file that opens offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import polars as pl

from sgdscope.analysis.claims import CLAIMS, ZONES, findings
from sgdscope.analysis.dynamics import l2_of
from sgdscope.analysis.evidence import Finding
from sgdscope.analysis.tables import StudyTables, Tables
from sgdscope.errors import InputError
from sgdscope.report.bundle import bundle
from sgdscope.report.charts import Charts, best_score_by_epochs, optimal_rates_by_epochs
from sgdscope.report.claims import answers, on_page
from sgdscope.report.summary import CAPTION, headings, how_chosen, sentences, summary_rows, unlimited_sentences

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
    "inside the batch sizes of the study, the slope's lies above 0, and no best rate lies at the edge of those "
    "tried. A score is shown to hold, and momentum not to lead, by one-sided paired t tests at 2.5 % against the "
    "margin, upward from the smallest batch size until one fails; a score is shown to be lost, and momentum to lead, "
    "by the same tests at all batch sizes with Holm's correction. "
    "A cell whose best score gains under a tenth of what the best cell's gains over the constant predictor has learned "
    "next to nothing: it takes part in no fit and no claim. "
    "Scope: multi-epoch training under this schedule; intervals are over seeds, for this test set."
)


def write_page(tables: StudyTables, path: Path) -> Path:
    """Write the page of a study that has finished trials, and return its path."""
    parts = _against_epochs(tables) + [_part(part, number) for number, part in enumerate(tables.parts)]
    found = findings(tables)
    tested = any(finding.effects for finding in found)
    figures = {figure["key"]: figure["chart"] for part in parts for figure in part["figures"]}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sgdscope.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    html = environment.get_template("page.html.jinja").render(
        name=tables.declaration.name,
        facts=_facts(tables),
        finished=tables.finished,
        pending=tables.pending,
        answers=answers(found) if tested else {},
        claims=on_page(found, lambda finding: _figure_of(finding, tables)) if tested else [],
        zones=ZONES,
        parts=parts,
        caption=CAPTION,
        how_chosen=how_chosen(tables),
        headings=headings(tables),
        rows=summary_rows(tables),
        rules=RULES,
        charts_json=_script_safe(json.dumps(figures, allow_nan=False)),
        bundle=markupsafe.Markup(bundle().replace("</script", "<\\/script")),  # noqa: S704
    )
    try:
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from error
    return path


def _figure_of(finding: Finding, tables: StudyTables) -> str:
    """Return the key of the figure that shows a finding, as :func:`_drawn` gives it."""
    kind = CLAIMS[finding.claim].figure
    places = [(part.record.name, part.trials["budget"][0]) for part in tables.parts]
    if (finding.workload, finding.budget) in places:
        return _key(kind, places.index((finding.workload, finding.budget)))
    workloads = [record.name for record in tables.declaration.workloads]
    return _key(kind, workloads.index(finding.workload)) if kind and finding.workload in workloads else ""


def _against_epochs(tables: StudyTables) -> list[dict[str, Any]]:
    """Return a part for each workload that was given several epoch budgets: what more epochs give."""
    parts = []
    for number, record in enumerate(tables.declaration.workloads):
        optima = tables.optima.filter(pl.col("workload") == record.name, pl.col("budget").str.starts_with("epochs:"))
        if optima["budget"].n_unique() < 2:
            continue
        interval = f"Points are means over n = {_seeds(tables)} seeds, bars their 95 % t intervals."
        figures = {
            "score-by-epochs": (
                f"Best test {record.score_name} against epochs",
                f"At each budget, the learning rate that is {how_chosen(tables)}. {interval}",
                best_score_by_epochs(optima, record.score_name),
            ),
            "rates-by-epochs": (
                "Optimal learning rates against epochs",
                "The rate that is best for the score, and the one that is best for the training loss, with their 95 % "
                "intervals; momentum at its effective rate.",
                optimal_rates_by_epochs(optima),
            ),
        }
        said = unlimited_sentences(tables.unlimited.filter(workload=record.name), tables.records)
        parts.append(_drawn(f"{record.name} against epochs", said, figures, number))
    return parts


def _part(tables: Tables, number: int) -> dict[str, Any]:
    """Return heading, sentences and figures of one workload and budget."""
    charts = Charts(tables)
    record = tables.record
    score, largest = record.score_name, record.examples[0]
    interval = f"Points are means over n = {_seeds(tables)} seeds, bars their 95 % t intervals."
    against_batch_size = {
        "best-score": (
            f"Best test {score} against batch size",
            f"At each batch size, the learning rate that is {how_chosen(tables)}. {interval}",
            charts.best_score(),
        ),
        "optimal-learning-rate": (
            "Optimal learning rate against batch size",
            f"The rate that is best for the {record.chosen_on} {score}; momentum at its effective "
            f"rate. Bars: 95 % intervals over n = {_seeds(tables)} seeds. Dashed: fitted "
            f"hinge, free slope and then 0. Pale: the interval reaches the edge of what was tried.",
            charts.optimal_learning_rate(),
        ),
        "two-regimes": (
            "The two regimes",
            f"The same rates up to the full batch of {largest:,} examples. Noise-dominated: below the lower 95 % limit "
            f"of where SGD's rate bends. Curvature-dominated: above the upper limit of where the optimizer's own does. "
            f"What lies between, or has no limit that is known, is in neither.",
            charts.two_regimes(),
        ),
        "training-loss": (
            "Best training loss against batch size",
            f"The whole training split after the last update, at the rate that is best for it. {interval}",
            charts.training_loss(),
        ),
    }
    by_rate = {
        "score-by-learning-rate": (
            f"Test {score} against learning rate",
            f"One line for each batch size. {interval} A diverged trial counts as the constant predictor; "
            f"what lies far from the best is cut off.",
            charts.score_by_learning_rate(),
        ),
    }
    several = tables.trials["batch_size"].n_unique() > 1
    return _drawn(tables.title, sentences(tables), (against_batch_size if several else {}) | by_rate, number)


def _drawn(title: str, said: list[str], figures: dict[str, tuple[str, str, Any]], number: int) -> dict[str, Any]:
    """Return a part of the page; its figures' keys are told apart by its number."""
    return {
        "title": title,
        "sentences": said,
        "figures": [
            {
                "kind": kind,
                "key": _key(kind, number),
                "title": heading,
                "caption": caption,
                "chart": chart.to_dict(),
            }
            for kind, (heading, caption, chart) in figures.items()
        ],
    }


def _key(kind: str, number: int) -> str:
    return f"{kind}-{number + 1}" if number else kind


def _script_safe(text: str) -> markupsafe.Markup:
    """Escape JSON for a script element: a study's own words cannot end it."""
    return markupsafe.Markup(text.replace("<", "\\u003c"))  # noqa: S704


def _seeds(tables: Tables) -> str:
    counts = tables.curves["n"].to_list()
    least, most = min(counts), max(counts)
    return f"{most}" if least == most else f"{least} to {most}"


def _facts(tables: StudyTables) -> str:
    trials, declaration = tables.trials, tables.declaration
    counts = trials["status"].value_counts().sort("status").iter_rows(named=True)
    updates, seconds = trials["steps"].sum() or 0, trials["seconds"].sum() or 0.0
    devices = (
        trials.filter(pl.col("device").is_not_null()).select("device", "devices").unique().sort("device", "devices")
    )
    machine = "; ".join(f"{row['devices']} {row['device']} devices" for row in devices.iter_rows(named=True))
    workloads = ", ".join(
        f"{record.name} ({' / '.join(f'{n:,}' for n in record.examples)} training / validation / test examples"
        + ("" if (l2 := l2_of(record)) is None else f", L2 {l2:g}")
        + ")"
        for record in declaration.workloads
    )
    status = ", ".join(f"{row['count']} {row['status']}" for row in counts)
    return (
        f"Workload {workloads}; {', '.join(map(str, declaration.optimizers))}; "
        f"budget {', '.join(map(str, declaration.budgets))}; {declaration.seeds} seeds; "
        f"{len(trials):,} trials ({status}); {updates:,} updates in {seconds:,.0f} s of training on {machine}."
    )
