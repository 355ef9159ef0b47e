import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from sgdscope.advice.advice import Advice
from sgdscope.advice.next_trials import _of_scores, seeds_to_place, seeds_to_show
from sgdscope.analysis.curve import Curve, curve
from sgdscope.analysis.optima import FLAT_OCTAVES, optimum_interval
from sgdscope.analysis.tables import Tables
from sgdscope.budget import Epochs
from sgdscope.engine.search import search
from sgdscope.optimizers import SGD
from sgdscope.seeds import Seeds, parse_seeds_at
from sgdscope.store import TRIALS_SCHEMA
from sgdscope.study import Declaration
from sgdscope.testing import simulated


def study(n=5, sizes=simulated.BATCH_SIZES, seed=0, **truth):
    rng = np.random.default_rng(seed)
    planted = simulated.Truth(**truth)
    table = simulated.trial_table({"sgd": simulated.simulate(rng, n, planted, sizes)})
    seconds = pl.col("steps") * 0.001
    return table.with_columns(seconds=seconds, method=pl.lit("map"), device=pl.lit("cpu"), devices=pl.lit(2))


def advice(table, margin=0.004, **more):
    return Advice(Tables(table, {"simulated": simulated.RECORD}, margin), **more)


@given(st.floats(0.2, 3), st.floats(0.1, 2), st.sampled_from([0.05, 0.025, 0.005]))
def test_so_many_seeds_have_the_chance_asked_for_and_one_fewer_has_not(gap, deviation, alpha):
    """Against the noncentral t, which is the same chance without an average over quantiles."""
    needed = seeds_to_show([gap], deviation, alpha)
    if needed is None:
        return

    def chance(n):
        return stats.nct.sf(stats.t.ppf(1 - alpha, n - 1), n - 1, gap * math.sqrt(n) / deviation)

    assert chance(needed) >= 0.79
    assert needed == 2 or chance(needed - 1) < 0.81


@given(st.floats(0.3, 3), st.floats(0.1, 1))
@settings(max_examples=25)  # an integral takes a second
def test_between_two_margins_with_nothing_between_them_it_is_the_power_of_equivalence(margin, deviation):
    """Of two one-sided tests of equal means, which both pass where |mean| < δ − t·s/√n."""

    def chance(n):
        def passing(variance):
            room = margin * math.sqrt(n) / deviation - stats.t.ppf(0.95, n - 1) * math.sqrt(variance / (n - 1))
            return max(0.0, 2 * stats.norm.cdf(room) - 1) * stats.chi2.pdf(variance, n - 1)

        most = stats.chi2.isf(1e-9, n - 1)
        return integrate.quad(passing, 0, most, limit=200, points=[n / 10, n])[0]

    needed = seeds_to_show([margin, margin], deviation, 0.05)
    assert chance(needed) >= 0.79
    assert needed == 2 or chance(needed - 1) < 0.81


def test_nothing_shows_what_is_not_so():
    assert seeds_to_show([0.0], 1.0, 0.05) is None
    assert seeds_to_show([1.0, -0.1], 1.0, 0.05) is None
    assert seeds_to_show([1e-4], 1.0, 0.05) is None
    assert seeds_to_show([1.0], math.inf, 0.05) is None
    assert seeds_to_show([1.0], 0.0, 0.05) == 2


def test_so_many_seeds_tell_a_flat_optimum():
    """What is expected of a curve is trained with as many seeds: the interval is then of 3 octaves in most studies."""
    octaves, loss = np.arange(-4.0, 5.0), 0.05 * np.arange(-4.0, 5.0) ** 2

    def of(n, rng):
        noise = rng.normal(size=(len(octaves), n)) * 0.5
        noise -= noise.mean(axis=1, keepdims=True) if exact else 0.0
        return Curve(2.0**octaves, np.arange(n), noise - loss[:, None], np.zeros((len(octaves), n), bool))

    exact = True
    few = of(6, np.random.default_rng(1))
    low, high, _ = optimum_interval(few)
    assert high - low > FLAT_OCTAVES
    needed = seeds_to_place(few)
    exact = False
    widths = [np.subtract(*optimum_interval(of(needed, np.random.default_rng(s)))[1::-1]) for s in range(60)]
    assert np.mean(np.array(widths) <= FLAT_OCTAVES + 1) > 0.7


