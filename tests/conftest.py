import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import polars as pl
import pytest
from hypothesis import settings
from playwright.sync_api import sync_playwright

import sgdscope as sg
from sgdscope.stats import intervals as statistics
from sgdscope.training.jax_setup import PINNED, CompilationCache

# Before JAX starts: two devices whatever the machine has, and a cache that the workers of this run share and no other.
jax.config.update("jax_num_cpu_devices", 2)
RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID")
CACHE = Path(tempfile.gettempdir()) / f"sgdscope-test-{RUN}" if RUN else Path(tempfile.mkdtemp(prefix="sgdscope-test-"))
CACHE.mkdir(exist_ok=True)
os.environ["SGDSCOPE_CACHE_DIR"] = str(CACHE)
CompilationCache().open()

# The first call of a shape compiles, which is no sign of slowness.
settings.register_profile("sgdscope", deadline=None, derandomize=True)
settings.load_profile("sgdscope")

SMALL_STUDY = """
import sgdscope as sg
from sgdscope.workloads.digits import digits

study = sg.Study(
    name="small", workloads=digits(hidden=16), batch_sizes=(64, 256), budgets=sg.Epochs(2), seeds=3,
    optimizers=(sg.SGD(), sg.SGD(momentum=0.9)),
)
"""


@pytest.fixture(autouse=True)
def _strict_promotion(monkeypatch):
    """Nothing of ours may rely on silent changes of type or of the number of axes."""
    monkeypatch.setitem(PINNED, "numpy_dtype_promotion", "strict")
    monkeypatch.setitem(PINNED, "numpy_rank_promotion", "raise")
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def study_file(tmp_path):
    path = tmp_path / "small.py"
    path.write_text(SMALL_STUDY)
    return path


@pytest.fixture
def command():
    """Run the command line in a process of its own, as a user would."""

    def run(*arguments, cwd=None, **environment):
        return subprocess.run(
            [sys.executable, "-m", "sgdscope.cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=cwd or Path.cwd(),
            env=os.environ | {"COLUMNS": "100"} | environment,
            timeout=300,
        )

    return run


@pytest.fixture
def trial_row():
    """A row of the trial table with everything that a test does not care about filled in."""
    from sgdscope.store import TRIALS_SCHEMA

    def row(**values):
        plain = dict.fromkeys(TRIALS_SCHEMA)
        plain |= {
            "trial_id": json.dumps(values, sort_keys=True, default=str),
            "workload": "w",
            "optimizer": "sgd",
            "budget": "epochs:1",
            "status": "complete",
        }
        return plain | values

    return row


@pytest.fixture
def quick(monkeypatch):
    """Fewer draws and a coarser grid of knees: finer still than what decides whether an interval covers."""
    monkeypatch.setattr(statistics, "RESAMPLES", 200)
    monkeypatch.setattr("sgdscope.stats.laws.PLACES_PER_OCTAVE", 5)


@pytest.fixture(scope="session")
def draw_pictures():
    """Fill a folder as ImageNet's is: so many JPEGs of each class, of 64 to 100 pixels a side, each another."""
    from PIL import Image

    def draw(folder, counts):
        rng = np.random.default_rng(0)
        for part, count in counts.items():
            for number, name in enumerate(("n01", "n02", "n03")):
                (folder / part / name).mkdir(parents=True)
                for picture in range(count):
                    height, width = rng.integers(64, 101, 2)
                    coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
                    coarse[..., number] //= 4
                    whole = Image.fromarray(coarse).resize((int(width), int(height)), Image.Resampling.BICUBIC)
                    whole.save(folder / part / name / f"{name}_{picture}.JPEG", quality=90)
        return folder

    return draw


@pytest.fixture(scope="session")
def pictures(draw_pictures, tmp_path_factory):
    """27 pictures to train on, 3 to validate and 9 to test, of 3 classes."""
    return draw_pictures(tmp_path_factory.mktemp("pictures"), {"train": 10, "val": 3})


# Tables with planted scores, for comparisons: what is better, by how much, and on which seeds is known.
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


@pytest.fixture(scope="session")
def planted_study():
    """Fill a study's folder with planted trials, in commits of one batch size; the rest is pending.

    Nothing is trained: accuracies fall by a point an octave from the best rate, and rise along training.
    """
    from sgdscope.engine.search import search
    from sgdscope.store import CORRECTNESS_SCHEMA, MEASUREMENTS_SCHEMA, TRIALS_SCHEMA, Store
    from sgdscope.study import Declaration
    from sgdscope.testing import simulated

    def fill(folder, name="planted", sizes=(8, 32, 128), rates=(0.1, 0.2, 0.4), seeds=3, commits=None):
        declaration = Declaration(
            name=name,
            workloads=[simulated.RECORD],
            optimizers=(sg.SGD(), sg.SGD(momentum=0.9)),
            batch_sizes=sizes,
            learning_rates=rates,
            budgets=sg.Epochs(2),
            seeds=seeds,
        )
        store = Store(folder)
        folder.mkdir(parents=True, exist_ok=True)
        store.declare(declaration)
        wanted = search(declaration, pl.DataFrame(schema=TRIALS_SCHEMA)).pending
        for size in sizes[:commits]:
            rows, measured = [], []
            for trial in (trial for trial in wanted if trial.batch_size == size):
                best = min(size, 32) / 160 * (0.1 if "momentum" in str(trial.optimizer) else 1)
                away = abs(np.log2(trial.learning_rate / best))
                accuracy = 0.95 - 0.01 * away + 0.001 * trial.seed
                scores = dict.fromkeys(("train_score", "validation_score", "test_score"), accuracy)
                losses = dict.fromkeys(("train_loss", "validation_loss", "test_loss"), 0.1 + 0.02 * away)
                fields = {name: getattr(trial, name) for name in ("batch_size", "learning_rate", "seed")}
                fields |= {"trial_id": trial.id, "workload": trial.workload.name, "optimizer": str(trial.optimizer)}
                fields |= {"budget": str(trial.budget), "status": "complete", "steps": trial.updates}
                fields |= {"examples": trial.updates * size, "seconds": 0.01 * trial.updates, "device": "cpu"}
                fields |= {"effective_learning_rate": trial.optimizer.effective_learning_rate(trial.learning_rate)}
                rows.append(dict.fromkeys(TRIALS_SCHEMA) | fields | {"devices": 2, "pack_size": 8} | scores | losses)
                for part in (0.5, 1.0):
                    step = round(part * trial.updates)
                    numbers = {("test", "score"): accuracy - 0.1 * (1 - part), ("train", "minibatch_loss"): 2 - part}
                    measured += [
                        (trial.id, step, step * size, split, metric, value)
                        for (split, metric), value in numbers.items()
                    ]
            store.commit(
                pl.DataFrame(rows, schema=TRIALS_SCHEMA),
                pl.DataFrame(measured, schema=MEASUREMENTS_SCHEMA, orient="row"),
                pl.DataFrame(schema=CORRECTNESS_SCHEMA),
            )
        return folder

    return fill


@pytest.fixture(scope="session")
def browser():
    """A browser of the system's, which is driven as a reader would; it is never downloaded."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no Chromium on this machine: what the page does in a browser was not tested")
    flags = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=found, args=[*flags.split(), "--disable-component-update", "--disable-sync"]
        )
        yield running
        running.close()
