"""The words that a user meets are those of the style guide: banned phrases are in no string, page or document."""

import ast
import re
from pathlib import Path

import pytest

import sgdscope

PACKAGE = Path(sgdscope.__file__).parent
ROOT = PACKAGE.parent
BANNED = {
    r"bend(s|ing)?|bent": "transition batch size",
    r"knees?": "transition batch size",
    r"winn(er|ers|ing)": "best, optimal learning rate",
    r"shown (not )?to": "is, is not, or confirmed",
    r"told apart|tells? \w+ apart": "undecided, distinguished",
    r"(is|are|be) ahead": "better",
    r"ahead (of sgd|by)": "better than",
    r"(score|accuracy) (is|be) (shown to be )?lost|to be lost": "worse",
    r"loses? nothing": "equivalent",
    r"shown to hold|holds? up to": "equivalent up to",
    r"warm(ed|s)? up": "momentum in steady state",
    r"(?<![\"'`/])pictures?(?![\"'`./])": "image, or figure",
    r"constant predictors?": "constant baseline",
    r"(any|some|no)body('s)?": "name who",
    r"the talk('s)?": "the paper",
    r"the same command goes on": "run the same command to resume",
    r"n = (\d|\{|$)": "5 seeds",
    r"next to nothing": "improved less than 10 %",
    r"unless told otherwise": "Default: …",
}
PATTERN = re.compile("|".join(rf"\b(?:{phrase})" + r"(?!\w)" for phrase in BANNED), re.IGNORECASE)
# Rooms whose words are being changed elsewhere; to be emptied.
LATER: set[str] = set()
# Names of the arrays of data sets, which are part of a trial's identity.
ARRAYS = {"picture", "pictures"}
DOCUMENTS = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]


def room(path):
    return path.relative_to(PACKAGE).parts[0]


def docstrings(tree):
    """Return each docstring's node, with whether it is one of a private function or class."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            found[node.body[0].value] = getattr(node, "name", "").startswith("_")
    return found


def strings(path):
    """Yield the line and the text of each string that a user may meet."""
    tree = ast.parse(path.read_text())
    told = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if told.get(node, False):  # a private one
                continue
            if node.value in ARRAYS:
                continue
            yield node.lineno, node.value


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(PACKAGE.rglob("*.py")) if room(path) not in LATER],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_no_string_of_the_package_has_a_banned_phrase(path):
    found = [(line, match[0], text[:80]) for line, text in strings(path) for match in PATTERN.finditer(text)]
    assert not found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.jinja")) + sorted(PACKAGE.rglob("*.js")), ids=lambda p: p.name)
def test_no_template_has_a_banned_phrase(path):
    text = re.sub(r"//.*", "", path.read_text())
    assert not PATTERN.findall(text)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_no_document_has_a_banned_phrase(path):
    text = re.sub(r"\]\([^)]*\)|<[^>]*>|--8<--.*", "", path.read_text())  # where links lead
    assert not [match[0] for match in PATTERN.finditer(text)]


@pytest.mark.parametrize(
    "text",
    ["the score is shown to hold", "n = 5", "where rates bend", "n = ", "momentum had warmed up", "The knees"],
)
def test_the_phrases_are_found(text):
    assert PATTERN.search(text)


@pytest.mark.parametrize("text", ["bendable", "a column n", "kneel", "a shown tooltip", "train = 5"])
def test_other_words_are_not(text):
    assert not PATTERN.search(text)