def test_more_seeds_are_asked_for_at_the_best_rates_of_the_cells_that_are_open():
    found = advice(study(n=5, lost=lambda x: 0.003 * max(0.0, x - 5)))
    seeds = found.further.filter(field="seeds_at")
    assert len(seeds) > 1
    cells = found.tables.trials.group_by("batch_size").agg(pl.col("learning_rate").n_unique(), pl.col("steps").max())
    of_size = {row["batch_size"]: row for row in cells.iter_rows(named=True)}
    for row in seeds.rows(named=True):
        named = [parse_seeds_at(text) for text in row["cells"]]
        wanted = round(row["added"][0])
        trials = {}
        for cell in named:
            if "within 3 octaves" in row["settles"][0]:  # a flat curve: at all of its rates
                assert cell.seeds == Seeds(wanted)
                trials[cell.batch_size] = (wanted - 5) * of_size[cell.batch_size]["learning_rate"]
            else:  # seeds that do not choose the rate, at the best one alone
                assert cell.seeds == Seeds(5, 5, 5 + max(10, wanted))
                trials[cell.batch_size] = max(10, wanted)
        assert row["trials"] == sum(trials.values())
        seconds = sum(count * of_size[size]["steps"] for size, count in trials.items()) * 0.001
        assert row["seconds"] == pytest.approx(seconds)
        assert row["questions"] >= 1
        assert all("{" not in text for text in row["settles"])
        assert wanted <= 100
    whole = found.tables.trials.select(pl.struct("batch_size", "learning_rate").n_unique()).item()
    about_scores = seeds.filter(pl.col("settles").list.first().str.contains("loses"))
    assert (about_scores["trials"] < 10 * whole).all()  # as many seeds of the whole study cost far more
    each = found.further["seconds"] / found.further["questions"]
    assert each.is_sorted()


def test_trials_that_are_asked_for_are_those_that_a_search_then_asks_for():
    """What an option costs is counted a second time, by the search of the declaration that it extends."""
    declared = Declaration(
        name="s", workloads=simulated.RECORD, optimizers=(SGD(),), batch_sizes=(16, 64, 256), budgets=Epochs(30),
        seeds=Seeds(5, 7, 9), learning_rates=(0.05, 0.1, 0.2, 0.4, 0.8),
    )  # fmt: skip
    rng = np.random.default_rng(3)

    def train(trials):
        rows = [
            dict.fromkeys(TRIALS_SCHEMA)
            | {"trial_id": t.id, "workload": t.workload.name, "optimizer": str(t.optimizer), "budget": str(t.budget)}
            | {"batch_size": t.batch_size, "learning_rate": t.learning_rate, "seed": t.seed, "status": "complete"}
            | {"effective_learning_rate": t.learning_rate, "steps": t.updates}
            | {"train_loss": 0.1 + abs(t.learning_rate - 0.2)}
            | dict.fromkeys(("validation_score", "test_score"), 0.9 - abs(t.learning_rate - 0.2) + rng.normal() * 0.004)
            for t in trials
        ]
        return pl.DataFrame(rows, schema=TRIALS_SCHEMA)

    def searched(asked, trials):
        while pending := search(asked, trials).pending:
            trials = pl.concat([trials, train(pending)])
        return trials

    trials = searched(declared, pl.DataFrame(schema=TRIALS_SCHEMA))
    options = advice(trials).further.filter(field="seeds_at").rows(named=True)
    assert options
    for row in options:
        extended = replace(declared, seeds_at=[parse_seeds_at(text) for text in row["cells"]])
        assert len(searched(extended, trials)) - len(trials) == row["trials"]


