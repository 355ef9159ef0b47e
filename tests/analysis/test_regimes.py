"""Where the learning rate stops growing with the batch size: planted hinges, and how often they are found."""

import functools
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from scipy import optimize, stats

from sgdscope.analysis.transitions import transitions
from sgdscope.records import WorkloadRecord
from sgdscope.stats.laws import PLACES_PER_OCTAVE, fit_hinge

RECORD = WorkloadRecord("w", "1", (), "0" * 64, (2048, 256, 517), "accuracy", "maximize", 2.3, 0.11)
RECORDS = {"w": RECORD}
SIZES = tuple(2**k for k in range(2, 11))


def hinge(x, knee, slope, level):
    return level - slope * np.maximum(0, knee - np.asarray(x))


# ── The fit ──────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    first=st.integers(0, 5),
    points=st.integers(4, 10),
    place=st.floats(0, 1),
    slope=st.one_of(st.floats(0.2, 2), st.floats(-2, -0.2)),
    level=st.floats(-10, 5),
)
def test_a_planted_hinge_is_found_exactly(first, points, place, slope, level):
    x = np.arange(first, first + points, dtype=float)
    # Between the second point and the last a hinge is told from every other.
    knee = x[1] + round(place * (points - 2) * 20) / 20
    found = fit_hinge(x, hinge(x, knee, slope, level)[None])
    assert found.transition.shape == found.slope.shape == found.level.shape == (1,)
    np.testing.assert_allclose([found.transition[0], found.slope[0], found.level[0]], [knee, slope, level], atol=1e-6)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    gaps=st.lists(st.sampled_from([1, 2, 3]), min_size=4, max_size=7),
    place=st.floats(0, 1),
    slope=st.floats(0.3, 2),
)
def test_batch_sizes_need_not_be_evenly_spaced(gaps, place, slope):
    x = np.cumsum([1.0, *gaps])
    knee = x[1] + round(place * (x[-1] - x[1]) * 20) / 20
    found = fit_hinge(x, hinge(x, knee, slope, -3.0)[None])
    np.testing.assert_allclose([found.transition[0], found.slope[0], found.level[0]], [knee, slope, -3.0], atol=1e-6)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(points=st.integers(4, 10), slope=st.one_of(st.floats(0.1, 3), st.floats(-3, -0.1)), level=st.floats(-10, 5))
def test_a_line_without_a_bend_has_its_knee_at_the_last_point(points, slope, level):
    x = np.arange(points, dtype=float)
    found = fit_hinge(x, (level + slope * (x - x[-1]))[None])
    np.testing.assert_allclose([found.transition[0], found.slope[0], found.level[0]], [x[-1], slope, level], atol=1e-6)


def test_a_knee_between_two_steps_is_found_to_half_a_step():
    x = np.arange(9.0)
    for knee in np.linspace(2, 7, 13):
        assert abs(fit_hinge(x, hinge(x, knee, 1.0, 0.0)[None]).transition[0] - knee) <= 0.5 / PLACES_PER_OCTAVE + 1e-9


