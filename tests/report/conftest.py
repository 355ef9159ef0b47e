from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sgdscope.analysis.noise_scale import SQUARE_NORM, TRACE
from sgdscope.analysis.sharpness import RATE, RESIDUAL, SHARPNESS
from sgdscope.analysis.tables import StudyTables
from sgdscope.budget import Epochs
from sgdscope.report.page.page import write_page
from sgdscope.stats import intervals as statistics
from sgdscope.store import MEASUREMENTS_SCHEMA
from sgdscope.study import Declaration
from sgdscope.testing import simulated

SEEDS = 4


def measured(trials: pl.DataFrame) -> pl.DataFrame:
    """Losses of minibatches, scores and gradients along training, which fall, rise and fade away."""
    parts = pl.DataFrame({"part": [0.0, 0.25, 0.5, 0.75, 1.0]})
    along = trials.join(parts, how="cross").with_columns(step=(pl.col("part") * pl.col("steps")).round().cast(pl.Int64))
    seed = pl.col("seed") / 100
    values = {
        ("train", "minibatch_loss"): 2.0 * (-3 * pl.col("part")).exp() + seed,
        ("test", "score"): pl.col("test_score") * (0.5 + 0.5 * pl.col("part")),
        ("train", SQUARE_NORM): 1.5 - pl.col("part") + seed,
        ("train", TRACE): 60.0 + seed,
        ("train", SHARPNESS): 4.0 + 2 * pl.col("part") + seed,
        ("train", RESIDUAL): pl.lit(0.0),
        ("train", RATE): pl.col("learning_rate") * (1 - pl.col("part") / 2),
    }
    tables = [
        along.select(
            "trial_id",
            "step",
            examples=pl.col("step") * pl.col("batch_size"),
            split=pl.lit(split),
            metric=pl.lit(metric),
            value=value,
        )
        for (split, metric), value in values.items()
    ]
    return pl.concat(tables).drop_nulls().cast(MEASUREMENTS_SCHEMA)


@pytest.fixture(scope="session")
def study_tables(tmp_path_factory):
    """A study that shows every figure: two optimizers at all batch sizes, and one batch size at another budget."""
    rng = np.random.default_rng(0)
    truth = simulated.Truth(lost=lambda x: 0.02 * max(0.0, x - 7), spread=0.002, shape="cliff", grid=0.5)
    trials = simulated.trial_table({name: simulated.simulate(rng, SEEDS, truth) for name in ("sgd", "momentum:0.9")})
    longer = simulated.trial_table({"sgd": simulated.simulate(rng, SEEDS, truth, (64,))})
    trials = pl.concat([trials, longer.with_columns(budget=pl.lit("epochs:60"), steps=pl.lit(60 * 16, pl.Int64))])
    trials = trials.with_row_index("row").with_columns(
        trial_id=pl.format("trial {}", "row"), seconds=pl.col("steps") * 1e-3 + pl.col("seed") * 1e-4,
        diverged_at_step=pl.when(status="diverged").then(3), method=pl.lit("map"), device=pl.lit("cpu"), devices=2,
    )  # fmt: skip
    declaration = Declaration(
        name="simulated",
        workloads=[simulated.RECORD],
        batch_sizes=simulated.BATCH_SIZES,
        budgets=[Epochs(30), Epochs(60)],
        seeds=SEEDS,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "RESAMPLES", 200)
        patch.setattr("sgdscope.stats.laws.PLACES_PER_OCTAVE", 5)
        tables = StudyTables(
            trials, {"simulated": simulated.RECORD}, 0.01, measurements=measured(trials),
            declaration=declaration, pending=0, cells_waiting=0,
        )  # fmt: skip
        # Its tables are computed once, here: other tests of the session take all draws.
        write_page(tables, tmp_path_factory.mktemp("tables") / "report.html", Path("my folder"))
    return tables


@pytest.fixture(scope="session")
def simulated_page(study_tables, tmp_path_factory):
    """The page of that study."""
    return write_page(study_tables, tmp_path_factory.mktemp("page") / "report.html", Path("my folder"))
