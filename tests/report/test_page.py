import io
import json
import re

import pytest
from rich.console import Console

import sgdscope as sg
from sgdscope.workloads.digits import digits
from sgdscope.workloads.quadratic import NoisyQuadratic

EVIL = "</script><script>alert(1)</script><b>"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    quadratic = NoisyQuadratic().workload()
    workload = sg.Workload(
        name=EVIL, version="1", train=quadratic.train, validation=quadratic.validation, test=quadratic.test,
        init=quadratic.init, loss=quadratic.loss, score=quadratic.score, augment=quadratic.augment,
        constant_loss=quadratic.constant_loss, constant_score=quadratic.constant_score,
        score_name=EVIL, score_goal="minimize",
    )  # fmt: skip
    study = sg.Study(name=EVIL, workloads=workload, batch_sizes=(4, 8, 16, 32), budgets=sg.Epochs(1), seeds=3)
    result = sg.run(study, folder / "s", Console(file=io.StringIO()))
    return result, result.report(folder / "page.html").read_text()


def charts_of(html):
    return json.loads(re.search(r'<script type="application/json" id="charts">(.*?)</script>', html, re.DOTALL)[1])


def test_a_studys_words_cannot_inject_markup(page):
    _, html = page
    assert EVIL not in html
    assert "<script>alert" not in html
    assert html.count("<script") == html.count("</script>") == 3
    assert "&lt;/script&gt;" in html


def test_it_is_self_contained(page):
    _, html = page
    markup = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert not re.search(r"""(src|href)\s*=\s*"(?!#)|@import|url\(""", markup)
    # Links within the page lead somewhere.
    assert {link[1:] for link in re.findall(r'href="(#[^"]+)"', markup)} <= set(re.findall(r'id="([^"]+)"', markup))


def test_five_figures_with_n_and_interval_in_every_point(page):
    result, html = page
    charts = charts_of(html)
    kinds = ["best-score", "optimal-learning-rate", "two-regimes", "training-loss", "score-by-learning-rate"]
    assert list(charts) == kinds
    for key in charts:
        assert f'data-chart="{key}"' in html
        assert '"n"' in json.dumps(charts[key])
        assert "_low" in json.dumps(charts[key])
    rows = [row for data in charts["best-score"]["datasets"].values() for row in data]
    assert len(rows) == 2 * 4
    drawn = {(row["optimizer"], row["batch_size"]): row["test_score"] for row in rows}
    table = result.optima.filter(criterion="score")
    assert drawn == {(r["optimizer"], r["batch_size"]): r["test_score"] for r in table.iter_rows(named=True)}


def test_the_table_has_every_cell(page):
    _, html = page
    assert len(re.findall(r"<tr><td>", html)) == 8


def test_scores_that_were_chosen_on_the_test_set_are_called_flattered(page, tmp_path):
    """The quadratic has one and the same split for both."""
    result, html = page
    assert result.declaration.workloads[0].chosen_on == "test"
    assert html.count("best on the test split itself") == 2
    assert "best on the validation split" not in html
    parted = sg.Study(name="s", workloads=digits(hidden=16), batch_sizes=(64,), budgets=sg.Epochs(1))
    assert parted.declaration().workloads[0].chosen_on == "validation"


def test_figures_save_as_pictures(page, tmp_path):
    result, _ = page
    result.charts.best_score().save(tmp_path / "figure.svg")
    assert (tmp_path / "figure.svg").read_text().startswith("<svg")


def test_a_study_without_trials_is_refused(page, tmp_path):
    from sgdscope.store import Store

    with Store(tmp_path / "s").writing():
        Store(tmp_path / "s").declare(page[0].declaration)
    with pytest.raises(sg.InputError, match="has no finished trials yet"):
        sg.Result(tmp_path / "s").report(tmp_path / "page.html")
