"""The optimal learning rate: planted curves, naive recomputation, and the cases that others got wrong."""

import math

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy import stats

from sgdscope.analysis.curve import Curve, curve
from sgdscope.analysis.curves import learning_rate_curves
from sgdscope.analysis.goodness import goodness
from sgdscope.analysis.optima import optima, optimum_interval
from sgdscope.records import WorkloadRecord

ACCURACY = WorkloadRecord("w", "1", (), "0" * 64, (1024, 256, 517), "accuracy", "maximize", 2.3, 0.11)
PERPLEXITY = WorkloadRecord("w", "1", (), "0" * 64, (1024, 256, 517), "perplexity", "minimize", 2.3, 100.0)
RECORDS = {"w": ACCURACY}
SCHEMA = {
    "workload": pl.String,
    "budget": pl.String,
    "optimizer": pl.String,
    "batch_size": pl.Int64,
    "learning_rate": pl.Float64,
    "effective_learning_rate": pl.Float64,
    "seed": pl.Int64,
    "status": pl.String,
    "train_loss": pl.Float64,
    "validation_score": pl.Float64,
    "test_score": pl.Float64,
}
DIVERGED = None


def trial(rate, seed, score, loss=1.0, batch_size=32, optimizer="sgd", test=None, status=None, factor=1):
    """One row; a score of None is a diverged trial, whose numbers are null."""
    status = status or ("complete" if score is not None else "diverged")
    ended = status == "complete"
    return ("w", "epochs:1", optimizer, batch_size, rate, rate * factor, seed, status) + (
        (loss, score, score if test is None else test) if ended else (None, None, None)
    )


def table(*rows):
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def grid(scores, losses=None, first=-4):
    """A cell with rates 2^first, 2^(first+1), …; ``scores[rate][seed]``."""
    losses = losses or [[1.0] * len(row) for row in scores]
    return table(
        *(
            trial(2.0 ** (first + k), seed, score, loss)
            for k, (row, row_of_losses) in enumerate(zip(scores, losses, strict=True))
            for seed, (score, loss) in enumerate(zip(row, row_of_losses, strict=True))
        )
    )


def optimum(trials, criterion="score", record=ACCURACY):
    return optima(trials, {"w": record}).filter(pl.col("criterion") == criterion).row(0, named=True)


def curve_of(means, diverged=None, seeds=3):
    values = np.repeat(np.asarray(means, float)[:, None], seeds, axis=1)
    diverged = np.zeros(values.shape, bool) if diverged is None else np.asarray(diverged, bool)
    return Curve(2.0 ** np.arange(len(values)), np.arange(values.shape[1]), values, diverged)


# ── Coverage: the interval holds the planted best rate ───────────────────────────────────────────────────────


OCTAVES = np.arange(-4, 5)


def planted(rng, cells, n, cliffs=True):
    """Cells, told apart by batch size, whose mean curves are parabolas in log₂ rate over a grid of factors of 2.

    Scores lose 0.004 at one octave from the vertex and have a spread of 0.006 over seeds, as on digits. In every
    other cell there is a cliff: trials diverge with a probability that rises from one octave above the vertices.
    Returns the trials and, by criterion, the best rate of the grid for each cell.
    """
    rows, best = [], {"score": [], "train_loss": []}
    shape = (n, len(OCTAVES))
    for cell in range(1, cells + 1):
        vertices = rng.uniform(-2, 2, 2)
        score = 0.975 - 0.004 * (OCTAVES - vertices[0]) ** 2
        log_loss = -3 + 0.2 * (OCTAVES - vertices[1]) ** 2
        best["score"].append(2.0 ** OCTAVES[score.argmax()])
        best["train_loss"].append(2.0 ** OCTAVES[log_loss.argmin()])
        scores = np.round((score + rng.normal(0, 0.006, shape)) * 256) / 256  # of 256 pictures
        losses = np.exp(log_loss + rng.normal(0, 0.2, shape))
        share = 1 / (1 + np.exp(-4 * (OCTAVES - vertices.max() - 1))) if cliffs and cell % 2 else 0.0
        diverged = rng.random(shape) < share
        rows += [
            trial(2.0**octave, seed, DIVERGED if diverged[seed, k] else scores[seed, k], losses[seed, k], cell)
            for k, octave in enumerate(OCTAVES)
            for seed in range(n)
        ]
    return table(*rows), best


