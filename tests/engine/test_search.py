"""The search for learning rates, driven by an oracle in place of training."""

import functools
import math
import random
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from sgdscope.analysis.curve import Curve
from sgdscope.analysis.optima import optima
from sgdscope.budget import Epochs, Steps, Unlimited
from sgdscope.engine.search import HIGHEST, LOWEST, learning_rate, next_rates, search
from sgdscope.optimizers import SGD
from sgdscope.records import WorkloadRecord
from sgdscope.seeds import Seeds, SeedsAt
from sgdscope.store import TRIALS_SCHEMA
from sgdscope.study import Declaration

RECORD = WorkloadRecord("w", "1", (), "0" * 64, (1024, 256, 517), "accuracy", "maximize", 2.3, 0.11)
NOTHING = pl.DataFrame(schema=TRIALS_SCHEMA)


@pytest.fixture(scope="module", autouse=True)
def _each_trial_is_made_once():
    """A search is replayed at every step, hashing its trials anew: most of the time of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Declaration, "trial", functools.cache(Declaration.trial))
        yield


def declaration(**changes):
    plain = {
        "name": "s",
        "workloads": RECORD,
        "optimizers": (SGD(),),
        "batch_sizes": (16, 64, 256),
        "budgets": Epochs(10),
        "seeds": 3,
    }
    return Declaration(**plain | changes)


class Oracle:
    """Answers a trial at once, by its fields alone: parabolas around optima that grow with the batch size.

    All positions are log₂ of effective rates: ``score`` and ``loss`` are the optima above the knee, one octave
    lower for each halving of the batch size below it; at ``cliff`` octaves above the higher of the two and
    beyond, trials diverge. ``width`` is the curves' scale in octaves; infinite is flat.
    """

    def __init__(self, score=-2.0, loss=-1.0, knee=6.0, width=1.0, cliff=2.0, spread=0.1, record=RECORD):
        self.score, self.loss, self.knee, self.width = score, loss, knee, width
        self.cliff, self.spread, self.record = cliff, spread, record
        self.trained = []

    def positions(self, batch_size):
        shift = min(0.0, math.log2(batch_size) - self.knee)
        return self.score + shift, self.loss + shift

    def means(self, batch_size, octave):
        """Score and log loss without noise, in units of 0.01 and of 1."""
        return [-(((octave - position) / self.width) ** 2) for position in self.positions(batch_size)]

    def row(self, trial):
        octave = math.log2(trial.optimizer.effective_learning_rate(trial.learning_rate))
        noise = random.Random(trial.id)
        diverged = octave >= max(self.positions(trial.batch_size)) + self.cliff
        score, loss = self.means(trial.batch_size, octave)
        score = max(0.0, 0.97 + 0.01 * (score + self.spread * noise.gauss(0, 1)))
        loss = math.exp(min(50.0, -loss + self.spread * noise.gauss(0, 1)) - 3)
        if self.record.score_goal == "minimize":
            score = 1 - score
        return dict.fromkeys(TRIALS_SCHEMA) | {
            "trial_id": trial.id,
            "workload": trial.workload.name,
            "optimizer": str(trial.optimizer),
            "batch_size": trial.batch_size,
            "learning_rate": trial.learning_rate,
            "effective_learning_rate": trial.optimizer.effective_learning_rate(trial.learning_rate),
            "budget": str(trial.budget),
            "seed": trial.seed,
            "status": "diverged" if diverged else "complete",
            "train_loss": None if diverged else loss,
            "validation_score": None if diverged else score,
            "test_score": None if diverged else score,
        }

    def train(self, trials):
        self.trained += [trial.id for trial in trials]
        return pl.DataFrame([self.row(trial) for trial in trials], schema=TRIALS_SCHEMA)


def searched(declared, oracle, trials=NOTHING, choose=lambda pending: pending):
    """Train what is pending until nothing is; ``choose`` picks which of it is committed next."""
    for _ in range(10_000):
        state = search(declared, trials)
        found, pending = state.rounds, state.pending
        if not pending:
            assert all(stands.finished for stands in found)
            if not any(isinstance(budget, Unlimited) for budget in declared.budgets):
                assert {stands.cell for stands in found} == set(declared.cells)
            assert not state.waiting
            assert len(oracle.trained) == len(set(oracle.trained))  # nothing twice
            return found, trials
        trials = pl.concat([trials, oracle.train(choose(pending))])
    raise AssertionError("the search does not end")


def wanted(found):
    """What a finished search consists of."""
    return {
        (str(stands.cell.optimizer), stands.cell.batch_size, frozenset(trial.id for trial in stands.trials))
        for stands in found
    }


def half_octaves(stands):
    """All rates of a cell, in half octaves: twice their log₂."""
    return sorted({round(2 * math.log2(trial.learning_rate)) for trial in stands.trials})


def octaves(stands):
    """The whole octaves among the rates of a cell: those that are tried until the optima are bracketed."""
    return [k // 2 for k in half_octaves(stands) if k % 2 == 0]


# ── Bracketing, worked out a second time ─────────────────────────────────────────────────────────────────────


def beaten_end(values, diverged, end):
    """Whether of an end's paired t tests against the other rates one rejects, at 5 % shared among them, by scipy."""
    eligible = [k for k in range(len(values)) if sum(diverged[k]) <= 0.2 * len(diverged[k])]
    end %= len(values)
    others = [k for k in eligible if k != end]
    if len(values[end]) == 1:
        return math.fsum(values[end]) < max(values[k][0] for k in eligible)
    level = 0.05 / max(1, len(others))
    return any(leads(values[k], values[end], level) for k in others)


def leads(one, other, level):
    differences = np.subtract(one, other)
    if np.ptp(differences) < 1e-12:
        return differences.mean() > 1e-12
    return stats.ttest_1samp(differences, 0, alternative="greater").pvalue < level


