"""Lines, hinges and bends against scipy, with points and with bounds; hinges without bounds are in ``test_regimes``."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from sgdscope.stats import laws as fits
from sgdscope.stats.laws import fit_hinge, fit_line, fit_soft_hinge

X = np.arange(2.0, 11.0)


def hinge(x, knee, slope, level):
    return level - slope * np.maximum(0, knee - x)


def bend(x, knee, softness, slope, level):
    if softness == 0:
        return hinge(x, knee, slope, level)
    return level - slope * softness * np.log2(1 + 2.0 ** ((knee - x) / softness))


def loss(law, y, bounds):
    """A point costs its square; a bound only where the law is below an optimum that is above, or the reverse."""
    total = 0.0
    for at, value, bound in zip(law, y, bounds, strict=True):
        if bound == 0 or (bound > 0 and at < value) or (bound < 0 and at > value):
            total += (at - value) ** 2
    return total


@pytest.fixture
def coarse(monkeypatch):
    """Few enough laws that each can be fitted by scipy."""
    monkeypatch.setattr(fits, "PLACES_PER_OCTAVE", 1)
    monkeypatch.setattr(fits, "SOFTNESSES", np.array([0.0, 0.5, 1.0, 2.0]))


def noisy(rng, bounded, draws=1, x=X):
    y = hinge(x, rng.uniform(3, 9), rng.uniform(0, 1.5), -2.0) + rng.normal(0, 1.0, (draws, len(x)))
    return y, rng.choice([-1, 0, 1], p=[bounded / 2, 1 - bounded, bounded / 2], size=y.shape)


# ── Points ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_line_is_that_of_numpy():
    rng = np.random.default_rng(0)
    x = np.array([1.0, 2.0, 2.5, 6.0, 7.0])
    y = rng.normal(size=(20, 5))
    np.testing.assert_allclose(fit_line(x, y), [np.polyfit(x, values, 1)[0] for values in y], atol=1e-10)
    assert fit_line(x[:2], y[:1, :2])[0] == pytest.approx(y[0, 1] - y[0, 0])


@settings(max_examples=40)
@given(
    points=st.integers(5, 10),
    gap=st.sampled_from([1.0, 2.0]),
    place=st.floats(0.2, 0.8),
    softness=st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.5, 2.0]),
    slope=st.floats(0.3, 1.5),
    level=st.floats(-10, 5),
)
def test_a_planted_bend_is_fitted_exactly(points, gap, place, softness, slope, level):
    x = 2 + gap * np.arange(points)
    knee = x[0] + round(place * (x[-1] - x[0]) * 20) / 20
    planted = bend(x, knee, softness, slope, level)
    found = fit_soft_hinge(x, planted[None])
    # Few points are as well fitted by other bends: it is the law that is found, not its numbers.
    fitted = bend(x, found.transition[0], found.softness[0], found.slope[0], found.level[0])
    np.testing.assert_allclose(fitted, planted, atol=1e-4)


@pytest.mark.parametrize("softness", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("slope", [0.5, 1.0])
def test_a_planted_bend_amid_its_points_is_found(softness, slope):
    found = fit_soft_hinge(X, bend(X, 6.3, softness, slope, -2.0)[None])
    values = [found.transition[0], found.softness[0], found.slope[0], found.level[0]]
    np.testing.assert_allclose(values, [6.3, softness, slope, -2.0], atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_on_noisy_points_the_bend_is_that_of_scipy(seed):
    rng = np.random.default_rng(seed)
    y = bend(X, rng.uniform(4, 8), rng.uniform(0.3, 1.5), rng.uniform(0.5, 1.2), -1.0) + rng.normal(0, 0.2, 9)
    found = fit_soft_hinge(X, y[None])
    squares = ((y - bend(X, found.transition[0], found.softness[0], found.slope[0], found.level[0])) ** 2).sum()
    best = min(
        (
            (y - bend(X, *optimize.curve_fit(bend, X, y, p0=p0, bounds=([2, 0.01, -9, -99], [10, 2, 9, 99]))[0])) ** 2
        ).sum()
        for p0 in itertools.product((4.0, 6.0, 8.0), (0.2, 0.8, 1.6), (1.0,), (-1.0,))
    )
    # A law of the grid is within half a step of scipy's, 1/40 octave of knee and of softness.
    assert best * (1 - 1e-4) <= squares <= (np.sqrt(best) + 3 * 2 / 40) ** 2


@pytest.mark.parametrize("seed", range(3))
def test_of_all_bends_on_the_grid_the_one_with_the_least_squares_is_found(seed):
    rng = np.random.default_rng(seed)
    y = bend(X, 6.3, 1.0, 1.0, -1.0) + rng.normal(0, 0.5, (6, 9))
    found = fit_soft_hinge(X, y)
    laws = [(k, u) for k in np.linspace(2, 10, 161) for u in np.linspace(0, 2, 41)]
    shapes = np.array([bend(X, k, u, 1.0, 0.0) for k, u in laws])
    shapes = shapes[np.ptp(shapes, axis=1) > 1e-3]  # a law that is constant has no slope to fit
    for number, values in enumerate(y):
        least = min(np.polyfit(shape, values, 1, full=True)[1].sum() for shape in shapes)
        law = (of[number] for of in (found.transition, found.softness, found.slope, found.level))
        assert ((values - bend(X, *law)) ** 2).sum() == pytest.approx(least, abs=1e-6)


# ── Bounds ───────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=30)
@given(
    slack=st.lists(st.floats(0, 3), min_size=9, max_size=9),
    bounds=st.lists(st.sampled_from([-1, 0, 0, 1]), min_size=9, max_size=9),
    slope=st.floats(0.2, 1.5),
)
def test_a_bound_that_the_law_keeps_changes_nothing(slack, bounds, slope):
    """The optimum lies somewhere above a bound of +1, so that the law may be as far above it as it likes."""
    bounds = np.array(bounds)
    bounds[[0, 1, 2, 8]] = 0  # enough points to tell the law by
    given_up = bounds * np.array(slack)
    y = hinge(X, 6.0, slope, -2.0) - given_up
    found = fit_hinge(X, y[None], bounds[None])
    np.testing.assert_allclose(
        hinge(X, found.transition[0], found.slope[0], found.level[0])[[0, 1, 2, 8]], y[[0, 1, 2, 8]], atol=1e-4
    )
    assert loss(hinge(X, found.transition[0], found.slope[0], found.level[0]), y, bounds) < 1e-8
    line = slope * X - 3
    assert fit_line(X, (line - given_up)[None], bounds[None])[0] == pytest.approx(slope, abs=1e-6)
    smooth = bend(X, 5.0, 1.0, slope, -2.0)
    soft = fit_soft_hinge(X, (smooth - given_up)[None], bounds[None])
    law = bend(X, soft.transition[0], soft.softness[0], soft.slope[0], soft.level[0])
    assert loss(law, smooth - given_up, bounds) < 1e-6


@pytest.mark.parametrize("side", [-1, 1])
def test_a_bound_that_the_law_breaks_is_a_point(side):
    y = hinge(X, 6.0, 1.0, -2.0)
    y[4] += side * 2.0
    bounds = np.zeros(9, int)
    bounds[4] = side
    for fit in (fit_hinge, fit_soft_hinge):
        broken, point = (vars(fit(X, y[None], of)) for of in (bounds[None], None))
        assert broken.keys() == point.keys()
        for name, value in point.items():
            np.testing.assert_allclose(broken[name], value, atol=1e-9)
    assert fit_line(X, y[None], bounds[None]) == pytest.approx(fit_line(X, y[None]))


@pytest.mark.parametrize("bounded", [0.2, 0.5, 0.8, 1.0])
def test_a_line_with_bounds_has_the_least_loss(bounded):
    """The loss is convex, so scipy's search cannot be caught; the slope is compared where points settle it."""
    rng = np.random.default_rng(int(100 * bounded))
    for _ in range(40):
        y, bounds = noisy(rng, bounded)
        slope = fit_line(X, y, bounds)[0]
        cost = lambda p, y=y[0], bounds=bounds[0]: loss(p[0] + p[1] * X, y, bounds)
        of_slope = lambda s, cost=cost: optimize.minimize_scalar(lambda level: cost((level, s)), bracket=(-20, 20)).fun
        best = min(optimize.minimize(cost, start, method="Powell").fun for start in ((0.0, 0.0), (0.0, slope)))
        assert of_slope(slope) <= best + 1e-6
        if (bounds == 0).sum() >= 3:
            found = optimize.minimize(cost, (0.0, slope + 0.1), method="BFGS").x
            assert slope == pytest.approx(found[1], abs=1e-3)