@pytest.mark.parametrize("n", [5, 10])
def test_the_interval_covers_the_best_rate(n):
    cells = 100
    trials, best = planted(np.random.default_rng(n), cells, n)
    found = optima(trials, RECORDS)
    for criterion in ("score", "train_loss"):
        rows = found.filter(pl.col("criterion") == criterion).sort("batch_size")
        assert rows["batch_size"].to_list() == list(range(1, cells + 1))
        low, rate, high = (rows[f"learning_rate{end}"].to_numpy() for end in ("_low", "", "_high"))
        assert ((low < rate) & (rate < high)).all()
        covered = (low <= best[criterion]) & (best[criterion] <= high)
        assert covered.mean() >= 0.93
        # It must say something, too, and not cover by being as wide as the grid.
        assert np.median(np.log2(high / low)) <= 3


def test_more_seeds_find_the_best_rate_more_surely():
    widths = []
    for n in (5, 40):
        trials, _ = planted(np.random.default_rng(n), 10, n, cliffs=False)
        found = optima(trials, RECORDS).filter(pl.col("criterion") == "score")
        widths.append(np.log2(found["learning_rate_high"] / found["learning_rate_low"]).mean())
    assert widths[1] < widths[0]


def test_an_interval_is_widened_by_half_a_step():
    certain = optimum(grid([[0.1] * 5, [0.2] * 5, [0.9] * 5, [0.3] * 5, [0.2] * 5]))
    assert certain["learning_rate"] == 0.25
    assert certain["learning_rate_low"] == pytest.approx(0.25 / math.sqrt(2))
    assert certain["learning_rate_high"] == pytest.approx(0.25 * math.sqrt(2))


