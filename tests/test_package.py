import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import sgdscope as sg

ROOT = Path(__file__).parent.parent


def test_every_public_name_is_there():
    for name in sg.__all__:
        assert getattr(sg, name) is not None
    assert sg.__version__ == version("sgdscope")


def test_the_wheel_runs_without_the_source_tree(tmp_path):
    """Built, unpacked elsewhere and run from an empty folder, with nothing of the checkout on the path."""
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            tmp_path,
            ROOT,
        ],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("sgdscope-*.whl")
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel],
        check=True,
        capture_output=True,
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    program = (
        "import sys; import sgdscope; from sgdscope.cli import main\n"
        f"assert sgdscope.__file__.startswith({str(site)!r}), sgdscope.__file__\n"
        "sys.exit(main(['run', 'digits', '--out', 's', '--budgets', 'epochs:1', '--batch-sizes', '512', "
        "'--learning-rates', '0.5', '--seeds', '2']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=empty,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (empty / "s" / "report.html").exists()


def test_the_example_of_a_workload_of_ones_own_is_short_and_runs(tmp_path, command):
    lines = [line for line in (ROOT / "examples" / "moons.py").read_text().splitlines() if line.strip()]
    assert len(lines) < 40
    done = command("run", ROOT / "examples" / "moons.py", "--out", tmp_path / "s", "--seeds", "2")
    assert done.returncode == 0, done.stderr
