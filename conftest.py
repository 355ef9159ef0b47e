"""Examples in docstrings run in an empty folder of their own."""

from importlib.util import find_spec

import pytest

# Their examples need PyTorch, which only the extra torch installs.
collect_ignore_glob = [] if find_spec("torch") else ["sgdscope/torch/*"]


@pytest.fixture(autouse=True)
def _empty_folder_for_examples(request: pytest.FixtureRequest) -> None:
    if isinstance(request.node, pytest.DoctestItem):
        request.getfixturevalue("monkeypatch").chdir(request.getfixturevalue("tmp_path"))
