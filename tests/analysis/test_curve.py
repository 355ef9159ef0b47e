"""Where a curve has its optimum: against numpy's parabola, and what moving or scaling a curve must not change."""

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sgdscope.analysis.curve import Curve, curve
from sgdscope.analysis.goodness import log_losses, smallest_loss
from sgdscope.records import WorkloadRecord

SEEDS = 4
RECORD = WorkloadRecord(
    name="w", version="1", fields=(), data_sha256="", examples=(64, 32, 32), score_name="accuracy",
    score_goal="maximize", constant_loss=0.7, constant_score=0.5,
)  # fmt: skip


def trials_of(losses, rates=None):
    """The complete trials of one cell, a row of losses for each learning rate, a factor of 2 apart unless given."""
    rows = [
        {
            "learning_rate": 2.0**rate if rates is None else float(rates[rate]),
            "seed": seed,
            "status": "complete",
            "train_loss": loss,
        }
        | {"validation_score": 0.9, "test_score": 0.9}
        for rate, row in enumerate(losses)
        for seed, loss in enumerate(row)
    ]
    return pl.DataFrame(rows)


@st.composite
def curves(draw):
    """Uneven grids of rates; scores of one decimal, so that rates tie; some rates diverge now and then."""
    steps = draw(st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.0]), min_size=1, max_size=7))
    octaves = draw(st.floats(-9, 2)) + np.cumsum([0.0, *steps])
    shape = (len(octaves), SEEDS)
    values = draw(st.lists(st.integers(0, 9), min_size=shape[0] * SEEDS, max_size=shape[0] * SEEDS))
    diverging = draw(st.lists(st.sampled_from([0, 0, 0, 0, 1, 4]), min_size=shape[0], max_size=shape[0]))
    # Of eight seeds one may diverge, and four may not.
    goodness = np.repeat(np.array(values, float).reshape(shape) / 10, 2, axis=1)
    diverged = np.arange(2 * SEEDS) < np.array(diverging)[:, None]
    return Curve(2.0**octaves, np.arange(2 * SEEDS), goodness, diverged)


