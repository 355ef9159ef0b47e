"""Examples in docstrings run in an empty folder of their own."""

import pytest


@pytest.fixture(autouse=True)
def _empty_folder_for_examples(request: pytest.FixtureRequest) -> None:
    if isinstance(request.node, pytest.DoctestItem):
        request.getfixturevalue("monkeypatch").chdir(request.getfixturevalue("tmp_path"))
