"""Studies side by side, against scipy's tests on planted tables."""

import numpy as np
import polars as pl
import pytest
from scipy import stats

import sgdscope as sg
from sgdscope.stats.intervals import holm

pytestmark = pytest.mark.usefixtures("quick")
MARGIN = 0.01


def scores(analysis, size, rate=0.4):
    mine = analysis.trials.filter(batch_size=size, learning_rate=rate).sort("seed")
    return mine["test_score"].to_numpy()


def verdicts(rows):
    return dict(rows.drop_nulls("batch_size").select("batch_size", "verdict").iter_rows())


def test_identical_studies_are_equivalent_everywhere_with_difference_0(loaded):
    study = loaded()
    found = sg.compare(study, study)
    assert set(found.score_difference["verdict"]) == {"equivalent"}
    assert found.score_difference["batch_size"].to_list() == [8, 32, 128, 512, None]
    assert found.score_difference["difference"].to_list() == pytest.approx([0] * 5, abs=1e-15)
    assert found.score_difference["decides_high"].to_list() == pytest.approx([0] * 5, abs=1e-15)
    assert found.rate_difference["difference"].to_list() == pytest.approx([0] * 5)
    assert found.rate_difference.row(-1, named=True)["batch_size"] is None
    assert not set(found.rate_difference["verdict"]) & {"higher", "lower"}
    assert set(found.claim_verdicts["comparison"]) <= {"same", "undecided"}
    assert found.what_differs == []
    assert found.names == ["results (1)", "results (2)"]


def test_differences_are_those_of_scipys_paired_t_test_with_holms_correction(loaded):
    one, other = loaded(draw=1), loaded(draw=2, lost=2 * MARGIN)
    found = sg.compare(one, other).score_difference
    mean, rows = found.row(-1, named=True), found.drop_nulls("batch_size")
    means = np.mean([scores(other, size) - scores(one, size) for size in rows["batch_size"]], axis=0)
    assert mean["difference"] == pytest.approx(-MARGIN, abs=0.002)
    interval = stats.t.interval(0.95, 5, means.mean(), stats.sem(means))
    assert (mean["difference_low"], mean["difference_high"]) == pytest.approx(interval)
    p_values = []
    for row in rows.iter_rows(named=True):
        mine, theirs = scores(other, row["batch_size"]), scores(one, row["batch_size"])
        tested = stats.ttest_rel(mine, theirs)
        interval = tested.confidence_interval(0.95)
        assert row["difference"] == pytest.approx((mine - theirs).mean())
        # Without a validation split each seed's rate is chosen by the others; here all choose the planted one.
        assert (row["difference_low"], row["difference_high"]) == pytest.approx((interval.low, interval.high))
        beyond = stats.ttest_1samp(np.sign(tested.statistic) * (mine - theirs), MARGIN, alternative="greater").pvalue
        p_values.append(min(1, 2 * beyond))
    assert rows["p_beyond"].to_list() == pytest.approx(holm(np.array(p_values)).tolist())
    assert verdicts(rows) == {8: "equivalent", 32: "equivalent", 128: "worse", 512: "worse"}
    lost = rows.filter(verdict="worse")
    assert (lost["decides_high"] < -MARGIN).all()
    assert (lost["level"] >= 95).all()
    assert verdicts(sg.compare(other, one).score_difference)[512] == "better"


def test_studies_without_common_seeds_are_compared_by_welchs_test_and_that_is_said(loaded):
    one, other = loaded(draw=1, n=6), loaded(draw=2, n=9, first_seed=100, lost=2 * MARGIN)
    found = sg.compare(one, other)
    assert not found.score_difference["paired"].any()
    for row in found.score_difference.drop_nulls("batch_size").iter_rows(named=True):
        mine, theirs = scores(other, row["batch_size"]), scores(one, row["batch_size"])
        error = np.sqrt(mine.var(ddof=1) / 9 + theirs.var(ddof=1) / 6)
        assert row["difference"] == pytest.approx(mine.mean() - theirs.mean())
        assert row["difference_high"] - row["difference"] == pytest.approx(stats.t.ppf(0.975, 5) * error)
    said = " ".join(found.sentences)
    assert "independent samples (Welch's t test)" in said
    assert "seed by seed" not in said


def test_seeds_that_both_have_are_compared_where_one_study_has_more(loaded):
    one, other = loaded(draw=1, n=4), loaded(draw=2, n=9)
    rows = sg.compare(one, other).score_difference
    assert rows["paired"].all()
    assert rows["n"].to_list() == [4] * 5
    difference = scores(other, 8)[:4] - scores(one, 8)
    assert rows["difference"][0] == pytest.approx(difference.mean())


