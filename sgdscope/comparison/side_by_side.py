"""The paper's figures of several studies: of each by itself, and of all on common axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sgdscope.comparison.comparison import Comparison
from sgdscope.errors import InputError
from sgdscope.report.export import plain, talk_figures, unused
from sgdscope.result import read_folders


def figures_of_folders(folders: Sequence[Path], say: Callable[[str], None]) -> dict[str, Any]:
    """Return the paper's figures of several studies, by id.

    Of each workload and budget: those of :func:`~sgdscope.report.export.talk_figures`, which begin with the names of
    both, or with the study's where workloads of one name differ. Of all studies on common axes: ``best-score`` and the
    other figures of a :class:`~sgdscope.comparison.comparison.Comparison`, where the studies can be compared.

    Args:
        folders: of studies.
        say: told what is damaged or missing, a sentence each.

    Raises:
        InputError: where the studies can neither be read together nor be compared.
    """
    comparison = _compared(folders)
    try:
        together = talk_figures(read_folders(folders, say))
    except InputError:
        if comparison is None:
            raise
        together = dict[str, Any]()
        for side in comparison.sides:
            prefix = unused(plain(side.name), together)
            together |= {f"{prefix}-{name}": chart for name, chart in talk_figures(side.tables).items()}
    return together | (comparison.figures if comparison else {})


def _compared(folders: Sequence[Path]) -> Comparison | None:
    """Return the comparison of studies; None where they cannot be compared, as sweeps over different things."""
    try:
        return Comparison(folders)
    except InputError:
        return None
