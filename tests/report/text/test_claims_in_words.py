"""The claims in words, on the terminal, as JSON and on the page, against what was planted."""

import io
import json
import math
import re

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from sgdscope.analysis.tables import Tables
from sgdscope.claims.decide import CLAIMS, ZONES, family, findings
from sgdscope.claims.finding import LOG_LOSS, Effect, Finding
from sgdscope.report import figures
from sgdscope.report.text.claims import WRITTEN, amount, as_json, claim_rows, print_claims, sentence
from sgdscope.stats.intervals import Estimate
from sgdscope.testing.simulated import RECORD, Truth, simulate, trial_table

pytestmark = pytest.mark.usefixtures("quick")


def found(n=6, steps=False, lost=lambda x: 0.01 * max(0.0, x - 7)):
    rng = np.random.default_rng(0)
    truth = Truth(spread=0.001, loss_spread=0.02, grid=0.5, lost=lost)
    trials = trial_table({name: simulate(rng, n, truth) for name in ("sgd", "momentum:0.9")})
    if steps:
        fallen = pl.col("train_loss") / pl.col("batch_size")
        trials = trials.filter(optimizer="momentum:0.9").with_columns(budget=pl.lit("steps:200"), train_loss=fallen)
    return findings(Tables(trials, {RECORD.name: RECORD}, 0.004))


def test_every_claim_has_a_row_with_its_statement_verdict_numbers_rule_and_figure():
    rows = {row.claim: row for row in claim_rows(found())}
    assert list(rows) == list(CLAIMS)
    assert rows["C3"].verdict == "supported"
    assert rows["C3"].figure == "optimal-learning-rate"
    said = rows["C3"].numbers[0]
    assert re.match(
        r"simulated, epochs:30, sgd: supported \(6 seeds\)\. .* required: 0\.75 to 1\.25\. Supported\.", said
    )
    assert rows["C5"].verdict == "contradicted"  # both fall alike
    assert rows["C8"].verdict == "not tested"
    assert "a constant number of steps" in rows["C8"].numbers[0]
    for row in rows.values():
        assert row.statement
        assert row.rule
        assert row.numbers


@pytest.mark.parametrize(
    ("lost", "verdict"),
    [
        (lambda x: 0.01 * max(0.0, x - 7), "Supported."),
        (lambda x: 0.0, "Contradicted."),
        (lambda x: 0.0037 * (x > 9.5), "Inconclusive;"),
    ],
)
def test_what_is_planted_at_a_constant_number_of_steps_is_said(lost, verdict):
    (row,) = (row for row in claim_rows(found(steps=True, lost=lost)) if row.claim == "C8")
    assert f"required: more than 0.4 points. {verdict}" in row.numbers[0]


def test_each_number_of_a_claim_has_its_own_verdict():
    """A rate that grows in proportion is not sublinear, to be sure; score and loss are as the paper says."""
    sure = Estimate(1.0, 0.99, 1.01, 0.98, 1.02)
    effects = [
        Effect("score loss", sure, (0.0, math.inf), 5, "score", "supported"),
        Effect("training loss", sure, (-math.inf, 0.0), 5, LOG_LOSS, "contradicted"),
        Effect("growth", sure, (0.0, 1.0), 5, "slope", "inconclusive", 40, 70),
    ]
    assert sentence(Finding("C8", "w", "steps:9", "momentum:0.9", tuple(effects))) == (
        "w, steps:9, momentum:0.9: contradicted (5 seeds). Score loss: 1.00 [0.99, 1.01] (90 %); required: more "
        "than 0. Supported. Training loss: a factor of 2.7 [2.7, 2.8]; required: less than 1. Contradicted. Growth: "
        "1.00 [0.98, 1.02]; required: 0.00 to 1.00. Inconclusive; 40 seeds would decide with a chance of 50 %, 70 "
        "with 80 %."
    )
    open_still = Effect("growth", sure, (0.0, 1.0), 5, "slope", "inconclusive")
    assert sentence(Finding("C3", effects=(open_still,))).endswith("Inconclusive; more seeds will not settle it.")


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ((9, 14), "if scores are equal, 9 seeds confirm it with a chance of 50 % and 14 with 80 %."),
        ((60, None), "if scores are equal, 60 seeds confirm it with a chance of 50 %."),
        ((None, None), "how many seeds would decide is not known."),
    ],
)
def test_the_seeds_for_equal_scores_are_those_if_they_are_equal(seeds, said):
    effect = Effect("difference", Estimate(0, -2, 2, -3, 3), (-1, 1), 5, "score", "inconclusive", *seeds, if_equal=True)
    assert sentence(Finding("C1", effects=(effect,))).endswith(f"Inconclusive; {said}")


def test_a_loss_beyond_all_floats_is_said_so():
    wild = Effect("loss", Estimate(1.0, -800.0, 800.0, -900.0, 900.0), (0.0, 1.0), 2, LOG_LOSS, "inconclusive")
    assert amount(wild, WRITTEN[LOG_LOSS]) == "a factor of 2.7 [0, ∞]"


@pytest.mark.parametrize(
    ("claim", "in_percent", "said"),
    [
        ("C5", True, "Lead: 0.50 [0.20, 0.80] points; required: more than 0.4 points."),
        ("C0", True, "Lead: 0.50 [0.20, 0.80] %; required: more than 0.4 %."),
        ("C5", False, "Lead: 0.0050 [0.0020, 0.0080]; required: more than 0.004."),
    ],
)
def test_differences_of_accuracies_are_in_points(claim, in_percent, said):
    lead = Effect("lead", Estimate(0.005, 0.003, 0.007, 0.002, 0.008), (0.004, math.inf), 5, "score", "inconclusive")
    assert said in sentence(Finding(claim, effects=(lead,), in_percent=in_percent))


def test_every_claim_names_a_figure_that_there_is():
    modules = (*figures.OF_ONE_BUDGET, *figures.OF_METHODS, *figures.OF_SEVERAL_BUDGETS)
    names = {module.__name__.rpartition(".")[2].replace("_", "-") for module in modules}
    assert {claim.figure for claim in CLAIMS.values()} <= names | {""}


@pytest.mark.parametrize("n", [1, 6])
def test_json_has_every_claim_and_no_infinite_number(n):
    whole = json.loads(json.dumps(as_json(found(n)), allow_nan=False))
    assert [of["claim"] for of in whole] == list(CLAIMS)
    for of in whole:
        verdict = of["verdict"].removesuffix(", short runs only")
        assert verdict in ("supported", "contradicted", "inconclusive", "not tested")
        assert of["findings"]
        assert of["rule"]


def test_the_terminal_has_claim_verdict_numbers_rule_and_figure():
    console = Console(width=80, file=io.StringIO(), color_system=None)
    print_claims(found(), console)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    flat = re.sub(r"\s+", " ", text)
    for claim, of in CLAIMS.items():
        assert f"({claim})" in flat
        assert of.sentence in flat
    assert "supported Noise-dominated: the optimal learning rate is proportional to the batch size. (C3)" in flat
    assert text.startswith("How does SGD behave at different batch sizes?\n")
    assert (
        flat.index("(C1)")
        < flat.index("Do large batch sizes generalize worse?")
        < flat.index("(C8)")
        < flat.index("(C9)")
    )
    assert "simulated, epochs:30, sgd: supported (6 seeds). Growth of ε* with B at 4, 8, 16" in flat
    assert "(figure optimal-learning-rate)" in flat
    assert f"{ZONES} {family(found())}" in flat
