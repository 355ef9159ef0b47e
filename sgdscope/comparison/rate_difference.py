"""The optimal learning rates of studies against those of the first, by batch size, in octaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from sgdscope.analysis.comparisons import AT_EDGE, decided_estimates, octaves_between
from sgdscope.analysis.exclusions import learning
from sgdscope.analysis.sweep import Cells, cells_of, pair_on_common_seeds
from sgdscope.analysis.trial_table import BATCH_SIZE, SEEDS
from sgdscope.comparison.matching import Matched
from sgdscope.comparison.score_difference import KEY_COLUMNS, key_of
from sgdscope.comparison.side import Side
from sgdscope.frames import Column, Columns, schema, with_interval

# Rates within half an octave, a factor of 1.4, are equivalent, as in claim C2.
MARGIN_OCTAVES = 0.5
OF_RATES = {"above": "higher", "below": "lower"}


def of_octaves(what: str) -> Columns:
    """Return the columns of a difference in octaves and of what decides it."""
    return {
        "n": SEEDS,
        **with_interval("difference", what, "octaves"),
        "decides_low": Column(pl.Float64, "Lower end of the interval that decides the verdict, at `level`.", "octaves"),
        "decides_high": Column(
            pl.Float64, "Upper end of the interval that decides the verdict, at `level`.", "octaves"
        ),
        "level": Column(pl.Float64, "Level of the interval that decides.", "%"),
        "p_beyond": Column(pl.Float64, "p value of a difference beyond the margin, with Holm's correction."),
        "p_same": Column(pl.Float64, "p value of equivalence within the margin, with Holm's correction."),
        "margin": Column(pl.Float64, "Largest difference that counts as equivalent.", "octaves"),
        "verdict": Column(pl.String, "`higher`, `lower`, `equivalent`, `undecided` or `at the edge`."),
    }


RATE_DIFFERENCE_COLUMNS: Columns = {
    **KEY_COLUMNS,
    "batch_size": BATCH_SIZE,
    **{
        f"{whose}learning_rate": Column(
            pl.Float64, f"Optimal learning rate of the {name}, fitted between the rates tried."
        )
        for whose, name in (("", "study"), ("reference_", "reference"))
    },
    **of_octaves("log₂ of the ratio of the optimal learning rates; of effective rates where optimizers differ."),
}


def rate_difference(sides: Sequence[Side], found: Sequence[Matched]) -> pl.DataFrame:
    """Return by how many octaves optimal learning rates differ from those of the first study, one row a batch size.

    The optimum lies between the rates tried; its interval counts with what seeds and what the grid of rates leave open.
    A row without a batch size is the mean over all batch sizes whose optimum lies inside the rates tried in both
    studies, decided by itself. All others of one optimizer are decided together, with Holm's correction.

    Args:
        sides: the studies.
        found: which of their trials stand for each other.
    """
    rows: list[dict[str, Any]] = []
    for of in found:
        cells = [rate_cells(side, of.keys[place]) for place, side in enumerate(sides)]
        factors = [_factor(side, of.keys[place]) for place, side in enumerate(sides)]
        compared: list[dict[str, Any]] = []
        for place in range(1, len(sides)):
            key, shift = key_of(sides, of, place), float(np.log2(factors[place] / factors[0]))
            mine, theirs = pair_on_common_seeds(cells[place], cells[0])
            sizes = [size for size in mine.sizes if size in theirs.sizes]
            inside = [size for size in sizes if size not in mine.censored and size not in theirs.censored]
            for chosen in [*([size] for size in sizes), *([inside] if len(inside) > 1 else [])]:
                pair, alone = (mine.of(chosen), theirs.of(chosen)), len(chosen) == 1
                rates = [2.0 ** float(of_pair.vertices.mean()) if alone else None for of_pair in pair]
                row: dict[str, Any] = key | {
                    "batch_size": int(chosen[0]) if alone else None,
                    "n": min(of_pair.n for of_pair in pair),
                }
                row |= dict(zip(("learning_rate", "reference_learning_rate"), rates, strict=True))
                row |= {
                    "octaves": octaves_between(*pair, 0.0).moved(shift),
                    "at_edge": alone and chosen[0] not in inside,
                }
                compared.append(row)
        decided: dict[int, dict[str, Any]] = {}
        for family in _families(compared):
            estimates, n = ([compared[place][name] for place in family] for name in ("octaves", "n"))
            decided |= zip(family, decided_estimates(estimates, n, MARGIN_OCTAVES, OF_RATES), strict=True)
        rows += [
            row | decided[place] | {"margin": MARGIN_OCTAVES} | ({"verdict": AT_EDGE} if row["at_edge"] else {})
            for place, row in enumerate(compared)
        ]
    columns = schema(RATE_DIFFERENCE_COLUMNS)
    return pl.DataFrame([{name: row[name] for name in columns} for row in rows], schema=columns)


def _families(rows: Sequence[dict[str, Any]]) -> list[list[int]]:
    """Return which rows are decided together: those inside the rates tried, those at an edge; a mean by itself."""
    of_sizes = [place for place, row in enumerate(rows) if row["batch_size"] is not None]
    together = [[place for place in of_sizes if rows[place]["at_edge"] == at_edge] for at_edge in (False, True)]
    means = [[place] for place, row in enumerate(rows) if row["batch_size"] is None]
    return [family for family in (*together, *means) if family]


def rate_cells(side: Side, key: dict[str, str]) -> Cells:
    """Return the curves of a study's cells by batch size, of those that learned anything."""
    record = side.tables.records[key["workload"]]
    part = side.tables.trials.filter(workload=key["workload"], budget=key["budget"])
    learned = next(of.learned for of in learning(part, side.tables.records) if of.key["optimizer"] == key["optimizer"])
    return cells_of(learned, record, "score")


def _factor(side: Side, key: dict[str, str]) -> float:
    """Return the effective rate of an optimizer over its rate; 1 where it has none."""
    rows = side.tables.optima.filter(**key)
    effective = rows.select(pl.coalesce("effective_learning_rate", "learning_rate") / pl.col("learning_rate"))
    return float(effective.item(0, 0))
