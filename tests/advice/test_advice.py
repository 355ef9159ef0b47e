from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy import stats

import sgdscope as sg
from sgdscope.advice.advice import Advice, best_over_batch_sizes
from sgdscope.analysis.tables import Tables
from sgdscope.analysis.trial_table import by_optimizer
from sgdscope.report.text.recommendation import recommendation
from sgdscope.stats.intervals import holm
from sgdscope.testing import simulated

RECORD = simulated.RECORD
MARGIN = 0.01


def falling(x):
    """What is lost from batch size 64 on: 0.02 an octave."""
    return 0.02 * max(0.0, x - 6)


def rising(x):
    """What small batch sizes lack, as at constant steps: 0.02 an octave below 32."""
    return 0.02 * max(0.0, 5 - x)


def nothing(x):
    return 0.0


def trials(seed=0, n=8, sizes=simulated.BATCH_SIZES, spread=0.004, **lost):
    rng = np.random.default_rng(seed)
    truths = {name.replace("_", ":0."): simulated.Truth(lost=of, spread=spread) for name, of in lost.items()}
    return simulated.trial_table({name: simulated.simulate(rng, n, truth, sizes) for name, truth in truths.items()})


def advice(table, record=RECORD, margin=MARGIN, **more):
    return Advice(Tables(table, {"simulated": record}, margin), **more)


def timed(table, seconds):
    """Give trials the seconds of a batch size, all in one pack."""
    of = pl.col("batch_size").replace_strict(seconds, return_dtype=pl.Float64)
    return table.with_columns(seconds=of, method=pl.lit("map"), device=pl.lit("cpu"), devices=pl.lit(2))


def verdicts(costs, optimizer="sgd"):
    return dict(costs.filter(optimizer=optimizer).select("batch_size", "verdict").iter_rows())


def test_the_plateau_holds_what_falls_is_lost_and_the_fastest_of_those_that_hold_is_named():
    table = trials(sgd=falling)
    seconds = {size: 1000.0 / size for size in simulated.BATCH_SIZES} | {32: 1.0}
    costs = advice(timed(table, seconds)).costs
    found = verdicts(costs)
    assert [found[size] for size in (4, 8, 16, 32, 64)] == ["equivalent"] * 5
    assert [found[size] for size in (256, 512, 1024)] == ["worse"] * 3
    assert costs.filter("fastest")["batch_size"].to_list() == [32]
    assert costs.filter(batch_size=32)["relative"].item() == pytest.approx(1 / (1000 / 1024))


def test_differences_are_from_the_mean_of_those_that_hold_by_a_paired_t():
    table = trials(sgd=falling)
    costs = advice(table).costs
    held = [size for size, verdict in verdicts(costs).items() if verdict == "equivalent"]
    cells = {size: table.filter(batch_size=size) for size in simulated.BATCH_SIZES}
    scores = {}
    for size, cell in cells.items():
        means = cell.group_by("learning_rate").agg(pl.col("validation_score").mean()).sort("validation_score")
        best = cell.filter(learning_rate=means["learning_rate"][-1]).sort("seed")
        scores[size] = best["test_score"].to_numpy()
    differences = scores[512] - np.mean([scores[size] for size in held], axis=0)
    row = costs.row(by_predicate=pl.col("batch_size") == 512, named=True)
    interval = stats.t.interval(0.95, len(differences) - 1, differences.mean(), stats.sem(differences))
    assert row["difference"] == pytest.approx(differences.mean())
    assert (row["difference_low"], row["difference_high"]) == pytest.approx(interval)
    assert row["test_score"] == pytest.approx(scores[512].mean())


def test_small_batch_sizes_that_lose_are_told_by_the_best_one():
    """The plateau grows upward from the smallest, and takes in all that is better than it."""
    found = advice(trials(momentum_9=rising))
    of = verdicts(found.costs, "momentum:0.9")
    assert [of[4], of[8]] == ["worse"] * 2
    assert [of[size] for size in (64, 128, 256)] == ["equivalent"] * 3
    assert found.tables.score_limits.filter(quantity="B_score")["low"].item() == 1024
    assert found.leads.is_empty()


def test_what_is_worse_than_the_best_is_so_too_where_no_seeds_are_shared():
    table = trials(momentum_9=rising)
    apart = table.with_columns(seed=pl.col("seed") + 100 * pl.col("batch_size"))
    together, alone = (verdicts(advice(of).costs, "momentum:0.9") for of in (table, apart))
    assert [alone[4], alone[8]] == ["worse"] * 2
    assert all(alone[size] == together[size] for size in (64, 128, 256))


