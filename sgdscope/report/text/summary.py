"""The answer in words and as a table: the same on the terminal and in the report."""

from __future__ import annotations

from typing import Any

import polars as pl

from sgdscope.analysis.curves import without_score
from sgdscope.analysis.edges import Edges, listed, sides
from sgdscope.analysis.exclusions import learning
from sgdscope.analysis.failures import failure_sentences
from sgdscope.analysis.gaps import gap_sentences
from sgdscope.analysis.goodness import smallest_loss
from sgdscope.analysis.tables import Tables
from sgdscope.analysis.trial_table import CELL_COLUMNS, CRITERIA, Records
from sgdscope.formatting import estimate, exact, interval, number, score
from sgdscope.optimizers import parse_optimizer
from sgdscope.records import WorkloadRecord
from sgdscope.report.figures.figure import counted, how_chosen, plain_first, seeds, several_batch_sizes
from sgdscope.report.figures.noise_scale import noise_scale_sentences
from sgdscope.report.figures.optimal_learning_rate import transition_sentences
from sgdscope.report.figures.two_regimes import regime_sentences
from sgdscope.store import ended
from sgdscope.terminal import TextTable

MARKS = (
    "† uncertain by more than a factor of 8. ‡ its interval reaches the edge of the rates tried: rates beyond it may "
    "be better. § a seed diverged or ended above the constant baseline's training loss. ¶ includes failed trials, as "
    "measured or as the constant baseline."
)


def headings(tables: Tables) -> tuple[str, ...]:
    """Return the headings of the table: workload and budget only where there are several."""
    names = {f"test {record.score_name}{' (%)' * record.in_percent}" for record in tables.records.values()}
    what = names.pop() if len(names) == 1 else "test score"
    over_examples = () if tables.test_set.is_empty() else ("new test data",)
    return (*_varying(tables), "optimizer", "batch", what, *over_examples, "learning rate", "training loss", "failed")


def summary_rows(tables: Tables) -> list[tuple[str, ...]]:
    """Return the rows under the headings as text, one for each optimizer and batch size of each part.

    The score and its rate are those of the rate that is best for the score; the training loss is the best one.
    """
    rows: list[tuple[str, ...]] = []
    over_examples = {
        tuple(row[name] for name in CELL_COLUMNS): row
        for row in tables.test_set.filter(criterion="score").iter_rows(named=True)
    }
    for part in tables.parts:
        scores, losses = (
            {(row["optimizer"], row["batch_size"]): row for row in part.optima.filter(criterion=name).rows(named=True)}
            for name in CRITERIA
        )
        for optimizer, size in plain_first(part.optima, "batch_size").select(CELL).unique(maintain_order=True).rows():
            best, loss = scores.get((optimizer, size)), losses.get((optimizer, size))
            rows.append(
                (
                    *((best or losses[optimizer, size])[name] for name in _varying(tables)),
                    optimizer,
                    str(size),
                    _score(best, part.record) if best else "not finite",
                    *([_new_data(best, over_examples, part.record)] if over_examples else []),
                    _rate(best) if best else "",
                    _loss(loss, part.record) if loss else "not measured",
                    _failed(best or losses[optimizer, size]),
                )
            )
    return rows


def _new_data(
    best: dict[str, Any] | None, over_examples: dict[tuple[Any, ...], dict[str, Any]], record: WorkloadRecord
) -> str:
    """Write the interval over seeds and test examples; where trials failed there is none."""
    row = over_examples.get(tuple(best[name] for name in CELL_COLUMNS)) if best else None
    if row is None or row["population_low"] is None:
        return ""
    low, high = row["population_low"], row["population_high"]
    return interval(100 * low, 100 * high, ".1f") if record.in_percent else interval(low, high, ".3g")


def _failed(row: dict[str, Any]) -> str:
    return f"{row['cell_diverged'] + row['cell_collapsed']}/{row['trials']}"


CELL = ("optimizer", "batch_size")


def caption(tables: Tables) -> str:
    """Say what the numbers of the table are, and what its marks mean."""
    new = (
        ""
        if tables.test_set.is_empty()
        else " New test data: the interval for other test data of this kind, over seeds and test examples."
    )
    diverged, collapsed, trials = (int(tables.curves[name].sum()) for name in ("diverged", "collapsed", "n"))
    how = {"diverged": diverged, "collapsed": collapsed}
    which = " and ".join(f"{count:,} {word}" for word, count in how.items() if count) or "none did"
    return (
        f"[low, high]: 95 % intervals over {seeds(tables.optima)}, for this test set.{new} failed: trials that "
        f"failed to train, at any rate; of {trials:,} trials {which}. "
        f"{how_chosen(tables.record)} {MARKS}"
    )


def summary_table(tables: Tables) -> TextTable:
    """Return the table for the terminal."""
    left = len(_varying(tables)) + 1
    return TextTable(headings(tables), summary_rows(tables), left=left, names=left + 1, caption=caption(tables))


