"""Points with intervals against epochs: the base of the figures that compare budgets."""

from __future__ import annotations

import altair as alt
import polars as pl

from sgdscope.report.figures import style


def several_epochs(optima: pl.DataFrame) -> pl.DataFrame:
    """Return the optima of the batch sizes with several epoch budgets, with the epochs and the name of each line."""
    place = ("workload", "optimizer", "batch_size")
    rows = optima.filter(pl.col("budget").str.starts_with("epochs:"))
    rows = rows.filter(pl.col("budget").n_unique().over(place) > 1).sort("batch_size", maintain_order=True)
    case = pl.format("batch size {}", "batch_size")
    if rows["workload"].n_unique() > 1:
        case = pl.format("{}, {}", "workload", case)
    return rows.with_columns(epochs=pl.col("budget").str.strip_prefix("epochs:").cast(pl.Float64), case=case)


def lines_of_cells(rows: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """Return the rows of each optimizer and batch size, SGD first."""
    cells = [(name, case) for name in style.optimizers(rows) for case in rows["case"].unique(maintain_order=True)]
    found = [(f"{name} at {case}", rows.filter(optimizer=name, case=case)) for name, case in cells]
    return [(name, mine) for name, mine in found if not mine.is_empty()]


def against_epochs(rows: pl.DataFrame, value: str, y: alt.Y, line_of: str, low: str, high: str) -> style.LayerChart:
    """Return lines whose colours are optimizers, and whose shapes and dashes are in the column ``line_of``.

    Args:
        rows: Optima of :func:`several_epochs`.
        value: The column that is drawn.
        y: Its axis.
        line_of: ``case`` or ``criterion``.
        low: Which way an arrow points where the best rate lies at the lower edge of the rates tried.
        high: Which way at the upper edge.
    """
    rows = style.drawable(rows)
    ticks = alt.Axis(values=rows["epochs"].unique().sort().to_list(), format="~g", grid=False, labelOverlap=True)
    x = alt.X("epochs:Q", title="epochs", scale=alt.Scale(type="log", base=2, padding=10), axis=ticks)
    colour = style.by_optimizer(rows, alt.Color, style.COLOURS)
    base = alt.Chart(rows).encode(x=x, color=colour, detail=["optimizer:N", "case:N"])
    kinds = rows[line_of].unique(maintain_order=True).to_list()
    shape, dash = (
        channel(f"{line_of}:N", sort=kinds, title=None, legend=style.LEGEND, scale=alt.Scale(domain=kinds, range=marks))
        for channel, marks in ((alt.Shape, style.SHAPES), (alt.StrokeDash, style.DASHES))
    )
    bars = base.mark_rule().encode(y=alt.Y(f"{value}_low:Q"), y2=f"{value}_high:Q", opacity=style.stands_out(0.6, 0.05))
    line = base.mark_line().encode(y=y, strokeDash=dash, opacity=style.stands_out(0.55))
    points = base.mark_point(filled=True, size=70).encode(
        y=y,
        shape=shape,
        opacity=style.stands_out(1),
        tooltip=[f"{line_of}:N", *style.mean_tooltip(value, "epochs:Q")],
    )
    return style.layered(bars, line, points, *style.edge_arrows(rows, y, {"low": low, "high": high}, x=x, color=colour))
