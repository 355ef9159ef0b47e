"""Make every figure and every printed table of the documentation, from studies that are trained first.

python docs/make_figures.py [FOLDER]

The studies are kept in FOLDER. Default: sgdscope-docs. Run the same command to resume, or to draw everything again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import altair as alt
from playwright.sync_api import sync_playwright

import sgdscope as sg
from sgdscope.report.export import page_figures, write_figures

PICTURES = Path(__file__).parent / "pictures"
SEEDS = 15
WIDTH = 86
WRAPPED = textwrap.TextWrapper(WIDTH, subsequent_indent="  ")
ALONG_TRAINING = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
# Of the sweeps over steps and over epochs, the figures that differ from those of the sweep over batch sizes.
OF_STEPS = ("best-score", "optimal-learning-rate", "training-loss")
OF_EPOCHS = ("score-by-epochs", "rates-by-epochs")
OF_METHODS = ("advantage-over-sgd", "best-by-method", "score-by-cost", "loss-by-seconds")
# In the README.
FIRST = ("best-score", "optimal-learning-rate")


def studies() -> dict[str, sg.Study]:
    """Return the studies that the documentation shows, by the name of their folder."""
    digits = sg.studies.get("digits")
    sizes = (2, *(size for size in digits.batch_sizes if size > 2))
    return {
        "epochs": digits.changed({"seeds": SEEDS, "batch_sizes": sizes, "evaluate_at": ALONG_TRAINING}),
        "noise": digits.changed({"batch_sizes": (8, 32, 128, 512), "noise_scale_at": (0, *ALONG_TRAINING)}),
        "steps": sg.studies.get("digits", sweep="steps").changed({"seeds": SEEDS}),
        "methods": sg.studies.get("methods").changed({"budgets": sg.Epochs(20)}),
        "budgets": sg.studies.get("digits", sweep="epochs").changed({"seeds": SEEDS}),
    }


def main(folder: Path) -> None:
    """Train the studies, and write their figures, tables and a picture of the report."""
    sg.configure_jax()
    results = {name: sg.run(study, folder / name) for name, study in studies().items()}
    figures = {name: page_figures(result.tables) for name, result in results.items()}
    drawn = figures["epochs"]
    drawn |= {f"steps-{name}": figures["steps"][name] for name in OF_STEPS}
    drawn |= {name: figures["budgets"][name] for name in OF_EPOCHS} | {"noise-scale": figures["noise"]["noise-scale"]}
    drawn |= {name: figures["methods"][name] for name in OF_METHODS}
    write_figures(drawn, PICTURES, "svg")

    write_figures({"digits": alt.hconcat(*(drawn[name] for name in FIRST))}, PICTURES, "png")
    photograph(results["epochs"])

    keep_output("table.txt", "show", folder / "epochs")
    keep_output("claims.txt", "claims", *(folder / name for name in ("epochs", "steps", "budgets")))


def keep_output(file: str, *words: str | Path) -> None:
    """Keep what a command prints on a terminal as wide as a page, with its long lines wrapped."""
    command = [sys.executable, "-m", "sgdscope.cli", *map(str, words)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | {"COLUMNS": f"{WIDTH}"})  # noqa: S603
    lines = [part for line in done.stdout.splitlines() for part in WRAPPED.wrap(line) or [""]]
    (PICTURES / file).write_text("\n".join(lines) + "\n")


def photograph(result: sg.Result) -> None:
    """Take a picture of the report's first screen."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("Chromium is not installed. Install it to take a picture of the report.")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = result.save_report(Path(folder) / "report.html")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1400, "height": 1000})
        tab.goto(page.resolve().as_uri())
        tab.wait_for_selector("html[data-drawn]")
        tab.screenshot(path=PICTURES / "report.png")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "sgdscope-docs"))
