import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from sgdscope.study import Study

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_single_values_pass_a_strict_type_checker_and_wrong_types_do_not(tmp_path):
    single = """
import numpy as np

import sgdscope as sg
from sgdscope.workloads.digits import digits

one = sg.Study(name="a", workloads=digits(), batch_sizes=4, budgets=sg.Steps(3), learning_rates=0.1, evaluate_at=1.0)
several = sg.Study(
    name="b", workloads=[digits()], batch_sizes=2 ** np.arange(3, 6), budgets=[sg.Steps(3), sg.Epochs(1)],
    optimizers=[sg.SGD()], learning_rates=np.logspace(-2, 0, 3), noise_scale_at=(0, 0.5),
)
"""
    (tmp_path / "single.py").write_text(single)
    (tmp_path / "wrong.py").write_text(single.replace("budgets=sg.Steps(3)", "budgets=3"))
    done = subprocess.run(  # with the options, and so the cache, of the run over all files
        [sys.executable, "-m", "mypy", *(tmp_path / name for name in ("single.py", "wrong.py"))],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert errors, done.stdout + done.stderr
    assert all("wrong.py" in line and "arg-type" in line for line in errors), done.stdout


def test_a_study_declares_the_same_fields_to_a_type_checker():
    """Its signature is written twice: single values are for a type checker alone."""
    source = (ROOT / "sgdscope" / "study.py").read_text()
    (written,) = re.findall(r"if TYPE_CHECKING:.*?\*,\n(.*?)\) -> None", source, re.DOTALL)
    assert sorted(re.findall(r"^ +(\w+):", written, re.MULTILINE)) == sorted(field.name for field in fields(Study))


def test_it_is_short():
    assert len(README.splitlines()) <= 100


def test_what_it_links_to_is_there():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://arxiv.org/") or (ROOT / target).exists(), target
