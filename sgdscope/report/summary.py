"""The answer in words and as a table: the same on the terminal and on the page."""

from __future__ import annotations

import math
from typing import Any, Literal

import polars as pl
from rich import box
from rich.table import Table

from sgdscope.analysis.curves import CRITERIA, Criterion, Records
from sgdscope.analysis.learning import learning
from sgdscope.analysis.regimes import FEWEST_IN_REGIME, batch_sizes_to_add, regime_limits
from sgdscope.analysis.tables import Tables
from sgdscope.budget import MOST_EXAMPLES, Steps, exact, known_budget
from sgdscope.optimizers import parse_optimizer
from sgdscope.store import ended
from sgdscope.workloads.base import WorkloadRecord

HEADINGS = (
    "optimizer",
    "batch",
    "test score",
    "optimal rate",
    "training loss",
    "diverged",
    "n",
)

# Where the terminal is narrow these columns fold, and none is lost.
WRAPPED = ("test score", "optimal rate", "training loss")

CAPTION = (
    "±, [ ] and ×÷ (a factor) are 95 % intervals over n seeds, for this test set; "
    "† is flat: not identified within 3 octaves; ‡ is censored: the interval reaches the edge of the rates tried"
)


def how_chosen(record: WorkloadRecord) -> str:
    """Say on which split learning rates were chosen for their score, and what that means for what is reported."""
    if record.chosen_on == "test":
        return (
            "best on the test split itself, as in the talk: scores that are chosen and reported on the same examples "
            "are flattered"
        )
    return "best on the validation split; its test score is reported, so choosing does not flatter it"


def headings(tables: Tables) -> tuple[str, ...]:
    """Return the headings of the table: workload and budget only where there are several."""
    return (*_told_apart(tables), *HEADINGS)


def summary_rows(tables: Tables) -> list[tuple[str, ...]]:
    """Return the rows under the headings as text, one for each optimizer and batch size of each part.

    The score and its rate are those of the rate that is best on the split that is chosen on; the training loss is
    the best.
    """
    rows: list[tuple[str, ...]] = []
    for part in tables.parts:
        losses = {(r["optimizer"], r["batch_size"]): r for r in _of(part.optima, "train_loss")}
        for row in _of(part.optima, "score"):
            loss = losses.get((row["optimizer"], row["batch_size"]))
            rows.append(
                (
                    *(row[name] for name in _told_apart(tables)),
                    row["optimizer"],
                    str(row["batch_size"]),
                    with_half_width(row["test_score"], row["test_score_high"] - row["test_score"]),
                    _rate(row),
                    f"{loss['train_loss']:.2g} ×÷{short(_factor(loss))}" if loss else "not measured",
                    f"{row['cell_diverged']}/{row['trials']}",
                    str(row["n"]),
                )
            )
    return rows


