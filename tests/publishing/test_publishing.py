"""What is published can be verified, and each thing that is changed in it is named."""

import json
import re
import shutil
from pathlib import Path

import polars as pl
import pytest

import sgdscope as sg
from sgdscope.cli import main
from sgdscope.errors import InputError
from sgdscope.publishing import datapackage
from sgdscope.publishing import verify as verifying
from sgdscope.publishing.publish import publish
from sgdscope.publishing.verify import verify
from sgdscope.stats import intervals as statistics


@pytest.fixture(scope="module", autouse=True)
def fewer_draws():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "RESAMPLES", 200)
        patch.setattr("sgdscope.stats.laws.PLACES_PER_OCTAVE", 5)
        yield


@pytest.fixture(scope="module")
def study(planted_study, tmp_path_factory):
    return planted_study(tmp_path_factory.mktemp("published") / "study-of-mine")


@pytest.fixture(scope="module")
def published(study):
    return publish(study, study.parent / "out")


@pytest.fixture
def copy(published, tmp_path):
    return Path(shutil.copytree(published, tmp_path / "copy"))


def test_a_published_study_is_verified(published, capsys):
    assert main(["verify", str(published)]) == 0
    said = capsys.readouterr().out
    numbers = re.search(r"(\d+) files, (\d+) tables and ([\d,]+) numbers compared\. All agree\.", said)
    assert int(numbers[1]) == len([path for path in published.rglob("*") if path.is_file()]) - 1
    assert int(numbers[3].replace(",", "")) > 1000


def test_it_holds_the_study_its_tables_and_how_to_cite_it(study, published):
    result = sg.load(study)
    assert sg.load(published / "study").trials.equals(result.trials)
    for name in ("trials", "optima", "claims", "curves"):
        table = pl.read_parquet(published / "tables" / f"{name}.parquet")
        assert table.equals(pl.DataFrame(getattr(result, name)), null_equal=True)
        assert pl.read_csv(published / "tables" / f"{name}.csv").columns == table.columns
    words = pl.read_csv(published / "dictionary.csv")
    for path in (published / "tables").glob("*.parquet"):
        assert words.filter(table=path.stem)["column"].to_list() == pl.read_parquet(path).columns
    assert words["description"].null_count() == 0
    assert "type: dataset" in (published / "CITATION.cff").read_text()
    assert "sgdscope verify ." in (published / "README.md").read_text()


def test_its_description_names_each_file_and_each_column_with_its_type(published):
    package = json.loads((published / "datapackage.json").read_text())
    assert package["$schema"] == "https://datapackage.org/profiles/2.0/datapackage.json"
    assert re.fullmatch(r"[a-z0-9._-]+", package["name"])
    of = {resource["path"]: resource for resource in package["resources"]}
    assert set(of) | {"datapackage.json"} == {
        path.relative_to(published).as_posix() for path in published.rglob("*") if path.is_file()
    }
    assert len({resource["name"] for resource in of.values()}) == len(of)
    fields = {field["name"]: field for field in of["tables/trials.csv"]["schema"]["fields"]}
    assert (fields["batch_size"]["type"], fields["batch_size"]["unit"]) == ("integer", "examples")
    assert fields["learning_rate"]["type"] == "number"
    assert package["versions"]["sgdscope"] == sg.__version__


def test_no_folder_of_this_machine_is_published(study, published):
    for path in published.rglob("*"):
        if path.suffix in (".html", ".json", ".md", ".cff", ".csv"):
            assert str(study.parent) not in path.read_text(), path


def changed(path, old, new=None):
    """Change the last digit that a pattern finds, or the word."""
    text = path.read_text()
    found = re.search(old, text, re.DOTALL)
    other = str((int(found[1]) + 4) % 10) if new is None else new
    path.write_text(text[: found.start(1)] + other + text[found.end(1) :])


def test_all_that_is_changed_is_named(copy, capsys):
    page, tables = copy / "report.html", copy / "tables"
    changed(tables / "optima.csv", r"\n[^\n]*?,0\.(\d)\d+,")
    changed(page, r'"optima":\{[^}]*"test_score":\[0?\.(\d)')
    changed(page, r'"data":\{"[\w-]+":\{.*?:\[\d*\.?(\d)')
    changed(page, r"<section id=\"advice\">.*?learning rate (\d)\.?\d*")
    changed(page, r"<h2>(Recommendation)", "Result")
    (tables / "claims.csv").unlink()
    (copy / "more.txt").write_text("x")
    wrong = verify(copy).wrong
    for said in (
        r"tables/optima\.csv is not the file that was published: its SHA-256 differs",
        r"optima\.csv: \w+ differs in 1 rows\. Row 1 says",
        r"report\.html: test_score of the table optima differs",
        r"report\.html: a figure differs",
        r"report\.html says '\d\S*' after '.*learning rate'",
        r"report\.html says 'Result",
        r"tables/claims\.csv is missing",
        r"more\.txt was not published",
    ):
        assert any(re.search(said, sentence) for sentence in wrong), (said, wrong)


