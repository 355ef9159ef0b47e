"""Make every figure and printed table of the documentation, and results/digits, from studies that are trained first.

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

from playwright.sync_api import sync_playwright

import sgdscope as sg
from sgdscope.report.export import page_figures, write_figures

PICTURES = Path(__file__).resolve().parent / "pictures"
RESULTS = Path(__file__).resolve().parent.parent / "results" / "digits"
WIDTH = 86
WRAPPED = textwrap.TextWrapper(WIDTH, subsequent_indent="  ")
ALONG_TRAINING = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
# Of the sweeps over steps and over epochs, the figures that differ from those of the sweep over batch sizes.
OF_STEPS = ("best-score", "optimal-learning-rate", "training-loss")
OF_EPOCHS = ("score-by-epochs", "rates-by-epochs")
OF_METHODS = ("best-by-method", "score-by-cost", "loss-by-seconds")
ALONG = ("loss-along-training", "score-along-training")
# The paper's three sweeps.
SWEEPS = ("epochs", "steps", "budgets")


def studies() -> dict[str, sg.Study]:
    """Return the studies that the documentation shows, by the name of their folder."""
    digits = sg.studies.get("digits")
    along = {"seeds": 5, "batch_sizes": (8, 32, 128, 512), "evaluate_at": ALONG_TRAINING}
    return {
        "epochs": digits,
        "noise": digits.changed(along | {"noise_scale_at": (0, *ALONG_TRAINING)}),
        "sharpness": digits.changed({"sharpness_at": (0, 0.05, 0.1, 0.25, 0.5, 1)}),
        "steps": sg.studies.get("digits", sweep="steps"),
        "methods": sg.studies.get("methods").changed({"budgets": sg.Epochs(20), "seeds": 5}),
        "budgets": sg.studies.get("digits", sweep="epochs"),
    }


def main(folder: Path) -> None:
    """Train the studies, and write their figures, tables and a picture of the report."""
    sg.configure_jax()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)  # so that commands that are shown name a study's folder alone
    results = {name: sg.run(study, name) for name, study in studies().items()}
    figures = {name: page_figures(result.tables) for name, result in results.items()}
    drawn = figures["epochs"]
    drawn |= {f"steps-{name}": figures["steps"][name] for name in OF_STEPS}
    drawn |= {name: figures["budgets"][name] for name in OF_EPOCHS}
    drawn |= {name: figures["noise"][name] for name in (*ALONG, "noise-scale")}
    drawn["sharpness"] = figures["sharpness"]["sharpness"]
    drawn |= {name: figures["methods"][name] for name in OF_METHODS}
    write_figures(drawn, PICTURES, "svg")
    write_figures({"digits": drawn["two-regimes"]}, PICTURES, "png")
    photograph(results["epochs"])

    shown = Path("sgdscope-digits")  # as the page's command names it
    shown.unlink(missing_ok=True)
    shown.symlink_to("epochs")
    keep_output("table.txt", "show", shown)
    keep_output("claims.txt", "claims", *SWEEPS)
    show_recommendation()
    together = sg.load(*SWEEPS)
    for name, table in {**together.tables.all(), "claims": together.claims}.items():
        table.write_csv(RESULTS / f"{name}.csv")


def keep_output(file: str, *words: str | Path) -> None:
    """Keep what a command prints on a terminal as wide as a page, with its long lines wrapped."""
    command = [sys.executable, "-m", "sgdscope.cli", *map(str, words)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | {"COLUMNS": f"{WIDTH}"})  # noqa: S603
    lines = [part for line in done.stdout.splitlines() for part in WRAPPED.wrap(line) or [""]]
    (PICTURES / file).write_text("\n".join(lines) + "\n")


def show_recommendation() -> None:
    """Put the end of the printed table into the quickstart, where also readers of the plain file see it."""
    heading, page = "\nRecommendation\n", PICTURES.parent / "quickstart.md"
    before, _, after = page.read_text().partition(heading)
    recommended = (PICTURES / "table.txt").read_text().partition(heading)[2]
    page.write_text(before + heading + recommended + after[after.index("```") :])


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