def test_at_constant_steps_only_what_is_within_the_margin_of_the_best_is_equivalent():
    """With few seeds and much noise nothing is shown to be worse, and what is worse must not be called equivalent."""
    falsely, guessed = 0, 0
    for seed in range(30):
        table = trials(seed, n=5, sizes=(8, 32, 128, 512), spread=0.012, sgd=rising)
        of = verdicts(advice(table.with_columns(budget=pl.lit("steps:400"))).costs)
        falsely += of[8] == "equivalent"
        guessed += of[8] == "undecided"
    assert falsely <= stats.binom.ppf(0.999, 30, 0.05)
    assert guessed


def test_no_batch_size_is_falsely_lost_nor_falsely_held_in_more_studies_than_levels_allow():
    """Lost where nothing is, or held where 256 and more lose twice the margin: each in at most 5 % of studies."""
    wrong = []
    for seed in range(40):
        none = verdicts(advice(trials(seed, n=5, sizes=(8, 32, 128, 512), sgd=nothing)).costs)
        loses = verdicts(advice(trials(seed, n=5, sizes=(8, 32, 128, 512), sgd=falling)).costs)
        wrong.append(("worse" in none.values(), loses[512] == "equivalent"))
    assert (np.mean(wrong, axis=0) <= 0.05).all()


def test_momentum_is_ahead_where_sgd_falls_the_same_where_neither_does_and_the_tests_are_holms():
    table = trials(sgd=falling, momentum_9=nothing, n=12)
    leads = advice(table).leads
    equal = leads.filter(over="equal batch sizes")
    found = dict(equal.select("batch_size", "verdict").iter_rows())
    assert [found[size] for size in (4, 8, 16, 32)] == ["equivalent"] * 4
    assert [found[size] for size in (256, 512, 1024)] == ["better"] * 3
    n = 12
    error = (equal["difference_high"] - equal["difference"]).to_numpy() / stats.t.ppf(0.975, n - 1)
    mean = equal["difference"].to_numpy()
    beyond = holm(np.minimum(1, 2 * stats.t.sf((np.abs(mean) - MARGIN) / error, n - 1)))
    same = holm(stats.t.sf((MARGIN - np.abs(mean)) / error, n - 1))
    assert equal["p_beyond"].to_numpy() == pytest.approx(beyond, abs=1e-9)
    assert equal["p_same"].to_numpy() == pytest.approx(same, abs=1e-9)
    best = leads.filter(over="best batch sizes").row(0, named=True)
    assert best["sgd_batch_size"] <= 128
    assert best["verdict"] == "equivalent"


def test_a_batch_size_than_which_all_others_are_worse_is_no_guess():
    found = advice(trials(n=12, sizes=(64, 512, 1024), sgd=falling))
    (row,) = found.recommended.rows(named=True)
    assert (row["batch_size"], row["basis"], row["place"]) == (64, "best", "smallest")
    (said,) = (str(of) for of in recommendation(found, found.tables))
    assert ": use batch size 64 and learning rate" in said
    assert said.endswith("It is the smallest tried: smaller ones may be better. Worse at 512 and larger.")


def test_one_comparison_has_one_verdict_also_where_seeds_differ():
    """Both are recommended at the same batch size; with other seeds for each, its comparison is still the one there."""
    few = trials(0, n=12, sizes=(8, 32), sgd=nothing, momentum_9=nothing)
    table = few.filter((pl.col("optimizer") == "sgd") | (pl.col("seed") < 6))
    leads = advice(timed(table, {8: 2.0, 32: 1.0})).leads
    row = leads.filter(over="recommended")
    assert row["batch_size"].to_list() == row["sgd_batch_size"].to_list() == [32]
    same = leads.filter(over="equal batch sizes", batch_size=32)
    assert_frame_equal(row.drop("over"), same.drop("over"))


def test_the_value_of_a_searched_coefficient_is_recommended_with_the_rate(tmp_path):
    study = sg.Study(
        name="s", workloads=sg.workloads.digits(hidden=4), batch_sizes=(64,), budgets=sg.Steps(3), seeds=2,
        optimizers=(sg.L2(weight_decay=sg.Values(0, 0.5)),), learning_rates=(0.125, 0.25),
    )  # fmt: skip
    result = sg.run(study, tmp_path / "s")
    (row,) = result.recommend().recommended.rows(named=True)
    assert row["coefficient"] == result.optima.filter(criterion="score")["coefficient"][0]
    assert f" and weight_decay {row['coefficient']:g}: test accuracy" in result.recommendation
    assert result.recommendation.startswith("l2:weight_decay: ")