def sentences(tables: Tables) -> list[str]:
    """Say what was found for one workload and budget: transitions, regimes, failures, what is missing."""
    several = several_batch_sizes(tables)
    said = edge_sentences(tables.optima)
    said += transition_sentences(tables) if several else []
    said += failure_sentences(tables.failures)
    said += noise_scale_sentences(tables)
    said += regime_sentences(tables) if several else []
    said += coefficient_sentences(tables) + gap_sentences(tables.trials, tables.records)
    said += _without_score(tables) + _without_optimum(tables) + _above_constant(tables) + _without_learning(tables)
    if not tables.optima.is_empty() and tables.optima["n"].max() == 1:
        said.append("One seed gives no intervals, so nothing is decided. Add seeds.")
    return said


def edge_sentences(optima: pl.DataFrame) -> list[str]:
    """Say at which batch sizes an optimum lies at an edge of the rates tried, and which rates to add.

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
            f"parentheses: the values that no other value beats significantly (95 %, {counted(mine['n'][0])})."
        )
    return said


def saturation_sentences(saturation: pl.DataFrame, records: Records) -> list[str]:
    """Say from how many epochs on each criterion gains no more under an unlimited budget, or that it still gains."""
    said = []
    for row in plain_first(saturation.drop_nulls("best"), "batch_size").iter_rows(named=True):
        record, is_score = records[row["workload"]], row["criterion"] == "score"
        what = f"test {record.score_name}" if is_score else "training loss"
        ends = row["best"], row["best_low"], row["best_high"]
        best = score(*ends, record.in_percent) if is_score else estimate(*ends, ".2g")
        if row["saturated_at"] is not None:
            state = f"gains no more from {row['saturated_at']:g} epochs on"
        else:
            state = (
                "still gains, or is undecided, at the largest budget" if row["ceiling_reached"] else "is undecided yet"
            )
        said.append(
            f"{row['workload']}, {row['optimizer']} at batch size {row['batch_size']}: {what} {state}. Best: {best} at "
            f"{row['best_epochs']:g} epochs; up to {row['epochs_tried']:g} were run (95 %, {counted(row['n'])})."
        )
    return said


def _varying(tables: Tables) -> list[str]:
    return [name for name in ("workload", "budget") if tables.trials[name].n_unique() > 1]


def _without_optimum(tables: Tables) -> list[str]:
    """Name the cells in which too many trials failed at every rate: they are in no figure, and must not be missed."""
    cells = tables.failures.group_by(CELL, maintain_order=True).agg(
        trials=pl.col("n").sum(), failed=pl.col("diverged").sum() + pl.col("collapsed").sum()
    )
    missing = cells.join(tables.optima, on=CELL, how="anti").filter(pl.col("failed") > 0)
    return [
        f"{row['optimizer']} at batch size {row['batch_size']}: no learning rate tried can be the best, because "
        f"{row['failed']} of {row['trials']} trials failed to train."
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
    cells = trials.select(CELL).unique().join(tables.optima.filter(criterion="score"), on=CELL, how="anti")
    cells = plain_first(cells.join(without, on=CELL, how="semi"), "batch_size")
    return [said] + [
        f"{name} at batch size {', '.join(map(str, sizes))}: no learning rate has a score for every seed."
        for name, sizes in cells.group_by("optimizer", maintain_order=True).agg("batch_size").iter_rows()
    ]


def _above_constant(tables: Tables) -> list[str]:
    """Say where the rate that is best for the training loss lets seeds end worse than the constant baseline."""
    losses = tables.optima.filter(pl.col("criterion") == "train_loss", pl.col("above_constant") > 0)
    return [
        f"{row['optimizer']} at batch size {row['batch_size']}: learning rate {row['learning_rate']:.2g} has the "
        f"lowest training loss on average, but {row['above_constant']} of {counted(row['n'])} diverged or ended above "
        f"the constant baseline. Choose a lower rate for a reliable training run."
        for row in plain_first(losses, "batch_size").iter_rows(named=True)
    ]


def _without_learning(tables: Tables) -> list[str]:
    """Name the cells that take part in no fit, since they have learned next to nothing."""
    with_optimum = set(tables.optima.filter(criterion="score").select(CELL).iter_rows())
    said = []
    for of in learning(tables.trials, tables.records):
        name = of.key["optimizer"]
        if sizes := [size for size in of.unlearned if (name, size) in with_optimum]:
            said.append(
                f"{name} at batch size {', '.join(map(str, sizes))}: excluded from fits and claims. The score improved "
                f"less than 10 % as much over the constant baseline as at the best batch size."
            )
    return said


def _score(row: dict[str, Any], record: WorkloadRecord) -> str:
    ends = row["test_score"], row["test_score_low"], row["test_score_high"]
    return score(*ends, record.in_percent).removesuffix(" %") + "¶" * bool(row["diverged"] + row["collapsed"])


def _rate(row: dict[str, Any]) -> str:
    mark = "‡" if row["censored"] else "†" * bool(row["flat"])
    return estimate(row["learning_rate"], row["learning_rate_low"], row["learning_rate_high"], ".2g") + mark


def _loss(row: dict[str, Any], record: WorkloadRecord) -> str:
    floor, marks = smallest_loss(record), "‡" * bool(row["censored"]) + "§" * bool(row["above_constant"])
    if row["train_loss_high"] <= floor * (1 + 1e-9):
        return f"≤{number(floor)}{marks}"
    return estimate(row["train_loss"], row["train_loss_low"], row["train_loss_high"], ".2g") + marks
