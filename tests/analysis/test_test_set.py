"""Intervals for the population of examples: analysis of variance by hand and by brute force, and coverage."""

import functools
import itertools
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import optimize, special, stats

from sgdscope.analysis.test_set import TEST_SET_SCHEMA, over_test_examples
from sgdscope.records import WorkloadRecord
from sgdscope.stats.crossed import crossed_error, population_difference, population_interval
from sgdscope.stats.intervals import t_interval
from sgdscope.store import CORRECTNESS_SCHEMA, TRIALS_SCHEMA

# ── The analysis of variance ─────────────────────────────────────────────────────────────────────────────


def mean_squares(values):
    """Seeds, examples and residual, entry by entry."""
    n, examples = values.shape
    grand = sum(values[i, j] for i in range(n) for j in range(examples)) / (n * examples)
    row = [sum(values[i]) / examples for i in range(n)]
    column = [sum(values[:, j]) / n for j in range(examples)]
    seeds = sum(examples * (row[i] - grand) ** 2 for i in range(n)) / (n - 1)
    by_example = sum(n * (column[j] - grand) ** 2 for j in range(examples)) / (examples - 1)
    rest = sum((values[i, j] - row[i] - column[j] + grand) ** 2 for i in range(n) for j in range(examples))
    return seeds, by_example, rest / ((n - 1) * (examples - 1))


@functools.cache
def offset(accuracy, spread):
    """The mean logit at which the mean over a normal spread around it is this accuracy."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(300)
    share = lambda a: weights @ special.expit(a + spread * nodes) / weights.sum()
    return optimize.brentq(lambda a: share(a) - accuracy, -60, 60)


def digits_like(rng, accuracies, n, examples, difficulty=6.0, seeds=0.3):
    """Tables of right and wrong on the same examples, of which a few are hard for every seed."""
    of_example = difficulty * rng.normal(size=(1, examples))
    for accuracy in accuracies:
        logits = offset(accuracy, math.hypot(difficulty, seeds)) + of_example + seeds * rng.normal(size=(n, 1))
        yield (rng.random((n, examples)) < special.expit(logits)).astype(float)


def test_two_seeds_and_three_examples_by_hand():
    """Seeds 2 and 1: MS 3·(¼ + ¼); examples 5/2, 1 and 1: MS 2·(1 + ¼ + ¼)/2; residual (11/2 − 3/2 − 3)/2."""
    error, degrees = crossed_error(np.array([[3.0, 2.0, 1.0], [2.0, 0.0, 1.0]]))
    assert error**2 == pytest.approx((3 / 2 + 3 / 2 - 1 / 2) / 6)
    # The examples' means have kurtosis 3/2, below a normal's 3, so their degrees are 2 + 2/(2/2 + 0) = 4.
    assert degrees == pytest.approx((5 / 2) ** 2 / ((3 / 2) ** 2 / 1 + (3 / 2) ** 2 / 4 + (1 / 2) ** 2 / 2))


@pytest.mark.parametrize(
    ("values", "variance", "degrees"),
    [
        # Neither differs from the others: MS_seeds = MS_examples = 0, MS_residual = 4·¼ …
        ([[1.0, 0.0], [0.0, 1.0]], 1 / 4, 1.0),
        # … every seed the same: the examples alone, 2·¼·3/2/6; of three with one wrong the kurtosis is 3/2.
        ([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]], 2 * (2 / 3) / 2 / 6, 4.0),
        # … every example the same: the seeds alone.
        ([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]], 3 * (1 / 2) / 1 / 6, 1.0),
    ],
)
def test_a_negative_component_of_variance_counts_as_none(values, variance, degrees):
    error, found = crossed_error(np.array(values))
    assert error**2 == pytest.approx(variance)
    assert found == pytest.approx(degrees)


@pytest.mark.parametrize(("n", "examples"), [(3, 40), (8, 120)])
def test_the_variance_is_that_of_a_pigeonhole_bootstrap_less_its_excess(n, examples):
    """Drawing seeds and examples with replacement gives SS_s/(Nn²) + SS_e/(nN²) + SS_r/(nN)², the residual thrice."""
    rng = np.random.default_rng(n)
    (values,) = digits_like(rng, [0.9], n, examples, seeds=2.0)
    means = np.array(
        [values[rng.integers(0, n, n)][:, rng.integers(0, examples, examples)].mean() for _ in range(20_000)]
    )
    seeds, by_example, residual = mean_squares(values)
    rest = (n - 1) * (examples - 1) / (n * examples)
    excess = (-seeds / n - by_example / examples + (1 + rest) * residual) / (n * examples)
    assert crossed_error(values)[0] ** 2 == pytest.approx(means.var() - excess, rel=0.05)


def test_the_variance_is_right_on_average_for_normal_effects():
    rng = np.random.default_rng(3)
    n, examples = 6, 12
    found = []
    for _ in range(3000):
        effects = rng.normal(size=(n, 1)) + 2 * rng.normal(size=(1, examples))
        found.append(crossed_error(effects + 0.5 * rng.normal(size=(n, examples)))[0] ** 2)
    truth = 1 / n + 4 / examples + 0.25 / (n * examples)
    assert np.mean(found) == pytest.approx(truth, abs=4 * np.std(found) / math.sqrt(len(found)))


# ── The intervals ────────────────────────────────────────────────────────────────────────────────────────

TABLES = arrays.arrays(float, st.tuples(st.integers(2, 6), st.integers(2, 30)), elements=st.sampled_from([0.0, 1.0]))


@given(TABLES, st.randoms(use_true_random=False))
def test_an_interval_lies_in_0_to_1_around_the_mean_whatever_the_order_and_is_turned_with_right_and_wrong(
    values, random
):
    mean, low, high = population_interval(values)
    assert 0 <= low <= mean <= high <= 1
    assert low < high
    order = [random.sample(range(size), size) for size in values.shape]
    np.testing.assert_allclose(population_interval(values[np.ix_(*order)]), (mean, low, high), atol=1e-9)
    np.testing.assert_allclose(population_interval(1 - values), (1 - mean, 1 - high, 1 - low), atol=1e-9)


@given(TABLES, st.integers(0, 2**16))
def test_a_difference_turned_around_is_its_opposite(values, seed):
    other = np.random.default_rng(seed).integers(0, 2, values.shape)
    mean, low, high = population_difference(values, other)
    assert low < mean < high
    np.testing.assert_allclose(population_difference(other, values), (-mean, -high, -low), atol=1e-12)


@pytest.mark.parametrize("examples", [256, 517])
def test_what_was_never_seen_wrong_is_bounded_as_an_exact_interval_would(examples):
    _, low, high = population_interval(np.ones((5, examples)))
    exact = stats.binomtest(examples, examples).proportion_ci(0.95).low
    assert high == 1
    assert 1 - low == pytest.approx(1 - exact, rel=0.07)
    mean, low, high = population_difference(np.ones((5, examples)), np.ones((5, examples)))
    assert mean == 0
    assert high == -low == pytest.approx(1 - exact, rel=0.07)


def test_seeds_that_agree_are_one_sample_of_examples():
    """Wilson's interval of 30 in 256, but for t and the degrees."""
    values = np.repeat((np.arange(256) >= 30)[None].astype(float), 15, axis=0)
    found = population_interval(values)
    wilson = stats.binomtest(226, 256).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose(found[1:], (wilson.low, wilson.high), atol=0.003)


