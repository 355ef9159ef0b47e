"""Runs until questions are decided: which cells are raised, when that ends, and that a stop changes nothing."""

import random
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from sgdscope.advice.advice import Advice
from sgdscope.advice.until_decided import INTERIM_ALPHA, raised
from sgdscope.analysis.tables import Tables
from sgdscope.budget import Epochs
from sgdscope.engine.search import search
from sgdscope.optimizers import SGD
from sgdscope.seeds import LOOKS, Seeds
from sgdscope.stats.equivalence import ALPHA
from sgdscope.store import TRIALS_SCHEMA
from sgdscope.study import Declaration
from sgdscope.testing.simulated import RECORD

MARGIN = 0.01
TRIED = (0.05, 0.1, 0.2, 0.4, 0.8)


def declaration(**changes):
    plain = {
        "name": "s",
        "workloads": RECORD,
        "optimizers": (SGD(), SGD(momentum=0.9)),
        "batch_sizes": (16, 64, 256),
        "budgets": Epochs(30),
        "seeds": Seeds(5, 7),
        "learning_rates": TRIED,
        "score_margin": MARGIN,
    }
    return Declaration(**plain | changes)


class Oracle:
    """Scores around 0.9, best at 0.2; ``lost`` by optimizer and batch size; a function of the trial alone."""

    def __init__(self, lost=None, spread=0.004):
        self.lost, self.spread, self.trained = lost or {}, spread, []

    def train(self, trials):
        rows = []
        for t in trials:
            self.trained.append(t.id)
            noise = random.Random(t.id)
            mean = (
                0.9 - 0.1 * abs(np.log2(t.learning_rate / 0.2)) - self.lost.get((str(t.optimizer), t.batch_size), 0.0)
            )
            scores = {name: mean + noise.gauss(0, self.spread) for name in ("validation_score", "test_score")}
            rows.append(
                dict.fromkeys(TRIALS_SCHEMA)
                | {"trial_id": t.id, "workload": t.workload.name, "optimizer": str(t.optimizer), "seed": t.seed}
                | {"batch_size": t.batch_size, "learning_rate": t.learning_rate, "budget": str(t.budget)}
                | {"effective_learning_rate": t.optimizer.effective_learning_rate(t.learning_rate)}
                | {"status": "complete", "steps": t.updates, "train_loss": 0.1 + abs(np.log2(t.learning_rate / 0.2))}
                | scores
            )
        return pl.DataFrame(rows, schema=TRIALS_SCHEMA)


def until_decided(declared, oracle, trials, order=None, most=LOOKS[-1]):
    """Run to the end; ``order`` commits pending trials in parts, as a run that is stopped and begun again does."""
    while True:
        while pending := search(declared, trials).pending:
            part = pending if order is None else order.sample(pending, order.randint(1, min(20, len(pending))))
            trials = pl.concat([trials, oracle.train(part)])
        more = raised(declared, Tables(trials, {RECORD.name: RECORD}, MARGIN), most)
        if not more:
            return declared, trials
        assert set(declared.seeds_at) != set(more)
        declared = replace(declared, seeds_at=more)


NOTHING = pl.DataFrame(schema=TRIALS_SCHEMA)


def test_nothing_is_raised_where_all_is_clear():
    lost = {("sgd", 256): 0.1}
    declared, _ = until_decided(declaration(seeds=Seeds(5, 7, 17)), Oracle(lost, spread=1e-4), NOTHING)
    assert declared.seeds_at == ()


def test_only_open_cells_are_raised_and_only_to_declared_looks():
    """Between the optimizers all is clear but at 64, where they differ by about the margin and scatter."""
    lost = {("sgd", 256): 0.2, ("sgd", 16): 0.2, ("momentum:0.9", 64): 0.007}
    declared, trials = until_decided(declaration(seeds=Seeds(5, 7, 17)), Oracle(lost, spread=0.006), NOTHING, most=30)
    assert declared.seeds_at
    assert {entry.seeds.best for entry in declared.seeds_at} <= set(LOOKS)
    counts = trials.group_by("optimizer", "batch_size", "learning_rate").len()
    for entry in declared.seeds_at:
        of_cell = counts.filter(optimizer=entry.optimizer, batch_size=entry.batch_size)["len"].sort().to_list()
        assert of_cell == [5, 5, 7, 7, entry.seeds.best]
    assert ("momentum:0.9", 64) in {(entry.optimizer, entry.batch_size) for entry in declared.seeds_at}


def test_a_batch_size_that_is_known_to_be_worse_is_not_raised():
    """Whether 64 loses more than the margin is open; it is compared with 16, and 256 is far below both."""
    lost = {("sgd", 64): 0.004, ("sgd", 256): 0.2}
    declared = declaration(optimizers=SGD(), seeds=Seeds(5, 7, 17))
    raised_to, trials = until_decided(declared, Oracle(lost, spread=0.006), NOTHING, most=30)
    assert {(entry.optimizer, entry.batch_size) for entry in raised_to.seeds_at} == {("sgd", 16), ("sgd", 64)}
    costs = Advice(Tables(trials, {RECORD.name: RECORD}, MARGIN)).costs
    assert costs["n"].to_list() == [23, 23, 10]  # that report: all but the 7 that chose
    assert costs["shared"].to_list() == [23, 23, 10]


@pytest.mark.parametrize("seed", range(3))
def test_a_run_that_is_stopped_anywhere_comes_to_the_same_trials(seed):
    lost = {("sgd", 256): 0.012, ("momentum:0.9", 16): 0.004}
    at_once = until_decided(declaration(), Oracle(lost, spread=0.01), NOTHING, most=40)
    oracle = Oracle(lost, spread=0.01)
    in_parts = until_decided(declaration(), oracle, NOTHING, random.Random(seed), most=40)
    assert in_parts[0] == at_once[0]
    assert in_parts[1].sort("trial_id").equals(at_once[1].sort("trial_id"))
    assert len(oracle.trained) == len(set(oracle.trained))


def test_what_more_seeds_will_not_settle_is_not_raised():
    """A difference that is the margin takes any number of seeds."""
    declared = declaration(batch_sizes=(64,), seeds=Seeds(5, 7, 20))
    found = search(declared, NOTHING)
    trials = Oracle(spread=1e-6).train([t for stands in found.rounds for t in stands.trials])
    while pending := search(declared, trials).pending:
        trials = pl.concat([trials, Oracle(spread=1e-6).train(pending)])
    apart = pl.when(pl.col("optimizer") == "sgd").then(0.0).otherwise(MARGIN + 1e-3 * (pl.col("seed") - 13))
    exactly = trials.with_columns(test_score=0.9 + apart)  # of the seeds that report, 7 to 19, 13 is the mean
    assert raised(declared, Tables(exactly, {RECORD.name: RECORD}, MARGIN)) == ()
    almost = trials.with_columns(test_score=0.9 + apart + 2e-3)
    sgd = pl.when(pl.col("optimizer") == "sgd").then(0.9).otherwise("test_score")
    almost = almost.with_columns(test_score=sgd)
    assert raised(declared, Tables(almost, {RECORD.name: RECORD}, MARGIN)) != ()


def test_looks_before_the_last_share_a_tenth_of_the_level():
    assert (len(LOOKS) - 1) * INTERIM_ALPHA == pytest.approx(ALPHA / 10)
