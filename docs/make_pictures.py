"""Make pictures of a finished study.

python docs/make_pictures.py sgdscope-digits             the README's pictures and table
python docs/make_pictures.py FOLDER PICTURE.png          the same three figures, wherever they are wanted
"""

from __future__ import annotations

import io
import re
import shutil
import sys
import tempfile
from pathlib import Path

import altair as alt
from playwright.sync_api import sync_playwright
from rich.console import Console

from sgdscope import Result
from sgdscope.report.text.summary import sentences, summary_table

ROOT = Path(__file__).parent.parent


def main(folder: str, picture: str | None = None) -> None:
    """Write the picture; where it is the README's, that of the page, and the study's table into the README, too."""
    result = Result(folder)
    charts = result.charts
    figures = alt.hconcat(charts.best_score(), charts.optimal_learning_rate(), charts.training_loss())
    figures.save(picture or ROOT / "docs" / "pictures" / f"{result.declaration.name}.png", ppi=110)
    if picture is None:
        write_table(result)
        photograph(result)


def photograph(result: Result) -> None:
    """Take a picture of the page's first screen, and of its first figures with a batch size chosen."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("there is no Chromium on this machine to take a picture of the page with.")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = result.report(Path(folder) / "report.html")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1280, "height": 1640})
        tab.goto(page.resolve().as_uri())
        tab.wait_for_selector("html[data-drawn]")
        tab.click('[data-size="64"]')
        tab.mouse.move(0, 0)
        tab.wait_for_function("document.querySelector('.chart path[opacity=\"0.45\"]')")
        tab.screenshot(path=ROOT / "docs" / "pictures" / "page.png")
        browser.close()


def write_table(result: Result) -> None:
    """Put the study's table and sentences into the README."""
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(summary_table(result.tables))
    for sentence in sentences(result.tables):
        console.print(sentence, soft_wrap=True)
    readme = ROOT / "README.md"
    table = "\n".join(line.rstrip() for line in console.export_text().splitlines())
    text = re.sub(r"(?s)```text\n.*?```", lambda _: f"```text\n{table}\n```", readme.read_text(), count=1)
    readme.write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:3])