def stated_anew(folder):
    """Let the description state the files as they are now, as one who hides a change would."""
    path = folder / "datapackage.json"
    package = json.loads(path.read_text())
    for of in package["resources"]:
        of |= {"hash": datapackage.digest(folder / of["path"]), "bytes": (folder / of["path"]).stat().st_size}
    path.write_text(json.dumps(package))


def test_a_number_that_is_changed_is_found_though_its_file_is_stated_as_it_is(copy):
    changes = {
        ("README.md", r"\n[^\n|#]*?(\d)[^\n]*\n\n\| file"): r"README\.md says '.*'; computed again, it is '.*",
        ("README.md", r"`trials`: (\d)"): r"README\.md says '- `trials`: \d\d rows.*it is '- `trials`: 54 rows",
        ("CITATION.cff", r"date-released: (\d)"): r"CITATION\.cff says 'date-released",
        ("CITATION.cff", r"arXiv:(\d)"): r"CITATION\.cff says 'value: arXiv",
        ("dictionary.csv", r"\ntrials,\w+,(Int64)"): r"dictionary\.csv: type differs in 1 rows",
        ("tables/curves.csv", r"\n[^\n]*?,0\.(\d)"): r"curves\.csv: \w+ differs in 1 rows",
        ("report.html", r"<script>[^<]*?(\d)"): r"report\.html: its program is not that of this version",
        ("report.html", r"initial-scale=(\d)"): r"report\.html says",
    }
    for file, pattern in changes:
        changed(copy / file, pattern, "Boolean" if file == "dictionary.csv" else None)
    path = copy / "datapackage.json"
    package = json.loads(path.read_text())
    (trials,) = [of for of in package["resources"] if of["path"] == "tables/trials.csv"]
    trials["schema"]["fields"][0]["description"] += " Not."
    path.write_text(json.dumps(package))
    stated_anew(copy)
    wrong = verify(copy).wrong
    for said in (
        *changes.values(),
        r"datapackage\.json: schema of tables/trials\.csv differs from what its trials give",
    ):
        assert any(re.search(said, sentence) for sentence in wrong), (said, wrong)
    assert len(wrong) == len(changes) + 1


def test_authors_their_lines_and_their_files_may_be_added_and_what_is_unverified_is_said(copy):
    for name in ("README.md", "CITATION.cff"):
        text = (copy / name).read_text()
        (copy / name).write_text(text.replace("The authors of SGD study planted", "Ada L. and Bo M."))
    with (copy / "README.md").open("a") as file:
        file.write("\nThe best accuracy is 99.9 %.\n")
    (copy / "tables" / "mine.csv").write_text("a,b\n1,2\n")
    package = json.loads((copy / "datapackage.json").read_text())
    package["resources"].append({"path": "tables/mine.csv", "hash": datapackage.digest(copy / "tables" / "mine.csv")})
    (copy / "datapackage.json").write_text(json.dumps(package))
    found = verify(copy)
    assert found.wrong == ()
    assert found.notices == (
        "tables/mine.csv does not follow from the trials: it is not verified.",
        "README.md has 1 line of its authors, not verified: 'The best accuracy is 99.9 %.'.",
    )


def test_a_trial_that_is_damaged_is_named_and_its_numbers_differ(copy):
    path = next((copy / "study" / "trials").glob("*.parquet"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    wrong = verify(copy).wrong
    assert any(f"{path.name} is damaged" in sentence for sentence in wrong)
    assert any(re.match(r"trials\.csv has 54 rows of \d+ columns; computed again, 36 rows", said) for said in wrong)


def test_of_another_version_the_numbers_are_compared_and_not_the_words(copy, monkeypatch, capsys):
    changed(copy / "report.html", r"<h2>(Recommendation)", "What to use")
    monkeypatch.setattr(verifying, "__version__", "99")
    assert main(["verify", str(copy)]) == 1
    said = capsys.readouterr().out
    assert "the words of the report are not compared" in said
    assert "1 difference." in said  # the file of the page


@pytest.mark.parametrize(("mine", "theirs"), [(0.1 + 0.2, 0.3), (1e6 + 0.1, 1e6), (float("nan"), float("nan"))])
def test_sums_in_another_order_agree(mine, theirs):
    assert verifying._alike(mine, theirs, 1e-6)
    assert not verifying._alike(mine, 2.0, 1e-6)


def test_what_cannot_be_published_or_verified_is_said(study, published, tmp_path):
    with pytest.raises(InputError, match=r"exists and is not empty\. Name a new folder"):
        publish(study, published)
    with pytest.raises(InputError, match="is not what `sgdscope publish` writes"):
        verify(study)
    with pytest.raises(InputError, match="holds no study"):
        publish(tmp_path, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"out: .* cannot be written"):
        publish(study, tmp_path / "file" / "out")
