"""The command as a user runs it: text, page, tables, JSON, and the paper's figures on common axes."""

import json
import re
from dataclasses import replace

import polars as pl
import pytest

import sgdscope as sg
from sgdscope.cli import main
from sgdscope.comparison.comparison import Comparison
from sgdscope.testing.quadratic import NoisyQuadratic

pytestmark = pytest.mark.usefixtures("quick")


def study(workload=None, **fields):
    return sg.Study(
        name="q", workloads=workload or NoisyQuadratic().workload(), batch_sizes=(4, 8), budgets=sg.Steps(20), seeds=3,
        learning_rates=(0.05, 0.1, 0.2), **fields,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two studies that differ in the schedule."""
    place = tmp_path_factory.mktemp("studies")
    for name, schedule in (("halving", sg.Halving()), ("cosine", sg.Cosine())):
        sg.run(study(schedule=schedule), place / name)
    return [str(place / name) for name in ("halving", "cosine")]


def test_text_page_and_tables(folders, tmp_path, capsys):
    assert main(["compare", *folders, "--out", str(tmp_path / "c")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("halving and cosine differ in the schedule: halving against cosine.")
    for question in ("Best test", "Optimal learning rate, sgd:", "Transition batch size, sgd:"):
        assert question in said
    page = (tmp_path / "c" / "compare.html").read_text()
    assert "differ in the schedule: halving against cosine" in page
    assert {"best-score", "score-difference", "optimal-learning-rate"} <= set(re.findall(r'<figure id="([^"]+)"', page))
    markup = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"""(src|href)\s*=\s*"(?!#)|@import|url\(""", markup)
    rows = pl.read_csv(tmp_path / "c" / "score_difference.csv")
    assert rows["batch_size"].to_list() == [4, 8] * 2
    assert all((tmp_path / "c" / f"{name}.csv").is_file() for name in Comparison(folders).tables())


def test_json_has_every_table(folders, tmp_path, capsys):
    assert main(["compare", *folders, "--out", str(tmp_path / "c"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["names"] == ["halving", "cosine"]
    assert told["what_differs"] == ["the schedule: halving against cosine"]
    assert [row["batch_size"] for row in told["score_difference"]] == [4, 8] * 2


def test_a_folder_and_its_exported_table_are_equivalent(folders, tmp_path):
    table = sg.load(folders[0]).export(tmp_path / "own.parquet")
    found = sg.compare(folders[0], table)
    assert found.names == ["halving", "own"]
    assert found.score_difference["difference"].abs().max() == 0


def test_figures_of_studies_that_differ_in_a_schedule_are_on_common_axes(folders, tmp_path, capsys):
    assert main(["figures", *folders, "--out", str(tmp_path / "f")]) == 0
    names = {line.rsplit("/")[-1] for line in capsys.readouterr().out.split()}
    assert {"best-score.svg", "optimal-learning-rate.svg", "score-difference.svg"} <= names
    for study in ("halving", "cosine"):
        assert any(name.startswith(f"{study}-") and name.endswith("-best-score.svg") for name in names)


def test_panels_share_their_axes(folders):
    for name in ("best-score", "score-difference", "optimal-learning-rate"):
        panels = sg.compare(*folders).figures[name].to_dict()["hconcat"]
        text = [json.dumps(panel) for panel in panels]
        domains = [re.findall(r'"domain": (\[[-\d.e, ]+\])', each) for each in text]
        assert len(panels) == 2
        assert set(domains[0]) == set(domains[1]) != set()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare", "{a}"], "compare: give two studies or more, such as `sgdscope compare DIR DIR`."),
        (["compare", "{a}", "/nowhere"], "/nowhere holds no study: there is no such folder."),
        (["compare", "{a}", "{b}", "--out", ""], "out: '' names no folder."),
        (["compare", "{a}", "{b}", "--jason"], "'--jason' is not an option of sgdscope compare. Did you mean --json?"),
    ],
)
def test_bad_input_is_one_sentence(folders, capsys, words, said):
    a, b = folders
    assert main([word.format(a=a, b=b) for word in words]) == 2
    written = capsys.readouterr().err
    assert said in written
    assert "Traceback" not in written


def test_a_study_whose_functions_alone_differ_is_told_by_its_program(folders, tmp_path):
    workload = NoisyQuadratic().workload()
    loss = workload.loss
    other = replace(workload, loss=lambda *given: 2.0 * loss(*given))
    sg.run(study(other), tmp_path / "doubled")
    found = sg.compare(folders[0], tmp_path / "doubled")
    assert found.what_differs == [
        "the workload's functions: its network, loss, score or augmentation is another program"
    ]
