"""The house of ``docs/design``: lower rooms never import higher ones, so there is no circle among them."""

import ast
from pathlib import Path

import pytest

import sgdscope

HOUSE = Path(sgdscope.__file__).parent
# From the ground to the roof; a room may import those before it and itself.
ROOMS = [
    *("errors", "deprecated", "version", "converters", "formatting", "records", "frames", "system", "atomic"),
    "terminal",
    *("budget", "seeds", "schedules", "optimizers", "models", "data", "workloads", "torch", "study", "store"),
    *("stats", "importing", "analysis", "training", "streaming", "engine", "imagenet"),
    *("study_file", "studies", "testing"),
    *("claims", "advice", "report", "result", "comparison", "publishing", "live", "trackers", "cli"),
]
# The face loads the public names when they are asked for.
FACE = "__init__"


def room(module):
    return module.split(".")[1]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "sgdscope":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "sgdscope")


FILES = [path for path in sorted(HOUSE.rglob("*.py")) if path.parent != HOUSE or path.stem != FACE]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_no_room_imports_a_higher_one(path):
    own = path.relative_to(HOUSE).with_suffix("").parts[0]
    higher = {name for name in imports(path) if "." in name and ROOMS.index(room(name)) > ROOMS.index(own)}
    assert not higher


def test_every_room_has_its_place():
    there = {path.stem for path in HOUSE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there - {FACE} == set(ROOMS)
