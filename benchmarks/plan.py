"""How well `sgdscope plan` foretells the time that a study then takes.

    python benchmarks/plan.py RESULTS RUNS STUDY[:OPTION=VALUE ...] ...

For each built-in study, so many times: a plan, as `sgdscope plan` makes it, and then the run, in processes of their own
with a filled compilation cache. Beside the seconds stand the trials expected and made: where learning rates are
searched their number is not known beforehand. Writes plan.csv and plan.md into RESULTS, where rows of other studies
stay.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

PROGRAM = """
import json, sys
from dataclasses import replace
import sgdscope as sg
from sgdscope.engine.run import train_study
from rich.console import Console
name, folder, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
study = replace(sg.studies.get(name), **options)
if sys.argv[4] == "plan":
    plan = sg.plan(study)
    print(json.dumps([plan.trials, plan.seconds]))
else:
    ran = train_study(study, folder, Console(quiet=True))
    print(json.dumps([ran.trained, ran.seconds]))
"""


def told(study: str, options: dict[str, Any], folder: str, what: str) -> list[float]:
    """Return trials and seconds, of a plan or of a run."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, study, folder, json.dumps(options), what],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(results: str, runs: str, *studies: str) -> None:
    """Plan and run, and write the results."""
    rows = []
    for written in studies:
        name, *given = written.split(":")
        options = {key: json.loads(value) for key, value in (pair.split("=") for pair in given)}
        for run in range(int(runs)):
            with tempfile.TemporaryDirectory() as folder:
                expected, planned = told(name, options, folder, "plan")
                made, taken = told(name, options, folder, "run")
            rows.append(
                {
                    "study": written,
                    "run": run,
                    "trials_expected": int(expected),
                    "trials": int(made),
                    "seconds_planned": planned,
                    "seconds": taken,
                    "ratio": planned / taken,
                }
            )
            print(rows[-1], flush=True)
    folder = Path(results)
    folder.mkdir(parents=True, exist_ok=True)
    table = pl.DataFrame(rows).with_columns(pl.col(pl.Float64).round_sig_figs(4), jax=pl.lit(version("jax")))
    if (folder / "plan.csv").exists():
        kept = pl.read_csv(folder / "plan.csv", schema=table.schema).filter(~pl.col("study").is_in(studies))
        table = pl.concat([kept, table])
    table.write_csv(folder / "plan.csv")
    lines = [
        f"sgdscope {version('sgdscope')}, {len(os.sched_getaffinity(0))} cores; medians (lowest to highest) of n runs. "
        "The plan's seconds are of training and evaluating; the time taken is that of the run to its last commit.",
        "",
        "| study | jax | n | trials expected / made | s planned | s taken | planned / taken |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    spread = lambda values: (
        f"{values.median():.3g} ({values.min():.3g} to {values.max():.3g})" if len(values) > 1 else f"{values[0]:.3g}"
    )
    for (study, jax), of in table.group_by("study", "jax", maintain_order=True):
        trials = f"{of['trials_expected'][0]:,} / {of['trials'][0]:,}"
        figures = " | ".join(spread(of[name]) for name in ("seconds_planned", "seconds", "ratio"))
        lines.append(f"| {study} | {jax} | {len(of)} | {trials} | {figures} |")
    (folder / "plan.md").write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main(*sys.argv[1:])