@pytest.mark.parametrize("shape", [(1, 50), (5, 1), (1, 1)])
def test_one_seed_or_one_example_tells_no_interval(shape):
    assert population_interval(np.ones(shape)) == (1.0, -math.inf, math.inf)
    assert population_difference(np.ones(shape), np.zeros(shape)) == (1.0, -math.inf, math.inf)


def covers_enough(covered):
    """At least .93, as far as that many tables can tell."""
    return np.mean(covered) + 2 * math.sqrt(0.93 * 0.07 / len(covered)) >= 0.93


@pytest.mark.parametrize(("n", "examples"), [(5, 256), (10, 517), (15, 256)])
@pytest.mark.parametrize("accuracy", [0.88, 0.985])
def test_the_population_is_held_and_an_interval_over_seeds_does_not_hold_it(accuracy, n, examples):
    rng = np.random.default_rng(n)
    held, held_by_seeds = [], []
    for _ in range(500):
        (values,) = digits_like(rng, [accuracy], n, examples)
        _, low, high = population_interval(values)
        held.append(low <= accuracy <= high)
        _, low, high = t_interval(values.mean(axis=1))
        held_by_seeds.append(low <= accuracy <= high)
    assert covers_enough(held)
    assert np.mean(held_by_seeds) < 0.8


@pytest.mark.parametrize("n", [5, 15])
@pytest.mark.parametrize("accuracies", [(0.985, 0.98), (0.96, 0.88)])
def test_the_difference_of_two_cells_is_held_more_narrowly_than_they_are(accuracies, n):
    rng = np.random.default_rng(n)
    held, narrower = [], []
    for _ in range(500):
        a, b = digits_like(rng, accuracies, n, 256)
        _, low, high = population_difference(a, b)
        held.append(low <= accuracies[0] - accuracies[1] <= high)
        widths = [population_interval(values) for values in (a, b)]
        narrower.append(high - low < sum(interval[2] - interval[1] for interval in widths))
    assert covers_enough(held)
    assert np.mean(narrower) > 0.95


