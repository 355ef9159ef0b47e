"""Study files: what they may import, how they fail, and that functions of them reach other processes."""

import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest

import sgdscope as sg
from sgdscope.cli import main
from sgdscope.errors import InputError
from sgdscope.streaming.workers import Workers
from sgdscope.studies import get

STUDY = """
import sgdscope as sg
from sgdscope.workloads.digits import digits
study = sg.Study(name={name!r}, workloads=digits(hidden=4), batch_sizes=(64,), budgets=sg.Epochs(1))
"""


@pytest.fixture
def write(tmp_path):
    def written(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    yield written
    sys.path[:] = [folder for folder in sys.path if not folder.startswith(str(tmp_path))]


def refused(path):
    with pytest.raises(InputError) as caught:
        get(path)
    said = str(caught.value)
    assert "\n" not in said
    return said


def test_modules_beside_the_file_are_its_own(write):
    for folder in ("a", "b"):
        write(f"{folder}/net.py", f"name = {folder!r}\n")
        write(f"{folder}/package/__init__.py", "from net import name\n")
        path = write(
            f"{folder}/study.py", "import net, package\n" + STUDY.replace("{name!r}", "net.name + package.name")
        )
        assert get(path).name == folder * 2
    write("a/net.py", "name = 'new'\n")
    assert get(path.parent.parent / "a/study.py").name == "newnew"


@pytest.mark.parametrize("line", ["from . import net", "from .net import x", "from .package.net import x"])
def test_a_relative_import_is_refused_with_what_would_do(write, line):
    write("net.py", "x = 1\n")
    write("package/net.py", "x = 1\n")
    said = refused(write("study.py", line + STUDY.format(name="s")))
    assert "study.py, line 1: ImportError: attempted relative import: " in said
    assert "imported by its name alone" in said


def test_the_main_block_is_not_run_and_arguments_are_not_the_commands(write):
    text = STUDY.replace("{name!r}", "str(len(sys.argv))") + "if __name__ == '__main__':\n    raise SystemExit\n"
    assert get(write("study.py", "import sys\n" + text)).name == "1"


def test_two_files_of_one_name_keep_what_they_define_apart(write):
    """Dataclasses and pickle look the module up by its name."""
    text = """
from __future__ import annotations
import dataclasses
import sgdscope as sg
from sgdscope.workloads.digits import digits

@dataclasses.dataclass(frozen=True)
class Named(sg.Study):
    more: int = {more}

study = Named(name="s", workloads=digits(hidden=4), batch_sizes=(64,), budgets=sg.Epochs(1))
"""
    studies = [get(write(f"{more}/study.py", text.format(more=more))) for more in (1, 2)]
    assert [study.more for study in studies] == [1, 2]
    assert [pickle.loads(pickle.dumps(type(study))) is type(study) for study in studies] == [True, True]


def test_functions_of_the_file_and_of_a_module_beside_it_reach_data_loading_workers(write):
    write("reading.py", "import numpy as np\ndef beside(place):\n    return {'x': np.float32(2 * place)}\n")
    text = "import numpy as np\nfrom reading import beside\ndef own(place):\n    return beside(place + 1)\n"
    path = write("dotted.name/my study.py", text + STUDY.format(name="s"))
    write("dotted.name/reading.py", (path.parent.parent / "reading.py").read_text())
    get(path)
    module = next(module for name, module in sys.modules.items() if name.endswith("/my study%2Epy"))
    for read, expected in ((module.own, 8.0), (module.beside, 6.0)):
        workers = Workers(read, {"x": ((), np.dtype(np.float32))}, count=1)
        try:
            (batch,) = workers.batches([[(3,)]])
        finally:
            workers.close()
        assert batch["x"] == [expected]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\nimport sys\nsys.exit()\n", "study.py, line 3: SystemExit(None): a study file must not exit."),
        ("exit(3)\n", "line 1: SystemExit(3)"),
        ("raise SystemExit('so')\n", "line 1: SystemExit('so')"),
        ("raise KeyboardInterrupt\n", "line 1: KeyboardInterrupt"),
        ("\nraise GeneratorExit\n", "line 2: GeneratorExit"),
        ("\nassert False\n", "line 2: AssertionError"),
        ("\nraise ValueError('two\\nlines')\n", "line 2: ValueError: two"),
        ("import nosuchmodule\n", "line 1: ModuleNotFoundError: No module named 'nosuchmodule'"),
        ("\nx = (\n", "study.py, line 2: SyntaxError: '(' was never closed"),
        ("\nimport broken\n", "study.py, line 2, in broken.py, line 3: ZeroDivisionError"),
        ("\nimport unclosed\n", "study.py, line 2, in unclosed.py, line 1: SyntaxError"),
        ("import argparse\nargparse.ArgumentParser().parse_args(['--x'])\n", "line 2: SystemExit(2)"),
        ("x = 1\n", "study.py defines no `study`; it needs a line"),
        ("study = 3\n", "study.py defines no `study` that is a Study: it is of type int; it needs"),
        (STUDY.format(name="s") + "mine, study = study, [study]\n", "type list. Rename 'mine', which is a Study, to"),
    ],
)
def test_a_file_that_fails_is_told_by_its_name_line_and_error(text, said, write, capsys):
    write("broken.py", "\n\n1 / 0\n")
    write("unclosed.py", "x = [\n")
    assert said in refused(write("study.py", text))


def test_what_is_no_study_file_is_named(write, tmp_path):
    assert refused(tmp_path / "nothere.py").startswith(f"{tmp_path / 'nothere.py'}: there is no such file.")
    assert "is a folder" in refused(tmp_path)
    assert "is a notebook" in refused(write("study.ipynb", "{}"))
    write("results/study.json", "{}")
    assert "It holds a study's results." in refused(tmp_path / "results")
    (tmp_path / "latin.py").write_bytes(b"x = '\xe9'\n")
    assert "latin.py" in refused(tmp_path / "latin.py")


def test_all_cores_are_used_and_no_bit_of_an_array_depends_on_the_users_options(write, command, tmp_path):
    """Also where the file makes an array when it is loaded, which starts JAX."""
    text = "import jax, os\nimport jax.numpy as jnp\nx = jnp.linspace(0, 1, 3)\n"
    text += "name = f'{jax.device_count() == len(os.sched_getaffinity(0))} {x.dtype}'\n"
    path = write("study.py", text + STUDY.replace("{name!r}", "name"))
    program = f"import sgdscope as sg; sg.configure_jax(); print(sg.studies.get({str(path)!r}).name)"
    environment = os.environ | {"JAX_ENABLE_X64": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "True float32\n"
    planned = command("plan", path, JAX_ENABLE_X64="1")
    assert planned.stdout.startswith("study       True float32\n"), planned.stdout + planned.stderr


def test_ctrl_c_while_a_file_is_loaded_is_an_interrupt(write):
    text = "import os, signal, threading\nos.kill(os.getpid(), signal.SIGINT)\nthreading.Event().wait(60)\n"
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        get(write("study.py", text))
    assert signal.getsignal(signal.SIGINT) is before
    assert isinstance(get("digits"), sg.Study)


def test_sigterm_while_a_file_is_loaded_ends_the_command_with_143(write, capsys):
    text = "import os, signal, threading\nos.kill(os.getpid(), signal.SIGTERM)\nthreading.Event().wait(60)\n"
    assert main(["plan", str(write("study.py", text))]) == 143
    assert "Terminated. Committed trials are safe." in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