def assert_bracketed(stands, trials, record=RECORD):
    """Both optima are bracketed at both ends, or the search has gone as far as it may; and half octaves tried."""
    whole, tried = octaves(stands), half_octaves(stands)
    assert whole == list(range(whole[0], whole[-1] + 1))  # no gaps
    assert tried[0] >= 2 * LOWEST
    assert tried[-1] <= 2 * HIGHEST
    rows = {row["trial_id"]: row for row in trials.iter_rows(named=True)}
    of_rate = {k: [] for k in tried}
    for trial in sorted(stands.trials, key=lambda trial: trial.seed):
        of_rate[round(2 * math.log2(trial.learning_rate))].append(rows[trial.id])
    sign = 1 if record.score_goal == "maximize" else -1

    def gains(row):
        if row["status"] == "diverged":
            return 0.0, 0.0
        return sign * (row["validation_score"] - record.constant_score), record.constant_loss - row["train_loss"]

    most = [max(sum(gains(row)[k] for row in of) / len(of) for of in of_rate.values()) for k in (0, 1)]
    diverged = [
        [
            row["status"] == "diverged" or all(g < m / 2 for g, m in zip(gains(row), most, strict=True))
            for row in of_rate[k]
        ]
        for k in tried
    ]  # or collapsed
    eligible = [sum(row) <= 0.2 * len(row) for row in diverged]
    if not any(eligible):
        assert tried == [2 * octave for octave in whole]
        assert whole[0] == LOWEST
        return
    columns = {
        "validation_score": lambda v: sign * (record.constant_score if v is None else v),
        "train_loss": lambda v: -math.log(record.constant_loss if v is None else v),
    }
    for column, good in columns.items():
        values = [[good(row[column]) for row in of_rate[k]] for k in tried]
        constant = good(None)
        means = [sum(row) / len(row) for row in values]
        best = max(mean for mean, fit in zip(means, eligible, strict=True) if fit)
        # Around the best rate, or one that is as good, the half octaves were tried.
        around = [k for k, mean, fit in zip(tried, means, eligible, strict=True) if fit and mean >= best - 1e-11]
        assert any({k - 1, k + 1} & set(range(2 * LOWEST, 2 * HIGHEST + 1)) <= set(tried) for k in around)

        def learned_next_to_nothing(end, best=best, constant=constant, means=means):
            return best > constant and means[end] - constant < 0.1 * (best - constant)

        if tried[0] > 2 * LOWEST:
            assert not eligible[0] or learned_next_to_nothing(0) or beaten_end(values, diverged, 0)
        if tried[-1] < 2 * HIGHEST and eligible[-1]:
            assert learned_next_to_nothing(-1) or beaten_end(values, diverged, -1)


positions = st.floats(-12, 6)
oracles = st.builds(
    Oracle,
    score=positions,
    loss=positions,
    knee=st.floats(2, 11),
    width=st.sampled_from([0.5, 1.0, 2.0]),
    cliff=st.sampled_from([-3.0, 0.5, 1.0, 3.0, 100.0]),
    spread=st.sampled_from([0.0, 0.1, 1.0]),
)
EVERYTHING_DIVERGES = Oracle(cliff=-100.0)
FLAT = Oracle(width=math.inf, cliff=100.0)
FLAT_WITHOUT_NOISE = Oracle(width=math.inf, cliff=100.0, spread=0.0)
FLAT_WITH_CLIFF = Oracle(width=math.inf, cliff=3.0)
TOO_LOW = Oracle(score=-30.0, loss=-28.0, width=3.0)
TOO_HIGH = Oracle(score=20.0, loss=16.0, width=3.0, cliff=100.0)
FAR_APART = Oracle(score=-14.0, loss=8.0, cliff=100.0)


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_a_window_of_dead_networks_sends_the_search_down_and_up(spread):
    """Above a cliff networks answer at random with a finite loss: the best of them is no optimum."""

    class Dead(Oracle):
        def row(self, trial):
            row = super().row(trial)
            if math.log2(trial.learning_rate) > -14:
                noise = random.Random(trial.id)
                score = RECORD.constant_score + 0.02 * spread * noise.gauss(0, 1)
                row |= {"validation_score": score, "test_score": score, "train_loss": RECORD.constant_loss * 1.001}
            return row

    found, trials = searched(declaration(batch_sizes=(8,)), Dead(score=-16.0, loss=-16.0, knee=3, cliff=100.0))
    (stands,) = found
    assert -17 in octaves(stands)
    assert_bracketed(stands, trials)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(oracle=oracles, seeds=st.sampled_from([1, 3, 5]))
@example(EVERYTHING_DIVERGES, 2)
@example(FLAT, 3)
@example(FLAT_WITHOUT_NOISE, 2)
@example(FLAT_WITH_CLIFF, 3)
@example(TOO_LOW, 3)
@example(TOO_HIGH, 3)
@example(FAR_APART, 3)
def test_the_search_ends_with_both_optima_bracketed(oracle, seeds):
    oracle.trained.clear()
    found, trials = searched(declaration(batch_sizes=(16, 256), seeds=seeds), oracle)
    for stands in found:
        assert len(stands.trials) == len(half_octaves(stands)) * seeds
        assert_bracketed(stands, trials)


def test_where_everything_diverges_the_search_goes_down_to_its_end():
    (stands,), trials = searched(declaration(batch_sizes=(64,)), Oracle(cliff=-100.0))
    assert octaves(stands)[0] == LOWEST
    assert set(trials["status"]) == {"diverged"}


def test_where_only_the_lowest_rates_live_they_are_found():
    """All of the first window diverges; the optimum lies 10 octaves below it."""
    (stands,), trials = searched(declaration(batch_sizes=(64,)), Oracle(score=-15.0, loss=-15.0, cliff=1.0))
    assert_bracketed(stands, trials)
    assert set(optima(trials, {"w": RECORD})["learning_rate"]) <= {2.0**-15, 2.0**-15.5}


def test_a_score_that_is_better_when_smaller_gives_the_same_search():
    mirrored = WorkloadRecord("w", "1", (), "0" * 64, (1024, 256, 517), "error", "minimize", 2.3, 1 - 0.11)
    found, _ = searched(declaration(), Oracle(spread=0.3))
    of_error, trials = searched(declaration(workloads=mirrored), Oracle(spread=0.3, record=mirrored))
    assert wanted(of_error) == wanted(found)
    for stands in of_error:
        assert_bracketed(stands, trials, mirrored)


