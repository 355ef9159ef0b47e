"""The value of a searched coefficient: chosen in each cell, on the validation split, together with the rate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from sgdscope.analysis.curve import curve, joined, on_common_seeds
from sgdscope.analysis.trial_table import CELL, Records, cells
from sgdscope.formatting import exact
from sgdscope.optimizers import Optimizer
from sgdscope.store import ended


def with_chosen_coefficients(trials: pl.DataFrame, optimizers: Sequence[Optimizer], records: Records) -> pl.DataFrame:
    """Return trials in which every cell has one value of its optimizer's searched coefficient: the best.

    The best value has the rate whose mean validation score is largest. Cells are named by the optimizer as it was
    declared. Two columns are added where an optimizer has a searched coefficient: ``coefficient``, the value, and
    ``coefficient_contenders``, the values that no other leads beyond chance, as of learning rates
    (:attr:`~sgdscope.analysis.curve.Curve.contenders`).

    Args:
        trials: a table of trials, named by the optimizers of single values.
        optimizers: as the study declares them.
        records: what the workloads are, by name.
    """
    searched = [optimizer for optimizer in optimizers if optimizer.searched is not None]
    if not searched:
        return trials
    plain = {str(optimizer) for optimizer in optimizers if optimizer.searched is None}
    nothing = {"coefficient": pl.lit(None, pl.Float64), "coefficient_contenders": pl.lit(None, pl.String)}
    found = [trials.filter(pl.col("optimizer").is_in(plain)).with_columns(**nothing)]
    for optimizer in searched:
        values = {str(variant): getattr(variant, str(optimizer.searched)) for variant in optimizer.variants}
        own = trials.filter(pl.col("optimizer").is_in(list(values))).with_columns(
            coefficient=pl.col("optimizer").replace_strict(values, default=None, return_dtype=pl.Float64),
            optimizer=pl.lit(str(optimizer)),
        )
        for key, cell in cells(own):
            found.append(_chosen(cell, records, str(key["workload"])))
    return pl.concat(found).sort(*CELL, "learning_rate", "seed")


def _chosen(cell: pl.DataFrame, records: Records, workload: str) -> pl.DataFrame:
    """Return the trials of the value of a cell that is best."""
    by_value = {value: rows for (value,), rows in cell.sort("coefficient").group_by("coefficient", maintain_order=True)}
    known = {value: rows for value, rows in by_value.items() if not ended(rows).is_empty()}
    curves = on_common_seeds([curve(rows, records[workload], "score") for rows in known.values()])
    if not curves or not curves[0].seeds.size or not any(each.eligible.any() for each in curves):
        value, contenders = next(iter(known or by_value)), list(by_value)
    else:
        whole = joined(curves)
        owner = np.repeat(np.array(list(known), float), [len(each.rates) for each in curves])
        value = float(owner[int(whole.best()[0])])
        contenders = sorted(set(owner[whole.contenders].tolist()))
    told = "|".join(exact(float(each)) for each in contenders)
    return by_value[value].with_columns(coefficient_contenders=pl.lit(told))
