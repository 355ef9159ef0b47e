"""How a result shows itself in a notebook: what was studied, its table, and what was found in words."""

from __future__ import annotations

from sgdscope.advice.advice import Advice
from sgdscope.analysis.tables import StudyTables
from sgdscope.report.page.overview import facts
from sgdscope.report.page.templates import rendered
from sgdscope.report.text.recommendation import recommendation
from sgdscope.report.text.summary import caption, headings, sentences, summary_rows


def notebook_html(tables: StudyTables, advice: Advice) -> str:
    """Return a study, and what it advises, as a piece of HTML, which has the notebook's own style."""
    shown = not tables.optima.is_empty()
    return rendered(
        "notebook.html.jinja",
        name=tables.declaration.name,
        finished=tables.finished,
        pending=tables.pending,
        facts=facts(tables),
        headings=headings(tables) if shown else (),
        rows=summary_rows(tables) if shown else [],
        caption=caption(tables) if shown else "",
        recommended=[said for part in tables.parts for said in recommendation(advice, part)] if shown else [],
        sentences=[sentence for part in tables.parts for sentence in sentences(part)] if shown else [],
    )