# ── One step of it ───────────────────────────────────────────────────────────────────────────────────────────


def step(first, *goodness, diverged=None):
    """What octaves are added to those from ``first`` on; each criterion's ``goodness[rate]`` is that of four seeds,
    with a little noise that pairs away. None where what is added are half octaves.
    """
    noise = np.array([0.3, -0.3, 0.1, -0.1])
    values = [np.asarray(means, float)[:, None] + noise for means in goodness]
    octaves = list(range(first, first + len(goodness[0])))
    gone = np.zeros(values[0].shape, bool) if diverged is None else np.asarray(diverged, bool)
    return more_octaves(octaves, [Curve(2.0 ** np.array(octaves), np.arange(4), v, gone) for v in values])


def more_octaves(octaves, curves):
    added = next_rates([2 * octave for octave in octaves], curves)
    if any(k % 2 for k in added):
        assert all(k % 2 for k in added)
        return []
    return [k // 2 for k in added]


@pytest.mark.parametrize(
    ("score", "loss", "added"),
    [
        ([0, 1, 0], [0, 1, 0], []),
        ([0, 1, 2], [0, 1, 0], [1]),
        ([0, 1, 0], [0, 1, 2], [1]),
        ([2, 1, 0], [0, 1, 0], [-3]),
        ([0, 1, 0], [2, 1, 0], [-3]),
        ([0, 1, 2], [2, 1, 0], [-3, 1]),
        ([1, 1, 1], [0, 1, 0], [-3, 1]),
        ([0, 1, 1], [0, 1, 0], [1]),
    ],
)
def test_an_end_is_extended_by_an_octave_until_both_criteria_are_worse_there(score, loss, added):
    assert step(-2, score, loss) == added


def test_an_end_is_beaten_where_one_of_its_tests_rejects():
    octaves, seeds = [-2, -1, 0], np.arange(5)
    diverged = np.zeros((3, 5), bool)
    # The same differences of the mean; seed by seed they agree, or they do not.
    noise = np.array([3.0, -3.0, 1.0, -1.0, 0.0])
    agreeing = Curve(2.0 ** np.array(octaves), seeds, np.array([noise - 1, noise, noise - 1]), diverged)
    apart = Curve(2.0 ** np.array(octaves), seeds, np.array([-1 - noise, noise, noise - 1]), diverged)
    assert more_octaves(octaves, [agreeing] * 2) == []
    assert more_octaves(octaves, [apart] * 2) == [-3]
    # Two others at 2.5 % each: t(4) = 2.776, so a mean of 1 is enough for a spread below √5/2.776.
    for spread, added in ((0.80, []), (0.81, [-3])):
        differences = 1 + spread * np.sqrt(4 / 10) * np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
        assert np.std(differences, ddof=1) == pytest.approx(spread)
        found = Curve(2.0 ** np.array(octaves), seeds, np.array([-differences, 0 * noise, 1e-6 * noise - 1]), diverged)
        assert more_octaves(octaves, [found] * 2) == added


def test_an_end_that_learned_next_to_nothing_is_not_extended_however_few_the_seeds():
    octaves, seeds = [-2, -1, 0], np.arange(2)
    noise = np.array([5.0, -5.0])
    for end, added in ((1.5, [-3]), (0.9, [])):  # the best gains 10 over the constant predictor's −1
        values = np.array([end - 1 - noise, 9.0 + noise, end - 1.6 - noise])
        found = Curve(2.0 ** np.array(octaves), seeds, values, np.zeros((3, 2), bool), constant=-1.0)
        assert more_octaves(octaves, [found] * 2) == added


def test_an_upper_end_at_which_more_than_a_fifth_diverges_is_not_extended():
    octaves, seeds = [-2, -1, 0], np.arange(5)
    values = np.array([[0.0] * 5, [0.5] * 5, [0.9, 0.9, 0.9, 0.9, -0.5]])
    values[2, 3] = -0.5  # no worse than the best by the interval
    for count, added in ((0, [1]), (1, [1]), (2, [])):
        diverged = np.zeros((3, 5), bool)
        diverged[2, 5 - count :] = True
        assert more_octaves(octaves, [Curve(2.0 ** np.array(octaves), seeds, values, diverged)] * 2) == added


def test_it_goes_no_further_than_its_limits():
    assert step(LOWEST, [2, 1, 0], [2, 1, 0]) == []
    assert step(LOWEST + 1, [2, 1, 0], [2, 1, 0]) == [LOWEST]
    assert step(HIGHEST - 2, [0, 1, 2], [0, 1, 2]) == []
    assert step(HIGHEST - 3, [0, 1, 2], [0, 1, 2]) == [HIGHEST]


def test_where_everything_diverges_it_goes_down_several_octaves_at_once():
    everything = np.ones((3, 4), bool)
    for first in (0, LOWEST + 2, LOWEST):
        added = step(first, [0, 0, 0], [0, 0, 0], diverged=everything)
        assert added == list(range(max(LOWEST, first - 4), first))


@pytest.mark.parametrize(
    ("score", "loss", "added"),
    [
        ([0, 2, 1], [0, 2, 1], [-3, -1]),
        ([0, 2, 1, 0, 0], [0, 0, 1, 2, 0], [-3, -1, 1, 3]),
        ([0, 2, 1, 0], [0, 1, 2, 0], [-3, -1, 1]),
    ],
)
def test_where_both_ends_are_beaten_the_half_octaves_on_both_sides_of_each_winner_are_tried(score, loss, added):
    octaves = list(range(-2, -2 + len(score)))
    noise = np.array([0.3, -0.3, 0.1, -0.1])
    curves = [
        Curve(
            2.0 ** np.array(octaves),
            np.arange(4),
            np.array(means, float)[:, None] + noise,
            np.zeros((len(score), 4), bool),
        )
        for means in (score, loss)
    ]
    assert next_rates([2 * octave for octave in octaves], curves) == added


def finer(tried, means):
    """Curves over octaves and half octaves, the same for both criteria."""
    values = np.array(means, float)[:, None] + np.array([0.3, -0.3, 0.1, -0.1])
    return [Curve(2.0 ** (np.array(tried) / 2), np.arange(4), values, np.zeros(values.shape, bool))] * 2


def test_the_half_octaves_end_it_unless_they_move_the_best_rate_or_give_back_an_end_its_chance():
    tried = [-4, -3, -2, -1, 0, 2, 4]
    assert next_rates(tried, finer(tried, [0, 1, 2, 3, 2, 1, 0])) == []
    assert next_rates(tried, finer(tried, [0, 1, 2, 3, 4, 1, 0])) == [1]
    assert next_rates(tried, finer(tried, [0, 1, 2, 3, 4, 3, 4])) == [6]
    noisy = finer(tried, [0, 1, 2, 3, 2, 1, 0])[0]
    wild = replace(noisy, goodness=noisy.goodness + np.array([[9, -9, 9, -9]] + [[0] * 4] * 6))
    assert next_rates(tried, [wild, noisy]) == [-6]


def test_octaves_keep_the_floats_that_they_had():
    """They are part of every trial's identity."""
    assert [learning_rate(2 * octave) for octave in range(LOWEST, HIGHEST + 1)] == [
        2.0**octave for octave in range(LOWEST, HIGHEST + 1)
    ]
    between = [learning_rate(k) for k in range(2 * LOWEST + 1, 2 * HIGHEST, 2)]
    np.testing.assert_array_equal(np.frexp(between)[0], math.sqrt(0.5))  # the correctly rounded root and no other
    np.testing.assert_allclose(np.log2(between), np.arange(LOWEST, HIGHEST) + 0.5, rtol=1e-15)


# ── The order of the search ──────────────────────────────────────────────────────────────────────────────────


def test_it_begins_at_the_largest_batch_size_of_each_optimizer():
    declared = declaration(optimizers=(SGD(), SGD(momentum=0.9), SGD(momentum=0.5)))
    found = search(declared, NOTHING).rounds
    assert [(stands.cell.optimizer, stands.cell.batch_size) for stands in found] == [
        (o, 256) for o in declared.optimizers
    ]
    for stands in found:
        assert not stands.finished
        assert stands.pending == stands.trials
        effective = {math.log2(stands.cell.optimizer.effective_learning_rate(t.learning_rate)) for t in stands.trials}
        # Factors of 2 in the rate that is used; where the window is in the effective rate, to half an octave.
        assert all(math.log2(trial.learning_rate).is_integer() for trial in stands.trials)
        np.testing.assert_allclose([min(effective), max(effective)], SGD().first_window, atol=0.5)
        assert {trial.seed for trial in stands.trials} == {0, 1, 2}


def test_a_cell_waits_for_the_next_larger_batch_size():
    declared, oracle, trials = declaration(), Oracle(), NOTHING
    reached = []
    while pending := search(declared, trials).pending:
        found = search(declared, trials).rounds
        sizes = [stands.cell.batch_size for stands in found]
        assert sizes == [256, 64, 16][: len(sizes)]
        assert all(stands.finished for stands in found[:-1])
        reached.append(sizes[-1])
        trials = pl.concat([trials, oracle.train(pending)])
    assert reached == sorted(reached, reverse=True)
    assert set(reached) == {256, 64, 16}


# An optimum that is easily found: every octave beside it is worse, and half an octave too.
SHARP = {"score": -9.0, "loss": -9.0, "spread": 0.01}


def test_neighbours_tell_where_to_look():
    """Optima at the same place: the second search extends nothing, and the third knows that nothing moves."""
    found, _ = searched(declaration(batch_sizes=(64, 128, 256)), Oracle(knee=5.0, **SHARP))
    assert len(octaves(found[0])) > 7
    # One octave for the halving of the batch size, and one on each side.
    assert octaves(found[1]) == [-11, -10, -9, -8]
    assert half_octaves(found[2]) == [-20, -19, -18, -17, -16]


def test_optima_that_move_with_the_batch_are_expected_to_go_on():
    found, _ = searched(declaration(batch_sizes=(8, 16, 64, 256)), Oracle(knee=8.0, **SHARP))
    assert octaves(found[1]) == [-12, -11, -10, -9, -8]  # as if they moved by anything up to the batch's two octaves
    assert octaves(found[2]) == [-14, -13, -12]
    assert octaves(found[3]) == [-15, -14, -13]


def test_the_next_smaller_budget_tells_where_to_look_at_each_batch_size():
    """Steps are another kind of budget than epochs, and begin at the largest batch size anew."""
    declared = declaration(batch_sizes=(64, 256), budgets=(Epochs(20), Steps(9), Epochs(10), Steps(7)))
    found, _ = searched(declared, Oracle(knee=8.0, **SHARP))
    by_cell = {(str(stands.cell.budget), stands.cell.batch_size): octaves(stands) for stands in found}
    for kind, smaller, larger in (("epochs", 10, 20), ("steps", 7, 9)):
        assert len(by_cell[f"{kind}:{smaller}", 256]) > 7
        assert by_cell[f"{kind}:{smaller}", 64] == [-12, -11, -10, -9, -8]
        assert by_cell[f"{kind}:{larger}", 256] == [-10, -9, -8]
        assert by_cell[f"{kind}:{larger}", 64] == [-12, -11, -10]


def test_a_cell_waits_for_the_smaller_budget_and_for_that_alone():
    declared, oracle = declaration(budgets=(Epochs(10), Epochs(20))), Oracle()
    state, trials = search(declared, NOTHING), NOTHING
    assert {(str(stands.cell.budget), stands.cell.batch_size) for stands in state.rounds} == {("epochs:10", 256)}
    assert len(state.waiting) == 5
    while not any(stands.finished for stands in state.rounds):
        trials = pl.concat([trials, oracle.train(state.pending)])
        state = search(declared, trials)
    begun = {(str(stands.cell.budget), stands.cell.batch_size) for stands in state.rounds}
    assert begun == {("epochs:10", 256), ("epochs:10", 64), ("epochs:20", 256)}


def test_a_neighbour_whose_trials_failed_does_not_hold_up_the_others():
    declared = declaration(budgets=(Epochs(10), Epochs(20)), batch_sizes=(64, 256))
    gone, trials = {("epochs:10", 256), ("epochs:20", 64)}, NOTHING
    while asked := [t for t in search(declared, trials).pending if t.id not in set(trials["trial_id"])]:
        rows = Oracle(**SHARP).train(asked)
        lost = pl.concat_str("budget", "batch_size", separator=" ").is_in([f"{budget} {size}" for budget, size in gone])
        status = pl.when(lost).then(pl.lit("failed")).otherwise("status")
        trials = pl.concat([trials, rows.with_columns(status=status)])
    state = search(declared, trials)
    assert not state.waiting
    assert {(str(s.cell.budget), s.cell.batch_size) for s in state.rounds if not s.finished} == gone
    assert wanted(searched(declared, Oracle(**SHARP), trials)[0]) == wanted(searched(declared, Oracle(**SHARP))[0])


def test_workloads_are_searched_each_by_itself():
    other = replace(RECORD, name="other")
    found, _ = searched(declaration(workloads=(RECORD, other)), Oracle())
    for record in (RECORD, other):
        alone, _ = searched(declaration(workloads=record), Oracle())
        assert wanted(alone) == wanted([stands for stands in found if stands.cell.workload == record])


def test_a_momentum_next_to_one_has_a_first_window_too():
    found = search(declaration(optimizers=(SGD(momentum=1 - 2**-24),)), NOTHING).rounds
    assert found[0].pending


# ── Unlimited budgets ────────────────────────────────────────────────────────────────────────────────────────


class Learner(Oracle):
    """Gains with each doubling of the epochs until it has saturated, at so many epochs for each batch size."""

    def __init__(self, score_at, loss_at):
        super().__init__(spread=0.01, score=-2.0, loss=-2.0)
        self.score_at, self.loss_at = score_at, loss_at

    def row(self, trial):
        missing = [math.log2(at[trial.batch_size] / trial.budget.n) for at in (self.score_at, self.loss_at)]
        row = super().row(trial)
        if row["train_loss"] is not None:
            row["train_loss"] *= math.exp(0.5 * max(0, missing[1]))
            for split in ("validation_score", "test_score"):
                row[split] -= 0.05 * max(0, missing[0])
        return row


def epochs_of(found, batch_size):
    return sorted(stands.cell.budget.n for stands in found if stands.cell.batch_size == batch_size)


UNLIMITED = {"budgets": Unlimited(5, 160), "batch_sizes": (16, 64, 256), "seeds": 5}


def learner():
    """A score is known to have saturated two doublings later, a loss one; each batch size goes on for itself."""
    return Learner(score_at={16: 5, 64: 20, 256: 10}, loss_at={16: 5, 64: 10, 256: 80})


def test_an_unlimited_budget_is_doubled_until_score_and_loss_have_both_saturated():
    found, _ = searched(declaration(**UNLIMITED), learner())
    assert epochs_of(found, 16) == [5, 10, 20]
    assert epochs_of(found, 64) == [5, 10, 20, 40, 80]
    assert epochs_of(found, 256) == [5, 10, 20, 40, 80, 160]


def test_a_ceiling_ends_it():
    found, _ = searched(declaration(**UNLIMITED | {"budgets": Unlimited(5, 20)}), learner())
    assert epochs_of(found, 256) == epochs_of(found, 64) == [5, 10, 20]


def test_a_loss_floor_ends_it_for_the_loss():
    loss = math.exp(-3 + 0.5 * 3)  # at 10 epochs, where that of batch size 256 has three doublings to go
    found, _ = searched(declaration(**UNLIMITED | {"budgets": Unlimited(5, 160, 1.1 * loss)}), learner())
    assert epochs_of(found, 256) == [5, 10, 20, 40]  # its score has saturated at 10


def test_a_budget_opens_only_when_the_one_before_it_is_finished():
    declared, oracle, trials = declaration(**UNLIMITED), learner(), NOTHING
    while pending := search(declared, trials).pending:
        state = search(declared, trials)
        standing = {(stands.cell.batch_size, stands.cell.budget.n): stands for stands in state.rounds}
        for size, epochs in standing:
            assert epochs == 5 or standing[size, epochs / 2].finished
        # Until it is known that it is not wanted, it waits.
        for size in (64, 256):
            if not any(stands.finished for (s, _), stands in standing.items() if s == size):
                assert Unlimited(5, 160).budgets[-1] in [
                    cell.budget for cell in state.waiting if cell.batch_size == size
                ]
        trials = pl.concat([trials, oracle.train(pending[:40])])


def test_an_unlimited_budget_is_a_pure_function_too():
    order = random.Random(1)
    at_once, trials = searched(declaration(**UNLIMITED), learner())
    found, again = searched(
        declaration(**UNLIMITED), learner(), choose=lambda p: order.sample(p, order.randint(1, min(len(p), 60)))
    )
    assert wanted(found) == wanted(at_once)
    assert trials.sort("trial_id").equals(again.sort("trial_id"))


def test_its_trials_are_those_of_epochs_and_shared_with_them():
    _, trials = searched(declaration(**UNLIMITED | {"budgets": (Epochs(5), Epochs(10))}), learner())
    oracle = learner()
    found, _ = searched(declaration(**UNLIMITED | {"budgets": (Unlimited(5, 160), Epochs(10))}), oracle, trials)
    assert wanted(found) == wanted(searched(declaration(**UNLIMITED), learner())[0])
    assert not set(oracle.trained) & set(trials["trial_id"])
    beyond, _ = searched(declaration(**UNLIMITED | {"budgets": (Unlimited(5, 160), Epochs(160))}), learner())
    assert epochs_of(beyond, 16) == [5, 10, 20, 160]  # what is asked for outright is trained however it stands


def test_given_rates_are_tried_at_every_budget_that_opens():
    found, _ = searched(declaration(**UNLIMITED | {"learning_rates": (0.0625, 0.125)}), learner())
    assert epochs_of(found, 16) == [5, 10, 20]
    assert {len(stands.trials) for stands in found} == {2 * 5}


# ── A pure function of the trials that it asks for ───────────────────────────────────────────────────────────


NOISY = {"optimizers": (SGD(), SGD(momentum=0.9)), "batch_sizes": (16, 64, 256), "seeds": 3, "budgets": Epochs(10)}


@pytest.fixture(scope="module")
def at_once():
    """The search in which all that is pending is committed together."""
    return searched(declaration(**NOISY), Oracle(spread=0.5))


@pytest.mark.parametrize("seed", range(4))
def test_parts_of_rounds_in_any_order_give_the_same_trials(at_once, seed):
    order = random.Random(seed)

    def choose(pending):
        return order.sample(pending, order.randint(1, min(len(pending), 16)))

    found, trials = searched(declaration(**NOISY), Oracle(spread=0.5), choose=choose)
    assert wanted(found) == wanted(at_once[0])
    assert trials.sort("trial_id").equals(at_once[1].sort("trial_id"))


def test_while_a_round_is_incomplete_it_asks_for_the_rest_of_it_only():
    declared, oracle = declaration(batch_sizes=(64,)), Oracle()
    (first,) = search(declared, NOTHING).rounds
    for committed in range(1, len(first.pending)):
        (stands,) = search(declared, oracle.train(first.pending[:committed])).rounds
        assert stands.trials == first.trials
        assert stands.pending == first.pending[committed:]
        assert not stands.finished


def test_a_finished_search_asks_for_nothing_whatever_the_order_of_the_rows(at_once):
    found, trials = at_once
    for seed in range(3):
        shuffled = trials.sample(fraction=1, shuffle=True, seed=seed)
        again = search(declaration(**NOISY), shuffled).rounds
        assert [(stands.trials, stands.pending) for stands in again] == [(stands.trials, []) for stands in found]


def test_without_any_one_of_its_trials_that_one_is_asked_for(at_once):
    found, trials = at_once
    for missing in random.Random(0).sample([trial for stands in found for trial in stands.trials], 12):
        again = search(declaration(**NOISY), trials.filter(pl.col("trial_id") != missing.id)).rounds
        assert [trial for stands in again for trial in stands.pending] == [missing]


def foreign(oracle):
    """Trials that the declared search does not ask for, or not yet: what else a folder may hold."""
    declared = declaration(**NOISY)
    others = [
        declared.trial(optimizer, batch_size, 2.0**octave, seed)
        for optimizer in (SGD(), SGD(momentum=0.9), SGD(momentum=0.5))
        for batch_size in (8, 16, 64, 256)
        for octave in (-20, -9, -8.5, -3.5, -2, 0.5, 7)
        for seed in (0, 1, 3, 7)
    ]
    elsewhere = [
        declaration(**NOISY | {"budgets": Epochs(11)}).trial(SGD(), 64, 2.0**octave, seed)
        for octave in range(-9, 3)
        for seed in range(3)
    ]
    return oracle.train([*others, *elsewhere])


def test_what_else_the_folder_holds_changes_nothing(at_once):
    extra = foreign(Oracle(spread=0.5))
    found, trials = searched(declaration(**NOISY), Oracle(spread=0.5), extra)
    assert wanted(found) == wanted(at_once[0])
    # What the extra trials happen to answer is not asked for again.
    asked = {trial.id for stands in found for trial in stands.trials}
    assert len(trials) - len(extra) == len(asked - set(extra["trial_id"]))


def test_failed_trials_are_no_answers():
    declared, oracle = declaration(batch_sizes=(64,)), Oracle()
    (first,) = search(declared, NOTHING).rounds
    rows = oracle.train(first.pending)
    failed = rows.with_columns(
        pl.when(pl.col("seed") == 1).then(pl.lit("failed")).otherwise(pl.col("status")).alias("status")
    )
    (stands,) = search(declared, failed).rounds
    assert stands.pending == [trial for trial in first.pending if trial.seed == 1]


def test_trials_and_declaration_are_left_as_they_were(at_once):
    declared, trials = declaration(**NOISY), at_once[1].clone()
    search(declared, trials)
    assert trials.equals(at_once[1])
    assert declared == declaration(**NOISY)


# ── Extending a study ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "more",
    [
        {"seeds": 5},
        {"batch_sizes": (4, 16, 64, 256)},
        {"batch_sizes": (16, 32, 64, 256, 1024)},
        {"optimizers": (SGD(), SGD(momentum=0.9), SGD(momentum=0.5))},
        {"budgets": (Epochs(10), Epochs(40), Steps(20))},
        {"budgets": (Epochs(5), Epochs(10))},
    ],
    ids=["seeds", "a smaller batch", "batches between and beyond", "an optimizer", "budgets", "a smaller budget"],
)
def test_an_extended_study_asks_only_for_what_is_missing(at_once, more):
    declared = declaration(**NOISY | more)
    fresh, _ = searched(declared, Oracle(spread=0.5))
    oracle = Oracle(spread=0.5)
    found, trials = searched(declared, oracle, at_once[1])
    assert wanted(found) == wanted(fresh)
    assert not set(oracle.trained) & set(at_once[1]["trial_id"])
    assert set(oracle.trained) == {trial.id for stands in found for trial in stands.trials} - set(
        at_once[1]["trial_id"]
    )
    assert len(trials) == len(at_once[1]) + len(oracle.trained)


