"""The figures: one function each, table in, chart out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from sgdscope.analysis.regimes import regime_limits
from sgdscope.analysis.tables import Tables

# Okabe and Ito's colours, which stay apart for colour-blind readers and in grey.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"]
INK = "#1a1a1a"
WIDTH, HEIGHT = 440, 300
# Rates are powers of 2: whole numbers and simple fractions read best.
RATE_AXIS = alt.Axis(
    labelExpr="datum.value >= 1 ? format(datum.value, '~g') : '1/' + format(1 / datum.value, '~g')", labelOverlap=True
)


@dataclass(frozen=True)
class Charts:
    """The figures of one study."""

    tables: Tables

    def best_score(self) -> alt.LayerChart:
        """Best test score against batch size."""
        return best_score(self.tables.optima, self.tables.record.score_name)

    def optimal_learning_rate(self) -> alt.LayerChart:
        """Score-optimal effective learning rate against batch size, with the fitted regimes."""
        return optimal_learning_rate(self.tables.optima, self.tables.regimes)

    def two_regimes(self) -> alt.HConcatChart:
        """Optimal learning rate against batch size up to N, with both regimes, one panel for each optimizer."""
        return two_regimes(self.tables)

    def training_loss(self) -> alt.LayerChart:
        """Best training loss against batch size."""
        return training_loss(self.tables.optima)

    def score_by_learning_rate(self) -> alt.HConcatChart:
        """Test score against learning rate, one line for each batch size."""
        workload = self.tables.record
        return score_by_learning_rate(self.tables.curves, workload.score_name, workload.score_sign)


def best_score_by_epochs(optima: pl.DataFrame, score_name: str) -> alt.LayerChart:
    """Return the mean test score at the best rate against the epoch budget, one line for each optimizer and batch."""
    rows = _by_epochs(optima.filter(pl.col("criterion") == "score"))
    return _against_epochs(rows, "test_score", f"test {score_name}", alt.Scale(zero=False), "what:N")


def optimal_rates_by_epochs(optima: pl.DataFrame) -> alt.LayerChart:
    """Return both optimal learning rates against the epoch budget: best for the test score, and for the training loss.

    The rates are effective ones, ε*/(1 − m), each with its 95 % interval.
    """
    factor = pl.col("effective_learning_rate") / pl.col("learning_rate")
    rows = _by_epochs(optima).with_columns(
        effective_learning_rate_low=pl.col("learning_rate_low") * factor,
        effective_learning_rate_high=pl.col("learning_rate_high") * factor,
        criterion=pl.col("criterion").replace({"score": "test score", "train_loss": "training loss"}),
    )
    title = "optimal effective learning rate ε*/(1 − m)"
    return _against_epochs(
        rows, "effective_learning_rate", title, alt.Scale(type="log", base=2), "criterion:N", RATE_AXIS
    )


def _by_epochs(optima: pl.DataFrame) -> pl.DataFrame:
    """Return the rows whose budget is of epochs, with how many, and what each line is."""
    what = pl.format("{}, batch size {}", "optimizer", "batch_size")
    if optima["workload"].n_unique() > 1:
        what = pl.format("{}, {}", "workload", what)
    rows = optima.filter(pl.col("budget").str.starts_with("epochs:")).with_columns(
        epochs=pl.col("budget").str.strip_prefix("epochs:").cast(pl.Float64), what=what
    )
    return _drawable(rows)


def _against_epochs(
    rows: pl.DataFrame, value: str, title: str, scale: alt.Scale, colour: str, axis: alt.Axis | None = None
) -> alt.LayerChart:
    epochs = rows["epochs"].unique().sort().to_list()
    ticks = alt.Axis(values=epochs, format="~g")
    x = alt.X("epochs:Q", title="epochs", scale=alt.Scale(type="log", base=2), axis=ticks)
    y = alt.Y(f"{value}:Q", title=title, scale=scale, axis=axis or alt.Axis())
    base = alt.Chart(rows).encode(
        x=x,
        color=alt.Color(colour, title=None, legend=alt.Legend(orient="top"), scale=alt.Scale(range=COLOURS)),
        detail="what:N",
    )
    bars = base.mark_rule(opacity=0.6).encode(y=alt.Y(f"{value}_low:Q"), y2=f"{value}_high:Q")
    line = base.mark_line(opacity=0.5).encode(y=y)
    points = base.mark_point(filled=True, size=70).encode(
        y=y, tooltip=["what:N", *_cell_tooltip()[2:], "epochs:Q", *_interval_tooltip(value)]
    )
    return _sized(bars, line, points)


def best_score(optima: pl.DataFrame, score_name: str) -> alt.LayerChart:
    """Return the mean test score at the rate that is best on validation, with its 95 % t interval over seeds."""
    rows = optima.filter(pl.col("criterion") == "score")
    title = f"test {score_name}"
    return _points_with_intervals(rows, "test_score", title, alt.Scale(zero=False))


def training_loss(optima: pl.DataFrame) -> alt.LayerChart:
    """Return the geometric mean of the training loss at the rate that is best for it, with its 95 % t interval."""
    rows = optima.filter(pl.col("criterion") == "train_loss")
    return _points_with_intervals(rows, "train_loss", "training loss", alt.Scale(type="log", nice=False, padding=12))


def optimal_learning_rate(optima: pl.DataFrame, regimes: pl.DataFrame) -> alt.LayerChart:
    """Return ε*/(1 − m) against B on logarithmic axes, with intervals, the fitted hinges and where they bend.

    An optimum at the edge of what was tried is a bound, and drawn pale.
    """
    rows = effective_intervals(optima)
    base = alt.Chart(rows)
    y = _rate_axis()
    bars = base.mark_rule(opacity=0.6).encode(
        x=_batch_axis(rows), y=alt.Y("effective_low:Q"), y2="effective_high:Q", color=_colour(rows)
    )
    points = base.mark_point(filled=True, size=70).encode(
        x=_batch_axis(rows),
        y=y,
        color=_colour(rows),
        shape=_shape(rows),
        opacity=alt.condition("datum.bound == 'bound'", alt.value(0.35), alt.value(1.0)),
        tooltip=[
            *_cell_tooltip(),
            alt.Tooltip("learning_rate:Q", title="ε*", format="~g"),
            alt.Tooltip("learning_rate_low:Q", title="low", format=".3~g"),
            alt.Tooltip("learning_rate_high:Q", title="high", format=".3~g"),
            alt.Tooltip("censored:N", title="at the edge of what was tried"),
        ],
    )
    lines = _hinge_lines(rows, regimes)
    fitted = (
        alt.Chart(lines)
        .mark_line(strokeDash=[5, 4], opacity=0.8)
        .encode(x=_batch_axis(rows), y=alt.Y("effective_learning_rate:Q"), color=_colour(rows))
    )
    layers: list[Any] = [bars, points]
    if not lines.is_empty():
        layers.insert(0, fitted)
    return _sized(*layers)


def two_regimes(tables: Tables) -> alt.HConcatChart:
    """Return log ε*/(1 − m) against log B up to N, both regimes shaded, one panel for each optimizer.

    Noise-dominated are the batch sizes below the lower limit of SGD's bend, curvature-dominated those above the upper
    limit of the optimizer's own, as far as these bends are identified; what is between them is not shaded. The fitted
    hinge is drawn from the smallest batch size to N, the full batch.
    """
    panels = []
    sizes = tables.trials["batch_size"].to_list()
    smallest, largest = min(sizes), max(*sizes, tables.record.examples[0])
    workload, budget = tables.record.name, tables.trials["budget"][0]
    x = alt.X("batch_size:Q", title="batch size B", scale=alt.Scale(type="log", base=2, domain=[smallest, largest]))
    for optimizer in _optimizers(tables.optima):
        own, fits = (table.filter(optimizer=optimizer) for table in (tables.optima, tables.regimes))
        low, high = regime_limits(tables.regimes.filter(status="identified"), workload, budget, optimizer)
        bands = pl.DataFrame(
            [("noise-dominated", smallest, min(low or smallest, largest)), ("curvature-dominated", high, largest)],
            schema={"regime": pl.String, "batch_size": pl.Float64, "to": pl.Float64},
            orient="row",
        ).filter(pl.col("batch_size") < pl.col("to"))
        scale = alt.Scale(domain=["noise-dominated", "curvature-dominated"], range=[COLOURS[5], COLOURS[4]])
        colour = alt.Color("regime:N", title=None, scale=scale, legend=alt.Legend(orient="top"))
        shaded = alt.Chart(bands).mark_rect(opacity=0.18).encode(x=x, x2="to:Q", color=colour)
        rows = effective_intervals(own)
        base = alt.Chart(rows).encode(x=x)
        bars = base.mark_rule().encode(y=alt.Y("effective_low:Q"), y2="effective_high:Q")
        points = base.mark_point(filled=True, size=70, color=INK).encode(y=_rate_axis(), tooltip=_cell_tooltip())
        layers: list[Any] = [shaded, bars, points]
        lines = _hinge_lines(rows, fits, up_to=largest)
        if not lines.is_empty():
            hinge = alt.Chart(lines).mark_line(strokeDash=[5, 4], color=INK)
            layers.insert(1, hinge.encode(x=x, y="effective_learning_rate:Q"))
        panels.append(_sized(*layers).properties(title=optimizer))
    chart: alt.HConcatChart = alt.hconcat(*panels)
    return chart


def score_by_learning_rate(curves: pl.DataFrame, score_name: str, sign: int) -> alt.HConcatChart:
    """Return test score against learning rate, one panel for each optimizer and one line for each batch size."""
    panels = []
    for optimizer in _optimizers(curves):
        rows = _drawable(curves.filter(pl.col("optimizer") == optimizer).sort("batch_size"))
        base = alt.Chart(rows, title=optimizer)
        x = alt.X(
            "learning_rate:Q", title="learning rate ε", scale=alt.Scale(type="log", base=2), axis=_octaves_of(rows)
        )
        colour = alt.Color("batch_size:O", title="batch size", scale=alt.Scale(scheme="viridis"))
        scale = _near_best(curves, sign)
        y = alt.Y("test_score:Q", title=f"test {score_name}", scale=scale)
        line = base.mark_line(clip=True).encode(x=x, y=y, color=colour)
        rules = base.mark_rule(opacity=0.4, clip=True).encode(
            x=x, y=alt.Y("test_score_low:Q", scale=scale), y2="test_score_high:Q", color=colour
        )
        points = base.mark_point(filled=True, size=35, clip=True).encode(
            x=x,
            y=y,
            color=colour,
            tooltip=[
                *_cell_tooltip(),
                alt.Tooltip("learning_rate:Q", title="learning rate", format="~g"),
                *_interval_tooltip("test_score"),
                alt.Tooltip("diverged:Q", title="diverged"),
            ],
        )
        panels.append(_sized(rules, line, points))
    chart: alt.HConcatChart = alt.hconcat(*panels).resolve_scale(color="shared")
    return chart


def effective_intervals(optima: pl.DataFrame) -> pl.DataFrame:
    """Return the score's optima with the intervals of their effective rates, and which are bounds."""
    sure = pl.when(pl.col("learning_rate_high").is_not_null())  # with one seed there is no interval
    factor = pl.col("effective_learning_rate") / pl.col("learning_rate")
    return _drawable(optima.filter(pl.col("criterion") == "score")).with_columns(
        sure.then("learning_rate_low").alias("learning_rate_low"),
        sure.then("learning_rate_high").alias("learning_rate_high"),
        effective_low=sure.then(pl.col("learning_rate_low") * factor),
        effective_high=sure.then(pl.col("learning_rate_high") * factor),
        bound=pl.when(pl.col("censored") == "").then(pl.lit("optimum")).otherwise(pl.lit("bound")),
    )