def test_the_step_is_the_local_one():
    """Half-octave rates around the optimum narrow its interval there, and only there."""
    rates, means = [0.125, 0.25, 0.25 * math.sqrt(2), 0.5, 2.0], [0.1, 0.5, 0.9, 0.5, 0.1]
    rows = [trial(rate, seed, mean) for rate, mean in zip(rates, means, strict=True) for seed in range(5)]
    found = optimum(table(*rows))
    np.testing.assert_allclose(
        [math.log2(found["learning_rate_low"]), math.log2(found["learning_rate_high"])], [-1.75, -1.25], atol=1e-12
    )
    means = [0.1, 0.2, 0.3, 0.9, 0.1]
    rows = [trial(rate, seed, mean) for rate, mean in zip(rates, means, strict=True) for seed in range(5)]
    found = optimum(table(*rows))
    np.testing.assert_allclose(
        [math.log2(found["learning_rate_low"]), math.log2(found["learning_rate_high"])], [-1.25, 0.0], atol=1e-12
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_hull_holds_the_rates_that_no_other_leads_beyond_chance(seed):
    """Against scipy's paired t tests, rate by rate, at 5 % shared among the five."""
    rng = np.random.default_rng(seed)
    scores = [list(rng.normal(mean, 0.01, 6)) for mean in (0.90, 0.945, 0.95, 0.947, 0.94, 0.90)]

    def beats(other, mine):
        return other != mine and stats.ttest_rel(other, mine, alternative="greater").pvalue < 0.05 / 5

    unbeaten = [k for k, mine in enumerate(scores) if not any(beats(other, mine) for other in scores)]
    found = optimum(grid(scores))
    assert math.log2(found["learning_rate_low"]) == pytest.approx(unbeaten[0] - 4 - 0.5)
    assert math.log2(found["learning_rate_high"]) == pytest.approx(unbeaten[-1] - 4 + 0.5)


@pytest.mark.parametrize("n", [5, 15])
def test_it_covers_where_noise_is_far_from_normal(n):
    """The noisy quadratic's: the loss of the last iterate is a sum of few squares. Its exact mean is known."""
    rng = np.random.default_rng(n)
    curvatures, octaves = np.array([1.0, 0.5, 0.25, 0.125]), np.arange(-10, 2) / 2
    # After T updates at a constant rate ε a coordinate is Gaussian, its mean (1 − εh)^T, its variance that of the sum.
    decay = (1 - 2.0 ** octaves[:, None] * curvatures) ** 12
    variance = (2.0 ** octaves[:, None] * curvatures) / (2 - 2.0 ** octaves[:, None] * curvatures) * (1 - decay**2) / 4
    fine = np.linspace(octaves[0], octaves[-1], 2001)  # the optimum between the rates tried
    forgotten = (1 - 2.0 ** fine[:, None] * curvatures) ** 24
    heat = (2.0 ** fine[:, None] * curvatures) / (2 - 2.0 ** fine[:, None] * curvatures) * (1 - forgotten) / 4
    best = fine[(curvatures * (forgotten + heat)).sum(axis=1).argmin()]
    covered = []
    for _ in range(400):
        theta = decay[:, None] + np.sqrt(variance)[:, None] * rng.normal(size=(len(octaves), n, 4))
        losses = 0.5 * (curvatures * theta**2).sum(axis=2)
        found = Curve(2.0**octaves, np.arange(n), -losses, np.zeros(losses.shape, bool))
        low, high, _ = optimum_interval(found)
        covered.append(low <= best <= high)
    assert np.mean(covered) >= 0.93


# ── Which rate wins ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("means", "winner"),
    [
        ([0.1, 0.9, 0.2], {1}),
        ([0.9, 0.9, 0.9], {1}),
        ([0.1, 0.9, 0.9, 0.9, 0.9, 0.9], {3}),
        ([0.9, 0.9, 0.9, 0.1, 0.0, 0.0], {1}),
        ([0.9, 0.1, 0.9, 0.1, 0.9], {2}),
        ([0.1, 0.9, 0.9, 0.1], {1, 2}),
        ([0.9, 0.9, 0.9, 0.9], {1, 2}),
        ([0.9], {0}),
    ],
)
def test_of_tied_rates_the_middle_one_wins(means, winner):
    assert int(curve_of(means).best()[0]) in winner


def test_means_that_differ_by_rounding_are_tied():
    """The same three scores in another order have a mean that is smaller by one unit in the last place."""
    values = np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [0.1, 0.2, 0.3]])
    means = values.mean(axis=1)
    assert means[0] > means[1]
    assert int(Curve(2.0 ** np.arange(3), np.arange(3), values, np.zeros((3, 3), bool)).best()[0]) == 1


def test_the_mean_chooses_and_the_medians_winner_stands_beside_it():
    scores = [[0.90] * 5, [0.95, 0.95, 0.95, 0.5, 0.5], [0.80] * 5]
    found = optimum(grid(scores))
    assert (found["learning_rate"], found["median_learning_rate"]) == (2.0**-4, 2.0**-3)


def test_draws_choose_as_the_whole_would():
    rng = np.random.default_rng(0)
    found = Curve(2.0 ** np.arange(5), np.arange(4), rng.normal(size=(5, 4)), np.zeros((5, 4), bool))
    draws = rng.integers(0, 4, (50, 4))
    expected = [found.goodness[:, draw].mean(axis=1).argmax() for draw in draws]
    np.testing.assert_array_equal(found.best(draws), expected)
    np.testing.assert_array_equal(found.best(np.arange(4)[None]), found.best())


def test_never_the_best_single_seed():
    scores = [[0.90] * 5, [0.80, 0.80, 0.80, 0.80, 1.0], [0.70] * 5]
    assert optimum(grid(scores))["learning_rate"] == 2.0**-4


