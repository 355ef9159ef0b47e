"""Every example of the README and of the documentation runs, and its Python passes a strict type checker."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest

import sgdscope as sg
from sgdscope import cli
from sgdscope.budget import Epochs, Steps
from sgdscope.report import figures
from sgdscope.testing.simulated import Truth, simulate, trial_table
from sgdscope.training.jax_setup import PINNED

pytest.importorskip("flax", reason="the extra docs is not installed")
pytest.importorskip("equinox", reason="the extra docs is not installed")

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [
    path
    for path in (ROOT / "README.md", *sorted(DOCS.rglob("*.md")), *sorted(DOCS.rglob("*.intro")))
    if "```python" in path.read_text() or "```sh" in path.read_text()
]
NOT_RUN = "<!-- not run: "


def blocks(path):
    """Return the examples of a page in their order: language, code, and whether it runs."""
    found = re.findall(r"(<!-- not run: [^>]+ -->\n)?```(python|sh)\n(.*?)```", path.read_text(), re.DOTALL)
    return [(language, code, not not_run) for not_run, language, code in found]


def small(study):
    """Return a study of the same name and sweep that trains in a moment."""
    epochs = sorted({min(budget.n, 4) for budget in study.budgets if isinstance(budget, Epochs)})
    steps = sorted({min(budget.n, 16) for budget in study.budgets if isinstance(budget, Steps)})
    # Advice takes four batch sizes; each is a program to compile.
    sizes = study.batch_sizes[-4:] if study.workloads[0].name == "digits" else study.batch_sizes[-1:]
    return study.changed(
        {
            "batch_sizes": sizes,
            "budgets": (*map(Epochs, epochs or []), *map(Steps, steps)),
            "learning_rates": (0.125, 0.25, 0.5),
            "seeds": 3,
        }
    )


def test_the_quickstart_shows_the_end_of_what_the_command_prints():
    printed = (DOCS / "pictures" / "table.txt").read_text().partition("\nRecommendation\n")[2]
    assert f"```text\nRecommendation\n{printed}```" in (DOCS / "quickstart.md").read_text()


@pytest.fixture(scope="module")
def digits_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs") / "sgdscope-digits"
    sg.run(small(sg.studies.get("digits")), folder)
    return folder


@pytest.fixture
def workplace(tmp_path, monkeypatch, digits_folder, quick):
    """A folder as a reader has it: the examples, a study of digits, and a table of runs."""
    shutil.copytree(digits_folder, tmp_path / "sgdscope-digits")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    rng = np.random.default_rng(0)
    runs = trial_table({"sgd": simulate(rng, 5, Truth(), (4, 16, 64, 256))})
    runs.select("batch_size", "learning_rate", "seed", score="test_score").write_csv(tmp_path / "runs.csv")
    monkeypatch.chdir(tmp_path)
    load, run = cli._load, sg.run
    monkeypatch.setattr(cli, "_load", lambda *arguments: small(load(*arguments)))
    monkeypatch.setattr(sg, "run", lambda study, folder: run(small(study), folder), raising=False)
    # Our own code must not rely on silent changes of type or of the number of axes; a reader's may.
    monkeypatch.setitem(PINNED, "numpy_dtype_promotion", "standard")
    monkeypatch.setitem(PINNED, "numpy_rank_promotion", "allow")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_examples_of_a_page_run_in_their_order(page, workplace):
    if "sgdscope.torch" in page.read_text():
        pytest.importorskip("torch", reason="the extra torch is not installed")
    names = {}
    for language, code, runs in blocks(page):
        if language == "sh":
            for line in code.replace("\\\n", " ").splitlines():
                run_line(line, runs)
        elif runs:
            exec(compile(code, str(page), "exec"), names)


def run_line(line, runs):
    words = shlex.split(line, comments=True)
    if not words:
        return
    if words[0] == "sgdscope" and runs:
        assert cli.main(words[1:]) == 0, line
    elif words[0] == "sgdscope":
        assert type(cli._parsed(words[1:])).__name__.lower() == words[1]
    elif words[0] == "make":
        assert all(f"\n{target}:" in (ROOT / "Makefile").read_text() for target in words[1:]), line
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert all(extra in extras for part in words[2:] for extra in re.findall(r"\[(\w+)\]", part)), line
    else:
        pytest.fail(f"a line that no test knows how to run: {line}")


def test_the_python_of_all_pages_passes_a_strict_type_checker(tmp_path):
    package = tmp_path / "documentation_pages"  # for which pyproject.toml is more lenient
    package.mkdir()
    (package / "__init__.py").touch()
    for page in PAGES:
        path = package / (re.sub(r"\W", "_", page.relative_to(ROOT).as_posix()) + ".py")
        path.write_text("\n".join(code for language, code, _ in blocks(page) if language == "python"))
    # With the options, and so the cache, of the run over all files.
    done = subprocess.run([sys.executable, "-m", "mypy", package], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_figure_has_a_section_of_its_name():
    modules = (*figures.OF_ONE_BUDGET, *figures.OF_METHODS, *figures.OF_SEVERAL_BUDGETS)
    names = [module.__name__.rpartition(".")[2].replace("_", "-") for module in modules]
    page = (DOCS / "figures.md").read_text()
    sections = re.findall(r"^## ([\w-]+) \{ #\1 \}$", page, re.MULTILINE)
    assert sorted(sections) == sorted(names)
    assert all(f"(pictures/{name}.svg)" in page for name in names)


def test_the_changelog_says_of_each_version_whether_numbers_change():
    """In the form of Keep a Changelog, with a line of our own."""
    versions = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]
    assert len(versions) >= 2
    for place, version in enumerate(versions):
        heading, numbers, *_ = version.splitlines()
        released = re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading)
        assert released or (place == 0 and heading == "[Unreleased]")
        assert numbers.startswith("**Numbers:** ")
        groups = set(re.findall(r"^### (.+)$", version, re.MULTILINE))
        assert groups <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_docstrings_become_markdown(monkeypatch):
    pytest.importorskip("griffe", reason="the extra docs is not installed")
    monkeypatch.syspath_prepend(DOCS)
    from griffe_docstrings import as_markdown

    text = "See :func:`run`. With t::\n\n    t + 1\n\n>>> [1]\n[1]\n\n>>> [2]\n[2]"
    fenced = "```pycon\n>>> [1]\n[1]\n```\n\n```pycon\n>>> [2]\n[2]\n```"
    assert as_markdown(text) == f"See `run`. With t:\n\n    t + 1\n\n{fenced}"