def test_draws_are_fitted_each_by_itself():
    rng = np.random.default_rng(0)
    x = np.arange(9.0)
    y = hinge(x, 5.0, 1.0, 0.0) + rng.normal(0, 0.7, (15, 9))
    together = fit_hinge(x, y)
    for k in range(15):
        alone = fit_hinge(x, y[k : k + 1])
        for name in ("transition", "slope", "level"):
            np.testing.assert_allclose(getattr(together, name)[k], getattr(alone, name)[0], atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_on_noisy_points_the_fit_is_that_of_scipy(seed):
    rng = np.random.default_rng(seed)
    x = np.arange(9.0)
    y = hinge(x, rng.uniform(2, 7), rng.uniform(0.5, 1.5), -2.0) + rng.normal(0, 0.3, 9)
    found = fit_hinge(x, y[None])

    def squares(knee, slope, level):
        return float(((y - hinge(x, knee, slope, level)) ** 2).sum())

    # Brute force over the knee, the two others by scipy's least squares in another parametrisation.
    def best_at(knee):
        residual = lambda p: p[0] + p[1] * np.minimum(x, knee) - y
        return optimize.least_squares(residual, [0.0, 1.0], method="lm").fun

    knee = optimize.brute(lambda k: (best_at(k[0]) ** 2).sum(), (slice(1, 8.001, 0.05),), finish=None)
    assert found.transition[0] == pytest.approx(float(knee), abs=1e-6)
    got = squares(found.transition[0], found.slope[0], found.level[0])
    assert got == pytest.approx((best_at(found.transition[0]) ** 2).sum(), rel=1e-6)
    # A fit of all three from many starts is better by no more than the grid of knees costs.
    starts = [(k, s, float(y.max())) for k in (2.0, 4.0, 6.0, 7.5) for s in (0.5, 1.5)]
    fits = [
        optimize.curve_fit(hinge, x, y, p0=p0, bounds=([1, -9, -99], [8, 9, 99]), x_scale=[1, 1, 1])[0] for p0 in starts
    ]
    best = min(squares(*fit) for fit in fits)
    assert best * (1 - 1e-4) <= got <= best + 4 * (0.5 / PLACES_PER_OCTAVE) ** 2 * max(1, found.slope[0] ** 2)


def test_the_slope_is_free():
    """The square root, too, is a law of growth: the fit must not assume proportionality."""
    x = np.log2(SIZES)
    for slope in (0.5, 1.0):
        assert fit_hinge(x, hinge(x, 6.0, slope, 0.0)[None]).slope[0] == pytest.approx(slope)


# ── Simulated studies ────────────────────────────────────────────────────────────────────────────────────────


def steep_below(distance):
    """Minus the logarithm of a training loss as on digits: 1.3 an octave, noisy where training gets unstable."""
    return -1.3 * np.abs(distance), 0.08 + 0.8 * np.maximum(distance, 0)


# How good a rate is at a distance of log₂ ε − log₂ ε*, and its spread over seeds.
CURVES = {
    "score": lambda d: (-0.004 * d**2, 0.006),
    "steep score": lambda d: (-0.01 * d**2, 0.006),
    "training loss": steep_below,
    "certain": lambda d: (-1.0 * d**2, 0.1),
}


def trials(rng, n, laws, shape, sizes=SIZES):
    """A study whose optimal rate at each batch size is ``law(log₂ B)``, the first law's by the score, the second's
    by the training loss, both with curves of this shape over the same grid of factors of 2.
    """
    batches, rates, seeds, scores, losses = [], [], [], [], []
    for size in sizes:
        optima = [law(math.log2(size)) for law in laws]
        octaves = np.arange(math.floor(min(optima)) - 3, math.ceil(max(optima)) + 4)
        means, spreads = zip(*(CURVES[shape](octaves - optimum) for optimum in optima), strict=True)
        values = [
            mean[:, None] + rng.normal(size=(len(octaves), n)) * np.broadcast_to(spread, octaves.shape)[:, None]
            for mean, spread in zip(means, spreads, strict=True)
        ]
        batches.append(np.full(len(octaves) * n, size))
        rates.append(np.repeat(2.0**octaves, n))
        seeds.append(np.tile(np.arange(n), len(octaves)))
        scores.append((0.975 + values[0]).ravel())
        losses.append(np.exp(-3 - values[1]).ravel())
    rate = np.concatenate(rates)
    score = np.concatenate(scores)
    return pl.DataFrame(
        {
            "workload": "w",
            "budget": "epochs:1",
            "optimizer": "sgd",
            "batch_size": np.concatenate(batches),
            "learning_rate": rate,
            "effective_learning_rate": rate,
            "seed": np.concatenate(seeds),
            "status": "complete",
            "train_loss": np.concatenate(losses),
            "validation_score": score,
            "test_score": score,
        },
        schema_overrides=dict.fromkeys(("workload", "budget", "optimizer", "status"), pl.String),
    )


def law(rng, knee):
    """Proportional to the batch size up to a knee, with the grid of rates at a random place."""
    offset = rng.uniform(-0.5, 0.5)
    return lambda x: min(x, knee) - 8 + offset


@functools.cache
def simulated(shape, n, studies, knees):
    """Rows of as many studies, two to a table, each with the knee that was planted; for ``quick`` tests only."""
    rng = np.random.default_rng(n)
    rows = []
    for _ in range(studies // 2):
        planted = rng.uniform(*knees, 2)
        found = transitions(trials(rng, n, [law(rng, knee) for knee in planted], shape), RECORDS)
        assert found["criterion"].to_list() == ["score", "train_loss"]
        rows += zip(found.iter_rows(named=True), planted, strict=True)
    return rows


# "certain" has no noise over seeds, and "training loss" is no parabola: errors that resampling alone cannot see.
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("shape", "n", "studies"),
    [
        ("score", 5, 100),
        ("score", 10, 100),
        ("training loss", 10, 100),
        ("certain", 5, 100),
    ],
)
def test_the_interval_covers_the_planted_knee(shape, n, studies):
    rows = simulated(shape, n, studies, (4, 8))
    assert len(rows) == studies
    assert np.mean([row["transition_low"] <= 2**knee <= row["transition_high"] for row, knee in rows]) >= 0.93


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("shape", "n", "studies"), [("score", 5, 100), ("score", 10, 100)])
def test_the_interval_covers_the_planted_slope(shape, n, studies):
    rows = [row for row, _ in simulated(shape, n, studies, (4, 8))]
    assert np.mean([row["slope_low"] <= 1 <= row["slope_high"] for row in rows]) >= 0.93


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("shape", "n", "studies"),
    [
        ("score", 5, 30),
        ("score", 10, 100),
        ("certain", 5, 100),
    ],
)
def test_without_a_knee_in_range_none_is_identified(shape, n, studies):
    """Batch sizes end at 2^10, and the rate goes on growing."""
    rows = [row for row, _ in simulated(shape, n, studies, (14, 15))]
    assert np.mean([row["status"] in ("not identified", "grows throughout") for row in rows]) >= 0.95


