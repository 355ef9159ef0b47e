import math

import numpy as np
import polars as pl
import pytest

from sgdscope.advice.predicted_rates import MOST_BEYOND, Law, _check, rate_for
from sgdscope.analysis.optima import optima
from sgdscope.analysis.sweep import Cells
from sgdscope.errors import InputError
from sgdscope.records import WorkloadRecord
from sgdscope.stats.intervals import t_quantile
from sgdscope.testing import simulated

RECORDS = {"simulated": simulated.RECORD}
SIZES = list(simulated.BATCH_SIZES)


def cells(study, sizes=SIZES, column="validation_score"):
    return Cells(sizes, [study[size].curve(column) for size in sizes])


def simulated_study(seed, n=5, **truth):
    planted = simulated.Truth(**truth)
    return planted, simulated.simulate(np.random.default_rng(seed), n, planted)


def table(seed=0, n=5, sizes=SIZES, **truth):
    planted = simulated.Truth(**truth)
    study = simulated.simulate(np.random.default_rng(seed), n, planted, sizes)
    return simulated.trial_table({"sgd": study})


def asked(trials, *sizes, records=RECORDS):
    return rate_for(trials, optima(trials, records), records, sizes)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("law", [*simulated.LAWS])
def test_intervals_hold_the_rate_planted_at_a_batch_size_that_was_held_out(law):
    """Between, and one and two octaves beyond: in .93 or more of studies, with n = 5 and the rates an octave apart."""
    held = {"between": [], "extrapolated": []}
    for seed in range(16):
        truth, study = simulated_study(seed, law=law)
        for out, at in (([SIZES[1 + seed % 7]], SIZES[1 + seed % 7]), (SIZES[:2], SIZES[0]), (SIZES[7:], SIZES[8])):
            found = Law(cells(study, [size for size in SIZES if size not in out])).at(at)
            held[found.place].append(found.low <= truth.octave(at) <= found.high)
    assert np.mean(held["between"]) >= 0.93
    assert np.mean(held["extrapolated"]) >= 0.93


@pytest.mark.usefixtures("quick")
def test_halfway_between_hinge_and_line_misses_less_than_either_where_the_bend_is_smooth_and_no_more_where_sharp():
    missed = {"smooth": [], "linear": []}
    for law, errors in missed.items():
        for seed in range(6):
            truth, study = simulated_study(seed, n=15, law=law, loss_spread=0.05)
            for left in SIZES[1:-1]:
                law_of = Law(cells(study, [size for size in SIZES if size != left], "train_loss"))
                x, (low, high) = math.log2(left), law_of._values(law_of._hinges[0], math.log2(left))
                assert low == high
                line, _ = law_of._line(x)
                errors.append(np.array([law_of.at(left).octave, low[0], line]) - truth.octave(left))
    halfway, hinge, line = (np.array(errors) for errors in np.sqrt(np.mean(np.square(missed["smooth"]), axis=0)))
    assert halfway < hinge
    halfway_sharp, hinge_sharp, line_sharp = np.sqrt(np.mean(np.square(missed["linear"]), axis=0))
    assert halfway_sharp < line_sharp
    assert max(halfway, halfway_sharp) < max(hinge, hinge_sharp, line, line_sharp)


@pytest.mark.usefixtures("quick")
def test_the_interval_is_what_it_is_said_to_be():
    """Recomputed without any of the code but the fits: at a batch size between, of a study without bounds."""
    _, study = simulated_study(3, n=6)
    found = cells(study)
    law, size = Law(found), 48
    x, share = math.log2(size), math.log2(48 / 32)
    assert not found.bounds.any()
    fitted, drawn = law._hinges

    def hinge(h, at):
        return h.level - h.slope * np.maximum(0, h.transition - at)

    vertices, (moved, _) = found.vertices[0], found.drawn_vertices()
    estimate = (hinge(fitted, x)[0] + vertices[3] + share * (vertices[4] - vertices[3])) / 2
    draws = (hinge(drawn, x) + moved[:, 3] + share * (moved[:, 4] - moved[:, 3])) / 2
    missed = np.array([v - hinge(fitted, at)[0] for v, at in zip(vertices, found.x, strict=True)])
    lack = max(0.0, (missed**2).sum() / (9 - 3) - moved.var(axis=0).mean() * 6 / 5)
    half = t_quantile(6) * math.sqrt(draws.var() * 6 / 5 + lack) + 1.0 / 2  # rates an octave apart
    predicted = law.at(size)
    assert predicted.place == "between"
    assert predicted.octave == pytest.approx(estimate)
    assert (predicted.low, predicted.high) == pytest.approx((estimate - half, estimate + half))


