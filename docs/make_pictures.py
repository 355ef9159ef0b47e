"""Make pictures of a finished study.

python docs/make_pictures.py sgdscope-digits             the README's picture and table
python docs/make_pictures.py FOLDER PICTURE.png          the same three figures, wherever they are wanted
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import altair as alt
from rich.console import Console

from sgdscope import Result
from sgdscope.report.summary import sentences, summary_table

ROOT = Path(__file__).parent.parent


def main(folder: str, picture: str | None = None) -> None:
    """Write the picture, and the study's table into the README where it is the README's picture."""
    result = Result(folder)
    charts = result.charts
    figures = alt.hconcat(charts.best_score(), charts.optimal_learning_rate(), charts.training_loss())
    figures.save(picture or ROOT / "docs" / "pictures" / f"{result.declaration.name}.png", ppi=110)
    if picture is None:
        write_table(result)


def write_table(result: Result) -> None:
    """Put the study's table and sentences into the README."""
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(summary_table(result.tables))
    for sentence in sentences(result.tables):
        console.print(sentence, soft_wrap=True)
    readme = ROOT / "README.md"
    table = "\n".join(line.rstrip() for line in console.export_text().splitlines())
    text = re.sub(r"(?s)```text\n.*?```", lambda _: f"```text\n{table}\n```", readme.read_text())
    readme.write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:3])
