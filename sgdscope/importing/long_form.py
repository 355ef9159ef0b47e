"""Tables with a row for each epoch or step of a run, as histories are exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sgdscope.importing.naming import plain
from sgdscope.importing.table import TextTable, number

# What counts the rows of a run, and what names the run.
COUNTERS = ("epoch", "step", "global_step", "iteration", "iter", "training_iteration", "trainer_global_step")
RUNS = ("run", "run_id", "run_name", "run_uuid", "id", "name", "trial", "trial_id", "experiment_id")
OF_A_RUN = ("workload", "budget", "optimizer", "momentum", "batch_size", "learning_rate", "seed")
MEASURED = ("score", "validation_score", "train_loss")


def by_run(table: TextTable, names: Mapping[str, str]) -> TextTable:
    """Return a table with a row for each run, where it has one for each epoch or step of a run.

    Values along training are kept in their order, and the last of each is the run's. A table is returned as it is
    unless all its runs count from the same epoch or step on, and no run has two rows of the same one.

    Args:
        table: The table.
        names: Its columns by our names.
    """
    key = [names[ours] for ours in OF_A_RUN if ours in names]
    key += [name for name in table.columns if plain(name) in RUNS and name not in key]
    comma = table.decimal_comma([names[ours] for ours in MEASURED if ours in names])
    for counter in (name for name in table.columns if plain(name) in COUNTERS and name not in key):
        at = [number(text or "", comma) for text in table.columns[counter]]
        rows_of: dict[tuple[str | None, ...], list[int]] = {}
        for row, values in enumerate(zip(*(table.columns[name] for name in key), strict=True)):
            rows_of.setdefault(values, []).append(row)
        runs = [sorted(rows, key=lambda row: at[row] or 0.0) for rows in rows_of.values()]
        if None in at or len(runs) == len(at) or len({at[rows[0]] for rows in runs}) > 1:
            continue
        if any(len({at[row] for row in rows}) < len(rows) for rows in runs):
            continue
        return _last(table, runs, [names[ours] for ours in MEASURED if ours in names], comma)
    return table


def _last(table: TextTable, runs: list[list[int]], measured: list[str], comma: bool) -> TextTable:
    """Return the last row of each run, and of what was measured the last value that is there."""
    last, along = table.of([rows[-1] for rows in runs]), {}
    for name in measured:
        cells = [[text for row in rows if (text := table.columns[name][row])] for rows in runs]
        along[name] = [[value for text in texts if (value := number(text, comma)) is not None] for texts in cells]
        last.columns[name] = [texts[-1] if texts else None for texts in cells]
    return replace(last, along=along)