@pytest.mark.usefixtures("quick")
def test_a_knee_within_the_batch_sizes_can_be_identified():
    rows = [row for row, _ in simulated("score", 10, 100, (4, 8))]
    assert np.mean([row["status"] == "identified" for row in rows]) >= 0.7
    for row in rows:
        if row["status"] == "identified":
            assert SIZES[0] <= row["transition_low"] <= row["transition"] <= row["transition_high"] <= SIZES[-1]
            assert row["slope_low"] > 0


# ── The interval ─────────────────────────────────────────────────────────────────────────────────────────────


def parabola_vertex(total):
    """The vertex of the parabola through the best rate and its two neighbours, in octaves, by numpy's fit."""
    best = math.log2(max(total, key=total.get))
    near = [best - 1, best, best + 1]
    if any(2.0**octave not in total for octave in near):
        return best
    transition, slope, _ = np.polyfit([-1, 0, 1], [total[2.0**octave] for octave in near], 2)
    return best - slope / (2 * transition)


def own_bootstrap(table, n, draws):
    """Transition, slope and level of the whole and of each draw, and the most that leaning curves move the first two.

    In loops, with numpy's least squares for every fit.
    """
    rng = np.random.default_rng(77)
    cells = {}
    for size, rate, seed, score in table.select("batch_size", "learning_rate", "seed", "validation_score").rows():
        cells.setdefault(size, {}).setdefault(rate, {})[seed] = score
    x = np.log2(sorted(cells))
    found = []
    for seeds in (range(n), *rng.integers(0, n, (draws, n)).tolist()):
        total = {size: {rate: sum(of[s] for s in seeds) for rate, of in cell.items()} for size, cell in cells.items()}
        y = np.array([parabola_vertex(total[size]) for size in sorted(cells)])
        if found:  # a curve is no parabola
            y = y + rng.uniform(-0.25, 0.25, len(y))
        else:
            leaning = [
                own_hinge(x, y + 0.25 * sign * np.where(np.arange(len(x)) < place, -1, 1))
                for place in range(3, len(x) - 2)
                for sign in (-1, 1)
            ]
        found.append(own_hinge(x, y))
    return np.array(found), np.abs(np.array(leaning)[:, :2] - found[0][:2]).max(axis=0)


def own_hinge(x, y):
    fits = []
    for place in np.linspace(x[1], x[-1], round((x[-1] - x[1]) * 5) + 1):
        design = np.stack([np.minimum(x, place), np.ones_like(x)], axis=1)
        (slope, level), squares, *_ = np.linalg.lstsq(design, y)
        fits.append((round(float(squares[0]), 9), place, slope, level + slope * place))
    return min(fits)[1:]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("n", [5, 10])
