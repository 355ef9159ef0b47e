"""What a table lacks for its comparisons: learning rates without enough seeds, and trials that share no seeds."""

from __future__ import annotations

import numpy as np
import polars as pl

from sgdscope.analysis.contenders import FEWEST_SHARED
from sgdscope.analysis.curve import curve
from sgdscope.analysis.derived import of_sgd
from sgdscope.analysis.rate_choice import Chosen, scores_by_batch_size
from sgdscope.analysis.trial_table import Records, by_optimizer
from sgdscope.formatting import exact
from sgdscope.store import ended

UNPAIRED = "Statistics are unpaired there (Welch's t test), which takes more seeds to decide."


def gap_sentences(trials: pl.DataFrame, records: Records) -> list[str]:
    """Name the learning rates that are left out since they lack seeds, and what shares too few seeds to be paired.

    Args:
        trials: A table of trials of one workload and budget.
        records: What their workloads are, by name.
    """
    said = []
    scores: list[tuple[dict[str, str], dict[int, Chosen]]] = []
    for key, members in by_optimizer(ended(trials)):
        name, record = key["optimizer"], records[key["workload"]]
        curves = {size: curve(cell, record, "score") for size, cell in members.items()}
        for size, found in curves.items():
            lacking = found.rates[(found.counts > 0) & ~found.enough]
            if lacking.size:
                rates = ", ".join(exact(float(f"{rate:.4g}")) for rate in lacking)
                which = "learning rate" if lacking.size == 1 else "learning rates"
                what = "trials" if found.unpaired else "seeds"
                lack = f"{'lacks' if lacking.size == 1 else 'lack'} {what} that the others have"
                left = "is left out" if lacking.size == 1 else "are left out"
                whole = found.rates[found.enough]
                lower = "low" in found.censored and lacking[0] < whole[0]
                higher = "high" in found.censored and lacking[-1] > whole[-1]
                beyond = f" Some lie beyond the others: add their {what} before further rates."
                said.append(
                    f"{name} at batch size {size}: {which} {rates} {lack}, and {left}."
                    + (beyond if lower or higher else "")
                )
        by_size = scores_by_batch_size(members, record)
        scores.append((key, by_size))
        said += [
            f"{name} at batch size {size}: fewer than {FEWEST_SHARED} seeds have a score at its best learning rate. "
            f"The batch size is left out."
            for size, found in curves.items()
            if found.eligible.any() and size not in by_size
        ]
        inside = [size for size, found in curves.items() if found.unpaired]
        if inside:
            where = "" if len(inside) == len(curves) else f" at batch size {', '.join(map(str, inside))}"
            said.append(f"{name}: too few seeds were run at two learning rates{where} to pair trials. {UNPAIRED}")
        elif any(chosen.unpaired for chosen in by_size.values()):
            said.append(f"{name}: batch sizes share fewer than {FEWEST_SHARED} seeds. {UNPAIRED}")
    plain = of_sgd(scores)
    for key, by_size in scores:
        sgd = plain.get((key["workload"], key["budget"]), {})
        both = [size for size in by_size if size in sgd]
        if by_size is sgd or not both or any(of[size].unpaired for of in (by_size, sgd) for size in both):
            continue
        mine, theirs = by_size[both[0]].seeds, sgd[both[0]].seeds
        if len(np.intersect1d(mine, theirs)) < min(FEWEST_SHARED, len(mine), len(theirs)):
            said.append(f"{key['optimizer']} and sgd share fewer than {FEWEST_SHARED} seeds. {UNPAIRED}")
    return said