def test_more_seeds_ask_first_for_the_new_seeds(at_once):
    found = search(declaration(**NOISY | {"seeds": 5}), at_once[1]).rounds
    assert {trial.seed for stands in found for trial in stands.pending} == {3, 4}
    assert {stands.cell.batch_size for stands in found} == {256}


# ── More seeds near the best rate ────────────────────────────────────────────────────────────────────────────


SPENT = Seeds(search=3, near_best=6, best=15)


def by_rate(stands):
    """How many seeds each learning rate of a cell has, in half octaves; seeds are counted upwards without a gap."""
    counts = {}
    for trial in stands.trials:
        counts.setdefault(round(2 * math.log2(trial.learning_rate)), []).append(trial.seed)
    assert all(seeds == list(range(len(seeds))) for seeds in counts.values())
    return {k: len(seeds) for k, seeds in counts.items()}


def means(trials, stands, column="validation_score"):
    """The mean over so many first seeds, as a function of half octaves and their number; diverged counts as 0.11."""
    rows = trials.filter(pl.col("batch_size") == stands.cell.batch_size, optimizer=str(stands.cell.optimizer))
    rows = rows.with_columns(k=(2 * pl.col("learning_rate").log(2)).round().cast(int))

    def mean(k, count):
        of = rows.filter(pl.col("k") == k, pl.col("seed") < count)
        assert len(of) == count
        return of[column].fill_null(0.11).mean(), (of["status"] == "diverged").mean() <= 0.2

    return mean