def test_behind_is_said_as_well_and_smaller_scores_may_be_better():
    record = replace(RECORD, score_goal="minimize", score_name="error")
    table = trials(sgd=nothing, momentum_9=lambda x: 0.1)
    errors = table.with_columns(test_score=1 - pl.col("test_score"), validation_score=1 - pl.col("validation_score"))
    found = advice(errors, record)
    assert set(found.leads["verdict"]) == {"worse"}
    assert (found.leads["difference"] < 0).all()
    assert (found.leads["test_score"] > found.leads["sgd_test_score"]).all()
    assert (found.costs["test_score_low"] <= found.costs["test_score"]).all()
    plain = advice(table)
    assert found.costs["difference"].to_numpy() == pytest.approx(plain.costs["difference"].to_numpy(), abs=1e-12)
    assert found.costs["verdict"].to_list() == plain.costs["verdict"].to_list()


def test_the_best_batch_size_and_rate_are_chosen_together_on_the_validation_split():
    table = trials(sgd=falling, n=6)
    ((_, members),) = by_optimizer(table)
    size, chosen = best_over_batch_sizes(members, RECORD)
    means = table.group_by("batch_size", "learning_rate").agg(pl.col("validation_score").mean().round(12))
    tied = means.filter(validation_score=means["validation_score"].max())
    scores = [
        table.filter(batch_size=b, learning_rate=r).sort("seed")["test_score"].to_list() for b, r, _ in tied.rows()
    ]
    assert size in tied["batch_size"].to_list()
    assert chosen.scores.tolist() in scores


def test_without_a_validation_split_the_best_is_scored_at_what_the_other_seeds_choose():
    """All cells alike: choosing among 27 rates on the test scores would flatter, and leaving seeds out does not."""
    record = replace(RECORD, chosen_on="test")
    gained = []
    for seed in range(30):
        table = trials(seed, n=5, sizes=(8, 32, 128), sgd=nothing)
        ((_, members),) = by_optimizer(table.with_columns(validation_score=pl.col("test_score")))
        _, chosen = best_over_batch_sizes(members, record)
        gained.append(chosen.scores.mean() - simulated.PLATEAU)
    assert abs(np.mean(gained)) < 3 * np.std(gained) / np.sqrt(len(gained)) + 0.0005


def test_one_seed_shows_nothing():
    found = advice(trials(n=1, sgd=falling, momentum_9=nothing))
    assert set(verdicts(found.costs).values()) == {"equivalent", "undecided"}  # the smallest by definition
    assert verdicts(found.costs)[4] == "equivalent"
    assert set(found.leads["verdict"]) == {"undecided"}
    assert np.isinf(found.costs["test_score_high"].to_numpy()).all()


def test_one_batch_size_has_nothing_to_differ_from():
    found = advice(trials(sizes=(64,), sgd=nothing))
    row = found.costs.row(0, named=True)
    assert (row["verdict"], row["difference"]) == ("equivalent", None)
    assert found.further.is_empty() or set(found.further["field"]) == {"seeds"}


def test_a_cell_in_which_all_diverged_is_left_out_and_one_without_trials_too():
    table = trials(sgd=nothing, momentum_9=nothing, sizes=(8, 32, 128))
    gone = pl.col("batch_size") == 128
    names = ("validation_score", "test_score", "train_loss")
    diverged = table.with_columns(
        status=pl.when(gone).then(pl.lit("diverged")).otherwise("status"),
        **{name: pl.when(gone).then(None).otherwise(name) for name in names},
    )
    found = advice(diverged)
    assert set(found.costs["batch_size"]) == {8, 32}
    assert set(found.leads["batch_size"]) == {8, 32}
    failed = table.with_columns(status=pl.when(gone).then(pl.lit("failed")).otherwise("status"))
    assert set(advice(failed).leads["batch_size"]) == {8, 32}


def test_an_optimizer_that_is_not_ours_is_compared_with_sgd_too():
    table = trials(sgd=nothing, momentum_9=nothing, sizes=(8, 32))
    other = table.with_columns(optimizer=pl.col("optimizer").replace({"momentum:0.9": "lion"}))
    assert set(advice(other).leads["optimizer"]) == {"lion"}
    assert advice(other).leads["warmed_up"].null_count() == 2 + 2  # at two batch sizes, the recommended and the best


def test_every_table_has_its_columns_and_learning_rates_are_of_what_was_measured_unless_asked():
    found = advice(trials(n=3, sgd=falling, sizes=(8, 16, 32, 64)))
    assert set(found.all()) == {"recommended", "rates", "costs", "leads", "seconds", "further"}
    assert sorted(found.rates["batch_size"].unique()) == [8, 16, 32, 64]
    assert advice(found.tables.trials, batch_sizes=[24]).rates["batch_size"].unique().to_list() == [24]
    assert found.costs["seconds"].null_count() == len(found.costs)
    assert not found.costs["fastest"].any()