def test_rates_are_compared_in_octaves(loaded):
    """Two octaves apart: rates in factors of 2 leave each optimum uncertain by a quarter of an octave."""
    one, other = loaded(draw=1, best=0.2), loaded(draw=2, best=0.8)
    rows = sg.compare(one, other).rate_difference
    assert rows["difference"].to_list() == pytest.approx([2] * 5, abs=0.2)
    mean = rows.filter(pl.col("batch_size").is_null())
    assert mean["verdict"].item() == "higher"
    reverse = sg.compare(other, one).rate_difference
    assert reverse["difference"].to_list() == pytest.approx([-2] * 5, abs=0.2)
    assert reverse["verdict"][-1] == "lower"


def test_each_study_is_compared_with_the_first_and_all_have_one_correction(loaded):
    studies = [loaded(draw=draw, lost=lost) for draw, lost in enumerate((0.0, 0.0, 3 * MARGIN))]
    found = sg.compare(*studies)
    rows = found.score_difference.drop_nulls("batch_size")
    assert rows["study"].to_list() == [found.names[1]] * 4 + [found.names[2]] * 4
    assert set(rows["reference"]) == {found.names[0]}
    # The first of 8 tests to reject has a level of 5 % / 8.
    assert rows["level"].max() >= 100 * (1 - 0.05 / 8) - 1e-9
    assert verdicts(rows[4:])[512] == "worse"


def test_optimizers_stand_for_each_other_where_each_study_has_one_of_its_own(loaded):
    one, other = loaded(optimizers=("sgd", "adam")), loaded(optimizers=("sgd", "lion"), draw=1)
    found = sg.compare(one, other)
    assert set(found.score_difference["optimizer"]) == {"sgd", "adam against lion"}
    assert found.what_differs == ["the optimizer: adam against lion"]


def test_what_is_in_one_study_alone_is_named(loaded):
    one, other = loaded(optimizers=("sgd", "adam")), loaded(sizes=(32, 128, 512, 1024))
    found = sg.compare(one, other)
    assert found.notices == ["Not compared: optimizer adam of results (1)."]
    assert found.unequal_efforts == ["batch sizes: 8, 32, 128, 512 against 32, 128, 512, 1024"]
    assert found.score_difference["batch_size"].to_list() == [32, 128, 512, None]


def test_one_seed_decides_nothing_and_is_drawn(loaded, tmp_path):
    found = sg.compare(loaded(n=1), loaded(n=1, lost=0.1))
    assert set(found.score_difference["verdict"]) == {"undecided"}
    assert "best-score" in found.figures
    found.save(tmp_path)
    assert '"decides_low": null' in found.as_json()


def test_an_optimizer_that_failed_everywhere_in_one_study_is_named_and_left_out(planted, tmp_path):
    both = planted(optimizers=("sgd", "adam"))
    both.write_csv(tmp_path / "a.csv")
    gone = pl.col("optimizer") == "adam"
    failed = both.with_columns(status=pl.when(gone).then(pl.lit("diverged")).otherwise(pl.lit("complete")))
    failed.with_columns(score=pl.when(~gone).then("score")).write_csv(tmp_path / "b.csv")
    a, b = (sg.load_table(tmp_path / f"{name}.csv", score_margin=MARGIN, constant_score=0.1) for name in "ab")
    found = sg.compare(a, b)
    assert set(found.score_difference["optimizer"]) == {"sgd"}
    assert [notice for notice in found.notices if "adam" in notice and notice.startswith("Not compared")]


def test_studies_of_different_scores_or_margins_are_refused_in_a_sentence(loaded, planted, tmp_path):
    planted().with_columns(score=1 - pl.col("score")).write_csv(tmp_path / "errors.csv")
    errors = sg.load_table(tmp_path / "errors.csv", minimize=True, score_margin=MARGIN)
    with pytest.raises(
        sg.InputError, match=r"^compare: results \(1\) has the score .* Compare studies of one score\.$"
    ):
        sg.compare(loaded(), errors)
    with pytest.raises(
        sg.InputError, match=r"the score_margin of results \(1\) is 0.01, that of results \(2\) is 0.02"
    ):
        sg.compare(loaded(), loaded(margin=0.02))
    with pytest.raises(sg.InputError, match="give two studies or more"):
        sg.compare(loaded())
    with pytest.raises(sg.InputError, match="the studies have no optimizer in common"):
        sg.compare(loaded(optimizers=("sgd", "adam")), loaded(optimizers=("lion",)))


def test_every_column_is_described_and_every_figure_has_a_table(loaded):
    found = sg.compare(loaded(), loaded(draw=1))
    for name, rows in found.tables().items():
        described = found.describe(name)
        assert described["column"].to_list() == rows.columns
        assert described["description"].str.ends_with(".").all()
    with pytest.raises(sg.InputError, match="is not a table of a comparison"):
        found.describe("optima")
    assert set(found.figures) == {"best-score", "score-difference", "optimal-learning-rate", "two-regimes"}
