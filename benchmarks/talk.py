"""The paper's benchmarks side by side: verdicts by workload, figures and claims, from studies that have been trained.

    python benchmarks/talk.py RESULTS FOLDER ...

The folders are those of studies of any workloads and sweeps. Writes into RESULTS: verdicts.md, a row for each claim and
a column for each workload; claims.csv, a row for each number that a verdict rests on; transitions.csv, score_limits.csv
and difference_from_sgd.csv; and for each workload its figure of the two regimes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import polars as pl

import sgdscope as sg
from sgdscope.claims.decide import CLAIMS, findings, reading
from sgdscope.claims.finding import Finding
from sgdscope.report.export import page_figures, write_figures

SIGNIFICANT = 4
# Where a claim compares workloads, its verdict is of all of them.
OF_ALL = "C13"
TABLES = ("transitions", "score_limits", "difference_from_sgd")


def main(results: Path, folders: list[str]) -> None:
    """Write the tables and figures of studies together."""
    results.mkdir(parents=True, exist_ok=True)
    together = sg.load(*folders)
    found, workloads = findings(together.tables), list(together.tables.records)
    rows = ["| claim | " + " | ".join(workloads) + " |", "| --- |" + " --- |" * len(workloads)]
    for name, claim in CLAIMS.items():
        mine = [finding for finding in found if finding.claim == name]
        if name == OF_ALL:
            said = [reading(mine)] * len(workloads)
        else:
            said = [verdicts([finding for finding in mine if finding.workload == workload]) for workload in workloads]
        rows.append(f"| {name} {claim.sentence} | " + " | ".join(said) + " |")
    (results / "verdicts.md").write_text("\n".join(rows) + "\n")
    tables = {"claims": together.claims} | {name: together.tables.all()[name] for name in TABLES}
    for name, table in tables.items():
        table.with_columns(pl.col(pl.Float64).round_sig_figs(SIGNIFICANT)).write_csv(results / f"{name}.csv")
    for folder in folders:
        study = sg.load(folder)
        figures = page_figures(study.tables)
        if "two-regimes" in figures:
            (workload,) = study.tables.records
            write_figures({f"{workload}-two-regimes".replace("_", "-"): figures["two-regimes"]}, results, "svg")


def verdicts(findings: Sequence[Finding]) -> str:
    """Say the verdict of a claim on one workload, by optimizer where they differ."""
    by_verdict: dict[str, list[str]] = {}
    for finding in findings:
        by_verdict.setdefault(finding.reads, []).append(finding.optimizer)
    if len(by_verdict) < 2:
        return next(iter(by_verdict), "not tested")
    return "; ".join(f"{verdict}: {' and '.join(dict.fromkeys(of))}" for verdict, of in by_verdict.items())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
