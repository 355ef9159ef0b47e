"""The transition batch sizes of studies against those of the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from sgdscope.analysis.comparisons import decided_estimates, octaves_between_transitions
from sgdscope.analysis.transitions import IDENTIFIED
from sgdscope.comparison.matching import Matched
from sgdscope.comparison.rate_difference import OF_RATES, of_octaves, rate_cells
from sgdscope.comparison.score_difference import KEY_COLUMNS, key_of
from sgdscope.comparison.side import Side
from sgdscope.frames import Column, Columns, schema

# Within a factor of 2, as in claim C7b.
MARGIN_OCTAVES = 1.0
ENDS = ("transition", "transition_low", "transition_high")
TRANSITION_DIFFERENCE_COLUMNS: Columns = {
    **KEY_COLUMNS,
    **{
        f"{whose}{name}": Column(kind, f"{text} of the {study}.", unit)
        for whose, study in (("", "study"), ("reference_", "reference"))
        for name, kind, text, unit in (
            ("status", pl.String, "`status` in the table `transitions`", ""),
            ("transition", pl.Float64, "Transition batch size", "examples"),
            ("transition_low", pl.Float64, "Lower end of the 95 % interval of the transition", "examples"),
            ("transition_high", pl.Float64, "Upper end of the 95 % interval of the transition", "examples"),
        )
    },
    **of_octaves("log₂ of the ratio of the transition batch sizes; missing if one is not identified."),
}


def transition_difference(sides: Sequence[Side], found: Sequence[Matched]) -> pl.DataFrame:
    """Return the transition batch sizes, by the score, and by how many octaves they differ from the first study's.

    They are compared where both are identified, each pair by itself.

    Args:
        sides: the studies.
        found: which of their trials stand for each other.
    """
    rows: list[dict[str, Any]] = []
    for of in found:
        told = [
            next(iter(side.tables.transitions.filter(**key, criterion="score").rows(named=True)), {})
            for side, key in zip(sides, of.keys, strict=True)
        ]
        for place in range(1, len(sides)):
            row: dict[str, Any] = key_of(sides, of, place) | {"verdict": "undecided", "margin": MARGIN_OCTAVES}
            for whose, mine in (("", told[place]), ("reference_", told[0])):
                row |= {f"{whose}{name}": mine.get(name) for name in ("status", *ENDS)}
            row["n"] = min(told[place].get("n", 0), told[0].get("n", 0))
            if row["status"] == row["reference_status"] == IDENTIFIED:
                pair = rate_cells(sides[place], of.keys[place]), rate_cells(sides[0], of.keys[0])
                row |= decided_estimates([octaves_between_transitions(*pair)], [row["n"]], MARGIN_OCTAVES, OF_RATES)[0]
            rows.append(row)
    return pl.DataFrame(rows, schema=schema(TRANSITION_DIFFERENCE_COLUMNS))