def test_the_interval_is_that_of_a_bootstrap_of_seeds(n):
    """Estimate ± √((t(n−1)·SE)²·n/(n−1) + lean²), against draws by another generator."""
    rng = np.random.default_rng(10 + n)
    table = trials(rng, n, [law(rng, 6.0), law(rng, 6.0)], "score")
    row = transitions(table, RECORDS).row(0, named=True)
    own, lean = own_bootstrap(table, n, 150)
    np.testing.assert_allclose([math.log2(row["transition"]), row["slope"], math.log2(row["level"])], own[0], atol=1e-6)
    scale = stats.t.ppf(0.975, n - 1) * math.sqrt(n / (n - 1))
    half_of_bend = math.log2(row["transition_high"] / row["transition_low"]) / 2 - 0.5 / PLACES_PER_OCTAVE
    half_of_slope = (row["slope_high"] - row["slope_low"]) / 2
    # Two standard deviations, of 200 draws and of 150.
    expected = np.hypot(scale * own[1:, :2].std(axis=0), lean)
    np.testing.assert_allclose([half_of_bend, half_of_slope], expected, rtol=0.25)
    assert math.sqrt(row["transition_low"] * row["transition_high"]) == pytest.approx(row["transition"])
    assert (row["slope_low"] + row["slope_high"]) / 2 == pytest.approx(row["slope"])


def shifted_seeds(n, without=(), by=1):
    """Each seed has its own best rate, by the same number of octaves away from the law at all batch sizes."""
    rows = []
    for size in SIZES:
        optimum = min(math.log2(size), 6.0) - 8
        for octave in range(-12, 5):
            rows += [
                trial(size, 2.0**octave, seed, 0.9 - 0.02 * abs(octave - optimum - by * seed))
                for seed in range(n)
                if (size, seed) not in without
            ]
    return pl.DataFrame(rows)


def trial(size, rate, seed, score, loss=1.0, optimizer="sgd", budget="epochs:1"):
    return {
        "workload": "w",
        "budget": budget,
        "optimizer": optimizer,
        "batch_size": size,
        "learning_rate": rate,
        "effective_learning_rate": rate,
        "seed": seed,
        "status": "complete" if score is not None else "diverged",
        "train_loss": loss if score is not None else None,
        "validation_score": score,
        "test_score": score,
    }


@pytest.mark.usefixtures("quick")
def test_seeds_are_drawn_jointly_over_all_batch_sizes():
    """What a seed shifts at all batch sizes alike moves the level and leaves the knee where it is."""
    row = transitions(shifted_seeds(5), RECORDS).row(0, named=True)
    assert row["transition"] == pytest.approx(2**6)
    agreeing = transitions(shifted_seeds(5, by=0), RECORDS).row(0, named=True)
    for end in ("transition_low", "transition_high", "slope_low", "slope_high"):
        assert row[end] == pytest.approx(agreeing[end])
    assert row["status"] == "identified"


@pytest.mark.usefixtures("quick")
def test_a_missing_trial_costs_its_own_batch_size_a_seed():
    """As in a study that is still running, or in which a trial failed."""
    without = {(SIZES[3], 0), (SIZES[7], 2)}
    row = transitions(shifted_seeds(5, without, 0), RECORDS).row(0, named=True)
    assert (row["n"], row["transition"]) == (4, pytest.approx(2**6))
    moved = transitions(shifted_seeds(5, without, 1), RECORDS).row(0, named=True)
    assert moved["transition_low"] <= 2**6 <= moved["transition_high"]


# ── When nothing can be said ─────────────────────────────────────────────────────────────────────────────────


def sure(rates, sizes=SIZES, n=3, **fields):
    """A study in which all seeds agree: ``rates`` are the log₂ of the best ones, in the middle of three."""
    return pl.DataFrame(
        [
            trial(size, 2.0 ** (octave + step), seed, 0.9 - 0.1 * abs(step), 1.0 + abs(step), **fields)
            for size, octave in zip(sizes, rates, strict=True)
            for step in (-1, 0, 1)
            for seed in range(n)
        ],
        schema_overrides={"validation_score": pl.Float64, "test_score": pl.Float64, "train_loss": pl.Float64},
    )


NUMBERS = ("transition", "transition_low", "transition_high", "slope", "slope_low", "slope_high", "level")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_than_four_batch_sizes_are_too_few(count):
    found = transitions(sure(range(-8, -8 + count), SIZES[:count]), RECORDS)
    for row in found.iter_rows(named=True):
        assert (row["status"], row["batch_sizes"], row["n"]) == ("too few batch sizes", count, 3)
        assert [row[name] for name in NUMBERS] == [None] * 7


