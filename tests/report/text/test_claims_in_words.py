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
from sgdscope.claims.decide import CLAIMS, findings
from sgdscope.claims.finding import LOG_LOSS, Effect, Finding
from sgdscope.report.text.claims import (
    LABELS,
    PARTS,
    PHRASES,
    QUESTIONS,
    amount,
    answers,
    as_json,
    described,
    on_page,
    print_claims,
)
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


def test_every_claim_that_can_be_tested_has_its_words():
    assert set(PHRASES) == set(CLAIMS) - {"C7b", "C13"}
    assert set(LABELS) == set(CLAIMS) - {"C13"}
    assert {claim for claims in QUESTIONS.values() for claim in claims} == set(PHRASES) - {"C0"}
    for claim, parts in PARTS.items():
        assert len(parts) == len(LABELS[claim])


def test_answers_say_the_verdicts_and_name_what_was_not_tested():
    said = answers(found())
    assert list(said) == list(QUESTIONS)
    behaviour, poorly, rates = said.values()
    assert (
        "On simulated at epochs:30, n = 6: below the bend the best score of SGD and momentum:0.9 does not" in behaviour
    )
    assert "is proportional to the batch size (C3)" in behaviour
    assert "above the bend momentum:0.9 is not ahead of SGD (C5)" in behaviour  # both fall alike
    assert poorly.startswith("Whether they do of their own is not tested")
    assert poorly.endswith("Not tested: C8.")
    assert rates.endswith("Not tested: C8, C9, C9b.")


@pytest.mark.parametrize(
    ("lost", "lead"),
    [
        (lambda x: 0.01 * max(0.0, x - 7), "Yes, of their own: they lose score where they fit"),
        (lambda x: 0.0, "Not of their own"),
        (lambda x: 0.0037 * (x > 9.5), "Whether they do of their own, at a constant number of steps, is not decided."),
    ],
)
def test_whether_large_batches_generalize_poorly_is_what_score_and_loss_say(lost, lead):
    said = list(answers(found(steps=True, lost=lost)).values())[1]
    assert said.startswith(lead)


def test_a_claim_whose_parts_differ_says_which_holds():
    """A rate that grows in proportion is not sublinear, to be sure; score and loss are as the talk says."""
    sure = Estimate(1.0, 0.99, 1.01, 0.98, 1.02)
    effects = [
        Effect("score lost", sure, (0.0, math.inf), 5, "score", "supported"),
        Effect("training loss", sure, (-math.inf, 0.0), 5, LOG_LOSS, "contradicted"),
        Effect("growth", sure, (0.0, 1.0), 5, "slope", "inconclusive", 40),
    ]
    finding = Finding("C8", "w", "steps:9", "momentum:0.9", tuple(effects))
    said = answers([finding])["Do large batch sizes generalize poorly?"]
    assert (
        "supported is that the score falls, contradicted that the training loss is lower, not decided whether" in said
    )
    assert said.startswith("Not of their own")
    text = described(finding)
    assert "training loss: a factor of 2.7 [2.7, 2.8], to be below 1, contradicted" in text
    assert "to be within 0.00 to 1.00, inconclusive (about 40 seeds would decide)" in text


def test_a_loss_beyond_all_floats_is_said_so():
    wild = Effect("loss", Estimate(1.0, -800.0, 800.0, -900.0, 900.0), (0.0, 1.0), 2, LOG_LOSS, "inconclusive")
    assert amount(wild) == "a factor of 2.7 [0, beyond any]"


@pytest.mark.parametrize("n", [1, 6])
def test_json_has_every_claim_and_no_infinite_number(n):
    whole = json.loads(json.dumps(as_json(found(n)), allow_nan=False))
    assert [of["claim"] for of in whole] == list(CLAIMS)
    for of in whole:
        assert of["verdict"] in ("supported", "contradicted", "inconclusive", "not tested")
        assert of["findings"]
        assert of["rule"]


def test_the_terminal_has_claim_verdict_numbers_rule_and_figure():
    console = Console(width=80, file=io.StringIO(), color_system=None)
    print_claims(found(), console)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    flat = re.sub(r"\s+", " ", text)
    for claim, of in CLAIMS.items():
        assert f"{claim} " in text
        assert of.sentence in flat
    assert "C3 supported" in flat
    assert "simulated at epochs:30, sgd: supported, n = 6. growth of ε* with B by the test score:" in flat
    assert "(figure optimal-learning-rate)" in flat
    assert "A zone decides:" in flat


def test_the_page_shows_every_claim_with_its_figure_where_it_is_tested():
    shown = on_page(found(), lambda finding: f"figure-of-{finding.claim}")
    assert [of["claim"] for of in shown] == list(CLAIMS)
    for of in shown:
        assert (of["figure"] != "") == (of["numbers"] != "") == (of["verdict"] != "not tested")
        assert of["details"]
