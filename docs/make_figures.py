"""Make every figure and every printed table of the documentation, from studies that are trained first.

python docs/make_figures.py [FOLDER]

The studies are kept in FOLDER. Default: sgdscope-docs. Run the same command to resume, or to draw everything again.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

import altair as alt
from playwright.sync_api import sync_playwright
from rich.console import Console

import sgdscope as sg
from sgdscope.claims.decide import findings
from sgdscope.report.charts import Charts
from sgdscope.report.export import page_figures, write_figures
from sgdscope.report.text.claims import print_claims
from sgdscope.report.text.summary import sentences, summary_table
from sgdscope.result import read_folders

PICTURES = Path(__file__).parent / "pictures"
SEEDS = 15
ALONG_TRAINING = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
# Of the sweeps over steps and over epochs, the figures that differ from those of the sweep over batch sizes.
OF_STEPS = ("best-score", "optimal-learning-rate", "training-loss")
OF_EPOCHS = ("score-by-epochs", "rates-by-epochs")


def studies() -> dict[str, sg.Study]:
    """Return the studies that the documentation shows, by the name of their folder."""
    digits = sg.studies.get("digits")
    sizes = (2, *(size for size in digits.batch_sizes if size > 2))
    measured = {"evaluate_at": ALONG_TRAINING, "noise_scale_at": (0, *ALONG_TRAINING)}
    return {
        "epochs": digits.changed({"seeds": SEEDS, "batch_sizes": sizes, **measured}),
        "steps": sg.studies.get("digits", sweep="steps").changed({"seeds": SEEDS}),
        "budgets": sg.studies.get("digits", sweep="epochs").changed({"seeds": SEEDS}),
    }


def main(folder: Path) -> None:
    """Train the studies, and write their figures, tables and a picture of the report."""
    sg.configure_jax()
    results = {name: sg.run(study, folder / name) for name, study in studies().items()}
    figures = {name: page_figures(result.tables) for name, result in results.items()}
    drawn = figures["epochs"]
    drawn |= {f"steps-{name}": figures["steps"][name] for name in OF_STEPS}
    drawn |= {name: figures["budgets"][name] for name in OF_EPOCHS}
    write_figures(drawn, PICTURES, "svg")

    charts = Charts(results["epochs"].tables)
    write_figures({"digits": alt.hconcat(charts.best_score(), charts.optimal_learning_rate())}, PICTURES, "png")
    photograph(results["epochs"])

    write_table(results["epochs"])
    console = _console(100)
    print_claims(findings(read_folders([folder / name for name in results])), console)
    _write("claims.txt", console)


def write_table(result: sg.Result) -> None:
    """Write what the study prints: its table and its sentences."""
    console = _console(80)
    console.print(summary_table(result.tables))
    for sentence in sentences(result.tables):
        console.print(sentence)
    _write("table.txt", console)


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


def _console(width: int) -> Console:
    return Console(width=width, record=True, file=io.StringIO())


def _write(name: str, console: Console) -> None:
    lines = [line.rstrip() for line in console.export_text().strip("\n").splitlines()]
    (PICTURES / name).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "sgdscope-docs"))
