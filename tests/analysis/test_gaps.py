"""Trials that are missing or share no seeds: what is kept, what is said, and Welch's test against scipy's."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sgdscope.analysis.curve import Curve, curve, on_common_seeds
from sgdscope.analysis.gaps import gap_sentences
from sgdscope.analysis.rate_choice import Chosen, paired, welch_pairs
from sgdscope.analysis.rate_groups import ROUNDING, binned, grouped, rounded_together
from sgdscope.analysis.score_limits import score_limits
from sgdscope.analysis.tables import Tables
from sgdscope.records import WorkloadRecord

RECORD = WorkloadRecord("w", "1", (), "0" * 64, (1024, 0, 500), "accuracy", "maximize", 2.3, 0.1, chosen_on="test")
RECORDS = {"w": RECORD}
TOPS = {8: -4, 32: -2, 128: -2}


def table(seed_of=lambda size, rate, seed, optimizer: seed, optimizers=("sgd",), seeds=5, noise=0.002):
    rng = np.random.default_rng(1)
    rows = [
        {
            "workload": "w",
            "budget": "epochs:1",
            "optimizer": optimizer,
            "batch_size": size,
            "learning_rate": 2.0**octave,
            "effective_learning_rate": 2.0**octave,
            "seed": seed_of(size, octave, seed, optimizer),
            "status": "complete",
            "steps": 1000,
            "train_loss": 0.1,
            "test_score": 0.9 - 0.01 * (octave - top) ** 2 + float(rng.normal(0, noise)),
        }
        for optimizer in optimizers
        for size, top in TOPS.items()
        for octave in range(-7, 2)
        for seed in range(seeds)
    ]
    return pl.DataFrame(rows).with_columns(validation_score=pl.col("test_score"))


def best_rates(trials):
    optima = Tables(trials, RECORDS).optima
    return optima.filter(criterion="score").sort("optimizer", "batch_size")["learning_rate"].to_list()


@st.composite
def holes(draw):
    """A curve of 3 to 6 rates and 4 to 8 seeds, of which trials are missing here and there."""
    shape = (draw(st.integers(3, 6)), draw(st.integers(4, 8)))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    goodness = rng.normal(size=shape) + 0.7 * rng.normal(size=shape[0])[:, None]
    goodness[rng.random(shape) < draw(st.sampled_from([0.0, 0.1, 0.3]))] = np.nan
    return Curve(2.0 ** np.arange(shape[0]), np.arange(shape[1]), goodness, np.zeros(shape, bool))


@given(holes())
def test_each_rate_counts_with_the_seeds_that_it_has_and_pairs_with_those_that_both_have(found):
    rows = [{s: v for s, v in enumerate(row) if not np.isnan(v)} for row in found.goodness.tolist()]
    usual = sorted(len(row) for row in rows if row)[len([row for row in rows if row]) // 2]
    eligible = [k for k, row in enumerate(rows) if 2 * len(row) >= usual and len(row) >= min(3, usual)]
    assert np.flatnonzero(found.eligible).tolist() == eligible
    means = {k: np.mean(list(rows[k].values())) for k in eligible}
    best = max(means, key=means.get)
    assert found.best()[0] == best
    contending = {best}
    for k in eligible:
        p = [1.0]
        for j in set(eligible) - {k}:
            shared = rows[j].keys() & rows[k].keys()
            if len(shared) >= min(3, len(rows[j]), len(rows[k])):
                p.append(stats.ttest_1samp([rows[j][s] - rows[k][s] for s in shared], 0, alternative="greater").pvalue)
            else:
                of = [list(rows[i].values()) for i in (j, k)]
                p.append(stats.ttest_ind(*of, equal_var=False, alternative="greater").pvalue)
        if min(p) >= 0.05 / max(1, len(eligible) - 1):
            contending.add(k)
    assert set(np.flatnonzero(found.contenders)) == contending


@given(holes(), st.integers(0, 100))
def test_a_draw_of_seeds_weighs_each_rates_trials(found, number):
    seeds = np.random.default_rng(number).integers(0, len(found.seeds), (4, len(found.seeds)))
    for draw, best in zip(seeds, found.best(seeds), strict=True):
        drawn = [[row[s] for s in draw if not np.isnan(row[s])] or row[~np.isnan(row)] for row in found.goodness]
        means = [np.mean(of) if fit else -np.inf for of, fit in zip(drawn, found.eligible, strict=True)]
        assert means[best] == pytest.approx(max(means))


@pytest.mark.parametrize("column", ["status", "seed"])
def test_missing_trials_cost_their_own_seeds_alone(column):
    """4 % of 15 seeds: no batch size is lost, and all keep most of their seeds."""
    trials = table(seeds=15)
    rng = np.random.default_rng(2)
    gone = pl.Series(rng.random(len(trials)) < 0.04)
    holes = trials.filter(~gone)
    if column == "status":
        holes = trials.with_columns(status=pl.when(gone).then(pl.lit("failed")).otherwise("status"))
    assert best_rates(holes) == best_rates(trials)
    (row,) = score_limits(holes, RECORDS).filter(quantity="B_score").iter_rows(named=True)
    assert (row["batch_sizes"], 12 <= row["n"] <= 15) == (3, True)
    assert gap_sentences(holes, RECORDS) == []


def test_seeds_that_differ_by_design_leave_no_rate_out():
    """Five everywhere, ten beside the best rate, thirty at the best."""
    octave = (pl.col("learning_rate").log(2) - pl.col("batch_size").replace_strict(TOPS, return_dtype=pl.Int64)).abs()
    most = pl.when(octave < 0.5).then(30).when(octave < 1.5).then(10).otherwise(5)
    trials = table(seeds=30).filter(pl.col("seed") < most)
    assert gap_sentences(trials, RECORDS) == []
    assert best_rates(trials) == [2.0**top for top in TOPS.values()]
    # The twenty of the best rate that did not choose it report its score.
    assert set(Tables(trials, RECORDS).optima.filter(criterion="score")["n"]) == {20}
    assert set(score_limits(trials, RECORDS)["n"]) == {20}
    found = curve(trials.filter(batch_size=8), RECORD, "score")
    assert (found.eligible.all(), found.n, found.usual) == (True, 10, 5)


@pytest.mark.parametrize("missing", [(), (2,), (20,)])
def test_where_most_rates_have_more_seeds_those_of_the_search_stay(missing):
    """Five everywhere and thirty within two octaves of the best rate: the usual number is thirty."""
    away = (pl.col("learning_rate").log(2) - pl.col("batch_size").replace_strict(TOPS, return_dtype=pl.Int64)).abs()
    trials = table(seeds=30).filter(pl.col("seed") < pl.when(away < 2.5).then(30).otherwise(5))
    trials = trials.filter(~(pl.col("seed").is_in(missing) & (away < 0.5)))
    assert gap_sentences(trials, RECORDS) == []
    assert best_rates(trials) == [2.0**top for top in TOPS.values()]
    found = curve(trials.filter(batch_size=32), RECORD, "score")
    assert (found.usual >= 29, found.eligible.all(), found.censored) == (True, True, ())
    assert set(found.counts[[0, 1, 2, -1]]) == {5}


@pytest.mark.parametrize("counts", [(5, 15, 15, 30, 15, 15, 15, 5), (3, 9, 9, 15, 9, 3)])
def test_more_seeds_of_some_rates_are_no_gaps_of_the_others(counts):
    there = np.arange(max(counts)) < np.array(counts)[:, None]
    values = np.where(there, 0.0, np.nan)
    found = Curve(2.0 ** np.arange(len(counts)), np.arange(max(counts)), values, np.zeros(there.shape, bool))
    assert found.enough.all()
    values[0, 0] = np.nan  # a search's seed that is missing is a gap
    found = Curve(2.0 ** np.arange(len(counts)), np.arange(max(counts)), values, np.zeros(there.shape, bool))
    assert not found.enough[0]


def test_a_batch_size_with_two_seeds_is_left_out_and_named():
    holes = table().filter((pl.col("batch_size") != 32) | (pl.col("seed") < 2))
    assert gap_sentences(holes, RECORDS) == [
        "sgd at batch size 32: fewer than 3 seeds have a score at its best learning rate. The batch size is left out."
    ]
    assert score_limits(holes, RECORDS)["batch_sizes"].to_list() == [2]


def test_a_grid_between_the_rates_of_another_loses_no_batch_size():
    shifted = pl.when(pl.col("seed") > 2).then(pl.col("learning_rate") * 2**0.5).otherwise(pl.col("learning_rate"))
    optima = Tables(table().with_columns(learning_rate=shifted), RECORDS).optima
    assert optima.filter(criterion="score")["batch_size"].sort().to_list() == list(TOPS)


def test_where_left_out_rates_lie_beyond_an_optimum_at_the_edge_their_seeds_come_first():
    lost = (pl.col("batch_size") == 32) & (pl.col("learning_rate") > 2.0**-2) & (pl.col("seed") > 1)
    (said,) = gap_sentences(table().filter(~lost), RECORDS)
    assert said.endswith("are left out. Some lie beyond the others: add their seeds before further rates.")


def test_a_rate_that_lacks_seeds_is_left_out_and_named_and_the_seeds_of_others_stay():
    trials = table()
    lost = (pl.col("batch_size") == 32) & (pl.col("learning_rate") == 2.0) & (pl.col("seed") > 1)
    holes = trials.filter(~lost)
    assert gap_sentences(trials, RECORDS) == []
    assert gap_sentences(holes, RECORDS) == [
        "sgd at batch size 32: learning rate 2 lacks seeds that the others have, and is left out."
    ]
    assert set(score_limits(holes, RECORDS)["n"]) == {5}
    assert best_rates(holes) == best_rates(trials) == [2.0**top for top in TOPS.values()]


@pytest.mark.parametrize("neighbour", [-1, 0, 1])
def test_a_lost_trial_near_the_optimum_costs_its_seed_and_not_the_optimum(neighbour):
    trials = table()
    lost = (pl.col("learning_rate") == 2.0 ** (-2 + neighbour)) & (pl.col("seed") == 3) & (pl.col("batch_size") == 32)
    holes = trials.filter(~lost)
    found = curve(holes.filter(batch_size=32), RECORD, "score")
    assert (len(found.rates), found.seeds.tolist()) == (9, [0, 1, 2, 3, 4])
    assert best_rates(holes) == best_rates(trials)


def test_seeds_that_are_run_numbers_give_unpaired_statistics():
    numbers = iter(range(10_000))
    trials = table(lambda *_: next(numbers))
    found = curve(trials.filter(batch_size=8), RECORD, "score")
    assert found.unpaired
    assert (found.goodness.shape, found.n, found.usual) == ((9, 45), 5, 5)
    (once,) = on_common_seeds([found])
    assert once.goodness.shape == (9, 5)
    np.testing.assert_array_equal(np.sort(once.goodness), np.sort(found.goodness)[:, :5])
    assert best_rates(trials) == [2.0**top for top in TOPS.values()]
    assert set(score_limits(trials, RECORDS)["n"]) == {5}
    (said,) = gap_sentences(trials, RECORDS)
    assert "too few seeds were run at two learning rates" in said
    assert "Statistics are unpaired there (Welch's t test)" in said


def test_optimizers_that_share_no_seeds_are_compared_unpaired():
    def apart(size, octave, seed, optimizer):
        return seed + 100 * (optimizer != "sgd")

    trials = table(apart, ("sgd", "momentum:0.9"))
    lead = score_limits(trials, RECORDS).filter(quantity="B_mom")
    assert set(lead["n"]) == {5}
    assert gap_sentences(trials, RECORDS) == [
        "momentum:0.9 and sgd share fewer than 3 seeds. Statistics are unpaired there (Welch's t test), which takes "
        "more seeds to decide."
    ]


def test_batch_sizes_that_share_no_seeds_are_compared_unpaired():
    trials = table(lambda size, octave, seed, optimizer: 1000 * size + seed)
    assert set(score_limits(trials, RECORDS)["n"]) == {5}
    (said,) = gap_sentences(trials, RECORDS)
    assert said.startswith("sgd: batch sizes share fewer than 3 seeds. Statistics are unpaired")


@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 1000))
def test_unpaired_differences_have_welchs_statistic(n, m, number):
    rng = np.random.default_rng(number)
    one, other = rng.normal(1, 2, n), rng.normal(0, 1, m)
    mine, theirs = welch_pairs(one, other)
    expected = stats.ttest_ind(one, other, equal_var=False)
    assert len(mine) == min(n, m)
    assert stats.ttest_rel(mine, theirs).statistic == pytest.approx(expected.statistic)
    assert len(mine) - 1 <= expected.df + 1e-9


def test_scores_are_paired_on_3_shared_seeds_and_unpaired_below():
    three = (
        Chosen(np.array([0, 1, 2, 3]), np.arange(4.0)),
        Chosen(np.array([1, 2, 3, 9]), np.array([5.0, 5.0, 7.0, 1.0])),
    )
    assert [values.tolist() for values in paired(*three)] == [[1.0, 2.0, 3.0], [5.0, 5.0, 7.0]]
    two = Chosen(np.array([0, 1, 2, 3]), np.arange(4.0)), Chosen(np.array([2, 3, 8, 9]), np.array([5.0, 5.0, 7.0, 1.0]))
    mine, theirs = paired(*two)
    assert (mine - theirs).mean() == pytest.approx(1.5 - 4.5)


def test_contenders_of_unpaired_trials_are_those_of_welchs_test():
    rng = np.random.default_rng(3)
    goodness = rng.normal(0, 1, (4, 6)) + np.array([0.0, 1.5, 2.5, -1.0])[:, None]
    apart = np.full((4, 24), np.nan)  # no seed at two rates
    for rate in range(4):
        apart[rate, rate::4] = goodness[rate]
    found = Curve(2.0 ** np.arange(4), np.arange(24), apart, np.zeros((4, 24), bool))
    assert found.unpaired
    beaten = [
        any(stats.ttest_ind(goodness[k], goodness[j], equal_var=False, alternative="less").pvalue < 0.05 / 3
            for j in range(4) if j != k)
        for k in range(4)
    ]  # fmt: skip
    assert found.contenders.tolist() == [not lost for lost in beaten]


# ── Rates within rounding, and rates drawn at random ─────────────────────────────────────────────────────────


@given(st.lists(st.floats(1e-5, 1e2), min_size=1, max_size=30))
def test_rates_move_by_no_more_than_rounding_and_keep_their_order(rates):
    found = rounded_together(rates)
    assert all(abs(new - old) <= ROUNDING * old * 1.01 for old, new in found.items())
    assert sorted(rates, key=lambda rate: (found[rate], rate)) == sorted(rates)
    assert rounded_together(list(found.values())).keys() == set(found.values())


def test_rates_within_rounding_are_one_rate():
    trials = table()
    rng = np.random.default_rng(0)
    jittered = trials.with_columns(learning_rate=pl.col("learning_rate") * (1 + 1e-6 * rng.random(len(trials))))
    together, said = grouped(jittered)
    assert together["learning_rate"].n_unique() == 9
    assert said == ["sgd: 135 learning rates are read as 9, since they agree to 1 part in 1,000."]
    assert best_rates(together) == pytest.approx(best_rates(trials), rel=1e-5)
    assert grouped(trials)[1] == []
    assert grouped(trials)[0].equals(trials)


@pytest.mark.parametrize("same_seed", [True, False])
def test_rates_drawn_at_random_are_read_in_half_octaves_and_it_says_so(same_seed):
    rng = np.random.default_rng(0)
    rows = []
    for size, top in TOPS.items():
        for number in range(60):
            octave = float(rng.uniform(-7, 2))
            score = 0.9 - 0.01 * (octave - top) ** 2 + float(rng.normal(0, 0.001))
            rows.append((size, 2.0**octave, 0 if same_seed else number, score))
    first = table().head(1).drop("batch_size", "learning_rate", "seed", "test_score", "validation_score")
    trials = pl.DataFrame(rows, ["batch_size", "learning_rate", "seed", "test_score"], orient="row").join(
        first, how="cross"
    )
    trials = trials.with_columns(validation_score=pl.col("test_score"))
    together, (said,) = grouped(trials)
    assert said.startswith(
        "sgd: the 180 learning rates look drawn at random. They are read as 19 bins of half an octave"
    )
    assert np.abs(np.log2(np.array(best_rates(together))) - list(TOPS.values())).max() <= 0.5
    assert (
        np.abs(np.log2([binned(rate) for rate in trials["learning_rate"]]) - np.log2(trials["learning_rate"]))
        <= 0.25 + 1e-9
    ).all()


@pytest.mark.parametrize(
    "rates", [[0.1, 0.2, 0.5, 1, 2, 5], [1e-3, 3e-3, 1e-2, 3e-2, 0.1], [1, 2, 4, 5.66, 8, 11.3, 16, 32]]
)
def test_a_grid_with_one_seed_stays_a_grid(rates):
    trials = table(seeds=1).group_by("batch_size", maintain_order=True).head(len(rates))
    trials = trials.with_columns(learning_rate=pl.Series([float(rate) for rate in rates] * 3))
    together, said = grouped(trials)
    assert together.equals(trials)
    assert said == []
