"""C10 to C12, of methods against SGD: planted advantages are found, and what is not there is not."""

from collections import Counter

import numpy as np
import polars as pl
import pytest
from scipy import stats

from sgdscope.analysis.tables import Tables
from sgdscope.claims.methods import against_sgd
from sgdscope.testing.simulated import RECORD, Truth, simulate, trial_table

RECORDS = {RECORD.name: RECORD}
MARGIN, SIZES = 0.004, (8, 64, 512)
SURE = {"spread": 0.001, "grid": 0.5}
KFAC, PENALTY = "kfac:damping=0.1|1", "gradient_penalty:strength=0|0.5"


def at(small=0.0, middle=0.0, large=0.0):
    """What the best score lies below the plateau at each of the three batch sizes."""
    return lambda x: small if x < 5 else middle if x < 8 else large


def study(lost, n=15, seed=0, budget="epochs:30", **changes):
    """Return a table of optimizers by what each loses."""
    rng = np.random.default_rng(seed)
    truth = {name: Truth(**SURE | changes | {"lost": of}) for name, of in lost.items()}
    table = trial_table({name: simulate(rng, n, of, SIZES) for name, of in truth.items()})
    return table.with_columns(
        budget=pl.lit(budget), examples=pl.col("steps") * pl.col("batch_size"), seconds=pl.lit(2.0)
    )  # fmt: skip


def found(trials, claim):
    return [f for f in against_sgd(Tables(trials, RECORDS, MARGIN)) if f.claim == claim]


def verdict(trials, claim, optimizer):
    (finding,) = [f for f in found(trials, claim) if f.optimizer == optimizer]
    return finding.verdict


@pytest.mark.parametrize(
    ("sgd", "method", "only_at_large", "equal_at_best"),
    [
        (at(large=0.02), at(large=0.005), "supported", "supported"),
        (at(large=0.02), at(large=0.02), "contradicted", "supported"),
        (at(small=0.02, middle=0.02, large=0.02), at(), "contradicted", "contradicted"),
        (at(large=0.02), at(small=0.02, middle=0.02), "supported", "supported"),
    ],
)
@pytest.mark.parametrize("name", ["adam", KFAC, "momentum:0.9"])
def test_methods_for_curvature(name, sgd, method, only_at_large, equal_at_best):
    trials = study({"sgd": sgd, name: method, "adamw": at(0.01, 0.01, 0.01)})
    assert verdict(trials, "C10", name) == only_at_large
    assert verdict(trials, "C10b", name) == equal_at_best


@pytest.mark.parametrize("budget", ["epochs:30", "steps:400"])
@pytest.mark.parametrize(
    ("method", "expected"),
    [(at(), "supported"), (at(0.02, 0.02, 0.02), "supported"), (at(middle=-0.012, large=0.01), "contradicted")],
)
@pytest.mark.parametrize("name", ["svrg", "alpha_svrg:alpha=0.5|0.75"])
def test_methods_against_noise(name, method, expected, budget):
    trials = study({"momentum:0.9": at(), name: method}, budget=budget)
    assert verdict(trials, "C12", name) == expected


@pytest.mark.parametrize(
    ("sgd", "method", "expected"),
    [
        (at(large=0.02), at(), "supported"),
        (at(large=0.02), at(small=-0.01, large=0.01), "contradicted"),
        (at(), at(), "not tested"),
        (at(large=0.004), at(), "not tested"),
    ],
)
@pytest.mark.parametrize("name", [PENALTY, "l2:weight_decay=0|0.001"])
def test_regularization_in_place_of_noise(name, sgd, method, expected):
    trials = study({"momentum:0.9": sgd, name: method}, budget="steps:400")
    assert verdict(trials, "C11", name) == expected


def test_what_a_claim_is_not_about_says_nothing():
    trials = study({"sgd": at(), "momentum:0.9": at(large=-0.01)})
    assert list(against_sgd(Tables(trials, RECORDS, MARGIN))) == []  # no method beside SGD and its momentum
    assert Tables(trials, RECORDS, MARGIN).score_by_cost.is_empty()
    steps = study({"sgd": at(), "adam": at()}, budget="steps:400")
    assert list(against_sgd(Tables(steps, RECORDS, MARGIN))) == []  # C10 is about constant epochs
    fixed = study({"momentum:0.9": at(), "gradient_penalty": at()}, budget="steps:400")
    assert found(fixed, "C11") == []  # its strength was not tuned
    unknown = study({"momentum:0.9": at(), "svrg": at(), "optax:lion": at(large=-0.02), "their own": at()})
    assert {f.optimizer for f in against_sgd(Tables(unknown, RECORDS, MARGIN))} == {"svrg"}
    alone = study({"sgd": at(), "svrg": at()})
    assert found(alone, "C12") == []  # SGD with its momentum was not trained


