"""The answer in words and as a table: the same on the terminal and on the page."""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from sgdscope.analysis.curve import smallest_loss
from sgdscope.analysis.edges import Edges, listed, sides
from sgdscope.analysis.exclusions import learning
from sgdscope.analysis.gaps import gap_sentences
from sgdscope.analysis.optima import without_score
from sgdscope.analysis.regimes import FEWEST_IN_REGIME, batch_sizes_to_add, regime_limits
from sgdscope.analysis.tables import Tables
from sgdscope.analysis.transitions import AT_EDGE, FEWEST_BATCH_SIZES, IDENTIFIED, NOWHERE, THROUGHOUT, TOO_FEW
from sgdscope.analysis.trial_table import CRITERIA, Criterion, Records
from sgdscope.budget import MOST_EXAMPLES, Steps, known_budget
from sgdscope.formatting import exact, examples, interval, number, with_half_width
from sgdscope.optimizers import parse_optimizer
from sgdscope.records import WorkloadRecord
from sgdscope.store import ended
from sgdscope.terminal import TextTable

HEADINGS = (
    "optimizer",
    "batch",
    "test score",
    "optimal rate",
    "training loss",
    "diverged",
    "n",
)

CAPTION = (
    "±, [ ] and ×÷ (a factor) are 95 % intervals over n seeds, for this test set; "
    "† is flat: not identified within 3 octaves; ‡ is at the edge of the rates tried: rates beyond it may be better; "
    "§ at this rate a seed diverged or ended above the constant baseline's training loss"
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
        scores, losses = (
            {(r["optimizer"], r["batch_size"]): r for r in _of(part.optima, criterion)} for criterion in CRITERIA
        )
        cells = plain_first(part.optima, "batch_size").select("optimizer", "batch_size")
        for cell in cells.unique(maintain_order=True).rows():
            score, loss = scores.get(cell), losses.get(cell)
            row = score or losses[cell]
            rows.append(
                (
                    *(row[name] for name in _told_apart(tables)),
                    row["optimizer"],
                    str(row["batch_size"]),
                    with_half_width(score["test_score"], score["test_score_high"] - score["test_score"])
                    if score
                    else "not finite",
                    _rate(score) if score else "",
                    _loss(loss, part.record) if loss else "not measured",
                    f"{row['cell_diverged']}/{row['trials']}",
                    str(row["n"]),
                )
            )
    return rows


def summary_table(tables: Tables) -> TextTable:
    """Return the table for the terminal."""
    left = len(_told_apart(tables)) + 1
    return TextTable(headings(tables), summary_rows(tables), left=left, names=left + 1, caption=_caption(tables))


def _told_apart(tables: Tables) -> list[str]:
    return [name for name in ("workload", "budget") if tables.trials[name].n_unique() > 1]


def _caption(tables: Tables) -> str:
    flattered = tables.record.chosen_on == "test"
    return f"{CAPTION}; the learning rate is the one that is {how_chosen(tables.record)}" if flattered else CAPTION


def sentences(tables: Tables) -> list[str]:
    """Say what was found for one workload and budget: where rates bend, where scores fall, where momentum leads."""
    several = tables.trials["batch_size"].n_unique() > 1
    found = edge_sentences(tables.optima)
    found += transition_sentences(tables) if several else []
    found += noise_scale_sentences(tables)
    found += regime_sentences(tables) + threshold_sentences(tables) if several else []
    found += coefficient_sentences(tables)
    found += gap_sentences(tables.trials, tables.records)
    found += _without_score(tables) + _without_optimum(tables) + _above_constant(tables)
    return found + _without_learning(tables) + _without_interval(tables)


def edge_sentences(optima: pl.DataFrame) -> list[str]:
    """Say at which batch sizes an optimum lies at an edge of the rates tried, and which rates would tell.

    Args:
        optima: of one workload and budget.
    """
    said = []
    for optimizer in plain_first(optima)["optimizer"].unique(maintain_order=True):
        for criterion, what in zip(CRITERIA, ("test score", "training loss"), strict=True):
            mine = optima.filter(optimizer=optimizer, criterion=criterion)
            for sizes, edge, wanted in sides(edges_in(mine)):
                at = f"batch size{'s' if len(sizes) > 1 else ''} {listed(sizes)}"
                said.append(
                    f"{optimizer}: add {wanted} learning rates at {at}. The best rate for the {what} lies at the "
                    f"{edge} of the rates tried there, so no verdict rests on {'it' if len(sizes) == 1 else 'them'}."
                )
    return said


def edges_in(optima: pl.DataFrame) -> Edges:
    """Return at which batch sizes of one optimizer the optimum lies at an edge of the rates tried, by one criterion."""
    rows = optima.filter(pl.col("censored") != "").select("batch_size", "censored").iter_rows()
    return {size: tuple(ends.split("+")) for size, ends in rows}


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


def transition_sentences(tables: Tables, *criteria: Criterion) -> list[str]:
    """Say for each optimizer and criterion where the learning rate stops growing, or that this is not identified."""
    said = []
    wanted = tables.transitions.filter(pl.col("criterion").is_in(criteria or CRITERIA))
    for row in plain_first(wanted, "criterion").iter_rows(named=True):
        what = "best test score" if row["criterion"] == "score" else "lowest training loss"
        who = f"{row['optimizer']}, learning rate for the {what}"
        if row["status"] == TOO_FEW:
            few, tried = row["batch_sizes"], tables.trials.filter(optimizer=row["optimizer"])["batch_size"].n_unique()
            count = f"{few} of {tried} batch sizes can be compared, which" if few < tried else f"{few} batch size"
            count += " is" if few == 1 or few < tried else "s are"
            said.append(f"{who}: {count} too few to find where it stops growing.")
            continue
        out = f" Left out: {row['left_out']}, at the edge of the rates tried." if row["left_out"] else ""
        if row["status"] == AT_EDGE:
            said.append(
                f"{who}: where it stops growing is unknown. It lies inside the rates tried at fewer than "
                f"{FEWEST_BATCH_SIZES} batch sizes.{out}"
            )
            continue
        if row["status"] in (NOWHERE, THROUGHOUT):
            said.append(f"{who}: {_one_regime(row, tables)}{out}")
            continue
        ends = f"95 % interval {examples(row['transition_low'])} to {examples(row['transition_high'])}"
        slope = f"{number(row['slope'], '.2f')} {interval(row['slope_low'], row['slope_high'], '.2f')}"
        growth = f"slope below it {slope}"
        fit = f"bend at {row['transition']:.0f}, {ends}; {growth}; n = {row['n']}"
        if row["transition"] >= tables.trials["batch_size"].max():
            said.append(f"{who}: no bend was found within the batch sizes ({growth}; n = {row['n']}).{out}")
        elif row["status"] == IDENTIFIED:
            said.append(f"{who}: stops growing with the batch size at about {row['transition']:.0f} ({fit}).{out}")
        else:
            said.append(
                f"{who}: where it stops growing is not identified ({fit}); more seeds or batch sizes would tell.{out}"
            )
    return said


def _one_regime(row: dict[str, Any], tables: Tables) -> str:
    """Say that a rate grows nowhere, or throughout, and what to add."""
    inside = tables.optima.filter(optimizer=row["optimizer"], criterion=row["criterion"], censored="")
    sizes = inside["batch_size"].sort().to_list()
    ends = interval(row["slope_low"], row["slope_high"], ".2f")
    slope = f"slope {number(row['slope'], '.2f')} {ends}, n = {row['n']}"
    regime, add = ("curvature", "smaller batch sizes or more epochs") if row["status"] == NOWHERE else ("noise", "")
    text = f"{row['status']} between {sizes[0]} and {sizes[-1]}"
    text += f": {regime}-dominated throughout" if row["criterion"] == "score" else ""
    return f"{text} ({slope}). To find the transition, add {add or 'larger batch sizes'}."


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
    for row in tables.transitions.filter(criterion="score", optimizer=who).iter_rows(named=True):
        if row["transition"] is not None and row["transition"] < tables.trials["batch_size"].max():
            near = min(sizes, key=lambda size: abs(math.log(size / row["transition"])))
            transition, low, high = (examples(row[f"transition{end}"]) for end in ("", "_low", "_high"))
            beside = f"; the bend is at {transition} [{low}, {high}], {row['status']}"
    said = []
    for row in measured.filter(optimizer=who, batch_size=near).sort("step").iter_rows(named=True):
        part = row["fraction"]
        when = "at the start" if row["step"] == 0 else "at the end" if part == 1 else f"at {part:.0%} of the budget"
        value = "not identified"
        if row["identified"]:
            scale, low, high = (examples(row[f"noise_scale{end}"]) for end in ("", "_low", "_high"))
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
    for row in plain_first(tables.transitions.filter(criterion="score"), "criterion").iter_rows(named=True):
        mine = tables.regimes.filter(optimizer=row["optimizer"])
        multiple, most = tables.record.batch_multiple, tables.record.examples[0] or MOST_EXAMPLES
        low, high = regime_limits(tables.transitions, row["workload"], row["budget"], row["optimizer"])
        possible = range(multiple, most + 1, multiple)
        add = batch_sizes_to_add(mine["batch_size"].to_list(), low, high, possible)
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
    for row in plain_first(tables.score_limits, "quantity").iter_rows(named=True):
        if at_steps and row["quantity"] == "B_score":
            continue
        out = f" Left out: {row['left_out']}, at the edge of the rates tried." if row["left_out"] else ""
        if row["left_out"] and row["batch_sizes"] < 2 and (row["quantity"] == "B_score" or not row["batch_sizes"]):
            what = "batch sizes are not compared" if row["quantity"] == "B_score" else "not compared with sgd"
            said.append(f"{row['optimizer']}: {what}.{out}")
            continue
        score, low, high, margin = f"test {tables.record.score_name}", row["low"], row["high"], number(row["margin"])
        if row["quantity"] == "B_score":
            lost = "not shown to be lost at any" if high is None else f"to be lost by {high}"
            # With the smallest batch size the others are compared: that it holds there says nothing.
            tried = inside_of(tables, row["optimizer"])
            held = f"at no batch size beyond {low}, the smallest" if low == tried[0] else f"up to batch size {low}"
            within = f"to within {margin}, n = {row['n']}" + (
                f"; {low} is the largest tried" if low == tried[-1] else ""
            )
            said.append(f"{row['optimizer']}: {score} is shown to hold {held}, and {lost} ({within}).{out}")
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
            said.append(f"{row['optimizer']} against sgd{where}: {score} is {shown} (n = {row['n']}).{out}")
    return said


def inside_of(tables: Tables, optimizer: str) -> list[int]:
    """Return the batch sizes of an optimizer whose best rate for the score lies inside the rates tried, ascending."""
    mine = tables.optima.filter(optimizer=optimizer, criterion="score", censored="")
    return mine["batch_size"].sort().to_list() or [0]


def saturation_sentences(saturation: pl.DataFrame, records: Records) -> list[str]:
    """Say at how many epochs each criterion stopped gaining under an unlimited budget, or that it did not."""
    said = []
    for row in plain_first(saturation, "batch_size").iter_rows(named=True):
        what = f"test {records[row['workload']].score_name}" if row["criterion"] == "score" else "training loss"
        who = f"{row['workload']}, {row['optimizer']} at batch size {row['batch_size']}: {what}"
        if row["best"] is None:
            continue
        ends = interval(row["best_low"], row["best_high"], ".4g")
        best = f"best {number(row['best'], '.4g')} {ends} at {row['best_epochs']:g} epochs"
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
    missing = cells.join(tables.optima, on=["optimizer", "batch_size"], how="anti").filter(pl.col("diverged") > 0)
    return [
        f"{row['optimizer']} at batch size {row['batch_size']}: no learning rate tried is eligible, since "
        f"{row['diverged']} of {row['trials']} trials diverged."
        for row in plain_first(missing, "batch_size").iter_rows(named=True)
    ]


def _without_score(tables: Tables) -> list[str]:
    """Say how many trials have no score though their training loss is finite: they did not diverge."""
    trials, without = ended(tables.trials), without_score(tables.trials)
    if without.is_empty():
        return []
    said = (
        f"{len(without):,} of {len(trials):,} trials have no score: it is not finite, though the training loss is. "
        f"They did not diverge, and their training loss counts. Where scores are compared, a learning rate is left "
        f"out if more than half of its trials lack a score, else their seeds are. Check what computes the score."
    )
    scored = tables.optima.filter(criterion="score")
    cells = trials.select("optimizer", "batch_size").unique().join(scored, on=["optimizer", "batch_size"], how="anti")
    cells = cells.join(without, on=["optimizer", "batch_size"], how="semi")
    named = plain_first(cells, "batch_size").group_by("optimizer", maintain_order=True).agg("batch_size")
    return [said] + [
        f"{name} at batch size {', '.join(map(str, sizes))}: no learning rate has a score for every seed."
        for name, sizes in named.iter_rows()
    ]


def _above_constant(tables: Tables) -> list[str]:
    """Say where the rate that is best for the training loss lets seeds end worse than the constant predictor."""
    losses = tables.optima.filter(pl.col("criterion") == "train_loss", pl.col("above_constant") > 0)
    return [
        f"{row['optimizer']} at batch size {row['batch_size']}: learning rate {row['learning_rate']:.2g} has the "
        f"lowest training loss on average, but {row['above_constant']} of {row['n']} seeds diverged or ended above the "
        f"constant baseline. Choose a lower rate for a reliable training run."
        for row in plain_first(losses, "batch_size").iter_rows(named=True)
    ]


def _without_learning(tables: Tables) -> list[str]:
    """Name the cells that take part in no fit, since they have learned next to nothing."""
    with_optimum = set(tables.optima.filter(criterion="score").select("optimizer", "batch_size").iter_rows())
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


def _rate(row: dict[str, Any]) -> str:
    ends = interval(row["learning_rate_low"], row["learning_rate_high"])
    return f"{number(row['learning_rate'])} {ends}{_remark(row)}"


def _loss(row: dict[str, Any], record: WorkloadRecord) -> str:
    floor, above = smallest_loss(record), "‡" * bool(row["censored"]) + "§" * bool(row["above_constant"])
    if row["train_loss_high"] <= floor * (1 + 1e-9):
        return f"≤{number(floor)}{above}"
    return f"{number(row['train_loss'])} ×÷{number(_factor(row))}{above}"


def _factor(row: dict[str, Any]) -> float:
    """The interval of a geometric mean is symmetric as a factor."""
    factor: float = row["train_loss_high"] / row["train_loss"]
    return factor


def _remark(row: dict[str, Any]) -> str:
    if row["censored"]:
        return "‡"
    return "†" if row["flat"] else ""
