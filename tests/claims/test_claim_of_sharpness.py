"""C14: planted sharpness is found at the limit of stability, and where it is elsewhere that is found too."""

import numpy as np
import polars as pl
import pytest

from sgdscope.analysis.sharpness import RATE, RESIDUAL, SHARPNESS
from sgdscope.analysis.tables import Tables
from sgdscope.claims.decide import findings
from sgdscope.claims.sharpness import NOT_MEASURED
from sgdscope.store import MEASUREMENTS_SCHEMA
from sgdscope.testing.simulated import RECORD, Truth, simulate, trial_table

# The planted optimal rate grows with the batch size up to 2^6.3, and is 2^−1.9 from there on.
HIGHEST = 2.0**-1.9
PLAIN, MOMENTUM = 2.0, 3.8


def study(**names):
    truth = Truth(spread=0.001, loss_spread=0.02, grid=0.5, lost=lambda x: 0.01 * max(0.0, x - 7))
    rng = np.random.default_rng(0)
    trials = trial_table({name: simulate(rng, 6, truth) for name in names or ("sgd",)})
    ids = pl.Series([str(number) for number in range(len(trials))])
    return trials.with_columns(trial_id=ids, steps=pl.lit(1000, pl.Int64))


def measured(trials, value, steps=(0, 500, 1000)):
    """``value(row, step)`` is a trial's λ_max; the rate is lowered at the end."""
    rows = [
        {"trial_id": row["trial_id"], "step": step, "examples": 0, "split": "train", "metric": metric, "value": number}
        for row in trials.iter_rows(named=True)
        for step in steps
        for metric, number in (
            (SHARPNESS, value(row, step) * (1 + 0.02 * row["seed"])),
            (RESIDUAL, 0.0),
            (RATE, row["learning_rate"] * (1e-3 if step == 1000 else 1.0)),
        )
    ]
    return pl.DataFrame(rows, schema=MEASUREMENTS_SCHEMA)


def found(trials, *of, **more):
    tables = Tables(trials, {RECORD.name: RECORD}, 0.004, measurements=measured(trials, *of, **more))
    return [f for f in findings(tables) if f.claim == "C14"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("value", "verdict", "octaves", "grows"),
    [
        # The same curvature everywhere: the rate is at its limit where it does not grow, below it where it does.
        (lambda row, step: PLAIN / HIGHEST, "supported", 0.0, True),
        # Training comes to the limit at every batch size.
        (lambda row, step: PLAIN / row["learning_rate"], "contradicted", 0.0, False),
        # It comes nowhere near it.
        (lambda row, step: PLAIN / HIGHEST / 8, "contradicted", -3.0, True),
        # What is there at the start does not count, and neither does what the schedule has made small.
        (lambda row, step: PLAIN / HIGHEST * {0: 100, 500: 1, 1000: 100}[step], "supported", 0.0, True),
    ],
)
def test_the_limit_of_plain_sgd(value, verdict, octaves, grows):
    trials = study()
    (finding,) = found(trials, value)
    regimes = Tables(trials, {RECORD.name: RECORD}).regimes
    noise = np.log2(regimes.filter(regime="noise")["batch_size"].to_numpy())
    expected = octaves, octaves + grows * (np.minimum(noise, 6.3) - 6.3).mean()
    assert (finding.verdict, finding.optimizer, finding.n) == (verdict, "sgd", 6)
    assert [effect.estimate.value for effect in finding.effects] == pytest.approx(expected, abs=0.2)
    assert ["curvature" in effect.name for effect in finding.effects] == [True, False]


@pytest.mark.usefixtures("quick")
def test_that_of_momentum_is_higher_by_its_factor():
    trials = study(sgd=1, **{"momentum:0.9": 1})
    at = {f.optimizer: f.effects[0].estimate.value for f in found(trials, lambda row, step: PLAIN / HIGHEST)}
    assert at["momentum:0.9"] == pytest.approx(at["sgd"] - np.log2(MOMENTUM / PLAIN), abs=0.2)


@pytest.mark.usefixtures("quick")
def test_what_is_not_measured_is_not_tested():
    trials, (one,) = study(), found(study(), lambda row, step: 1.0, steps=(0,))
    assert (one.verdict, one.reason) == (
        "not tested",
        NOT_MEASURED,
    )
    (nothing,) = (f for f in findings(Tables(trials, {RECORD.name: RECORD}, 0.004)) if f.claim == "C14")
    assert nothing.verdict == "not tested"
    assert "`sharpness_at`" in nothing.reason
    (few,) = found(trials.filter(pl.col("batch_size") >= 64), lambda row, step: 1.0)
    assert few.verdict == "not tested"
