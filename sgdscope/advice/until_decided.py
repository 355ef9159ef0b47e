"""Run until questions are decided: the cells that get the seeds of the next declared look."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import polars as pl
from scipy import special

from sgdscope.advice.advice import Advice
from sgdscope.advice.next_trials import MOST_ASKED, deviation, seeds_for_lead, seeds_for_loss
from sgdscope.analysis.reporting import FEWEST_REPORTING
from sgdscope.analysis.tables import Tables
from sgdscope.seeds import LOOKS, Seeds, SeedsAt, united_at
from sgdscope.stats.equivalence import ALPHA
from sgdscope.study import Declaration

# What all looks but the last spend of a test's level together: the last one then keeps its own, as without looks.
INTERIM_SHARE = 0.1
INTERIM_ALPHA = INTERIM_SHARE * ALPHA / (len(LOOKS) - 1)


def raised(
    declaration: Declaration, tables: Tables, most: int = LOOKS[-1], advice: Advice | None = None
) -> tuple[SeedsAt, ...]:
    """Return the seeds of cells at the next look of a study whose trials are complete; empty where none is needed.

    A question is whether a batch size loses more than the margin, or whether an optimizer is better or worse than SGD
    at a batch size. It is closed where its test rejects at ``INTERIM_ALPHA``, or where more than 100 seeds would be
    needed. The cells of all others, and the equivalent batch sizes that they are compared with, get their best rates
    raised to the next of the looks that are declared in :data:`~sgdscope.seeds.LOOKS`. What is returned follows from
    the declaration and the trials alone, so a run that is stopped anywhere comes to the same trials.

    A verdict that the tables then show is false in at most 1.1 times its level, however many looks there were: looks
    before the last spend a tenth of it together.

    Source: Peto et al. (1976), British Journal of Cancer 34, 585-612, on strict interim looks before an ordinary last
    one.

    Args:
        declaration: The study as its folder declares it.
        tables: What its complete trials have found.
        most: The most seeds of a rate.
        advice: What the tables advise. Default: it is made of them.
    """
    advice = advice or Advice(tables)
    where = {*_open_losses(advice.costs), *_open_leads(advice.leads)}
    more = []
    for cell in declaration.cells:
        names = declaration.names_of(cell.optimizer)
        if not any((name, cell.batch_size) in where for name in names):
            continue
        seeds = declaration.seeds_of(cell)
        chose = max(seeds.near_best, seeds.rates)
        looks = (look for look in LOOKS if look > max(seeds.best, chose) and look >= chose + FEWEST_REPORTING)
        look = next(looks, most + 1)
        if look <= most:
            at_look = Seeds(seeds.search, seeds.near_best, look, seeds.rates)
            more.append(SeedsAt(str(cell.optimizer), cell.batch_size, at_look))
    return united_at(declaration.seeds_at, more) if more else ()


def _open_losses(costs: pl.DataFrame) -> Iterator[tuple[str, int]]:
    """Yield the cells where it is open whether a batch size loses more than the margin, and what these compare with."""
    for (_, _, optimizer), rows in costs.group_by("workload", "budget", "optimizer", maintain_order=True):
        compared = rows[1:].filter(pl.col("difference").is_not_null(), pl.col("verdict") != "at the edge")
        still = [row["batch_size"] for row in compared.iter_rows(named=True) if _is_open_loss(row, len(compared))]
        for size in {*still, *rows.filter(verdict="equivalent")["batch_size"]} if still else ():
            yield str(optimizer), size


def _is_open_loss(row: dict[str, Any], among: int) -> bool:
    error = deviation(row) / math.sqrt(row["shared"])
    lost, held = (_p_value(-row["difference"] - row["margin"], error, row), _p_value(
        row["difference"] + row["margin"], error, row
    ))  # fmt: skip
    if min(among * lost, held) < INTERIM_ALPHA / 2:
        return False
    wanted = seeds_for_loss(row, among)
    return wanted is not None and wanted <= MOST_ASKED


def _open_leads(leads: pl.DataFrame) -> Iterator[tuple[str, int]]:
    """Yield the cells of both optimizers where it is open whether one is better or worse."""
    equal = leads.filter(pl.col("verdict") != "at the edge", over="equal batch sizes")
    for row in equal.iter_rows(named=True):
        wanted = seeds_for_lead(row, 1)
        if min(row["p_beyond"], row["p_same"]) >= INTERIM_ALPHA and wanted is not None and wanted <= MOST_ASKED:
            yield row["optimizer"], row["batch_size"]
            yield row["baseline"], row["sgd_batch_size"]


def _p_value(beyond: float, error: float, row: dict[str, Any]) -> float:
    """Return the one-sided p value of a mean that lies so far beyond its margin."""
    if error == 0:
        return 0.0 if beyond > 0 else 1.0
    return float(special.stdtr(row["shared"] - 1, -beyond / error))
