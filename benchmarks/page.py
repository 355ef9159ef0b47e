"""How large the page of a study of 5,000 trials is, how long it takes to write, and to open in a browser.

python benchmarks/page.py RESULTS

Of two simulated studies, each with 50 points along the training of every trial: one budget with many seeds, and four
budgets, which is four times the figures. What the browser takes is measured where there is a Chromium. Writes README.md
and page.csv into RESULTS.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from playwright.sync_api import sync_playwright

from sgdscope.analysis.tables import StudyTables
from sgdscope.budget import Epochs
from sgdscope.report.page.page import write_page
from sgdscope.study import Declaration
from sgdscope.testing import simulated

POINTS = 50
REPEATS = 3
PROMISED_BYTES = 5_000_000
STUDIES = {"one budget, many seeds": ((30,), 22, 0.5), "four budgets": ((10, 30, 100, 300), 10, 1.0)}


def study(epochs: tuple[int, ...], seeds: int, grid: float) -> StudyTables:
    """Simulate a study of about 5,000 trials, and what was measured along them."""
    rng = np.random.default_rng(0)
    truth = simulated.Truth(lost=lambda x: 0.02 * max(0.0, x - 7), shape="cliff", grid=grid)
    tables = [
        simulated.trial_table(
            {name: simulated.simulate(rng, seeds, truth) for name in ("sgd", "momentum:0.9")}
        ).with_columns(budget=pl.lit(f"epochs:{n}"), steps=pl.lit(n, pl.Int64) * 1024 // pl.col("batch_size"))
        for n in epochs
    ]
    trials = pl.concat(tables).with_row_index("row")
    trials = trials.with_columns(
        trial_id=pl.format("trial {}", "row"), seconds=pl.col("steps") * 1e-3, method=pl.lit("map"),
        device=pl.lit("cpu"), devices=2, diverged_at_step=pl.when(status="diverged").then(3),
    )  # fmt: skip
    parts = pl.DataFrame({"part": np.arange(1, POINTS + 1) / POINTS})
    step = (pl.col("part") * pl.col("steps")).ceil().cast(pl.Int64)
    losses = trials.join(parts, how="cross").select(
        "trial_id", step=step, examples=step * pl.col("batch_size"), split=pl.lit("train"),
        metric=pl.lit("minibatch_loss"), value=2.3 * (-3 * pl.col("part")).exp() + pl.col("seed") / 1000,
    )  # fmt: skip
    declaration = Declaration(
        name="simulated", workloads=[simulated.RECORD], batch_sizes=simulated.BATCH_SIZES,
        budgets=[Epochs(n) for n in epochs], seeds=seeds,
    )  # fmt: skip
    return StudyTables(
        trials, {"simulated": simulated.RECORD}, 0.01, None, losses, declaration=declaration, pending=0, cells_waiting=0
    )  # fmt: skip


def seconds_to_open(page: Path) -> float | None:
    """Return the seconds until the last figure is drawn, the median of several; None without a browser."""
    found = shutil.which("chromium")
    if found is None:
        return None
    taken = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(REPEATS):
            tab = browser.new_page(viewport={"width": 1280, "height": 800})
            begun = time.perf_counter()
            tab.goto(page.as_uri())
            tab.wait_for_selector("html[data-drawn]", timeout=120_000)
            taken.append(time.perf_counter() - begun)
            tab.close()
        browser.close()
    return float(np.median(taken))


def main(results: str) -> None:
    """Measure both studies, and write what was found."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, of in STUDIES.items():
            tables, page = study(*of), Path(folder) / "report.html"
            begun = time.perf_counter()
            write_page(tables, page, Path("study"))
            written, size = time.perf_counter() - begun, page.stat().st_size
            figures = page.read_text().count("<figure ")
            opened = seconds_to_open(page)
            rows.append(
                {"study": name, "trials": len(tables.trials), "measurements": tables.measurements.height,
                 "figures": figures, "bytes": size, "seconds_to_write": written, "seconds_to_open": opened}
            )  # fmt: skip
    table = pl.DataFrame(rows)
    Path(results).mkdir(parents=True, exist_ok=True)
    table.write_csv(Path(results) / "page.csv", float_precision=2)
    lines = [
        f"| {row['study']} | {row['trials']:,} | {row['measurements']:,} | {row['figures']} "
        f"| {row['bytes'] / 1e6:.2f} MB | {row['seconds_to_write']:.0f} s | "
        + ("not measured" if row["seconds_to_open"] is None else f"{row['seconds_to_open']:.1f} s")
        + " |"
        for row in rows
    ]
    verdict = "kept" if table["bytes"].max() < PROMISED_BYTES else "**missed**"  # type: ignore[operator]
    text = f"""# The page of a study of 5,000 trials
`python benchmarks/page.py results/page`: simulated studies, n = 1 for size and writing (the size is the same each
time), median of {REPEATS} for opening, two cores, beside other work. Promised are less than
{PROMISED_BYTES / 1e6:.0f} MB: {verdict}.

| study | trials | measurements | figures | page | to write | to open |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
""" + "\n".join(lines)
    (Path(results) / "README.md").write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
