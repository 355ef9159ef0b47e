"""The paper's figures by name: which there are, and that they show the tables' numbers."""

import json
import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import altair as alt
import numpy as np
import polars as pl
import pytest

from sgdscope.analysis.tables import Tables
from sgdscope.errors import InputError
from sgdscope.report.export import COLUMN_INCHES, PAGE_INCHES, page_figures, talk_figures, write_figures
from sgdscope.testing.simulated import RECORD, Truth, simulate, trial_table

pytestmark = pytest.mark.usefixtures("quick")
KINDS = ("best-score", "training-loss", "optimal-learning-rate", "two-regimes")


def study(law="linear", budget="epochs:30", workload="simulated", sizes=(4, 16, 64, 256, 1024)):
    truth = Truth(law=law, spread=0.001, grid=0.5)
    trials = trial_table({"sgd": simulate(np.random.default_rng(0), 4, truth, sizes)})
    return trials.with_columns(budget=pl.lit(budget), workload=pl.lit(workload))


def tables(*trials):
    names = {name for table in trials for name in table["workload"]}
    return Tables(pl.concat(trials), {name: RECORD.__class__(**vars(RECORD) | {"name": name}) for name in names}, 0.01)


def rows(chart):
    return [row for data in chart.to_dict()["datasets"].values() for row in data]


def test_each_sweep_has_its_figures():
    epochs = [study(budget=f"epochs:{n}", sizes=(64,)) for n in (15, 60)]
    found = talk_figures(tables(study(), study(budget="steps:200"), *epochs))
    of_batch_sizes = {f"simulated-{budget}-{kind}" for budget in ("epochs-30", "steps-200") for kind in KINDS}
    assert set(found) == of_batch_sizes | {"score-by-epochs", "rates-by-epochs"}
    drawn = {row["epochs"] for row in rows(found["rates-by-epochs"])}
    assert drawn == {15, 30, 60}  # the batch size of 64 of the first sweep is one of them
    json.dumps([chart.to_dict() for chart in found.values()], allow_nan=False)


def test_workloads_stand_side_by_side_against_epochs():
    both = [study(budget=f"epochs:{n}", sizes=(64,), workload=name) for n in (15, 60) for name in ("with", "without")]
    lines = {(row["optimizer"], row["case"]) for row in rows(talk_figures(tables(*both))["score-by-epochs"])}
    assert lines == {("sgd", "with, batch size 64"), ("sgd", "without, batch size 64")}


def test_workloads_of_different_scores_share_no_axis():
    both = [study(budget=f"epochs:{n}", sizes=(64,), workload=name) for n in (15, 60) for name in ("a", "b")]
    of = tables(*both)
    of.records["b"] = replace(of.records["b"], score_name="squared error", score_goal="minimize")
    found = talk_figures(of)
    assert set(found) == {"score-by-epochs-a", "score-by-epochs-b", "rates-by-epochs"}
    for name, score, other in (("a", "accuracy", "squared error"), ("b", "squared error", "accuracy")):
        text = json.dumps(found[f"score-by-epochs-{name}"].to_dict())
        assert f"test {score}" in text
        assert f"test {other}" not in text
        assert {row["case"] for row in rows(found[f"score-by-epochs-{name}"])} == {"batch size 64"}


def test_a_notebook_draws_a_chart_without_a_network():
    charts = page_figures(tables(study()))
    best_score, two_regimes = charts["best-score"], charts["two-regimes"]
    for chart in (best_score, two_regimes, best_score.properties(height=99)):
        (kind, html), *more = chart._repr_mimebundle_().items()
        assert (kind, more) == ("text/html", [])
        assert "vegaEmbed(" in html
        assert len(html) > 500_000  # Vega itself
        assert not re.search(r"(cdn|unpkg)\.", html)
        assert not re.search(r"<script[^>]*src=|import\(|require\(\[", html)
    with alt.renderers.enable("mimetype"):
        assert "text/html" not in best_score._repr_mimebundle_()[0]