def _rate_axis() -> alt.Y:
    return alt.Y(
        "effective_learning_rate:Q",
        title="optimal effective learning rate ε*/(1 − m)",
        scale=alt.Scale(type="log", base=2),
        axis=RATE_AXIS,
    )


def _points_with_intervals(rows: pl.DataFrame, value: str, title: str, scale: alt.Scale) -> alt.LayerChart:
    rows = _drawable(rows)
    base = alt.Chart(rows)
    x, colour = _batch_axis(rows), _colour(rows)
    line = base.mark_line(opacity=0.5).encode(x=x, y=alt.Y(f"{value}:Q", title=title, scale=scale), color=colour)
    bars = base.mark_rule(opacity=0.6).encode(x=x, y=alt.Y(f"{value}_low:Q"), y2=f"{value}_high:Q", color=colour)
    points = base.mark_point(filled=True, size=70).encode(
        x=x,
        y=alt.Y(f"{value}:Q"),
        color=colour,
        shape=_shape(rows),
        tooltip=[
            *_cell_tooltip(),
            *_interval_tooltip(value),
            alt.Tooltip("learning_rate:Q", title="at ε", format="~g"),
            alt.Tooltip("diverged:Q", title="diverged there"),
        ],
    )
    return _sized(bars, line, points)