@settings(max_examples=25, deadline=None, derandomize=True)
@given(oracle=oracles, numbers=st.lists(st.integers(1, 12), min_size=4, max_size=4))
@example(Oracle(), [3, 6, 12, 3])
@example(Oracle(), [3, 3, 3, 9])
@example(FLAT, [2, 4, 9, 6])
@example(EVERYTHING_DIVERGES, [2, 4, 6, 4])
def test_the_best_rate_gets_the_most_seeds_and_those_beside_it_more_than_the_others(oracle, numbers):
    oracle.trained.clear()
    few, near, best, rates = *sorted(numbers[:3]), max(numbers[3], min(numbers[:3]))
    spent, chose = Seeds(few, near, best, rates), max(near, rates)
    (stands,), trials = searched(declaration(batch_sizes=(64,), seeds=spent), oracle)
    counts, mean = by_rate(stands), means(trials, stands)
    assert set(counts.values()) <= {few, near, best, rates}
    (plain,), _ = searched(declaration(batch_sizes=(64,), seeds=few), afresh(oracle))
    assert set(by_rate(plain)) <= set(counts)  # what the search itself asks for is what it is without them
    if chose == few:
        return
    candidates = [k for k, n in counts.items() if n >= chose and mean(k, chose)[1]]
    top = max((mean(k, chose)[0] for k in candidates), default=None)
    tied = [k for k in candidates if mean(k, chose)[0] > top - 1e-9]
    width = 2 if rates >= near else 1
    inside = range(2 * LOWEST, 2 * HIGHEST + 1)
    if tied:  # all around the best rate have the seeds that choose it, and it has the most
        around = [[k + side for side in range(-width, width + 1) if k + side in inside] for k in tied]
        assert any(all(counts.get(other, 0) >= chose for other in of) for of in around)
        assert max(counts.values()) == max(best, chose)


