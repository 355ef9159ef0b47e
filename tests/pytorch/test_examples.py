"""The examples with PyTorch train what they declare, and learn."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")

import sgdscope as sg
from sgdscope.budget import Epochs
from sgdscope.study_file import read_study

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("pytorch_*.py")), ids=lambda path: path.stem)
def test_an_example_learns(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(path.read_text().splitlines()) <= 40
    study = read_study(path)
    few = {"batch_sizes": study.batch_sizes[1:2], "learning_rates": (0.1,), "budgets": (Epochs(2),), "seeds": 3}
    trials = sg.run(study.changed(few), tmp_path / "s").trials
    assert (trials["status"] == "complete").all()
    assert trials["test_score"].min() > study.workloads[0].constant_score + 0.05