@pytest.mark.usefixtures("quick")
def test_above_the_largest_a_rate_that_has_not_bent_may_go_on_or_stop():
    """Planted without a knee: the interval reaches from the last rate to the line's, and widens as one goes."""
    truth, study = simulated_study(0, n=15, law="no transition in range", spread=0.002)
    law = Law(cells(study))
    ends = [law.at(size) for size in (1024, 1025, 2048, 4096)]
    assert [found.place for found in ends] == ["measured", *["extrapolated"] * 3]
    widths = [found.high - found.low for found in ends]
    assert widths[1] < widths[2] < widths[3]
    for size, found in zip((2048, 4096), ends[2:], strict=True):
        assert found.low < truth.octave(1024) < truth.octave(size) < found.high


@pytest.mark.usefixtures("quick")
def test_what_was_measured_stands_beside_what_is_predicted():
    trials = table()
    rows = asked(trials, 16, 24)
    best = optima(trials, RECORDS).filter(batch_size=16).sort("criterion")
    measured = rows.filter(batch_size=16).sort("criterion")
    assert measured["place"].to_list() == ["measured"] * 2
    for name, source in (("measured", "learning_rate"), ("measured_low", "learning_rate_low"), ("censored",) * 2):
        assert measured[name].to_list() == best[source].to_list()
    between = rows.filter(batch_size=24)
    assert between["place"].to_list() == ["between"] * 2
    assert between["measured"].null_count() == 2
    assert (between["learning_rate_low"] < between["learning_rate"]).all()
    assert (between["learning_rate"] < between["learning_rate_high"]).all()


@pytest.mark.usefixtures("quick")
def test_few_batch_sizes_predict_nothing_and_one_seed_nothing_certain():
    rows = asked(table(sizes=SIZES[:3]), 4, 6)
    assert set(rows["place"]) == {"too few batch sizes"}
    assert rows["learning_rate"].null_count() == len(rows)
    assert rows.filter(batch_size=4)["measured"].null_count() == 0
    one = asked(table(n=1), 24)
    assert one["learning_rate"].null_count() == 0
    assert one["learning_rate_low"].to_list() == [0.0] * 2
    assert one["learning_rate_high"].to_list() == [math.inf] * 2
    assert one["flat"].all()


@pytest.mark.usefixtures("quick")
def test_without_a_training_loss_the_score_alone_is_predicted():
    rows = asked(table().with_columns(train_loss=pl.lit(None, pl.Float64)), 24)
    assert rows["criterion"].to_list() == ["score"]


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "batch_sizes: 0 cannot be trained with simulated; it must be at least 1"),
        (2048, "batch_sizes: 2048 is larger than the training set of simulated; ask for at most its 1024 examples"),
        (1, "batch_sizes: 1 lies more than 2 octaves beyond what was measured of simulated (8 to 64)"),
        (300, "batch_sizes: 300 lies more than 2 octaves beyond what was measured of simulated (8 to 64)"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_sentence(size, said):
    trials = table(sizes=[8, 16, 32, 64], n=2)
    with pytest.raises(InputError) as raised:
        asked(trials, size)
    assert str(raised.value).startswith(said)


def test_a_ghost_batch_size_is_kept_to():
    record = WorkloadRecord("w", "1", (), "0", (1024, 256, 517), "accuracy", "maximize", 2.3, 0.1, ghost_batch_size=64)
    _check(192, record, [64, 128])
    _check(128 * 2 ** int(MOST_BEYOND), record, [64, 128])
    with pytest.raises(InputError, match="must be a multiple of 64"):
        _check(96, record, [64, 128])