def afresh(oracle):
    """The same answers with a count of its own of what was trained."""
    kept = vars(oracle) | {"trained": []}
    copy = Oracle()
    vars(copy).update(kept)
    return copy


@pytest.fixture(scope="module")
def spent_at_once():
    return searched(declaration(**NOISY | {"seeds": SPENT}), Oracle(spread=0.5))


@settings(max_examples=8, deadline=None, derandomize=True)
@given(order=st.randoms(use_true_random=False), at_most=st.sampled_from([7, 30]))
def test_more_seeds_are_a_pure_function_of_complete_rounds(spent_at_once, order, at_most):
    found, trials = searched(
        declaration(**NOISY | {"seeds": SPENT}),
        Oracle(spread=0.5),
        choose=lambda pending: order.sample(pending, order.randint(1, min(len(pending), at_most))),
    )
    assert wanted(found) == wanted(spent_at_once[0])
    assert trials.sort("trial_id").equals(spent_at_once[1].sort("trial_id"))


def test_without_any_one_of_their_trials_more_seeds_ask_for_that_one(spent_at_once):
    found, trials = spent_at_once
    declared = declaration(**NOISY | {"seeds": SPENT})
    late = [trial for stands in found for trial in stands.trials if trial.seed >= SPENT.search]
    for missing in random.Random(0).sample(late, 12):
        again = search(declared, trials.filter(pl.col("trial_id") != missing.id))
        assert again.pending == [missing]
        assert not again.waiting