# ── The table ────────────────────────────────────────────────────────────────────────────────────────────


def record(name):
    return WorkloadRecord(
        name=name, version="1", fields=(), data_sha256="", examples=(8, 8, 40), score_name="accuracy",
        score_goal="maximize", constant_loss=2.3, constant_score=0.1,
    )  # fmt: skip


@pytest.fixture
def cell(trial_row):
    """The trials and the correctness of one cell at one rate; a diverged seed has no correctness."""

    def make(right, rate=0.5, diverged=(), **changes):
        at = {"workload": "w", "optimizer": "sgd", "batch_size": 8, "learning_rate": rate, **changes}
        trials, bits = [], []
        for seed, row in enumerate(right):
            status = "diverged" if seed in diverged else "complete"
            trials.append(trial_row(**at, seed=seed, status=status))
            if status == "complete":
                for split, scored in (("test", row), ("validation", ~row[:8])):
                    packed = np.packbits(scored).tobytes()
                    bits.append((trials[-1]["trial_id"], split, len(scored), packed))
        return (
            pl.DataFrame(trials, schema=TRIALS_SCHEMA),
            pl.DataFrame(bits, schema=CORRECTNESS_SCHEMA, orient="row"),
        )

    return make


def optima_of(*cells):
    names = ("workload", "budget", "optimizer", "batch_size", "criterion", "learning_rate")
    return pl.DataFrame([("w", "epochs:1", "sgd", 8, "score", 0.5) if c is None else c for c in cells],
                        schema=list(names), orient="row")  # fmt: skip


def random_right(seed, n=4):
    return np.random.default_rng(seed).random((n, 40)) < 0.9


def test_each_cell_gets_the_interval_of_its_chosen_rate_and_a_diverged_seed_counts_as_the_constant(cell):
    chosen, other, larger = random_right(0), random_right(1), random_right(2, n=3)
    parts = [cell(chosen, diverged=(2,)), cell(other, rate=1.0), cell(larger, batch_size=16)]
    trials, correctness = (pl.concat(tables) for tables in zip(*parts, strict=True))
    optima = optima_of(("w", "epochs:1", "sgd", 16, "score", 0.5), None, ("w", "epochs:1", "sgd", 8, "train_loss", 1.0))
    found = over_test_examples(optima, trials, correctness, {"w": record("w")})
    assert found.schema == pl.Schema(TEST_SET_SCHEMA)
    assert found["batch_size"].to_list() == [16, 8]
    counted = chosen.astype(float)
    counted[2] = 0.1
    for row, values in zip(found.iter_rows(named=True), (larger.astype(float), counted), strict=True):
        assert (row["n"], row["examples"], row["criterion"]) == (len(values), 40, "score")
        assert row["test_score"] == pytest.approx(values.mean())
        if row["batch_size"] == 16:
            of_seeds = stats.ttest_1samp(values.mean(axis=1), 0).confidence_interval(0.95)
            assert (row["test_score_low"], row["test_score_high"]) == pytest.approx((of_seeds.low, of_seeds.high))
            assert (row["test_score"], row["population_low"], row["population_high"]) == population_interval(values)
        else:  # One of four trials diverged: its share is between 0.3 % and 84 % at a level of 97.5 %.
            trained = np.delete(values.mean(axis=1), 2)
            low, high = stats.ttest_1samp(trained, 0).confidence_interval(0.975)
            few, many = stats.beta.ppf(0.0125, 1, 4), stats.beta.ppf(0.9875, 2, 3)
            expected = (1 - many) * low + many * 0.1, (1 - few) * high + few * 0.1
            assert (row["test_score_low"], row["test_score_high"]) == pytest.approx(expected)
            assert (row["population_low"], row["population_high"]) == (None, None)


def test_no_row_is_made_where_correctness_is_missing(cell):
    (trials, whole), (others, _) = cell(random_right(0)), cell(random_right(1), workload="float")
    optima = optima_of(None, ("float", "epochs:1", "sgd", 8, "score", 0.5))
    records = {name: record(name) for name in ("w", "float")}
    found = over_test_examples(optima, pl.concat([trials, others]), whole, records)
    assert found["workload"].to_list() == ["w"]
    of_one_trial = pl.col("trial_id") == trials["trial_id"][0]
    for partly in (whole.filter(~of_one_trial), whole.filter(split="validation"), whole.clear()):
        assert over_test_examples(optima, trials, partly, records).schema == pl.Schema(TEST_SET_SCHEMA)
        assert over_test_examples(optima, trials, partly, records).is_empty()


def test_every_pair_of_small_tables_gives_a_finite_interval():
    for bits in itertools.product((0.0, 1.0), repeat=6):
        assert np.isfinite(population_interval(np.array(bits).reshape(2, 3))).all()
