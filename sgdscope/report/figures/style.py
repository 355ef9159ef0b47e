"""What all figures share: colours, axes, tooltips, and how a chosen batch size stands out."""

from __future__ import annotations

import math
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from sgdscope.formatting import SEARCHED_VALUES
from sgdscope.records import WorkloadRecord

# Of optimizers, plain SGD first: distinct for colour-blind readers, and dark and light in turn for grey print, where
# shapes and dashes differ too.
COLOURS = ["#1273b5", "#e07400", "#00785a", "#cc79a7", "#8a4b08", "#56b4e9"]
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"]
DASHES = [[1, 0], [7, 3], [2, 2], [7, 3, 2, 3], [12, 3], [4, 4]]
# Of batch sizes: light ones are large; the lightest end is left out, which paper does not show.
BATCH_SIZES = alt.SchemeParams(name="viridis", extent=[0.0, 0.82])
NEUTRAL = "#808080"
WIDTH, HEIGHT = 440, 300
# Rates are powers of 2: whole numbers and simple fractions read best.
RATE_AXIS = alt.Axis(
    labelExpr="datum.value >= 1 ? format(datum.value, '~g') : '1/' + format(1 / datum.value, '~g')", labelOverlap=True
)
# Marks may be pale, what explains them is not. A stroke would be dashed there, and cut its shapes.
LEGEND = alt.Legend(orient="top", symbolOpacity=1, symbolStrokeWidth=0, columns=3)
# Of an optimizer with a searched coefficient the values are left out; they would not fit.
NAMES_ALONE = f"replace(datum.label, regexp('{SEARCHED_VALUES}'), '')"
# The batch size that stands out, or 0 where none does. The page sets it in all figures at once.
CHOSEN = alt.param(name="chosen", value=0)
STANDS_OUT = "chosen == 0 || datum.batch_size == chosen"
# A column about as wide as a fingertip.
COLUMN_WIDTH = 24


class _Offline(alt.TopLevelMixin):
    """Show a chart in a notebook with Vega's scripts inside, unless the user chose another of Altair's renderers."""

    def _repr_mimebundle_(self, *include: Any, **exclude: Any) -> Any:
        if alt.renderers.active != "default":
            return super()._repr_mimebundle_(*include, **exclude)
        return {"text/html": self.to_html(inline=True, fullhtml=False)}


class LayerChart(_Offline, alt.LayerChart):
    """A chart that a notebook shows without a network."""


class HConcatChart(_Offline, alt.HConcatChart):
    """Charts beside each other that a notebook shows without a network."""


def stands_out(normally: float, otherwise: float = 0.12) -> Any:
    """Return the opacity of a mark that recedes where another batch size is chosen."""
    return alt.condition(STANDS_OUT, alt.value(normally), alt.value(otherwise))


def batch_size_columns(rows: pl.DataFrame, x: alt.X) -> alt.Chart:
    """Return a column at each batch size, to be clicked anywhere, which shows where it is the chosen one."""
    of_sizes = alt.Chart(rows).transform_aggregate(cells="count()", groupby=["batch_size"])
    shown = alt.condition("datum.batch_size == chosen", alt.value(0.16), alt.value(0.0))
    chart: alt.Chart = of_sizes.mark_rule(strokeWidth=COLUMN_WIDTH, color=NEUTRAL).encode(x=x, opacity=shown)
    return chart


def extent(column: pl.Series) -> list[float]:
    """Return the least and the largest number of a column, as the ends of a scale."""
    numbers = column.drop_nulls().to_numpy()
    return [float(numbers.min()), float(numbers.max())]


def drawable(rows: pl.DataFrame) -> pl.DataFrame:
    """Leave out what is infinite, such as an interval over one seed: JSON has no word for it, and no axis a place."""
    numbers = pl.selectors.float()
    return rows.with_columns(pl.when(numbers.is_finite()).then(numbers).name.keep())


def batch_axis(rows: pl.DataFrame, **scale: Any) -> alt.X:
    """Return the axis of batch sizes, a tick at each that was trained."""
    sizes = rows["batch_size"].unique().sort().to_list()
    return alt.X(
        "batch_size:Q",
        title="batch size B",
        scale=alt.Scale(type="log", base=2, padding=COLUMN_WIDTH / 2, **scale),
        axis=alt.Axis(values=sizes, format="d", grid=False, labelOverlap=True),
    )


def octaves_axis(*rates: pl.Series) -> alt.Axis:
    """Return the axis of learning rates with a tick at each octave: of a short range Vega would tick what is none."""
    octaves = np.log2(np.concatenate([column.drop_nulls().to_numpy() for column in rates]))
    values = [2.0**octave for octave in range(math.floor(octaves.min()), math.ceil(octaves.max()) + 1)]
    axis: alt.Axis = RATE_AXIS.copy()
    axis.values = values
    return axis