def test_a_smaller_score_can_be_better():
    scores = [[40.0] * 3, [30.0] * 3, [25.0] * 3, [50.0] * 3]
    assert optimum(grid(scores), record=PERPLEXITY)["learning_rate"] == 2.0**-2
    assert optimum(grid(scores), record=ACCURACY)["learning_rate"] == 2.0**-1
    np.testing.assert_array_equal(
        goodness(np.array([3.0, np.nan]), PERPLEXITY, "score", np.array([False, True])), [-3.0, -100.0]
    )
    assert optimum(grid(scores), record=PERPLEXITY)["validation_score"] == 25.0  # reported as it is


def test_the_score_chooses_by_validation_and_reports_the_test():
    rows = [trial(rate, seed, v, test=t) for rate, v, t in [(0.5, 0.9, 0.7), (1.0, 0.8, 0.95)] for seed in range(5)]
    found = optimum(table(*rows))
    assert (found["learning_rate"], found["test_score"], found["validation_score"]) == (0.5, 0.7, 0.9)


def test_the_loss_chooses_by_its_mean_logarithm():
    """Arithmetic means would choose the other rate."""
    losses = [[1e-3, 1e-3, 1.0], [0.1, 0.1, 0.1]]
    found = optimum(grid([[0.5] * 3, [0.5] * 3], losses), "train_loss")
    assert found["learning_rate"] == 2.0**-4
    assert found["train_loss"] == pytest.approx(1e-2)


def test_a_loss_of_nothing_is_the_best_and_finite():
    losses = [[0.0] * 5, [1e-30] * 5, [1e-3] * 5]
    found = optimum(grid([[0.5] * 5] * 3, losses), "train_loss")
    assert found["learning_rate"] == 2.0**-4
    assert all(math.isfinite(found[name]) for name in ("train_loss", "train_loss_low", "train_loss_high"))


def test_a_rate_times_the_coefficient_of_the_penalty_stands_beside_it():
    penalized = WorkloadRecord(
        "w", "1", (("l2", 5e-4), ("depth", 16)), "0", (9, 9, 9), "accuracy", "maximize", 2.3, 0.1
    )
    rows = [trial(rate, seed, score) for rate, score in ((0.5, 0.9), (1.0, 0.8)) for seed in range(3)]
    assert optimum(table(*rows), record=penalized)["learning_rate_times_l2"] == 0.5 * 5e-4
    assert learning_rate_curves(table(*rows), {"w": penalized})["learning_rate_times_l2"].to_list() == [2.5e-4, 5e-4]
    assert optimum(table(*rows))["learning_rate_times_l2"] is None


def test_criteria_are_kept_apart():
    scores = [[0.9] * 5, [0.8] * 5, [0.7] * 5]
    losses = [[3.0] * 5, [2.0] * 5, [1.0] * 5]
    both = optima(grid(scores, losses), RECORDS)
    assert dict(both.select("criterion", "learning_rate").iter_rows()) == {"score": 2.0**-4, "train_loss": 2.0**-2}


# ── Trials that diverged ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("record", [ACCURACY, PERPLEXITY])
def test_a_diverged_trial_counts_as_the_constant_predictor(record):
    trials = grid([[0.5, 0.6, 0.7, 0.8, DIVERGED]], [[1.0, 2.0, 3.0, 4.0, 9.0]])
    row = learning_rate_curves(trials, {"w": record}).row(0, named=True)
    assert (row["n"], row["diverged"]) == (5, 1)
    scores = [0.5, 0.6, 0.7, 0.8, record.constant_score]
    losses = [1.0, 2.0, 3.0, 4.0, record.constant_loss]
    for name, values in (("validation_score", scores), ("test_score", scores)):
        assert row[name] == pytest.approx(math.fsum(values) / 5)
    assert row["train_loss"] == pytest.approx(math.prod(losses) ** 0.2)
    for criterion, values in (("score", scores), ("train_loss", losses)):
        sign = record.score_sign if criterion == "score" else -1
        better = [sign * (value if criterion == "score" else math.log(value)) for value in values]
        np.testing.assert_allclose(curve(trials, record, criterion).goodness, [better])


def test_a_diverged_trial_is_not_a_zero():
    """At 0 for a diverged trial the second rate's mean would be 0.096 and lose; as the constant it is 0.118."""
    scores = [[0.11] * 5, [0.12, 0.12, 0.12, 0.12, DIVERGED]]
    assert optimum(grid(scores))["learning_rate"] == 2.0**-3


