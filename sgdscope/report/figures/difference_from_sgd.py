"""Best test score minus SGD's against batch size."""

from __future__ import annotations

from sgdscope.analysis.tables import Tables
from sgdscope.formatting import points
from sgdscope.report.figures.change import lines_of_optimizers
from sgdscope.report.figures.differences import HOW_TO_READ, differences
from sgdscope.report.figures.figure import Figure, seeds
from sgdscope.report.figures.style import LayerChart
from sgdscope.report.text.verdicts import sizes_by_verdict


def figure(part: Tables) -> Figure | None:
    """Return the figure; None where no optimizer has a batch size in common with the SGD that it is compared with."""
    if part.difference_from_sgd.is_empty():
        return None
    return Figure(
        "difference-from-sgd",
        f"Difference from SGD in test {part.record.score_name} against batch size",
        sentence(part),
        f"Best test {part.record.score_name} minus that of SGD at the same batch size. Of SVRG and regularized "
        f"methods it is SGD with the same momentum. Above 0 is better. {HOW_TO_READ}",
        "difference_from_sgd",
        chart(part),
    )


def sentence(part: Tables) -> str:
    """Say at which batch sizes each optimizer is better, equivalent or worse."""
    rows = part.difference_from_sgd
    margin = points(rows["margin"][0], part.record.in_percent)
    said = [
        f"{name} against {mine['baseline'][0]}: {sizes_by_verdict(mine)}" for name, mine in lines_of_optimizers(rows)
    ]
    return f"{'. '.join(said)} (margin {margin}, 95 % with Holm's correction, {seeds(rows)})."


def chart(part: Tables) -> LayerChart:
    """Return the differences with the intervals that decide, and the margin as a band."""
    return differences(part.difference_from_sgd, part.record, f"difference in test {part.record.score_name}")