def summary_table(tables: Tables) -> Table:
    """Return the table for the terminal."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False, show_edge=False, caption=_caption(tables))
    names, left = headings(tables), len(_told_apart(tables)) + 1
    for number, heading in enumerate(names):
        justify: Literal["left", "right"] = "left" if number < left else "right"
        table.add_column(heading, justify=justify, no_wrap=heading not in WRAPPED, overflow="fold")
    rows, previous = summary_rows(tables), None
    groups = len({row[:left] for row in rows})
    for row in rows:
        if previous not in (None, row[:left]) and groups < len(rows):
            table.add_section()
        table.add_row(*row)
        previous = row[:left]
    return table


def _told_apart(tables: Tables) -> list[str]:
    return [name for name in ("workload", "budget") if tables.trials[name].n_unique() > 1]


def _caption(tables: Tables) -> str:
    flattered = tables.record.chosen_on == "test"
    return f"{CAPTION}; the learning rate is the one that is {how_chosen(tables.record)}" if flattered else CAPTION


def sentences(tables: Tables) -> list[str]:
    """Say what was found for one workload and budget: where rates bend, where scores fall, where momentum leads."""
    several = tables.trials["batch_size"].n_unique() > 1
    found = bend_sentences(tables) if several else []
    found += noise_scale_sentences(tables)
    found += regime_sentences(tables) + threshold_sentences(tables) if several else []
    found += coefficient_sentences(tables)
    return found + _without_optimum(tables) + _without_learning(tables) + _without_interval(tables)


def coefficient_sentences(tables: Tables) -> list[str]:
    """Say which value of a searched coefficient was chosen at each batch size: a sentence an optimizer."""
    rows = tables.optima.filter(pl.col("criterion") == "score", pl.col("coefficient").is_not_null())
    said = []
    for (optimizer,), mine in rows.sort("batch_size").group_by("optimizer", maintain_order=True):
        name = parse_optimizer(str(optimizer)).searched
        chosen = [
            f"{exact(row['coefficient'])} at batch size {row['batch_size']} ({row['coefficient_contenders']})"
            for row in mine.iter_rows(named=True)
        ]
        said.append(
            f"{optimizer}: {name} was chosen with the learning rate by the validation score: {', '.join(chosen)}. In "
            f"brackets are the values that no other leads beyond chance (95 %, {mine['n'][0]} seeds)."
        )
    return said


def bend_sentences(tables: Tables, *criteria: Criterion) -> list[str]:
    """Say for each optimizer and criterion where the learning rate stops growing, or that this is not identified."""
    said = []
    wanted = tables.regimes.filter(pl.col("criterion").is_in(criteria or CRITERIA))
    for row in plain_first(wanted, "criterion").iter_rows(named=True):
        what = "best test score" if row["criterion"] == "score" else "lowest training loss"
        who = f"{row['optimizer']}, learning rate for the {what}"
        if row["status"] == "too few batch sizes":
            said.append(f"{who}: {row['batch_sizes']} batch sizes are too few to find where it stops growing.")
            continue
        interval = f"95 % interval {whole(row['bend_low'])} to {whole(row['bend_high'])}"
        low, high = (short(row[end], ".2f") for end in ("slope_low", "slope_high"))
        growth = f"slope below it {row['slope']:.2f} [{low}, {high}]"
        fit = f"bend at {row['bend']:.0f}, {interval}; {growth}; n = {row['n']}"
        if row["bend"] >= tables.trials["batch_size"].max():
            said.append(f"{who}: no bend was found within the batch sizes ({growth}; n = {row['n']}).")
        elif row["status"] == "identified":
            said.append(f"{who}: stops growing with the batch size at about {row['bend']:.0f} ({fit}).")
        else:
            said.append(
                f"{who}: where it stops growing is not identified ({fit}); more seeds or batch sizes would tell."
            )
    return said


def noise_scale_sentences(tables: Tables) -> list[str]:
    """Say what the gradient noise scale was along training, beside the bend, where it was measured: one sentence.

    It is of plain SGD where that was trained, at the batch size nearest to its bend by the score, or at the middle one
    where no bend was found, and at the learning rate that is best for the score.
    """
    if tables.noise_scale.is_empty():
        return []
    measured = tables.optima.filter(criterion="score").join(
        tables.noise_scale, on=["optimizer", "batch_size", "learning_rate"], suffix="_noise"
    )
    if measured.is_empty():
        return []
    who = plain_first(measured, "batch_size")["optimizer"][0]
    sizes = measured.filter(optimizer=who)["batch_size"].unique().sort().to_list()
    near, beside = sizes[(len(sizes) - 1) // 2], ""
    for row in tables.regimes.filter(criterion="score", optimizer=who).iter_rows(named=True):
        if row["bend"] is not None and row["bend"] < tables.trials["batch_size"].max():
            near = min(sizes, key=lambda size: abs(math.log(size / row["bend"])))
            bend, low, high = (whole(row[f"bend{end}"]) for end in ("", "_low", "_high"))
            beside = f"; the bend is at {bend} [{low}, {high}], {row['status']}"
    said = []
    for row in measured.filter(optimizer=who, batch_size=near).sort("step").iter_rows(named=True):
        part = row["fraction"]
        when = "at the start" if row["step"] == 0 else "at the end" if part == 1 else f"at {part:.0%} of the budget"
        value = "not identified"
        if row["identified"]:
            scale, low, high = (whole(row[f"noise_scale{end}"]) for end in ("", "_low", "_high"))
            value = f"{scale} [{low}, {high}]"
        said.append(f"{value} {when} (n = {row['n_noise']})")
    ghosts = tables.record.ghost_batch_size
    how = f", from differences of ghost batches of {ghosts}" if ghosts > 1 else ""
    return [
        f"Context, not a verdict: the gradient noise scale tr Σ/|G|² of {who}, batch size {near}, best rate for the "
        f"score: {', '.join(said)}{how}{beside}."
    ]


def regime_sentences(tables: Tables) -> list[str]:
    """Say which batch sizes the regimes hold, and which would have to be added where they are few.

    The one regime ends at SGD's bend and the other begins at the optimizer's own: what is unknown is not said.
    """
    said: list[str] = []
    for row in plain_first(tables.regimes.filter(criterion="score"), "criterion").iter_rows(named=True):
        mine = tables.regime_of_batch_sizes.filter(optimizer=row["optimizer"])
        multiple, most = tables.record.batch_multiple, tables.record.examples[0] or MOST_EXAMPLES
        low, high = regime_limits(tables.regimes, row["workload"], row["budget"], row["optimizer"])
        possible = range(multiple, most + 1, multiple)
        add = batch_sizes_to_add(mine["batch_size"].to_list(), low or 0.0, high or math.inf, possible)
        parts = []
        for regime, limit in (("noise", low), ("curvature", high)):
            if limit is None:
                continue
            sizes = mine.filter(regime=regime)["batch_size"].to_list()
            text = f"{regime}-dominated {'are' if len(sizes) != 1 else 'is'} {', '.join(map(str, sizes)) or 'none'}"
            if len(sizes) < FEWEST_IN_REGIME:
                wanted = ", ".join(map(str, add[regime])) or "none that is possible"
                text += f" (too few to identify it; to add: {wanted})"
            parts.append(text)
        if parts:
            said.append(f"{row['optimizer']}, of the batch sizes: {'; '.join(parts)} (95 %, n = {row['n']}).")
    return said


def threshold_sentences(tables: Tables) -> list[str]:
    """Say up to which batch size each optimizer's score is shown to hold, and where momentum is first shown to lead.

    At a constant number of steps the smallest batch sizes learn least: there is no plateau that begins with them.
    """
    said = []
    at_steps = isinstance(known_budget(tables.trials["budget"][0]), Steps)
    for row in plain_first(tables.thresholds, "quantity").iter_rows(named=True):
        if at_steps and row["quantity"] == "B_score":
            continue
        score, low, high, margin = f"test {tables.record.score_name}", row["low"], row["high"], f"{row['margin']:.2g}"
        if row["quantity"] == "B_score":
            lost = "not shown to be lost at any" if high is None else f"to be lost by {high}"
            # With the smallest batch size the others are compared: that it holds there says nothing.
            smallest = low == tables.trials.filter(pl.col("optimizer") == row["optimizer"])["batch_size"].min()
            held = f"at no batch size beyond {low}, the smallest" if smallest else f"up to batch size {low}"
            said.append(
                f"{row['optimizer']}: {score} is shown to hold {held}, and {lost} (to within {margin}, n = {row['n']})."
            )
        elif row["batch_sizes"] > 0:
            where = " where momentum had warmed up" if row["warmed_up"] else ""
            ahead = f"to be ahead by more than {margin}"
            if low is None and high is None:
                shown = f"shown neither {ahead} nor not to be, at any batch size"
            elif high is None:
                shown = f"shown {ahead} at no batch size, and shown not to be up to batch size {low}"
            else:
                shown = f"first shown {ahead} at batch size {high}"
                shown += f", and shown not to be up to batch size {low}" if low else "; at none is it shown not to be"
            said.append(f"{row['optimizer']} against sgd{where}: {score} is {shown} (n = {row['n']}).")
    return said


def unlimited_sentences(unlimited: pl.DataFrame, records: Records) -> list[str]:
    """Say at how many epochs each criterion stopped gaining under an unlimited budget, or that it did not."""
    said = []
    for row in plain_first(unlimited, "batch_size").iter_rows(named=True):
        what = f"test {records[row['workload']].score_name}" if row["criterion"] == "score" else "training loss"
        who = f"{row['workload']}, {row['optimizer']} at batch size {row['batch_size']}: {what}"
        if row["best"] is None:
            continue
        low, high = (short(row[end], ".4g") for end in ("best_low", "best_high"))
        best = f"best {row['best']:.4g} [{low}, {high}] at {row['best_epochs']:g} epochs"
        if row["saturated_at"] is not None:
            state = f"gains no more from {row['saturated_at']:g} epochs on"
        else:
            state = "ceiling reached, still gaining or too uncertain" if row["ceiling_reached"] else "not decided yet"
        said.append(f"{who} {state}; {best}, {row['epochs_tried']:g} tried (n = {row['n']}).")
    return said


def _without_optimum(tables: Tables) -> list[str]:
    """Name the cells in which too many trials diverged at every rate: they are in no figure, and must not be missed."""
    cells = (
        ended(tables.trials)
        .group_by("optimizer", "batch_size")
        .agg(trials=pl.len(), diverged=(pl.col("status") == "diverged").sum())
    )
    missing = cells.join(tables.optima, on=["optimizer", "batch_size"], how="anti")
    return [
        f"{row['optimizer']} at batch size {row['batch_size']}: no learning rate tried is eligible, since "
        f"{row['diverged']} of {row['trials']} trials diverged."
        for row in plain_first(missing, "batch_size").iter_rows(named=True)
    ]


def _without_learning(tables: Tables) -> list[str]:
    """Name the cells that take part in no fit, since they have learned next to nothing."""
    with_optimum = set(tables.optima.select("optimizer", "batch_size").iter_rows())
    found = ((of.key["optimizer"], of.unlearned) for of in learning(tables.trials, tables.records))
    kept = [(name, [size for size in sizes if (name, size) in with_optimum]) for name, sizes in found]
    return [
        f"{name} at batch size {', '.join(map(str, sizes))}: next to nothing was learned, under a tenth of the best "
        f"cell's gain over the constant predictor; left out of where rates bend and of all claims."
        for name, sizes in kept
        if sizes
    ]


def _without_interval(tables: Tables) -> list[str]:
    if tables.optima.is_empty() or tables.optima["n"].max() != 1:
        return []
    return ["one seed has no interval, so nothing is shown: more seeds would tell."]


def _of(optima: pl.DataFrame, criterion: str) -> list[dict[str, Any]]:
    rows = optima.filter(pl.col("criterion") == criterion)
    return list(plain_first(rows, "batch_size").iter_rows(named=True))


def plain_first(rows: pl.DataFrame, *then: str) -> pl.DataFrame:
    """Plain SGD before the others, as in the figures."""
    return rows.sort(pl.col("optimizer") != "sgd", "optimizer", *then, maintain_order=True)


def short(value: float, form: str = ".2g") -> str:
    """Say the end of an interval, which over one seed is infinite.

    >>> short(0.123), short(float("-inf"), ".2f")
    ('0.12', '−∞')
    """
    return f"{value:{form}}".replace("inf", "∞").replace("-∞", "−∞")


def with_half_width(mean: float, half: float, sign: str = "") -> str:
    """Say a mean and its interval with enough decimals for a first digit of the interval, at least 3."""
    decimals = 3 if not 0 < half < math.inf else max(3, -math.floor(math.log10(half)))
    return f"{mean:{sign}z.{decimals}f} ±{short(half, f'.{decimals}f')}"


def _rate(row: dict[str, Any]) -> str:
    low, high = short(row["learning_rate_low"]), short(row["learning_rate_high"])
    return f"{row['learning_rate']:.2g} [{low},{high}]{_remark(row)}"


def _factor(row: dict[str, Any]) -> float:
    """The interval of a geometric mean is symmetric as a factor."""
    factor: float = row["train_loss_high"] / row["train_loss"]
    return factor


def _remark(row: dict[str, Any]) -> str:
    if row["censored"]:
        return "‡"
    return "†" if row["flat"] else ""


def whole(value: float) -> str:
    """Say a number of examples, which an interval may put below any or beyond all."""
    if value < 1:
        return "below 1"
    return f"{value:.0f}" if value < 1e6 else "beyond any"