def naive_best(octaves, means, eligible):
    """The middle of the rates that tie for the best, the lower of two."""
    top = max(mean for mean, allowed in zip(means, eligible, strict=True) if allowed)
    tied = [k for k, mean in enumerate(means) if eligible[k] and abs(mean - top) < 1e-9]
    return tied[(len(tied) - 1) // 2]


def naive_vertex(found, seeds):
    """One draw at a time, with ``numpy.polyfit``."""
    octaves = [float(np.log2(rate)) for rate in found.rates]
    means = [sum(row[seed] for seed in seeds) / len(seeds) for row in found.goodness.tolist()]
    lost = [sum(row) for row in found.diverged.tolist()]
    best = naive_best(octaves, means, [share / len(found.seeds) <= 0.2 for share in lost])
    near = [k for k, octave in enumerate(octaves) if abs(octave - octaves[best]) < 1 + 1e-6 and lost[k] == 0]
    degree = 3 if len(near) >= 5 else 2
    if degree == 2:
        near = [k for k in near if abs(k - best) <= 1]
    if len(near) < 3 or not near[0] < best < near[-1]:
        return octaves[best]
    fitted = np.poly1d(np.polyfit([octaves[k] - octaves[best] for k in near], [means[k] for k in near], degree))
    peaks = [r.real for r in fitted.deriv().roots if abs(r.imag) < 1e-9 and fitted.deriv(2)(r.real) < -1e-9]
    peaks = [peak for peak in peaks if abs(peak) <= 1]
    return octaves[best] + (peaks[0] if peaks else 0.0)


@settings(max_examples=150)
@given(curves(), st.integers(0, 1000))
def test_the_vertex_is_that_of_numpys_polynomial(found, number):
    assume(found.eligible.any())
    draws = np.random.default_rng(number).integers(0, 2 * SEEDS, (5, 2 * SEEDS))
    everything = np.arange(2 * SEEDS)
    for seeds, (vertices, _) in ((everything[None], found.vertex()), (draws, found.vertex(draws))):
        np.testing.assert_allclose(vertices, [naive_vertex(found, s) for s in seeds], atol=1e-6)


@settings(max_examples=80)
@given(curves())
def test_it_is_within_an_octave_of_the_winner_and_so_is_what_it_may_stray(found):
    assume(found.eligible.any())
    vertices, strays = found.vertex()
    winner = found.octaves[found.best()]
    assert np.abs(vertices - winner) <= 1 + 1e-12
    assert found.octaves[0] <= vertices[0] <= found.octaves[-1] or found.diverged.any() or len(found.rates) < 3
    around = np.diff(found.octaves)[max(found.best()[0] - 1, 0) : found.best()[0] + 1].mean()
    assert min(abs(strays[0] - around * part) for part in (1 / 4, 1 / 2)) < 1e-9
    if abs(vertices[0] - winner[0]) > 1e-9:
        assert strays[0] == pytest.approx(around / 4)


@settings(max_examples=80)
@given(curves(), st.integers(-5, 5), st.sampled_from([0.5, 2.0, 8.0]), st.sampled_from([-4.0, 0.0, 16.0]))
def test_moving_the_rates_moves_it_and_scaling_the_scores_does_not(found, octaves, scale, level):
    assume(found.eligible.any())
    other = Curve(found.rates * 2.0**octaves, found.seeds, found.goodness * scale + level, found.diverged)
    draws = np.random.default_rng(1).integers(0, 2 * SEEDS, (5, 2 * SEEDS))
    (vertices, strays), (moved, strays_moved) = found.vertex(draws), other.vertex(draws)
    np.testing.assert_allclose(moved, vertices + octaves, atol=1e-6)
    np.testing.assert_allclose(strays_moved, strays, atol=1e-9)


@pytest.mark.parametrize("offset", [0.0, 0.31, -0.2])
@pytest.mark.parametrize("score", [0.9, 0.97, 1.0, 0.123])
def test_equal_means_have_no_vertex(offset, score):
    """The parabola through them is rounding alone, and its vertex could be anywhere."""
    goodness = np.full((5, 5), score)
    goodness[[0, -1]] = 0.1
    found = Curve(2.0 ** (np.arange(5) + offset), np.arange(5), goodness, np.zeros((5, 5), bool))
    for seeds in (None, np.arange(5)[None]):
        vertex, stray = found.vertex(seeds)
        assert (vertex[0], stray[0]) == (pytest.approx(2 + offset), pytest.approx(0.5))


def test_a_parabola_is_found_exactly():
    octaves = np.arange(-6.0, 3.0)
    for optimum in np.linspace(-4, 0, 17):
        goodness = np.repeat(-0.01 * (octaves - optimum)[:, None] ** 2, 3, axis=1)
        found = Curve(2.0**octaves, np.arange(3), goodness, np.zeros((9, 3), bool))
        assert found.vertex()[0][0] == pytest.approx(optimum, abs=1e-6)


def test_what_diverged_is_no_part_of_the_parabola():
    """Just above the best rate a tenth of the trials diverged: the best stays where it was tried."""
    goodness = np.array([[0.8] * 10, [0.9] * 10, [0.89] * 9 + [0.1]])
    diverged = np.zeros((3, 10), bool)
    diverged[2, 9] = True
    vertex, stray = Curve(2.0 ** np.arange(3), np.arange(10), goodness, diverged).vertex()
    assert (vertex[0], stray[0]) == (1.0, 0.5)


@pytest.mark.parametrize("best", [0, 3])
def test_at_an_edge_the_best_rate_is_where_it_was_tried(best):
    goodness = np.full((4, 3), 0.5)
    goodness[best] = 0.9
    vertex, stray = Curve(2.0 ** np.arange(4), np.arange(3), goodness, np.zeros((4, 3), bool)).vertex()
    assert (vertex[0], stray[0]) == (best, 0.5)


def test_of_a_single_rate_nothing_strays():
    vertex, stray = Curve(np.array([0.5]), np.arange(3), np.ones((1, 3)), np.zeros((1, 3), bool)).vertex()
    assert (vertex[0], stray[0]) == (-1.0, 0.0)


@pytest.mark.parametrize(("constant", "floor"), [(0.5, 2.0**-24), (1.0, 2.0**-23), (7.0, 2.0**-23), (1e30, 2.0**-23)])
def test_losses_below_the_resolution_of_float32_are_equal(constant, floor):
    record = replace(RECORD, constant_loss=constant)
    assert smallest_loss(record) == floor
    tiny = log_losses(np.array([0.0, 1e-38, floor / 2, floor]), record)
    np.testing.assert_array_equal(tiny, np.full(4, math.log(floor)))
    large = np.array([2 * floor, 1e-3, 0.4])
    np.testing.assert_array_equal(log_losses(large, record), np.log(large))


def test_the_floor_is_where_a_cross_entropy_in_float32_becomes_zero():
    def smallest_of(margins):  # the loss of an example as its logit leads by more and more
        logits = np.stack([margins, np.zeros_like(margins)], axis=1).astype(np.float32)
        losses = np.log(np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1))
        return losses[losses > 0].min()

    record = replace(RECORD, constant_loss=math.log(10))
    assert smallest_loss(record) == pytest.approx(smallest_of(np.arange(0, 40, 0.01, dtype=np.float32)), rel=1e-6)


