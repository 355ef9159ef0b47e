"""The verdicts on the paper's claims in each study."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import polars as pl

from sgdscope.claims.decide import CLAIMS, findings, reading
from sgdscope.claims.finding import Finding
from sgdscope.comparison.side import Side
from sgdscope.frames import Column, Columns, schema

NOT_TESTED = "not tested"
CLAIM_VERDICTS_COLUMNS: Columns = {
    "claim": Column(pl.String, "Number of the claim, such as C4."),
    "study": Column(pl.String, "The study that is compared with `reference`."),
    "reference": Column(pl.String, "The first study, with which all others are compared."),
    "verdict": Column(pl.String, "Verdict in the study."),
    "reference_verdict": Column(pl.String, "Verdict in the reference."),
    "comparison": Column(
        pl.String,
        "`same`, `opposite` (supported in one and contradicted in the other) or `undecided` (not decided in both).",
    ),
}


def claim_verdicts(sides: Sequence[Side]) -> pl.DataFrame:
    """Return the verdicts on each claim that is tested in one study or more, beside that of the first study.

    A verdict that is reached in one study alone is no difference between them: only opposite verdicts are.

    Args:
        sides: the studies.
    """
    read = [_by_claim(findings(side.tables)) for side in sides]
    rows: list[dict[str, Any]] = []
    for claim in CLAIMS:
        verdicts = [of[claim] for of in read]
        if all(verdict == NOT_TESTED for verdict in verdicts):
            continue
        for side, verdict in zip(sides[1:], verdicts[1:], strict=True):
            row = {"claim": claim, "study": side.name, "reference": sides[0].name, "verdict": verdict}
            rows.append(row | {"reference_verdict": verdicts[0], "comparison": _compared(verdict, verdicts[0])})
    return pl.DataFrame(rows, schema=schema(CLAIM_VERDICTS_COLUMNS))


def _by_claim(found: Sequence[Finding]) -> dict[str, str]:
    of: dict[str, list[Finding]] = defaultdict(list)
    for finding in found:
        of[finding.claim].append(finding)
    return {claim: reading(of[claim]) for claim in CLAIMS}


def _compared(one: str, other: str) -> str:
    decided = [verdict.split(",")[0] for verdict in (one, other)]
    if set(decided) <= {"supported", "contradicted"}:
        return "same" if decided[0] == decided[1] else "opposite"
    return "undecided"