def test_a_diverged_trial_is_not_dropped():
    scores = [[0.90] * 5, [0.95, 0.95, 0.95, 0.95, DIVERGED]]
    found = optimum(grid(scores))
    assert found["learning_rate"] == 2.0**-4
    assert (found["n"], found["diverged"], found["cell_diverged"], found["trials"]) == (5, 0, 1, 10)


@pytest.mark.parametrize(("n", "tolerated"), [(1, 0), (4, 0), (5, 1), (9, 1), (10, 2), (14, 2), (15, 3)])
def test_more_than_a_fifth_diverged_is_not_eligible(n, tolerated):
    # Whatever diverges, the second rate has the better mean: 1.0 a trial against 0.12.
    for diverged in (tolerated, tolerated + 1):
        scores = [[0.12] * n, [DIVERGED] * diverged + [1.0] * (n - diverged)]
        found = optimum(grid(scores))
        assert found["learning_rate"] == (2.0**-3 if diverged <= tolerated else 2.0**-4)


def test_a_rate_that_is_not_eligible_wins_no_draw():
    scores = [[0.2, 0.3, 0.25, 0.2, 0.3], [0.9, 0.9, 0.9, DIVERGED, DIVERGED], [DIVERGED] * 5]
    found = optimum(grid(scores))
    assert found["learning_rate"] == 2.0**-4
    assert found["learning_rate_high"] == pytest.approx(2.0**-3.5)


def test_where_everything_diverges_there_is_no_optimum():
    trials = grid([[DIVERGED] * 5] * 3)
    np.testing.assert_array_equal(curve(trials, ACCURACY, "score").best(), [-1])
    np.testing.assert_array_equal(curve(trials, ACCURACY, "score").best(np.zeros((7, 5), int)), [-1] * 7)
    other = table(*(trial(1.0, seed, 0.5, batch_size=64) for seed in range(5)))
    assert set(optima(pl.concat([trials, other]), RECORDS)["batch_size"]) == {64}
    assert optima(trials, RECORDS).height == 0
    rows = learning_rate_curves(trials, RECORDS)
    assert rows["validation_score"].to_list() == pytest.approx([0.11] * 3)
    assert rows["diverged"].to_list() == [5] * 3


def test_a_table_without_rows_keeps_its_columns():
    other = grid([[0.5] * 2, [0.6] * 2])
    assert optima(grid([[DIVERGED] * 2] * 2), RECORDS).columns == optima(other, RECORDS).columns


def test_a_failed_trial_is_no_outcome():
    rows = [trial(rate, seed, score) for rate, score in ((0.5, 0.9), (1.0, 0.8)) for seed in range(3)]
    failed = [trial(0.5, 3, None, status="failed"), trial(2.0, 0, None, status="failed")]
    with_failed, without = (learning_rate_curves(table(*t), RECORDS) for t in (rows + failed, rows))
    assert with_failed.equals(without)
    assert optimum(table(*rows, *failed))["learning_rate"] == 0.5


def test_each_rate_has_the_mean_of_its_own_seeds():
    rows = [trial(0.5, 0, 0.90), trial(0.5, 1, 0.90), trial(1.0, 0, 0.89), trial(1.0, 1, 0.89), trial(1.0, 2, 0.99)]
    found = curve(table(*rows), ACCURACY, "score")
    np.testing.assert_array_equal(found.goodness, [[0.90, 0.90, np.nan], [0.89, 0.89, 0.99]])
    assert optimum(table(*rows))["learning_rate"] == 1.0


# ── Where the grid ends ──────────────────────────────────────────────────────────────────────────────────────


def test_an_optimum_at_the_edge_is_censored():
    rising = [[0.1 * (k + 1) + 0.001 * seed for seed in range(5)] for k in range(5)]
    assert optimum(grid(rising))["censored"] == "high"
    assert optimum(grid(rising[::-1]))["censored"] == "low"
    peaked = [[0.1] * 5, [0.9] * 5, [0.1] * 5]
    assert optimum(grid(peaked))["censored"] == ""
    assert optimum(grid([[0.5] * 5]))["censored"] == "low+high"


