"""The examples with libraries of layers train what they declare, and learn."""

from pathlib import Path

import jax
import pytest

import sgdscope as sg
from sgdscope.budget import Epochs
from sgdscope.study_file import read_study
from sgdscope.training.jax_setup import PINNED

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize(
    ("name", "library"),
    [("flax_nnx", "flax"), ("flax_linen", "flax"), ("equinox_network", "equinox"), ("haiku_network", "haiku")],
)
def test_an_example_learns(name, library, tmp_path, monkeypatch):
    pytest.importorskip(library, reason="the extra docs is not installed")
    # Our own code must not rely on silent changes of type; a reader's may.
    monkeypatch.setitem(PINNED, "numpy_dtype_promotion", "standard")
    monkeypatch.setitem(PINNED, "numpy_rank_promotion", "allow")
    path = EXAMPLES / f"{name}.py"
    assert len(path.read_text().splitlines()) <= 40
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        study = read_study(path)
    few = {"batch_sizes": study.batch_sizes[1:2], "learning_rates": (0.25,), "budgets": (Epochs(2),), "seeds": 3}
    trials = sg.run(study.changed(few), tmp_path / "s").trials
    assert (trials["status"] == "complete").all()
    assert trials["test_score"].min() > study.workloads[0].constant_score + 0.3