def test_what_else_the_folder_holds_does_not_change_where_more_seeds_go(spent_at_once):
    extra = foreign(Oracle(spread=0.5))
    found, _ = searched(declaration(**NOISY | {"seeds": SPENT}), Oracle(spread=0.5), extra)
    assert wanted(found) == wanted(spent_at_once[0])


def test_the_next_cell_does_not_wait_for_more_seeds():
    """Where to look follows from the seeds of the search alone, so that packs are full."""
    declared, oracle, trials = declaration(seeds=SPENT), Oracle(), NOTHING
    state = search(declared, trials)
    while len(state.rounds) == 1:
        trials = pl.concat([trials, oracle.train(state.pending)])
        state = search(declared, trials)
    assert {trial.batch_size for trial in state.pending} == {256, 64}
    assert all(trial.seed >= SPENT.search for trial in state.pending if trial.batch_size == 256)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"seeds": 3}, {"seeds": SPENT}),
        ({"seeds": SPENT}, {"seeds": Seeds(3, 9, 20)}),
        ({"seeds": SPENT}, {"seeds": Seeds(3, 6, 15, rates=10)}),
        ({"seeds": SPENT}, {"seeds": Seeds(5, 6, 15)}),
        ({"seeds": Seeds(3, 6)}, {"seeds": Seeds(3, 6), "seeds_at": SeedsAt("sgd", 64, Seeds(3, 6, 30))}),
    ],
    ids=["a whole number", "more seeds", "seeds for rates", "seeds of the search", "seeds of a cell"],
)
def test_a_folder_is_extended_by_more_seeds_without_training_anything_twice(before, after):
    _, trials = searched(declaration(**NOISY | before), Oracle(spread=0.5))
    declared, oracle = declaration(**NOISY | after), Oracle(spread=0.5)
    assert not declaration(**NOISY | before).differences(declared)
    found, _ = searched(declared, oracle, trials)
    assert wanted(found) == wanted(searched(declared, Oracle(spread=0.5))[0])
    asked = {trial.id for stands in found for trial in stands.trials}
    assert set(oracle.trained) == asked - set(trials["trial_id"])


def test_only_the_cells_that_are_named_get_the_seeds_of_a_cell():
    at = SeedsAt("momentum:0.9", 64, Seeds(3, 3, 12))
    plain, _ = searched(declaration(**NOISY), Oracle(spread=0.5))
    found, _ = searched(declaration(**NOISY | {"seeds_at": at}), Oracle(spread=0.5))
    for before, stands in zip(plain, found, strict=True):
        more = len(stands.trials) - len(before.trials)
        named = (str(stands.cell.optimizer), stands.cell.batch_size) == (at.optimizer, at.batch_size)
        assert more == (9 if named else 0)


