"""The table of the sharpness against a naive recomputation."""

import numpy as np
import polars as pl
import pytest
from scipy import stats

from sgdscope.analysis.sharpness import RATE, RESIDUAL, SHARPNESS, SHARPNESS_SCHEMA, sharpness
from sgdscope.store import MEASUREMENTS_SCHEMA
from sgdscope.training.sharpness import SHARPNESS_METRICS


def test_the_metrics_are_those_that_training_records():
    assert (SHARPNESS, RESIDUAL, RATE) == SHARPNESS_METRICS


def test_it_is_what_a_plain_loop_gives(trial_row):
    rng = np.random.default_rng(0)
    rows = [
        trial_row(
            trial_id=f"{optimizer} {size} {seed}", optimizer=optimizer, batch_size=size, learning_rate=0.5, seed=seed,
            steps=80 // size, status="complete",
        )
        for optimizer in ("sgd", "momentum:0.9", "adam")
        for size in (4, 8)
        for seed in range(5)
    ]  # fmt: skip
    rows[0] |= {"status": "diverged", "steps": 7}  # it has what came before
    trials = pl.DataFrame(rows, infer_schema_length=None)
    values = {(row["trial_id"], step): rng.lognormal(1, 0.3) for row in rows for step in (0, 10)}
    del values[rows[0]["trial_id"], 10]
    then = {0: 0.5, 10: 0.125}
    measured = [
        {"trial_id": trial, "step": step, "examples": 0, "split": "train", "metric": metric, "value": value}
        for (trial, step), found in values.items()
        for metric, value in ((SHARPNESS, found), (RESIDUAL, 0.01 * found), (RATE, then[step]), ("loss", 1.0))
    ]
    table = sharpness(trials, pl.DataFrame(measured, schema=MEASUREMENTS_SCHEMA))
    assert table.schema == SHARPNESS_SCHEMA
    assert len(table) == 3 * 2 * 2
    for row in table.iter_rows(named=True):
        mine = [r["trial_id"] for r in rows if all(r[key] == row[key] for key in ("optimizer", "batch_size"))]
        found = np.array([values[trial, row["step"]] for trial in mine if (trial, row["step"]) in values])
        assert row["n"] == len(found)
        assert row["fraction"] == row["step"] / (80 // row["batch_size"])
        assert row["limit"] == {"sgd": 2.0, "momentum:0.9": 3.8, "adam": None}[row["optimizer"]]
        assert (row["rate_then"], row["residual"]) == (then[row["step"]], pytest.approx(0.01 * found.max()))
        for name, of in (("sharpness", found), ("product", then[row["step"]] * found)):
            interval = stats.ttest_1samp(of, 0.0).confidence_interval(0.95)
            assert row[name] == pytest.approx(of.mean())
            assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx((interval.low, interval.high))


def test_without_measurements_it_is_empty(trial_row):
    trials = pl.DataFrame([trial_row(batch_size=4, learning_rate=0.5, seed=0, steps=1)], infer_schema_length=None)
    assert sharpness(trials, pl.DataFrame(schema=MEASUREMENTS_SCHEMA)).schema == SHARPNESS_SCHEMA
