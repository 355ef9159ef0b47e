import io
import json
import re

import pytest
from rich.console import Console

import sgdscope as sg
from sgdscope.testing.quadratic import NoisyQuadratic
from sgdscope.workloads.digits import digits

EVIL = "</script><script>alert(1)</script><b>"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    quadratic = NoisyQuadratic().workload()
    workload = sg.Workload(
        name=EVIL, version="1", train=quadratic.train, validation=quadratic.validation, test=quadratic.test,
        init=quadratic.init, loss=quadratic.loss, score=quadratic.score, reader=quadratic.reader,
        constant_loss=quadratic.constant_loss, constant_score=quadratic.constant_score,
        score_name=EVIL, score_goal="minimize",
    )  # fmt: skip
    study = sg.Study(name=EVIL, workloads=workload, batch_sizes=(4, 8, 16, 32), budgets=sg.Epochs(1), seeds=3)
    result = sg.run(study, folder / "s", Console(file=io.StringIO()))
    return result, result.save_report(folder / "page.html").read_text()


def block_of(html):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])


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


def test_every_figure_is_there_once_with_its_sentence_its_table_and_n(page):
    _, html = page
    block = block_of(html)
    kinds = [
        "two-regimes",  # on the first screen
        "best-score",
        "difference-from-sgd",
        "failures",
        "optimal-learning-rate",
        "training-loss",
        "score-by-learning-rate",
    ]
    kinds += ["loss-by-learning-rate", "loss-along-training", "optimal-temperature", "score-by-temperature"]
    assert re.findall(r'<figure id="([^"]+)"', html) == kinds
    drawn = re.findall(r'data-panel="([^"]+)"', html)
    assert sorted(block["panels"]) == sorted(drawn)
    for key in drawn:
        data = {name: column for used in block["panels"][key]["data"] for name, column in block["data"][used].items()}
        assert "n" in data
        assert any(name.endswith("_low") for name in data)
    for figure in re.findall(r"<figure .*?</figure>", html, re.DOTALL):
        assert re.search(r"\b\d seeds", figure)
        assert re.search(r'href="#table-(\w+)"', figure)[1] in block["tables"]


def test_a_figure_shows_the_numbers_of_its_table(page):
    result, html = page
    block = block_of(html)
    data = block["data"][block["panels"]["best-score"]["data"][0]]
    drawn = dict(zip(zip(data["optimizer"], data["batch_size"], strict=True), data["test_score"], strict=True))
    table = result.optima.filter(criterion="score")
    assert len(drawn) == len(table) == 2 * 4
    for row in table.iter_rows(named=True):
        assert drawn[row["optimizer"], row["batch_size"]] == pytest.approx(row["test_score"], rel=1e-4)


def test_trials_are_there_once_as_final_rows(page):
    result, html = page
    trials = block_of(html)["tables"]["trials"]
    assert trials["seed"] == result.trials["seed"].to_list()
    assert trials["status"] == result.trials["status"].to_list()
    assert {len(column) for column in trials.values()} == {len(result.trials)}
    assert "workload" not in trials  # there is but one


def test_the_first_screen_says_what_was_studied_where_it_bends_and_what_to_do(page):
    result, html = page
    shown = dict(re.findall(r"<dt>([^<]+)</dt><dd>([^<]+)</dd>", html))
    facts = ["Workload", "Optimizers", "Schedule", "Batch sizes", "Budget", "Seeds", "Trials", "Device", "Cost"]
    assert list(shown) == facts
    assert shown["Schedule"] == "halving"
    assert shown["Batch sizes"] == "4, 8, 16, 32"
    assert shown["Trials"].startswith(f"{len(result.trials)} (")
    first, second = html[html.index('<div class="first">') :].split('<div class="second">')
    places = [
        first.index(part) for part in ('<section id="advice">', '<figure id="two-regimes"', '<section id="next">')
    ]
    assert places == sorted(places)
    assert "Transition batch size, test score" in first
    assert re.search(r"<strong>sgd: (use|best guess, not confirmed:) batch size \d+ and learning rate", first)
    assert f"sg.run(study, &#39;{result.folder}&#39;, until_decided=True)" in first  # Python trained it
    # Claims stand under the paper's questions, in words, their codes last.
    assert '<section id="claims">' in second
    assert second.index("How does SGD behave at different batch sizes?") < second.index("C4b")
    assert re.search(r'the best training loss rises with the batch size\..* <span class="code">C4b</span>', second)


def test_the_table_has_every_cell(page):
    _, html = page
    table = html[html.index('<table id="summary">') :]
    assert len(re.findall(r"<tr><td>", table)) == 8


def test_scores_that_were_chosen_on_the_test_set_are_called_flattered(page, tmp_path):
    """The quadratic has one and the same split for both."""
    result, html = page
    assert result.declaration.workloads[0].chosen_on == "test"
    assert html.count("best on the test split itself") == 2
    assert "best on the validation split" not in html
    parted = sg.Study(name="s", workloads=digits(hidden=16), batch_sizes=(64,), budgets=sg.Epochs(1))
    assert parted.declaration().workloads[0].chosen_on == "validation"


def test_a_notebook_shows_what_was_studied_its_table_and_its_words(page):
    result, _ = page
    shown = result._repr_html_()
    assert EVIL not in shown
    assert shown.count("<tr><td>") == 2 * 4
    assert "Batch sizes: 4, 8, 16, 32" in shown
    assert re.search(r"<b>sgd: (use|best guess, not confirmed:) batch size", shown)
    assert "3 seeds" in shown
    assert repr(result).endswith(f"{len(result.trials)} trials, finished)")


def test_a_notebook_shows_a_result_without_trials(page, tmp_path):
    from sgdscope.store import Store

    with Store(tmp_path / "s").writing():
        Store(tmp_path / "s").declare(page[0].declaration)
    result = sg.Result(tmp_path / "s")
    assert "not finished" in result._repr_html_()
    assert "No results yet" in result._repr_html_()
    assert "known to be missing" in repr(result)


def test_figures_save_as_pictures(page, tmp_path):
    result, _ = page
    result.figures["best-score"].save(tmp_path / "figure.svg")
    assert (tmp_path / "figure.svg").read_text().startswith("<svg")


def test_a_study_without_trials_is_refused(page, tmp_path):
    from sgdscope.store import Store

    with Store(tmp_path / "s").writing():
        Store(tmp_path / "s").declare(page[0].declaration)
    with pytest.raises(sg.InputError, match="has no finished trials yet"):
        sg.Result(tmp_path / "s").save_report(tmp_path / "page.html")