def test_a_hull_that_reaches_the_edge_is_censored_though_the_winner_does_not():
    scores = [[0.1] * 5, [0.90, 0.90, 0.90, 0.90, 0.90], [0.95, 0.80, 0.95, 0.80, 0.95]]
    found = optimum(grid(scores))
    assert (found["learning_rate"], found["censored"]) == (2.0**-3, "high")
    found = optimum(grid(scores[::-1]))
    assert (found["learning_rate"], found["censored"]) == (2.0**-3, "low")


@pytest.mark.parametrize("criterion", ["score", "train_loss"])
def test_a_diverging_rate_beyond_the_winner_ends_the_search(criterion):
    scores = [[0.1 * (k + 1)] * 5 for k in range(4)] + [[DIVERGED] * 5]
    losses = [[2.0**-k] * 5 for k in range(5)]
    found = optimum(grid(scores, losses), criterion)
    assert found["learning_rate"] == 2.0**-1
    assert found["censored"] == ""
    assert found["learning_rate_high"] == pytest.approx(2.0**-0.5)


def test_flat_is_wider_than_three_octaves():
    certain = [[0.9, 0.9], [0.1, 0.1]]
    assert not optimum(grid([certain[1], certain[0], certain[1]]))["flat"]
    # Each seed has its own best rate: none beats another.
    assert optimum(grid(np.eye(5).tolist()))["flat"]
    # A hull of three rates is three octaves wide with the half steps, of four rates four.
    for seeds, flat in ((3, False), (4, True)):
        own = np.vstack([np.full(seeds, -9.0), np.eye(seeds), np.full(seeds, -9.0)])
        found = optimum(grid(own.tolist()))
        width = math.log2(found["learning_rate_high"] / found["learning_rate_low"])
        assert (round(width, 9), found["flat"]) == (seeds, flat)


# ── The numbers of a table ───────────────────────────────────────────────────────────────────────────────────


def naive(rows, column, constant, logarithm=False):
    """Mean and t interval with nothing but the standard library and scipy's quantile."""
    values = [constant if row[column] is None else row[column] for row in rows]
    values = [math.log(value) for value in values] if logarithm else values
    n = len(values)
    mean = math.fsum(values) / n
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = stats.t.ppf(0.975, n - 1) * spread / math.sqrt(n)
    bounds = (mean, mean - half, mean + half)
    return tuple(math.exp(bound) for bound in bounds) if logarithm else bounds


def test_curves_are_those_of_plain_python():
    rng = np.random.default_rng(11)
    rows = []
    for optimizer, factor in (("sgd", 1), ("momentum:0.5", 2)):
        for batch_size in (16, 64, 256):
            for rate in (0.25, 0.5, 1.0):
                for seed in range(int(rng.integers(2, 7))):
                    score, test, loss = rng.uniform(0.1, 1, 3)
                    score = DIVERGED if rng.random() < 0.3 else score
                    rows.append(trial(rate, seed, score, loss, batch_size, optimizer, test, factor=factor))
    rows = [rows[k] for k in rng.permutation(len(rows))]
    found = learning_rate_curves(table(*rows), RECORDS).sort("optimizer", "batch_size", "learning_rate")
    groups = {}
    for row in rows:
        named = dict(zip(SCHEMA, row, strict=True))
        groups.setdefault((named["optimizer"], named["batch_size"], named["learning_rate"]), []).append(named)
    assert found.height == len(groups) == 18
    checked = 0
    assert found.select("optimizer", "batch_size", "learning_rate").rows() == sorted(groups)
    for row in found.iter_rows(named=True):
        group = groups[row["optimizer"], row["batch_size"], row["learning_rate"]]
        assert row["n"] == len(group)
        assert row["diverged"] == sum(r["status"] == "diverged" for r in group)
        assert row["effective_learning_rate"] == row["learning_rate"] * (1 if row["optimizer"] == "sgd" else 2)
        for column, constant, logarithm in (
            ("validation_score", 0.11, False),
            ("test_score", 0.11, False),
            ("train_loss", 2.3, True),
        ):
            got = [row[column], row[f"{column}_low"], row[f"{column}_high"]]
            expected, trained = naive(group, column, constant, logarithm), len(group) - row["diverged"]
            if not logarithm and (row["collapsed"] or row["diverged"]):
                np.testing.assert_allclose(got[0], expected[0], rtol=1e-9)
                if trained > 1 and not row["collapsed"]:
                    np.testing.assert_allclose(got[1:], with_failures(group, column, constant), rtol=1e-9)
                    checked += 1
                continue
            np.testing.assert_allclose(got, expected, rtol=1e-9)
    assert checked > 5