def test_a_batch_size_is_not_shown_to_hold_before_those_below_it():
    """The first that is open needs many seeds, the second few: it waits for the first, whose test comes before."""
    key = {"workload": "w", "budget": "b", "optimizer": "sgd"}
    costs = pl.DataFrame(
        [
            key | {"batch_size": 8, "n": 5, "verdict": "undecided", "margin": 1.0}
            | {"difference": d, "difference_low": d - 1, "difference_high": d + 1} | {"batch_size": size}
            for size, d in ((8, -0.8), (16, 0.0), (32, -3.0))
        ]
    )  # fmt: skip
    score_limits = pl.DataFrame([key | {"quantity": "B_score", "low": 4, "high": None, "margin": 1.0}])
    first, second, third = _of_scores(costs, score_limits)
    alone = seeds_to_show([1.0], 1.0 * math.sqrt(5) / stats.t.ppf(0.975, 4), 0.025)
    assert second.seeds == first.seeds > alone
    assert third.seeds < first.seeds  # it is shown to lose whatever the others do


def test_batch_sizes_are_asked_for_where_regimes_are_few_and_where_the_score_is_not_seen_to_fall():
    few = advice(study(n=15, sizes=(16, 32, 64, 128), spread=0.001, grid=0.5), margin=0.01)
    asked = few.further.filter(field="batch_sizes")
    added = {tuple(row["added"]): row["settles"] for row in asked.rows(named=True)}
    assert "where sgd begins to lose" in added[256.0,]
    assert any("curvature-dominated" in text for texts in added.values() for text in texts)
    row = asked.row(by_predicate=pl.col("added") == [256.0], named=True)
    cells = few.tables.trials.select(pl.struct("batch_size", "learning_rate").n_unique()).item() / 4
    assert row["trials"] == round(cells * 15)
    assert row["seconds"] == pytest.approx(row["trials"] * 30 * 1024 / 256 * 0.001, rel=0.02)


def test_no_batch_size_is_asked_for_that_cannot_be_trained():
    whole = advice(study(n=10, spread=0.001), margin=0.01).further
    assert all(size <= 1024 for sizes in whole.filter(field="batch_sizes")["added"] for size in sizes)


def test_the_gap_in_which_the_score_falls_is_filled():
    far = advice(study(n=10, sizes=(4, 8, 16, 512), spread=0.001, lost=lambda x: 0.02 * (x > 6)), margin=0.004)
    rows = far.further.filter(field="batch_sizes").rows(named=True)
    wanted = next(row for row in rows if row["settles"] == ["where sgd begins to lose"])
    assert wanted["added"] == [32.0, 64.0, 128.0, 256.0]


def test_a_grid_that_was_declared_is_extended_where_an_optimum_is_at_its_end():
    """At a small batch size the best rate is below the lowest of the grid."""
    table = study(n=6, sizes=(4, 64), spread=0.001).filter(pl.col("learning_rate") > 2.0**-4.4)
    rates = table["learning_rate"].unique().sort().to_list()
    assert curve(table.filter(batch_size=4), simulated.RECORD, "score").best()[0] == 0
    found = advice(table, learning_rates=rates).further.filter(field="learning_rates").rows(named=True)
    assert [row["added"] for row in found] == [[rates[0] / 2]]
    assert found[0]["trials"] == 2 * 6
    assert "inside the grid" in found[0]["settles"][0]
    assert advice(table).further.filter(field="learning_rates").is_empty()  # a search has been that far


def test_one_seed_asks_for_five_and_nothing_else_of_seeds():
    found = advice(study(n=1)).further.filter(field="seeds").rows(named=True)
    assert [row["added"] for row in found] == [[5.0]]
    assert "of which one seed has none" in found[0]["settles"][0]


def test_without_seconds_options_are_ranked_by_their_trials():
    found = advice(study(n=5, lost=lambda x: 0.003 * max(0.0, x - 5)).drop("seconds")).further
    assert found["seconds"].null_count() == len(found)
    assert (found["trials"] / found["questions"]).is_sorted()
