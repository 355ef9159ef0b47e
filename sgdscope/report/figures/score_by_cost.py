"""Test score against what training costs: examples, updates, gradients and seconds beside each other."""

from __future__ import annotations

import altair as alt

from sgdscope.analysis.tables import Tables
from sgdscope.budget import Steps, known_budget
from sgdscope.report.figures import style
from sgdscope.report.figures.figure import Figure, how_chosen, seeds

COSTS = {"examples": "examples read", "updates": "updates", "gradients": "gradients evaluated", "seconds": "seconds"}


def figure(part: Tables) -> Figure | None:
    """Return the figure; None without a method beside SGD and its momentum, or where no cost is known."""
    if part.score_by_cost.is_empty() or not any((part.score_by_cost[cost] > 0).any() for cost in COSTS):
        return None
    return Figure(
        "score-by-cost",
        f"Test {part.record.score_name} against cost",
        sentence(part),
        f"One point for each method and batch size, in one panel for each cost of a training run. Gradients are of "
        f"single examples; a Hessian-vector product counts as two. {how_chosen(part.record)} Points: means over "
        f"{seeds(part.score_by_cost)}.",
        "score_by_cost",
        chart(part),
    )


def sentence(part: Tables) -> str:
    """Say what the budget holds equal."""
    held = "updates" if isinstance(known_budget(part.trials["budget"][0]), Steps) else "examples"
    return (
        f"At one batch size all methods read the same examples in the same updates. Over batch sizes the budget holds "
        f"{held} constant. Gradients and seconds differ ({seeds(part.score_by_cost)})."
    )


def chart(part: Tables) -> style.HConcatChart:
    """Return the mean score against each cost."""
    return panels(part, "test_score", style.score_axis(part.record, zero=False), tuple(COSTS))


def panels(part: Tables, value: str, y: alt.Y, costs: tuple[str, ...]) -> style.HConcatChart:
    """Return one panel for each cost, with a point for each method and batch size."""
    rows = style.drawable(part.score_by_cost)
    drawn = []
    for cost in costs:
        known = rows.drop_nulls([cost, value]).filter(rows.drop_nulls([cost, value])[cost] > 0)
        if known.is_empty():
            continue
        axis = style.decades_axis(known[cost], log_format="~g" if cost == "seconds" else "~s")
        x = alt.X(f"{cost}:Q", title=COSTS[cost], scale=alt.Scale(type="log", nice=False, padding=12), axis=axis)
        base = alt.Chart(known).encode(x=x, y=y, color=style.by_optimizer(rows, alt.Color, style.COLOURS))
        line = base.mark_line(opacity=0.4).encode(order="batch_size:Q")
        means = alt.Tooltip(f"{value}:Q", format=".4~g")
        points = base.mark_point(filled=True, size=60).encode(
            shape=style.by_optimizer(rows, alt.Shape, style.SHAPES),
            opacity=style.stands_out(1, 0.3),
            tooltip=[*style.cell_tooltip(), means, *costs_tooltip()],
        )
        drawn.append(style.layered(line, points))
    return style.side_by_side(drawn)


def costs_tooltip() -> list[alt.Tooltip]:
    """Return the tooltip's lines of what a training run costs."""
    return [alt.Tooltip(f"{name}:Q", format=",.4~g") for name in COSTS]
