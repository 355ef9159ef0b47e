import doctest
import inspect
import os
import subprocess
import sys
import warnings
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import sgdscope as sg
from sgdscope import deprecated

ROOT = Path(__file__).parent.parent


def test_every_public_name_is_there():
    for name in sg.__all__:
        assert getattr(sg, name) is not None
    assert sg.__version__ == version("sgdscope")


PUBLIC = {name: getattr(sg, name) for name in sg.__all__}
PUBLIC |= {f"workloads.{name}": getattr(sg.workloads, name) for name in sg.workloads.__all__}
PUBLIC |= {"studies.get": sg.studies.get}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_a_docstring_with_an_example_that_is_run(name):
    value = PUBLIC[name]
    assert doctest.DocTestParser().get_examples(value.__doc__)
    # pytest runs the examples of what is defined in a module of the package, and finds them by their module.
    home = value if inspect.ismodule(value) else inspect.getmodule(value)
    assert home.__name__.startswith("sgdscope")


@pytest.mark.parametrize("kind", [sg.Result, sg.Analysis])
def test_every_public_attribute_is_described(kind):
    for name, value in inspect.getmembers(kind):
        if not name.startswith("_"):
            assert inspect.getdoc(value), name
    listed = kind.__doc__.split("Attributes:")[1]
    properties = [name for name in dir(kind) if not name.startswith("_") and not callable(getattr(kind, name))]
    assert [name for name in properties if f"{name}:" not in listed and name != "charts"] == []


def test_earlier_names_warn_with_the_name_to_use():
    for name, (new, _, _) in deprecated.NAMES.items():
        with pytest.warns(DeprecationWarning, match=f"^sgdscope.{name} is deprecated. Use ") as caught:
            value = getattr(sg, name)
        assert callable(value)
        assert str(caught[0].message).endswith(f"{new}.")
        assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert sg.Momentum(0.5) == sg.SGD(momentum=0.5)
        assert sg.plan_study is sg.plan
        assert sg.load_study is sg.studies.get
    with pytest.raises(AttributeError, match=r"no attribute 'Studdy'. Did you mean Study\?"):
        _ = sg.Studdy


def test_all_exceptions_have_one_root():
    raised = [import_module("sgdscope.streaming.workers").WorkerDiedError, sg.InputError]
    assert all(issubclass(kind, sg.SgdscopeError) for kind in raised)
    assert issubclass(sg.InputError, ValueError)


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


FAST = ("--seeds", "2", "--batch-sizes", "64", "--learning-rates", "0.125", "0.5")


def test_the_example_of_a_workload_of_ones_own_is_short_and_runs(tmp_path, command):
    lines = [line for line in (ROOT / "examples" / "moons.py").read_text().splitlines() if line.strip()]
    assert len(lines) < 40
    done = command("run", ROOT / "examples" / "moons.py", "--out", tmp_path / "s", *FAST)
    assert done.returncode == 0, done.stderr