def with_failures(rows, column, constant):
    """The interval of a mean where some trials diverged, with scipy's quantiles alone."""
    trained = [row[column] for row in rows if row[column] is not None]
    k, n = len(rows) - len(trained), len(rows)
    share = (stats.beta.ppf(0.0125, k, n - k + 1), stats.beta.ppf(0.9875, k + 1, n - k) if k < n else 1.0)
    half = stats.t.ppf(0.9875, n - k - 1) * np.std(trained, ddof=1) / math.sqrt(n - k)
    ends = [(1 - p) * (np.mean(trained) + sign * half) + p * constant for p in share for sign in (-1, 1)]
    return min(ends), max(ends)


def test_the_optimums_numbers_are_those_of_its_rate():
    rng = np.random.default_rng(5)
    trials = grid(rng.uniform(0.3, 0.9, (6, 5)).tolist(), rng.uniform(0.1, 2.0, (6, 5)).tolist())
    curves = learning_rate_curves(trials, RECORDS)
    for row in optima(trials, RECORDS).iter_rows(named=True):
        of_rate = curves.filter(pl.col("learning_rate") == row["learning_rate"]).row(0, named=True)
        assert {name: row[name] for name in of_rate} == of_rate
        assert (row["rates"], row["trials"]) == (6, 30)


@pytest.mark.parametrize("table_of", [learning_rate_curves, optima])
def test_tables_do_not_depend_on_the_order_of_the_trials(table_of):
    """But for the last digit of a sum; the store gives trials in one order."""
    trials, _ = planted(np.random.default_rng(8), 3, 5)
    tables = [table_of(t, RECORDS) for t in (trials, trials.sample(fraction=1, shuffle=True, seed=1))]
    keys = ["optimizer", "batch_size", "learning_rate", *(["criterion"] if "criterion" in tables[0].columns else [])]
    assert_frame_equal(tables[0].sort(keys), tables[1].sort(keys), rel_tol=1e-12)


def test_trials_are_not_changed():
    trials, _ = planted(np.random.default_rng(8), 2, 3)
    before = trials.clone()
    learning_rate_curves(trials, RECORDS)
    optima(trials, RECORDS)
    assert trials.equals(before)


def test_one_seed_gives_infinite_intervals():
    """With warnings as errors, as everywhere in these tests."""
    trials = grid([[0.5], [0.9], [DIVERGED]], [[0.5], [0.1], [1.0]])
    rows = learning_rate_curves(trials, RECORDS)
    assert rows["n"].to_list() == [1, 1, 1]
    for name in ("validation_score", "test_score"):
        assert set(rows[f"{name}_low"]) == {-math.inf}
        assert set(rows[f"{name}_high"]) == {math.inf}
    assert set(rows["train_loss_low"]) == {0.0}
    assert min(rows["train_loss_high"]) > 1e300
    found = optimum(trials)
    assert (found["learning_rate"], found["n"], found["censored"]) == (2.0**-3, 1, "")


def test_one_seed_does_not_identify_the_best_rate():
    found = optimum(grid([[0.5], [0.9], [0.6], [0.4], [0.3]]))
    assert found["flat"]
    assert (found["learning_rate_low"], found["learning_rate_high"]) == (0.0, math.inf)