def test_the_regimes_are_those_of_the_tables():
    of = tables(study())
    transition = of.transitions.filter(criterion="score").row(0, named=True)
    shown = rows(talk_figures(of)["simulated-epochs-30-two-regimes"])
    bands = {row["regime"]: (row["batch_size"], row["to"]) for row in shown if "regime" in row}
    assert bands == {
        "noise-dominated": (4, pytest.approx(transition["transition_low"])),
        "curvature-dominated": (pytest.approx(transition["transition_high"]), 1024),
    }
    line = {
        row["batch_size"]: row["effective_learning_rate"]
        for row in shown
        if "n" not in row and "effective_learning_rate" in row
    }
    assert max(line) == 1024
    assert math.log2(line[1024] / line[4]) == pytest.approx(
        transition["slope"] * math.log2(transition["transition"] / 4)
    )
    without = rows(talk_figures(tables(study(law="constant")))["simulated-epochs-30-two-regimes"])
    bands = [(row["regime"], row["batch_size"], row["to"]) for row in without if "regime" in row]
    assert bands == [("curvature-dominated", pytest.approx(4), 1024)] * len(bands) != []


def test_files_and_refusals(tmp_path):
    paths = write_figures(talk_figures(tables(study())), tmp_path / "f", "svg")
    assert [path.name for path in paths] == [f"simulated-epochs-30-{kind}.svg" for kind in KINDS]
    assert all(path.read_text().startswith("<svg") for path in paths)
    with pytest.raises(InputError, match="Run several batch sizes"):
        write_figures(talk_figures(tables(study(sizes=(64,)))), tmp_path, "svg")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_figures(talk_figures(tables(study())), tmp_path / "file", "svg")


def test_all_figures_of_a_page_are_files_as_wide_as_a_column_or_the_page(study_tables, tmp_path):
    found = page_figures(study_tables)
    part = {
        name: chart for name, chart in found.items() if name in ("score-by-epochs", "simulated-epochs-30-two-regimes")
    }
    assert len(part) == 2
    assert len(found) == 2 + 14 + 8  # against epochs, at 30 epochs, and at 60, where there is one batch size
    widths = [COLUMN_INCHES, PAGE_INCHES]
    pdf, png, svg = (write_figures(part, tmp_path, kind) for kind in ("pdf", "png", "svg"))
    points = [float(re.search(rb"/MediaBox \[0 0 ([\d.]+)", path.read_bytes())[1]) for path in pdf]
    assert points == pytest.approx([72 * inches for inches in widths], abs=1)
    for path, inches in zip(png, widths, strict=True):
        content = path.read_bytes()
        assert int.from_bytes(content[16:20]) == pytest.approx(300 * inches, abs=4)
        per_metre = int.from_bytes(content[content.index(b"pHYs") + 4 :][:4])
        assert per_metre * 0.0254 == pytest.approx(300, abs=1)
    points = [float(re.search(r'width="([\d.]+)pt"', path.read_text())[1]) for path in svg]
    assert points == pytest.approx([72 * inches for inches in widths], abs=1)


def test_names_that_differ_in_their_signs_alone_have_figures_of_their_own():
    both = tables(study(workload="w[a]"), study(workload="w(a)"))
    for figures in (talk_figures(both), page_figures(both)):
        assert len([name for name in figures if name.endswith("-best-score")]) == 2


def test_a_name_with_control_characters_can_be_drawn(tmp_path):
    of = study().with_columns(optimizer=pl.lit("a\x1b[2J</text>[/b]"))
    found = talk_figures(tables(of))
    wanted = {name: chart for name, chart in found.items() if name.endswith("two-regimes")}
    (path,) = write_figures(wanted, tmp_path, "svg")
    (title,) = (node.text for node in ElementTree.fromstring(path.read_text()).iter() if "2J" in (node.text or ""))
    assert title == "a\\x1b[2J</text>[/b]"