def test_another_first_seed_gives_other_trials_of_the_same_number_of_seeds():
    (stands,), _ = searched(declaration(batch_sizes=(64,), seeds=Seeds(3, 3, 12), first_seed=1000), Oracle())
    assert {trial.seed for trial in stands.trials} == set(range(1000, 1012))


def test_of_given_rates_those_next_to_the_best_get_more_seeds():
    rates = (0.01, 0.05, 0.25, 1.0, 5.0)
    declared = declaration(batch_sizes=(256,), learning_rates=rates, seeds=Seeds(2, 4, 6))
    (stands,), _ = searched(declared, Oracle(score=-2.0, loss=-2.0, spread=0.01, cliff=100.0))
    counts = {rate: sum(trial.learning_rate == rate for trial in stands.trials) for rate in rates}
    assert counts == {0.01: 2, 0.05: 4, 0.25: 6, 1.0: 4, 5.0: 2}


def test_a_best_rate_that_more_seeds_show_to_diverge_gives_way_to_the_next():
    """It diverges with the later seeds alone, and is the best by the first ones."""

    class Late(Oracle):
        def row(self, trial):
            row = super().row(trial)
            if trial.learning_rate == 0.25 and trial.seed >= 4:
                row |= {"status": "diverged", "train_loss": None, "validation_score": None, "test_score": None}
            return row

    declared = declaration(batch_sizes=(256,), learning_rates=(0.125, 0.25, 0.5), seeds=Seeds(2, 4, 12))
    (stands,), _ = searched(declared, Late(score=-2.1, loss=-2.1, spread=0.01, cliff=100.0))
    assert by_rate(stands) == {-6: 12, -4: 12, -2: 4}


@pytest.mark.parametrize("seeds", [Seeds(5, 15), Seeds(5, 5, 5, 15)], ids=str)
def test_where_more_seeds_open_an_end_the_search_goes_on_there(seeds):
    """Of the first seeds two in five diverge at the highest rate, which ends the search, and of the later ones none."""

    class Unlucky(Oracle):
        def row(self, trial):
            row = super().row(trial)
            if trial.learning_rate == 2.0 and trial.seed in (1, 3):
                row |= {"status": "diverged", "train_loss": None, "validation_score": None, "test_score": None}
            return row

    rates = {"score": 1.2, "loss": 1.2, "cliff": 100.0, "spread": 0.01}
    (plain,), _ = searched(declaration(batch_sizes=(256,), seeds=5), Unlucky(**rates))
    assert max(by_rate(plain)) == 2
    (stands,), trials = searched(declaration(batch_sizes=(256,), seeds=seeds), Unlucky(**rates))
    assert max(by_rate(stands)) > 2
    (cell,) = optima(trials, {RECORD.name: RECORD}).filter(criterion="score").iter_rows(named=True)
    assert not cell["censored"]


# ── Learning rates that are given ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("given_rates", [(0.3,), (0.01, 0.02, 0.07, 1000.0), tuple(2.0**k for k in range(-3, 3))])
def test_given_rates_are_tried_and_no_others(given_rates):
    declared = declaration(**NOISY | {"learning_rates": given_rates})
    found = search(declared, NOTHING).rounds
    assert len(found) == 2 * 3  # all cells at once: none waits
    for stands in found:
        tried = [(trial.learning_rate, trial.seed) for trial in stands.pending]
        assert sorted(tried) == [(rate, seed) for rate in given_rates for seed in range(3)]
        assert {(trial.optimizer, trial.batch_size) for trial in stands.pending} == {
            (stands.cell.optimizer, stands.cell.batch_size)
        }
    oracle = Oracle(cliff=-100.0)  # not even where everything diverges
    finished, trials = searched(declared, oracle)
    assert len(trials) == len(oracle.trained) == 2 * 3 * 3 * len(given_rates)
    assert wanted(finished) == wanted(found)


def test_of_given_rates_only_the_missing_ones_are_pending():
    declared = declaration(learning_rates=(0.1, 0.2), batch_sizes=(16, 64))
    found = search(declared, NOTHING).rounds
    done = [trial for stands in found for trial in stands.trials][::2]
    again = search(declared, Oracle().train(done)).rounds
    assert {trial.id for stands in again for trial in stands.pending} == {
        trial.id for stands in found for trial in stands.trials
    } - {trial.id for trial in done}


# ── What it costs, and whether it finds what a full grid finds ───────────────────────────────────────────────


def test_fewer_trials_than_a_full_grid_and_the_same_rates():
    """A study as on digits: 9 batch sizes, 5 seeds, scores that lose 0.01 in an octave and have a spread of 0.006."""
    shape = {"optimizers": (SGD(), SGD(momentum=0.9)), "batch_sizes": tuple(2**k for k in range(2, 11)), "seeds": 5}
    planted = {"score": -1.6, "loss": -0.8, "knee": 6.3, "width": 1.0, "cliff": 2.0, "spread": 0.6}
    oracle = Oracle(**planted)
    found, trials = searched(declaration(**shape), oracle)
    full = declaration(**shape, learning_rates=tuple(learning_rate(k) for k in range(-22, 3)))
    _, everything = searched(full, Oracle(**planted))
    assert len(everything) == 18 * 25 * 5
    assert len(trials) < len(everything) / 3
    keys = ["optimizer", "batch_size", "criterion"]
    both = optima(trials, {"w": RECORD}).join(optima(everything, {"w": RECORD}), on=keys, suffix="_full")
    assert both.height == 18 * 2
    assert set(both["censored"]) == {""}
    assert (both["learning_rate"] == both["learning_rate_full"]).mean() >= 0.94
    # And it is the planted rate, to the nearest of the grid or the one beside it.
    for row in both.iter_rows(named=True):
        position = oracle.positions(row["batch_size"])[row["criterion"] == "train_loss"]
        assert abs(math.log2(row["effective_learning_rate"]) - position) <= 1.5
    for stands in found:
        assert_bracketed(stands, trials)
