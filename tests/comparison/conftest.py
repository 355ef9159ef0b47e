"""Tables with planted scores: what is better, by how much, and on which seeds is known."""

import numpy as np
import polars as pl
import pytest

import sgdscope as sg

SIZES, RATES, BEST = (8, 32, 128, 512), (0.1, 0.2, 0.4, 0.8, 1.6), 0.4
MARGIN = 0.01


@pytest.fixture(scope="session")
def planted():
    """Make a table of trials whose score at the best rate has a given mean at each batch size."""

    def table(lost=0.0, n=6, first_seed=0, noise=0.002, draw=0, optimizers=("sgd",), best=BEST, sizes=SIZES):
        rng = np.random.default_rng(draw)
        rows = []
        for optimizer in optimizers:
            for size in sizes:
                for seed in range(first_seed, first_seed + n):
                    own = rng.normal() * noise
                    for rate in RATES:
                        score = 0.9 - 0.03 * abs(np.log2(rate / best)) - lost * (size >= 128) + own
                        rows.append((size, rate, seed, optimizer, score))
        return pl.DataFrame(rows, ["batch_size", "learning_rate", "seed", "optimizer", "score"], orient="row")

    return table


@pytest.fixture(scope="session")
def loaded(planted, tmp_path_factory):
    """Load such a table."""

    def analysis(name="runs", margin=MARGIN, **how):
        path = tmp_path_factory.mktemp("tables") / f"{name}.csv"
        planted(**how).write_csv(path)
        return sg.load_table(path, score_margin=margin)

    return analysis