@pytest.mark.usefixtures("quick")
def test_batch_sizes_at_which_everything_diverges_do_not_count():
    good = sure([-8, -7, -6, -5], SIZES[:4])
    dead = good.with_columns(
        pl.when(pl.col("batch_size") == SIZES[0]).then(None).otherwise(pl.col(name)).alias(name)
        for name in ("train_loss", "validation_score", "test_score")
    ).with_columns(
        pl.when(pl.col("batch_size") == SIZES[0]).then(pl.lit("diverged")).otherwise(pl.col("status")).alias("status")
    )
    assert set(transitions(good, RECORDS)["status"]) != {"too few batch sizes"}
    found = transitions(dead, RECORDS)
    assert found["status"].to_list() == ["too few batch sizes"] * 2
    assert found["batch_sizes"].to_list() == [3, 3]


@pytest.mark.usefixtures("quick")
def test_one_seed_identifies_nothing():
    """With warnings as errors, as everywhere in these tests."""
    for row in transitions(sure([-8, -7, -6, -5, -5, -5, -5, -5, -5], n=1), RECORDS).iter_rows(named=True):
        assert (row["status"], row["n"]) == ("not identified", 1)
        assert row["transition"] == pytest.approx(32)
        assert row["transition_low"] < 1e-9
        assert row["transition_high"] > 1e9
        assert (row["slope_low"], row["slope_high"]) == (-math.inf, math.inf)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("sizes", [SIZES, SIZES[:4], SIZES[::2]], ids=["nine", "four", "factors of four"])
def test_a_line_without_a_bend_grows_throughout(sizes):
    line = transitions(sure([round(math.log2(size)) - 8 for size in sizes], sizes), RECORDS)
    assert set(line["status"]) == {"grows throughout"}
    np.testing.assert_allclose(line["transition_low"], sizes[-1])
    assert line["transition"].null_count() == line["transition_high"].null_count() == len(line)
    np.testing.assert_allclose(line["slope"], 1)
    np.testing.assert_allclose(line["level"], sizes[-1] / 256)


@pytest.mark.usefixtures("quick")
def test_a_rate_that_never_grows_grows_nowhere():
    for octave in range(-10, 3):
        level = transitions(sure([octave] * 9), RECORDS)
        assert set(level["status"]) == {"grows nowhere"}
        np.testing.assert_allclose(level["transition_high"], SIZES[0])
        assert level["transition"].null_count() == level["transition_low"].null_count() == len(level)
        np.testing.assert_allclose(level["level"], 2.0**octave)


# ── The table ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("quick")
def test_optimizers_budgets_and_criteria_are_kept_apart():
    knees = {("sgd", "epochs:1"): 4, ("sgd", "epochs:2"): 5, ("momentum:0.9", "epochs:1"): 6}
    parts = [
        sure([min(k, knee) - 8 for k in range(2, 11)], optimizer=optimizer, budget=budget)
        for (optimizer, budget), knee in knees.items()
    ]
    found = transitions(pl.concat(parts), RECORDS)
    keys = found.select("optimizer", "budget", "criterion").rows()
    assert sorted(keys) == sorted((*key, criterion) for key in knees for criterion in ("score", "train_loss"))
    for row in found.iter_rows(named=True):
        assert row["transition"] == pytest.approx(2 ** knees[row["optimizer"], row["budget"]])
        assert row["slope"] == pytest.approx(1)
        assert row["level"] == pytest.approx(2.0 ** (knees[row["optimizer"], row["budget"]] - 8))
        assert (row["batch_sizes"], row["n"]) == (9, 3)


@pytest.mark.usefixtures("quick")
def test_the_table_does_not_depend_on_the_order_of_the_trials():
    rng = np.random.default_rng(4)
    table = trials(rng, 5, [law(rng, 6.0), law(rng, 7.0)], "score")
    shuffled = table.sample(fraction=1, shuffle=True, seed=2)
    assert_frame_equal(transitions(table, RECORDS), transitions(shuffled, RECORDS))


@pytest.mark.usefixtures("quick")
def test_a_score_that_is_better_when_smaller_bends_at_the_same_place():
    rng = np.random.default_rng(5)
    table = trials(rng, 5, [law(rng, 6.0), law(rng, 7.0)], "score")
    mirrored = WorkloadRecord("w", "1", (), "0" * 64, (2048, 256, 517), "error", "minimize", 2.3, 1 - 0.11)
    of_error = table.with_columns((1 - pl.col(name)).alias(name) for name in ("validation_score", "test_score"))
    assert_frame_equal(transitions(table, RECORDS), transitions(of_error, {"w": mirrored}))