def test_effects_are_those_that_scipy_gives():
    """Differences at the rates that are best on validation, seed by seed, with Student's t."""
    trials = study({"sgd": at(large=0.02), "adam": at(large=0.01)}, seed=5, spread=0.004)
    chosen = {}
    for (optimizer, size), cell in trials.group_by("optimizer", "batch_size"):
        means = cell.group_by("learning_rate").agg(pl.col("validation_score").mean()).sort("learning_rate")
        best = means.row(int(means["validation_score"].arg_max()), named=True)
        scores = cell.filter(learning_rate=best["learning_rate"]).sort("seed")["test_score"].to_numpy()
        chosen[optimizer, size] = best["validation_score"], scores
    lead = chosen["adam", 512][1] - chosen["sgd", 512][1]
    (finding,) = found(trials, "C10")
    effect = finding.effects[1].estimate
    assert [effect.low95, effect.high95] == pytest.approx(
        stats.t.interval(0.95, len(lead) - 1, lead.mean(), stats.sem(lead))
    )
    tables = Tables(trials, RECORDS, MARGIN)
    row = tables.difference_from_sgd.row(by_predicate=pl.col("batch_size") == 512, named=True)
    assert [row["difference"], row["difference_low"]] == pytest.approx([lead.mean(), effect.low95])
    of = {name: max(SIZES, key=lambda size: chosen[name, size][0]) for name in ("sgd", "adam")}
    best = tables.best_by_method.rows_by_key("optimizer", named=True, unique=True)
    assert {name: best[name]["batch_size"] for name in of} == of
    lead = chosen["adam", of["adam"]][1] - chosen["sgd", of["sgd"]][1]
    assert best["adam"]["difference"] == pytest.approx(lead.mean())
    (finding,) = found(trials, "C10b")
    assert finding.effects[0].estimate.value == pytest.approx(lead.mean())


def test_costs_stand_beside_each_other():
    """SVRG reads as many examples as SGD in as many updates, and evaluates three times the gradients."""
    trials = study({"momentum:0.9": at(), "svrg": at(), PENALTY: at()}, n=3)
    tables = Tables(trials, RECORDS, MARGIN)
    rows = tables.score_by_cost.filter(batch_size=512).rows_by_key("optimizer", named=True, unique=True)
    costs = {name: [row[c] for c in ("updates", "examples", "gradients", "seconds")] for name, row in rows.items()}
    examples = 60 * 512.0
    assert costs == {
        "momentum:0.9": [60, examples, examples, 2.0],
        "svrg": [60, examples, 3 * examples, 2.0],
        PENALTY: [60, examples, 4 * examples, 2.0],  # several blocks of 128
    }
    against = tables.difference_from_sgd.select("optimizer", "baseline").unique().sort("optimizer").rows()
    assert against == [(PENALTY, "momentum:0.9"), ("svrg", "momentum:0.9")]


STUDIES = 60
# What 5 % of so many studies exceed in one of a thousand.
MOST_FALSE = stats.binom.ppf(0.999, STUDIES, 0.05)


@pytest.mark.parametrize(
    ("claim", "lost", "false"),
    [  # at the edge of δ either verdict is false
        ("C10", {"sgd": at(large=0.02), "adam": at(small=-MARGIN, large=0.0)}, ("supported",)),
        ("C10", {"sgd": at(), "adam": at(large=-MARGIN)}, ("supported",)),
        ("C10b", {"sgd": at(0.02, 0.0, 0.02), "adam": at(0.02, -MARGIN, 0.02)}, ("supported", "contradicted")),
        ("C12", {"momentum:0.9": at(), "svrg": at(middle=-MARGIN)}, ("supported", "contradicted")),
        ("C11", {"momentum:0.9": at(large=0.03), PENALTY: at(large=MARGIN)}, ("supported", "contradicted")),
    ],
)
def test_verdicts_are_rarely_false(claim, lost, false):
    """Studies of 10 seeds whose true difference is δ itself, with the scatter and the curves of the digits."""
    budget = "steps:400" if claim == "C11" else "epochs:30"
    counts = Counter()
    for number in range(STUDIES):
        for finding in found(study(lost, 10, seed=number, budget=budget, spread=0.006, grid=0.0), claim):
            counts[finding.verdict] += 1
    assert sum(counts.values()) == STUDIES
    for verdict in false:
        assert counts[verdict] <= MOST_FALSE, counts