def least(law, parameters, y, bounds):
    """The least one-sided loss of a law that is linear in its parameters."""
    return optimize.minimize(lambda p: loss(law(*p), y, bounds), np.zeros(parameters), method="Powell").fun


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize("bounded", [0.2, 0.5, 1.0])
def test_a_hinge_with_bounds_has_the_least_loss_of_all_knees(bounded):
    rng = np.random.default_rng(int(100 * bounded))
    all_y, all_bounds = noisy(rng, bounded, draws=8)
    found = fit_hinge(X, all_y, all_bounds)
    laws = [functools.partial(hinge, X, knee) for knee in X[1:]]
    for y, bounds, *law in zip(all_y, all_bounds, found.transition, found.slope, found.level, strict=True):
        mine = loss(hinge(X, *law), y, bounds)
        assert mine <= min(least(other, 2, y, bounds) for other in laws) + 1e-6
        # And the knee is one that has it.
        assert least(functools.partial(hinge, X, law[0]), 2, y, bounds) == pytest.approx(mine, abs=1e-4)


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize("bounded", [0.2, 0.5, 1.0])
def test_a_bend_with_bounds_has_the_least_loss_of_all_bends(bounded):
    rng = np.random.default_rng(int(100 * bounded))
    all_y, all_bounds = noisy(rng, bounded, draws=6)
    found = fit_soft_hinge(X, all_y, all_bounds)
    laws = [functools.partial(bend, X, *law) for law in itertools.product(X, fits.SOFTNESSES)]
    fitted = zip(all_y, all_bounds, found.transition, found.softness, found.slope, found.level, strict=True)
    for y, bounds, *law in fitted:
        assert loss(bend(X, *law), y, bounds) <= min(least(other, 2, y, bounds) for other in laws) + 1e-6


def test_draws_with_bounds_are_fitted_each_by_itself():
    """Whatever is beside it, and however many are fitted at once."""
    y, bounds = noisy(np.random.default_rng(3), 0.3, draws=12)
    bounds[::3] = 0
    for fit in (fit_hinge, fit_soft_hinge):
        together = vars(fit(X, y, bounds))
        for number in (0, 1, 5, 11):
            alone = vars(fit(X, y[number : number + 1], bounds[number : number + 1]))
            for name, values in alone.items():
                np.testing.assert_allclose(together[name][number], values[0], atol=1e-9)
    np.testing.assert_allclose(fit_line(X, y, bounds)[4], fit_line(X, y[4:5], bounds[4:5])[0])


def test_bounds_do_not_depend_on_the_units_of_the_rate():
    y, bounds = noisy(np.random.default_rng(4), 0.4, draws=10)
    moved = fit_hinge(X, y + 7, bounds)
    still = fit_hinge(X, y, bounds)
    np.testing.assert_allclose(moved.level - 7, still.level, atol=1e-6)
    np.testing.assert_allclose(moved.slope, still.slope, atol=1e-6)
    np.testing.assert_array_equal(moved.transition, still.transition)