def test_rates_whose_losses_are_all_zero_tie_and_the_middle_one_is_best():
    losses = [[0.3, 0.3], [0.0, 1e-12], [0.0, 0.0], [1e-9, 0.0], [0.1, 0.1]]
    cell = trials_of(losses)
    found = curve(cell, RECORD, "train_loss")
    assert found.rates[found.best()[0]] == found.rates[2]
    np.testing.assert_array_equal(found.contenders, [False, True, True, True, False])


def scored(scores):
    values = [score for row in scores for score in row]
    cell = trials_of([[0.3] * len(row) for row in scores])
    return cell.with_columns(validation_score=pl.Series(values), test_score=pl.Series(values))


def test_a_rate_without_scores_is_left_out_and_its_training_loss_counts():
    cell = scored([[0.7, 0.7, 0.7], [None, None, 0.9], [0.8, 0.8, 0.8]])
    found = curve(cell, RECORD, "score")
    rates = cell["learning_rate"].unique().sort()
    np.testing.assert_array_equal(found.rates[found.eligible], rates[[0, 2]])
    assert found.rates[found.best()[0]] == rates[2]
    assert len(found.seeds) == 3
    assert len(curve(cell, RECORD, "train_loss").rates[curve(cell, RECORD, "train_loss").eligible]) == 3
    none = curve(scored([[0.7, 0.7, 0.7], [None, None, None], [0.8, 0.8, 0.8]]), RECORD, "score")
    np.testing.assert_array_equal(none.eligible, [True, False, True])  # tried, as a search wants to know
    of_test = curve(cell.with_columns(test_score=pl.lit(0.9)), RECORD, "score", "test_score")
    np.testing.assert_array_equal(
        of_test.rates[of_test.eligible], rates[[0, 2]]
    )  # chosen and reported on the same trials


def test_a_single_score_that_is_missing_costs_its_seed_and_not_its_rate():
    cell = scored([[0.7, 0.7, 0.7, 0.7], [0.9, None, 0.9, 0.9], [0.8, 0.8, 0.8, 0.8]])
    for column in ("validation_score", "test_score"):
        found = curve(cell, RECORD, "score", column)
        np.testing.assert_array_equal(found.counts, [4, 3, 4])
        assert found.eligible.all()
        assert found.best()[0] == 1
    assert curve(cell, RECORD, "train_loss").counts.tolist() == [4, 4, 4]


@pytest.mark.parametrize("digits", [2, 3, 4])
def test_rates_that_are_rounded_to_few_digits_give_the_same_vertex_as_whole_ones(digits):
    rng = np.random.default_rng(5)
    octaves = np.arange(-7, 2) / 2
    losses = np.exp((octaves[:, None] + 1.2) ** 2 / 8 + 0.02 * rng.normal(size=(9, 5)))
    whole = curve(trials_of(losses, 2.0**octaves), RECORD, "train_loss")
    rates = np.array([float(f"{rate:.{digits - 1}e}") for rate in 2.0**octaves])
    rounded = curve(trials_of(losses, rates), RECORD, "train_loss")
    assert rounded.vertex()[0] == pytest.approx(whole.vertex()[0], abs=0.1)