def _hinge_lines(rows: pl.DataFrame, regimes: pl.DataFrame, up_to: int = 0) -> pl.DataFrame:
    """Return the fitted line of each optimizer as points at the batch sizes, at the bend and at ``up_to``."""
    found = []
    for row in regimes.filter((pl.col("criterion") == "score") & pl.col("bend").is_not_null()).iter_rows(named=True):
        mine = rows.filter(pl.col("optimizer") == row["optimizer"])
        factor = mine["effective_learning_rate"][0] / mine["learning_rate"][0]
        sizes = [*mine["batch_size"], row["bend"], max(up_to, mine["batch_size"][0])]
        x = np.sort(np.log2(sizes))
        y = np.log2(row["level"]) - row["slope"] * np.maximum(0, np.log2(row["bend"]) - x)
        found += [
            {"optimizer": row["optimizer"], "batch_size": 2.0**a, "effective_learning_rate": factor * 2.0**b}
            for a, b in zip(x, y, strict=True)
        ]
    return pl.DataFrame(found)


def _drawable(rows: pl.DataFrame) -> pl.DataFrame:
    """Leave out what is infinite, such as an interval over one seed: JSON has no word for it, and no axis a place."""
    numbers = pl.selectors.float()
    return rows.with_columns(pl.when(numbers.is_finite()).then(numbers).name.keep())