def decades_axis(*columns: pl.Series, log_format: str = "~g", **how: Any) -> alt.Axis:
    """Return a logarithmic axis with a tick at each 1 and 3 of a decade, or at each 1 of many decades."""
    decades = np.log10(np.concatenate([column.drop_nulls().to_numpy() for column in columns]))
    if np.ptp(decades) < 1:
        return alt.Axis(tickCount=5, format=log_format, **how)
    first, last = math.floor(decades.min()), math.ceil(decades.max())
    within = (1, 3) if last - first <= 4 else (1,)
    values = [digit * 10.0**decade for decade in range(first, last + 1) for digit in within]
    return alt.Axis(values=values, format=log_format, **how)


def optimizers(rows: pl.DataFrame) -> list[str]:
    """Return the optimizers of a table, plain SGD first, so that it has the same colour in every figure.

    Studies that are compared stand in their place as an enumeration, and keep its order and colours.
    """
    dtype = rows["optimizer"].dtype
    if isinstance(dtype, pl.Enum):
        return list(dtype.categories)
    names: list[str] = sorted(rows["optimizer"].unique().to_list(), key=lambda name: (name != "sgd", name))
    return names


def line_name(rows: pl.DataFrame) -> str:
    """Return what the lines of a table are: optimizers, or studies that are compared."""
    return "study" if isinstance(rows["optimizer"].dtype, pl.Enum) else "optimizer"


def by_optimizer(rows: pl.DataFrame, kind: type[Any], marks: list[Any]) -> Any:
    """Return the encoding of optimizers by colour, shape or dash.

    The first of the marks is plain SGD's alone.
    """
    domain = optimizers(rows)
    first = 0 if "sgd" in domain or line_name(rows) == "study" else 1
    scale = alt.Scale(domain=domain, range=marks[first : first + len(domain)])
    searched = any("|" in name for name in domain)
    legend = alt.Legend(**LEGEND.to_dict(), labelExpr=NAMES_ALONE) if searched else LEGEND
    return kind("optimizer:N", title=None, legend=legend, scale=scale)


def by_batch_size(rows: pl.DataFrame) -> alt.Color:
    """Return the colour of batch sizes, in steps from the smallest to the largest."""
    domain = rows["batch_size"].unique().sort().to_list()
    scale, legend = alt.Scale(domain=domain, scheme=BATCH_SIZES), alt.Legend(symbolOpacity=1)
    return alt.Color("batch_size:O", title="batch size", legend=legend, scale=scale)


def cell_tooltip(rows: pl.DataFrame | None = None) -> list[alt.Tooltip]:
    """Return the tooltip's first lines: the cell and its seeds; rows tell whether lines are optimizers or studies."""
    return [
        alt.Tooltip("optimizer:N", title="optimizer" if rows is None else line_name(rows)),
        alt.Tooltip("batch_size:Q", title="batch size"),
        alt.Tooltip("n:Q", title="seeds"),
    ]


def mean_tooltip(value: str, *more: str, rows: pl.DataFrame | None = None) -> list[Any]:
    """Return the tooltip of a mean: its cell, what more is named, its interval and its learning rate."""
    ends = {"": "mean", "_low": "95 % low", "_high": "95 % high"}
    means = [alt.Tooltip(f"{value}{end}:Q", title=title, format=".4~g") for end, title in ends.items()]
    return [*cell_tooltip(rows), *more, *means, *rate_tooltip()]


def rate_tooltip(name: str = "learning_rate") -> list[alt.Tooltip]:
    """Return the tooltip's lines of the learning rate, and of how many trials diverged with it."""
    return [alt.Tooltip(f"{name}:Q", title="learning rate ε", format=".4~g"), alt.Tooltip("diverged:Q")]


def layered(*layers: Any) -> LayerChart:
    """Return layers as one figure."""
    chart: LayerChart = LayerChart(layer=list(layers), width=WIDTH, height=HEIGHT).add_params(CHOSEN)
    return chart


def side_by_side(panels: list[LayerChart]) -> HConcatChart:
    """Return panels as one figure."""
    chart: HConcatChart = HConcatChart(hconcat=panels).resolve_scale(color="shared")
    return chart


def score_axis(record: WorkloadRecord, **scale: Any) -> alt.Y:
    """Return the axis of the test score."""
    axis = alt.Axis(format="~%") if record.in_percent else alt.Axis()
    return alt.Y("test_score:Q", title=f"test {record.score_name}", scale=alt.Scale(nice=False, **scale), axis=axis)


def edge_arrows(rows: pl.DataFrame, y: alt.Y, shown: dict[str, str], **channels: Any) -> list[alt.Chart]:
    """Return arrows beside the points whose best rate lies at an edge of the rates tried: they are bounds.

    Args:
        rows: optima.
        y: the height of the points.
        shown: by the end of the rates tried, ``low`` or ``high``, the way the arrow points, ``up`` or ``down``.
        channels: what else is encoded.
    """
    arrows = []
    for way in ("up", "down"):
        ends = [end for end, to in shown.items() if to == way]
        open_ = rows.filter(pl.any_horizontal(pl.lit(value=False), *(pl.col("censored").str.contains(e) for e in ends)))
        if not open_.is_empty():
            mark = alt.Chart(open_).mark_point(
                shape=f"triangle-{way}", filled=True, size=45, yOffset=-11 if way == "up" else 11
            )
            arrows.append(mark.encode(y=y, opacity=stands_out(0.9, 0.25), **channels))
    return arrows
