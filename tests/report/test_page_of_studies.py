"""The page of several studies links their reports and says what each recommends."""

import re

import pytest

from sgdscope.cli import main


@pytest.fixture(scope="module")
def folders(planted_study, tmp_path_factory):
    home = tmp_path_factory.mktemp("studies")
    return [
        planted_study(home / "first study"),
        planted_study(home / "second", name="another", commits=1),
        planted_study(home / "third", name="empty", commits=0),
    ]


@pytest.mark.usefixtures("quick")
def test_the_page_of_several_studies(folders, browser, capsys):
    page = folders[0].parent / "index.html"
    assert main(["report", *map(str, folders), "--index", "--out", str(page)]) == 0
    said = capsys.readouterr()
    assert said.out.split("\n")[-2] == str(page)
    assert f"{folders[2]} has no results yet" in said.err
    tab = browser.new_page()
    tab.goto(page.as_uri())
    assert tab.locator(".study h2").all_inner_texts() == ["planted", "another", "empty"]
    rows = [re.split(r"\t", row) for row in tab.locator(".overview tbody tr").all_inner_texts()]
    assert [row[:3] for row in rows] == [
        [name, "simulated at epochs:2", optimizer]
        for name in ("planted", "another")
        for optimizer in ("sgd", "momentum:0.9")
    ]
    assert rows[0][6] == "27"
    assert "at least 36 trials are missing" in tab.inner_text("#study-2")
    assert tab.locator("#study-3 a").count() == 0
    tab.click("#study-1 h2 a")
    tab.wait_for_selector("html[data-drawn]")
    assert tab.inner_text("h1") == "planted"
    tab.close()


def test_one_file_for_several_reports_is_refused(folders, capsys):
    assert main(["report", *map(str, folders), "--out", "page.html"]) == 2
    assert "--out: several reports have one file each" in capsys.readouterr().err
    assert main(["report"]) == 2
    assert "name at least one folder" in capsys.readouterr().err