def _near_best(curves: pl.DataFrame, sign: int) -> alt.Scale:
    """Show what lies within reach of the best: twice the span of the batch sizes' best means; the rest is cut."""
    bests = curves.group_by("optimizer", "batch_size").agg(best=(sign * pl.col("test_score")).max())["best"].to_list()
    best, worst = max(bests), min(bests)
    reach = max(best - worst, 0.05 * abs(best)) or 1.0
    ends = sorted([sign * (worst - reach), sign * (best + 0.1 * reach)])
    return alt.Scale(domain=ends, nice=False, clamp=False)


def _octaves_of(rows: pl.DataFrame) -> alt.Axis:
    """Return the axis of learning rates with a tick at each octave: of a short range Vega would tick what is none."""
    octaves = np.log2(rows["learning_rate"].to_numpy())
    values = [2.0**octave for octave in range(math.floor(octaves.min()), math.ceil(octaves.max()) + 1)]
    axis: alt.Axis = RATE_AXIS.copy()
    axis.values = values
    return axis


def _batch_axis(rows: pl.DataFrame) -> alt.X:
    sizes = rows["batch_size"].unique().sort().to_list()
    return alt.X(
        "batch_size:Q",
        title="batch size B",
        scale=alt.Scale(type="log", base=2),
        axis=alt.Axis(values=sizes, format="d"),
    )


def _colour(rows: pl.DataFrame) -> alt.Color:
    domain = _optimizers(rows)
    return alt.Color(
        "optimizer:N",
        title=None,
        legend=alt.Legend(orient="top"),
        scale=alt.Scale(domain=domain, range=_of_each(COLOURS, domain)),
    )


def _shape(rows: pl.DataFrame) -> alt.Shape:
    domain = _optimizers(rows)
    return alt.Shape(
        "optimizer:N",
        title=None,
        legend=alt.Legend(orient="top"),
        scale=alt.Scale(domain=domain, range=_of_each(SHAPES, domain)),
    )


def _optimizers(rows: pl.DataFrame) -> list[str]:
    """Plain SGD first, so that it has the same colour in every figure."""
    names: list[str] = sorted(rows["optimizer"].unique().to_list(), key=lambda name: (name != "sgd", name))
    return names


def _of_each(marks: list[str], optimizers: list[str]) -> list[str]:
    """Return the colours or shapes of optimizers: the first is plain SGD's, and no other's where that is absent."""
    first = 0 if "sgd" in optimizers else 1
    return marks[first : first + len(optimizers)]


def _cell_tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("optimizer:N"),
        alt.Tooltip("batch_size:Q", title="batch size"),
        alt.Tooltip("n:Q", title="n (seeds)"),
    ]


def _interval_tooltip(value: str) -> list[alt.Tooltip]:
    return [
        alt.Tooltip(f"{value}:Q", title="mean", format=".4~g"),
        alt.Tooltip(f"{value}_low:Q", title="95 % low", format=".4~g"),
        alt.Tooltip(f"{value}_high:Q", title="95 % high", format=".4~g"),
    ]


def _sized(*layers: Any) -> alt.LayerChart:
    return alt.LayerChart(layer=list(layers), width=WIDTH, height=HEIGHT)
